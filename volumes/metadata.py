"""Metadata of volumes: JSON documents, and what is taken from them without trusting them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

from contract.names import short
from volumes.address import Location
from volumes.errors import VolumeDamaged, WrongVolume


class Documents(Protocol):
    """Reads small files that lie beside voxels. Methods raise VolumeError."""

    @property
    def refused(self) -> bool:
        """Whether a server refused something, which may not exist either: buckets answer so to strangers."""

    def read(self, place: Location) -> bytes | None:
        """The file's content; None where there is none."""

    def names(self, folder: Location) -> list[str] | None:
        """Names of the folder's subfolders, sorted; None where its server does not list them."""


def document(documents: Documents, place: Location) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file. Raises VolumeDamaged where it is no JSON object."""
    content = documents.read(place)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise VolumeDamaged(f"{place.name} of this volume is no JSON that can be read.")
    return found


def strange(what: str) -> WrongVolume:
    """The error for metadata in which `what` is missing or is not as its format has it."""
    return WrongVolume(f"This volume's metadata is not understood: {what}.")


def whole(value: object, what: str) -> list[int]:
    """A list of whole numbers, none beyond 64 bits. Raises WrongVolume for anything else."""
    if isinstance(value, list) and value and all(type(n) is int and abs(n) < 2**62 for n in value):
        return value
    raise strange(what)


def numbers(value: object, what: str) -> list[float]:
    """A list of finite numbers. Raises WrongVolume for anything else."""
    if isinstance(value, list) and value and all(type(n) in (int, float) and math.isfinite(n) for n in value):
        return [float(n) for n in value]
    raise strange(what)


def by_axis(axes: Sequence[str], values: Sequence[float]) -> tuple[float, float, float]:
    """The values of z, y and x, in that order, of values in the order of `axes`."""
    z, y, x = (values[axes.index(axis)] for axis in "zyx")
    return z, y, x


def check_word(word: object, known: Sequence[str], what: str) -> None:
    """Check that `what` a volume is stored with is something that is read. Raises WrongVolume."""
    if word not in known:
        said = short(word) if isinstance(word, str) and word else "nothing that is understood"
        raise WrongVolume(f"This volume's {what} is {said}, which NOMADS cannot read; it reads {', '.join(known)}.")


def finest(sizes: Sequence[tuple[float, float, float]]) -> int:
    """Which of several levels has the smallest voxels, by their volume; the first of equal ones."""
    return min(range(len(sizes)), key=lambda i: math.prod(sizes[i]))


def no_unit(unit: object, axis: str) -> WrongVolume:
    """The error for an axis that is not measured in a unit of length."""
    said = f"the unit “{short(unit)}”" if isinstance(unit, str) and unit else "no unit"
    return WrongVolume(
        f"The axis {axis} of this volume has {said}, so its voxels have no size in nm; add a unit of length, such as "
        "nanometer, to its metadata."
    )


def no_level(level: str, there: Sequence[str]) -> WrongVolume:
    """The error for a level that a volume does not have."""
    listed = ", ".join(short(name) for name in there[:20])
    return WrongVolume(f"This volume has no level {short(level)}; it has {listed}.")
