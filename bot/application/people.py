"""What is kept of people: their saved token, what they asked last, how they want to hear of their jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from bot.application.ports import Secrets
from bot.domain.errors import Refused
from bot.domain.people import Person, Preferences, SavedToken, Steps
from bot.domain.request import JobRequest
from bot.storage.store import JobStore, Transaction

PERSON_KEPT, PEOPLE = timedelta(seconds=2), 1000
"""For so long, and of so many, what fills a form is not looked up again: a query costs a busy server a third of it."""

HOME_OPEN = timedelta(hours=12)
"""For so long after it was opened, a home tab may still be looked at: Slack does not say when it is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of a person."""

    saved: SavedToken | None
    token: SecretStr | None
    """The saved token, for this person's own use; None where it cannot be opened."""
    last_request: Mapping[str, str]
    """What they asked last, as they might have typed it, without a token."""
    preferences: Preferences


class People:
    """Keeps it. What one person saved is given to nobody else."""

    def __init__(self, *, store: JobStore, vault: Secrets, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._known: dict[str, tuple[datetime, Person]] = {}

    def kept(self, person: str) -> Kept:
        """What is kept of this person, as it was PERSON_KEPT ago at most where another process changed it."""
        known = self._recent(person)
        last = typed(JobRequest.model_validate(known.last_request)) if known.last_request else {}
        return Kept(
            saved=saved_token(known),
            last_request=last,
            token=self._opened(known.token_ref),
            preferences=known.preferences,
        )

    def _recent(self, person: str) -> Person:
        at = self._clock()
        seen, known = self._known.get(person, (at - 2 * PERSON_KEPT, Person()))
        if at - seen > PERSON_KEPT:
            if len(self._known) >= PEOPLE:
                self._known.clear()
            known = self._store.person(person)
            self._known[person] = at, known
        return known

    def changed(self, person: str) -> None:
        """Look again, next time."""
        self._known.pop(person, None)

    def preferences(self, person: str) -> Preferences:
        """How this person wants to hear of their jobs; as old as what is `kept`."""
        return self._recent(person).preferences

    def looks_at_home(self, person: str) -> bool:
        """Whether their home tab may be open; as old as what is `kept`."""
        return may_be_open(self._recent(person).home_opened_at, self._clock())

    def opened_home(self, person: str) -> None:
        """They look at the home tab: for a while it is kept up to date. Raises Unavailable."""
        at = self._clock()
        self._store.write(lambda transaction: transaction.keep_person(person, home_opened_at=at))
        self.changed(person)

    def prefer(
        self, person: str, *, steps: Steps | None = None, mention: bool | None = None, mail: bool | None = None
    ) -> None:
        """From now on, tell this person of their jobs like that; what is None stays as it is. Raises Unavailable."""
        wished = {"steps": steps.value if steps else None, "mention": mention, "mail": mail}
        values = {name: value for name, value in wished.items() if value is not None}
        self._store.write(lambda transaction: transaction.keep_person(person, **values))
        self.changed(person)

    # Tokens

    def token_of(self, person: str) -> SecretStr | None:
        """The token that is kept for this person; nobody else is given it. None too where it cannot be opened."""
        return self._opened(self._store.person(person).token_ref)

    def _opened(self, reference: str | None) -> SecretStr | None:
        try:
            return self._vault.get(reference) if reference else None
        except Refused:
            return None

    def remember_token(self, person: str, token: SecretStr) -> None:
        """Keep this token for the person, in place of any other. Raises Unavailable."""
        value = token.get_secret_value()

        def keep(transaction: Transaction) -> None:
            self._forget_token(transaction, person)
            reference = self._vault.put(person, token)
            ending = value[-4:] if len(value) >= 12 else ""  # four of a short one would say too much
            transaction.keep_person(person, token_ref=reference, token_end=ending, token_at=self._clock())

        self._store.write(keep)
        self.changed(person)

    def forget_token(self, person: str) -> None:
        """Erase the token that is kept for this person, if one is. Jobs that were accepted with it keep theirs."""

        def forget(transaction: Transaction) -> None:
            self._forget_token(transaction, person)
            transaction.keep_person(person, token_ref=None, token_end=None, token_at=None)

        self._store.write(forget)
        self.changed(person)

    def _forget_token(self, transaction: Transaction, person: str) -> None:
        if reference := transaction.person(person).token_ref:
            self._vault.forget(reference)


def may_be_open(opened: datetime | None, at: datetime) -> bool:
    """Whether a home tab that was opened then may be looked at."""
    return opened is not None and at - opened < HOME_OPEN


def saved_token(known: Person) -> SavedToken | None:
    """What may be shown of the person's token."""
    return SavedToken(known.token_end or "", known.token_at) if known.token_ref and known.token_at else None


def typed(request: JobRequest) -> dict[str, str]:
    """The request as a person types it, by field."""
    return {name: str(value) for name in JobRequest.model_fields if (value := getattr(request, name)) is not None}
