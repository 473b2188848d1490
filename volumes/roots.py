"""Which hosts, buckets and folders may be asked for volumes. Everything else is refused."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from volumes.address import Location
from volumes.errors import VolumeUnavailable, WrongVolume

SETTING = "NOMADS_VOLUME_ROOTS"
"""The setting and environment variable that lists the roots."""
BOSSDB = "s3://bossdb-open-data"
"""The public bucket in which BossDB keeps its bulk data."""
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
"""Addresses at which clouds hand out credentials and which are not link-local, as most are."""


@dataclass(frozen=True)
class Roots:
    """The places below which volumes may lie: `s3://bucket/prefix`, `gs://…`, `https://host/…`, `file:///folder`."""

    places: tuple[Location, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Roots:
        """Read the setting's entries. Raises WrongVolume, whose text says which cannot be used."""
        return cls(tuple(Location.parse(text.strip()) for text in texts if text.strip()))

    @classmethod
    def read(cls, text: str) -> Roots:
        """Read the setting: a JSON list, or entries with commas or spaces between them. Raises WrongVolume."""
        if not text.lstrip().startswith("["):
            return cls.parse(re.split(r"[,\s]+", text))
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise WrongVolume(f"{SETTING} is neither a JSON list of texts nor entries with commas between them.")
        return cls.parse(entries)

    def __str__(self) -> str:
        """As `read` reads it."""
        return ",".join(place.url for place in self.places)

    def check(self, place: Location) -> None:
        """Check that the place may be asked. A file is followed to where it really lies. Raises WrongVolume."""
        roots = [root for root in self.places if place.within(root)]
        if not roots:
            what = {"file": "folder", "s3": "bucket", "gs": "bucket"}.get(place.scheme, "host")
            raise WrongVolume(
                f"This {what} is not one that NOMADS may read volumes from; whoever runs it adds it to {SETTING}."
            )
        if place.scheme == "file" and not any(_inside(path_of(place), path_of(root)) for root in roots):
            raise WrongVolume("A part of this path is a link that leads out of the folders NOMADS may read.")


def path_of(place: Location) -> Path:
    """The path of a `file` location."""
    return Path("/", place.path)


def _inside(path: Path, root: Path) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(root)
    return real == top or real.startswith(top.rstrip("/") + "/")


def addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """The network addresses of a host, none of which is link-local or hands out a cloud's credentials.

    Raises VolumeUnavailable where the name is not known, and WrongVolume where it leads to such an address.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise VolumeUnavailable(f"No host of the name {host} is known.") from None
    for _, _, _, _, address in found:
        if forbidden(str(address[0])):
            raise WrongVolume(f"The host {host} leads to an address that holds no volumes.")
    return [(family, str(address[0])) for family, _, _, _, address in found]


def forbidden(address: str) -> bool:
    """Whether a network address is link-local, of no single machine, or one where a cloud hands out credentials."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA
