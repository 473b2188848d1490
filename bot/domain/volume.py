"""Boxes of voxels, and what BOSS says of the experiment they lie in.

Axes are z, y, x unless said; ranges are half-open and in voxels at resolution 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bot.domain.errors import NotFound, Refused

MAX_COORDINATE = 2**31 - 1
"""The largest coordinate understood, in voxels; no BOSS coordinate frame comes near it."""

_RANGE = re.compile(r"([0-9]+)\s*[,:]\s*([0-9]+)")


@dataclass(frozen=True, order=True)
class Range:
    """A half-open range `[start, stop)` of voxels along one axis; `0 <= start < stop <= MAX_COORDINATE`."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        for end in (self.start, self.stop):
            if end < 0:
                raise ValueError(f"{end} is negative; coordinates count from 0.")
            if end > MAX_COORDINATE:
                raise ValueError(
                    f"{_short(str(end))} is beyond any volume; the largest coordinate is {MAX_COORDINATE}."
                )
        if self.start >= self.stop:
            raise ValueError(
                f"start ({self.start}) must be smaller than stop ({self.stop}); the stop itself is not included."
            )

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read `start, stop` or `start:stop`. Raises ValueError in words for the person who typed it."""
        text = text.strip()
        if not text:
            raise ValueError("Write two whole numbers, start and stop, such as 0, 512.")
        if re.fullmatch(r"[-+0-9]+\s*[,:]\s*[-+0-9]+", text) and "-" in text:
            raise ValueError(f"{_short(text)} has a negative number; coordinates count from 0.")
        found = _RANGE.fullmatch(text)
        if not found:
            raise ValueError(f"“{_short(text)}” is not two whole numbers; write start and stop, such as 0, 512.")
        for digits in found.groups():
            if len(digits) > 19:  # int() of a very long string is slow, and the answer is known
                raise ValueError(f"{_short(digits)} is beyond any volume; the largest coordinate is {MAX_COORDINATE}.")
        return cls(int(found[1]), int(found[2]))

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.start}, {self.stop}"


@dataclass(frozen=True)
class Box:
    """A box of voxels at resolution 0."""

    z: Range
    y: Range
    x: Range

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in voxels, (z, y, x)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def voxels(self) -> int:
        """How many voxels the box holds."""
        z, y, x = self.shape
        return z * y * x

    def largest_within(self, voxels: int) -> Box:
        """From the same corner, a box of at most `voxels` (at least one) that cannot be larger; long sides give way."""
        low, high = 1, max(self.shape)
        while low < high:  # the largest side length that still fits
            side = (low + high + 1) // 2
            if self._cut(side).voxels <= voxels:
                low = side
            else:
                high = side - 1
        cut = self._cut(low)
        sides = list(cut.shape)
        for axis, whole in enumerate(self.shape):  # what is left goes to the first side that can grow
            others = math.prod(sides) // sides[axis]
            sides[axis] = max(1, min(whole, voxels // others))
        corner = (self.z.start, self.y.start, self.x.start)
        return Box(*(Range(start, start + side) for start, side in zip(corner, sides, strict=True)))

    def _cut(self, side: int) -> Box:
        z, y, x = (Range(r.start, min(r.stop, r.start + side)) for r in (self.z, self.y, self.x))
        return Box(z, y, x)

    def __str__(self) -> str:
        return f"x {self.x} · y {self.y} · z {self.z}"


def _short(text: str, limit: int = 40) -> str:
    """What a person typed, for an error text: printable and bounded."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel of an experiment."""

    name: str
    datatype: str = ""
    """As BOSS says, such as `uint8`; empty where it could not be learned in time or may not be known."""

    @property
    def bytes(self) -> int | None:
        """Bytes of one voxel; None where the data type is unknown or none that programs read."""
        return _VOXEL_BYTES.get(self.datatype)


_VOXEL_BYTES = {"uint8": 1, "uint16": 2, "uint64": 8}
"""What the field's BOSS client reads; it does not read uint32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What BOSS says of an experiment, checked and bounded. Axes are z, y, x, in voxels at resolution 0."""

    collection: str
    name: str
    bounds: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    """Half-open `(start, stop)` of z, y and x, with start < stop; within 64 bits, and possibly negative."""
    voxel_nm: tuple[float, float, float]
    """A voxel's size in nanometres; finite and above 0."""
    channels: tuple[Channel, ...]
    """In BOSS's order."""


class VolumesRefused(Refused):
    """BOSS said no. `field` is the part of a request it is about: `token`, `collection` or `experiment`."""

    field: str


class TokenRefused(VolumesRefused):
    """BOSS does not take the token."""

    field = "token"

    def __init__(self) -> None:
        super().__init__("BOSS refuses this token. Copy it again from BOSS's token page, or make a new one there.")


class NotAllowed(VolumesRefused):
    """The token is good, and gives no right to read this. `experiment` is empty where it is about the collection."""

    def __init__(self, collection: str, experiment: str = "") -> None:
        what = f"the experiment {_shown(experiment)} of {_shown(collection)}" if experiment else _shown(collection)
        super().__init__(
            f"This token may not read {what}. Ask whoever looks after it in BOSS for the right, or use another token."
        )
        self.field = "experiment" if experiment else "collection"


class UnknownCollection(VolumesRefused, NotFound):
    """BOSS has no collection of that name. `near` are names that resemble it."""

    field = "collection"

    def __init__(self, collection: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(f"BOSS has no collection {_shown(collection)}; {_advice(near)}")
        self.near = tuple(near)


class UnknownExperiment(VolumesRefused, NotFound):
    """The collection has no experiment of that name. `near` are names that resemble it."""

    field = "experiment"

    def __init__(self, collection: str, experiment: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(
            f"BOSS has no experiment {_shown(experiment)} in the collection {_shown(collection)}; {_advice(near)}"
        )
        self.near = tuple(near)


class Unusable(VolumesRefused):
    """BOSS shows the experiment, but not so that anything can be run on it."""

    field = "experiment"


def _advice(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(_shown(name) for name in near[:3])}?" if near else "check its spelling."


def _shown(name: str, limit: int = 60) -> str:
    """A name within a text: what a person typed is cut, and nothing in it is invisible or turns the writing round."""
    clean = "".join(c if c.isprintable() else "�" for c in name[: limit + 1])
    return f"“{clean if len(clean) <= limit else clean[: limit - 1] + '…'}”"
