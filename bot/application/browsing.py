"""What a person may see of BOSS while they fill in a form: with the token they typed, else with their saved one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from bot.application.people import People, Profile
from bot.application.places import Places
from bot.application.ports import Volumes
from bot.domain.checks import token_problem
from bot.domain.errors import InvalidRequest, Unavailable
from bot.domain.named import MARK
from bot.domain.volume import Experiment, TokenRefused, UnusableAddress, VolumesRefused, meant
from contract.masking import PUBLIC_TOKEN
from volumes.address import is_address

UNCHECKABLE = "BOSS does not answer just now, so this token cannot be checked; try again in a moment."


@dataclass(frozen=True)
class Look:
    """One look at an experiment, or at an address in place of a collection.

    Two people with the same token take the same look.
    """

    collection: str
    experiment: str
    token: SecretStr
    refused: str = ""
    """Why this person may not look there; nobody is asked."""

    @property
    def addressed(self) -> bool:
        """Whether BOSS is not asked, but an address, or nobody."""
        return is_address(self.collection) or bool(self.refused)

    @property
    def whole(self) -> bool:
        """Whether it is known what to look at."""
        return bool(self.collection and self.experiment) or self.addressed


class Browsing:
    """Asks BOSS on behalf of a person. Methods return or raise, as Volumes does, within about `within` seconds."""

    def __init__(self, *, volumes: Volumes, people: People, places: Places | None = None) -> None:
        self._volumes = volumes
        self._people = people
        self._places = places or Places()

    def named(self, actor: str) -> Sequence[str]:
        """The volumes that the admin offers this person by a name, as the collection's field takes them."""
        return [MARK + volume.name for volume in self._places.offered(actor)]

    def collections(self, actor: str, typed: SecretStr, *, within: float) -> Sequence[str]:
        """The collections that the person's token may read."""
        return self._volumes.collections(token=self._token(actor, typed), within=within)

    def experiments(self, actor: str, typed: SecretStr, collection: str, *, within: float) -> Sequence[str]:
        """The collection's experiments; empty where no collection is chosen."""
        if not collection:
            return ()
        return self._volumes.experiments(collection, token=self._token(actor, typed), within=within)

    def look(
        self,
        actor: str,
        collection: str,
        experiment: str,
        *,
        typed: SecretStr | None = None,
        profile: Profile | None = None,
    ) -> Look:
        """The look at that experiment that this person would take. No service is asked.

        `profile` is the person's, where it is at hand.
        """
        try:
            place = self._places.resolve({"collection": collection, "experiment": experiment}, actor)
        except InvalidRequest as refusal:
            return Look("", "", SecretStr(PUBLIC_TOKEN), refused=refusal.errors["collection"])
        collection, experiment = place["collection"], place["experiment"]
        if is_address(collection):
            return Look(collection, "", SecretStr(PUBLIC_TOKEN))
        saved = profile or self._people.profile(actor)
        token = typed if typed and typed.get_secret_value() else saved.token
        return Look(collection, experiment, token or SecretStr(PUBLIC_TOKEN))

    def describe(self, look: Look, *, within: float) -> Experiment:
        """What BOSS, or what lies at the address, says of the volume. Raises as Volumes, also where it is refused."""
        if look.refused:
            raise UnusableAddress(look.refused)
        try:
            return self._volumes.describe(look.collection, look.experiment, token=look.token, within=within)
        except VolumesRefused as refusal:
            raise meant(refusal, look.token) from None

    def save_token(self, actor: str, typed: SecretStr, *, within: float) -> None:
        """Save the token after BOSS has accepted it.

        Raises InvalidRequest where BOSS refuses the token or does not answer, and Unavailable where the database fails.
        """
        problem = token_problem(typed.get_secret_value())
        if not problem:
            try:
                self._volumes.collections(token=typed, within=within)
            except TokenRefused as refusal:
                problem = str(refusal)
            except Unavailable:
                problem = UNCHECKABLE
        if problem:
            raise InvalidRequest({"token": problem})
        self._people.save_token(actor, typed)

    def _token(self, actor: str, typed: SecretStr) -> SecretStr:
        return self._people.token_for(actor, typed) or SecretStr(PUBLIC_TOKEN)
