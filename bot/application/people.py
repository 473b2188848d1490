"""People's profiles: the saved token, the last request, and how they want to be told of their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Any

from cachetools import LRUCache, TTLCache, cachedmethod
from pydantic import SecretStr

from bot.application.ledger import Ledger
from bot.application.tokens import TokenKeeper
from bot.domain.errors import Refused
from bot.domain.people import Person, Preferences, SavedToken, Steps
from bot.domain.request import JobRequest
from bot.storage.transaction import Transaction

PERSON_KEPT = timedelta(seconds=2)
"""How long a person's row is cached: on a busy server a query is a third of the time that a form takes to open."""
PEOPLE = 1000
"""People whose rows are cached."""
SHORT_TOKEN = 12
"""Characters below which no ending of a token is shown: it would give away too much."""
ENDING = 4
"""Characters at the end of a saved token that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What fills a person's form."""

    saved: SavedToken | None
    token: SecretStr | None
    """The saved token, for this person's own use; None where there is none or it cannot be opened."""
    last_request: Mapping[str, Any]
    """The last request as a person types it (`JobRequest.typed`), without a token."""
    preferences: Preferences


class People:
    """Reads and changes profiles. What one person saved is given to nobody else."""

    def __init__(self, *, ledger: Ledger, tokens: TokenKeeper) -> None:
        self._ledger = ledger
        self._database = ledger.database
        self._tokens = tokens
        self._known: TTLCache[str, Person] = TTLCache(PEOPLE, PERSON_KEPT, timer=ledger.steady)  # type: ignore[arg-type]
        # Beside what was read: an entry of _known that is set again would begin its lifetime anew.
        self._asked: LRUCache[str, JobRequest] = LRUCache(PEOPLE)
        self._lock = Lock()

    def profile(self, person: str) -> Profile:
        """What fills this person's form; changes by other processes show after PERSON_KEPT. Raises Unavailable."""
        known = self._recent(person)
        with self._lock:
            asked = self._asked.get(person)
        if asked is None and known.last_request:
            asked = JobRequest.model_validate(known.last_request)
        return Profile(
            saved=known.saved_token,
            last_request=asked.typed if asked else {},
            token=self._opened(known.token_ref),
            preferences=known.preferences,
        )

    @cachedmethod(lambda self: self._known, key=lambda _, name: name, lock=lambda self: self._lock)
    def _recent(self, person: str) -> Person:
        with self._lock:
            self._asked.pop(person, None)  # what is read now knows better
        return self._person(person)

    def _person(self, person: str) -> Person:
        with self._database.read() as transaction:
            return transaction.people.get(person)

    def asked(self, person: str, request: JobRequest) -> None:
        """Replace the cached last request, which fills the person's next form."""
        with self._lock:
            self._asked[person] = request

    def changed(self, person: str) -> None:
        """Drop the person from the cache."""
        with self._lock:
            self._known.pop(person, None)

    def preferences(self, person: str) -> Preferences:
        """How this person wants to be told of their jobs; cached like the profile."""
        return self._recent(person).preferences

    def looks_at_home(self, person: str) -> bool:
        """Whether the person's home tab may be open; cached like the profile."""
        return self._recent(person).home_may_be_open(self._ledger.clock())

    def opened_home(self, person: str) -> None:
        """Record that the person opened the home tab, which is updated for HOME_OPEN from now. Raises Unavailable."""
        at = self._ledger.clock()
        self._database.write(lambda transaction: transaction.people.change(person, home_opened_at=at))
        self.changed(person)

    def prefer(
        self, person: str, *, steps: Steps | None = None, mention: bool | None = None, mail: bool | None = None
    ) -> None:
        """Change how this person is told of their jobs; None leaves a preference as it is. Raises Unavailable."""
        wished = {"steps": steps.value if steps else None, "mention": mention, "mail": mail}
        values = {name: value for name, value in wished.items() if value is not None}
        self._database.write(lambda transaction: transaction.people.change(person, **values))
        self.changed(person)

    # Tokens

    def token_for(self, person: str, typed: SecretStr | None = None) -> SecretStr | None:
        """The token that this person works with: the typed one, else the saved one; None where there is none."""
        if typed is not None and typed.get_secret_value():
            return typed
        return self._opened(self._person(person).token_ref)

    def _opened(self, reference: str | None) -> SecretStr | None:
        try:
            return self._tokens.open(reference) if reference else None
        except Refused:
            return None

    def save_token(self, person: str, token: SecretStr) -> None:
        """Save this token for the person, in place of any other. Raises Unavailable."""
        value = token.get_secret_value()

        def save(transaction: Transaction) -> None:
            self._erase_token(transaction, person)
            reference = self._tokens.seal(transaction, person, token)
            ending = value[-ENDING:] if len(value) >= SHORT_TOKEN else ""
            transaction.people.change(person, token_ref=reference, token_end=ending, token_at=self._ledger.clock())

        self._database.write(save)
        self.changed(person)

    def forget_token(self, person: str) -> None:
        """Erase the person's saved token, if there is one. Jobs that were accepted have copies of their own."""

        def forget(transaction: Transaction) -> None:
            self._erase_token(transaction, person)
            transaction.people.change(person, token_ref=None, token_end=None, token_at=None)

        self._database.write(forget)
        self.changed(person)

    def _erase_token(self, transaction: Transaction, person: str) -> None:
        transaction.advisory_lock(f"person {person}")  # two saves at once must not leave a sealed row behind
        if reference := transaction.people.get(person).token_ref:
            self._tokens.erase(transaction, reference)
