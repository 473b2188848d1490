"""Volumes that an admin offers by a name: `volumes.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.domain.errors import NomadsError
from bot.domain.mistakes import mistakes
from bot.domain.people import TERMINAL
from volumes.address import Address, is_address, parse
from volumes.errors import WrongVolume

MARK = "volume:"
"""What a volume's name begins with where names of BOSS's stand too: BOSS's have no colon."""
MAX_VOLUMES = 1000
"""Volumes in one file, at most."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}$", description="letters, digits, spaces")]
    address: Annotated[str, Field(min_length=1, description="an address, such as zarr://s3://bucket/volume.zarr")] = ""
    channels: Annotated[dict[str, str], Field(description="a table of an address for each channel")] = {}
    people: Annotated[tuple[str, ...], Field(description="a list of Slack's user ids")] = ()


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    volumes: Annotated[tuple[_Entry, ...], Field(description="a list of tables, each [[volumes]]")] = ()


@dataclass(frozen=True, kw_only=True)
class NamedVolume:
    """A volume that is offered by a name."""

    name: str
    address: Address
    people: frozenset[str] = frozenset()
    """Who may see it, as `Job.actor` names them; empty: everybody."""

    def seen_by(self, actor: str) -> bool:
        """Whether it is offered to this person. Who uses a terminal of NOMADS sees every volume, as every job."""
        return not self.people or actor in self.people or actor.startswith(TERMINAL)


def needs_no_token(collection: str) -> bool:
    """Whether what stands in the field of the collection is a volume by address, or by its name, and not BOSS's."""
    return collection.startswith(MARK) or (is_address(collection) and not collection.lower().startswith("boss://"))


def read(path: Path) -> Sequence[NamedVolume]:
    """The volumes of a file. Raises NomadsError, which names each entry that cannot be used and what it may be."""
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise NomadsError(
            "\n".join(f"{path.name}: {where}: {said}" for where, said in mistakes(error, _File))
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NomadsError(f"NOMADS_VOLUMES: {path} cannot be read as TOML: {error}") from None
    named, wrong = list[NamedVolume](), list[str]()
    for entry in found.volumes[:MAX_VOLUMES]:
        try:
            address = parse(_address(entry))
        except WrongVolume as error:
            wrong.append(f"{path.name}: {entry.name}: {error}")
            continue
        if not isinstance(address, Address):
            wrong.append(f"{path.name}: {entry.name}: an experiment of BOSS is found by its own name.")
        elif any(one.name == entry.name for one in named):
            wrong.append(f"{path.name}: two volumes are named {entry.name}.")
        else:
            named.append(NamedVolume(name=entry.name, address=address, people=frozenset(entry.people)))
    if wrong:
        raise NomadsError("\n".join(wrong))
    return named


def _address(entry: _Entry) -> str:
    if bool(entry.address) == bool(entry.channels):
        raise WrongVolume("it needs an address, or else a table of an address for each channel.")
    if entry.address:
        return entry.address
    return "channels://" + ";".join(f"{name}={address}" for name, address in entry.channels.items())
