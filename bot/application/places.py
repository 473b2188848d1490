"""Which volume a person means: an experiment of BOSS's, an address, or a name from the admin's list."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bot.domain.errors import InvalidRequest
from bot.domain.named import MARK, NamedVolume
from bot.domain.urls import origin
from contract.names import quoted
from volumes.address import Address, BossAddress, Location, is_address, parse
from volumes.errors import WrongVolume
from volumes.roots import path_of


class Places:
    """Reads what stands in the field of the collection."""

    def __init__(self, *, named: Sequence[NamedVolume] = (), boss_host: str = "") -> None:
        """`named` are the volumes that the admin offers; `boss_host` is the BOSS that programs read."""
        self._named = {volume.name: volume for volume in named}
        self._boss_host = boss_host

    def offered(self, actor: str) -> list[NamedVolume]:
        """The named volumes that this person may see, in the admin's order."""
        return [volume for volume in self._named.values() if volume.seen_by(actor)]

    def resolve(self, values: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """The values of a form, with collection and experiment for BOSS, or an address in place of the collection.

        Raises InvalidRequest where the person may not see the volume, or the address is of another BOSS. Addresses
        that are none stay as they are, for `bot.domain.request.read` to refuse.
        """
        typed = str(values.get("collection") or "").strip()
        if typed.startswith(MARK):
            found = self._named.get(typed.removeprefix(MARK).strip())
            if found is None or not found.seen_by(actor):
                raise InvalidRequest({"collection": f"There is no volume {quoted(typed.removeprefix(MARK))}."})
            return {**values, "collection": str(found.address), "experiment": ""}
        if not is_address(typed):
            return dict(values)
        try:
            address = parse(typed)
        except WrongVolume:
            return dict(values)
        if isinstance(address, BossAddress):
            if self._boss_host and origin(f"{address.protocol}://{address.host}") != origin(self._boss_host):
                raise InvalidRequest({"collection": f"Programs here read the BOSS at {self._boss_host}, and no other."})
            return {**values, "collection": address.collection, "experiment": address.experiment}
        if not self._may(address, actor):
            raise InvalidRequest({"collection": "The admin of NOMADS has not given you the right to read this volume."})
        return {**values, "collection": str(address), "experiment": ""}

    def _may(self, address: Address, actor: str) -> bool:
        """Whether none of the volumes that are for others alone lies at the address, or holds it, or lies in it."""
        return not any(
            one.within(other) or other.within(one)
            for volume in self._named.values()
            if not volume.seen_by(actor)
            for one in map(_followed, address.locations)
            for other in map(_followed, volume.address.locations)
        )


def _followed(place: Location) -> Location:
    """The place, of a file where its links lead."""
    if place.scheme != "file":
        return place
    return replace(place, path=os.path.realpath(path_of(place)).strip("/"))
