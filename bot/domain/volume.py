"""Boxes of voxels, and what BOSS says of the experiment they lie in.

Axes are z, y, x unless said; ranges are half-open and in voxels at resolution 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from bot.domain.errors import NotFound, Refused
from contract import ranges
from contract.masking import PUBLIC_TOKEN
from contract.names import quoted
from contract.units import VOXEL_BYTES


@dataclass(frozen=True, order=True)
class Range:
    """A half-open range `[start, stop)` of voxels along one axis, as `contract.ranges.check` allows it."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        ranges.check(self.start, self.stop)

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range as people type it. Raises ValueError in words for the person who typed it."""
        return cls(*ranges.read(text))

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
    def sides(self) -> dict[str, Range]:
        """The ranges by axis, in the order z, y, x."""
        return {"z": self.z, "y": self.y, "x": self.x}

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

    def inside(self, bounds: Sequence[tuple[int, int]]) -> Box | None:
        """The part of the box inside the bounds of z, y and x; None where the bounds have no voxel from 0 up.

        A side that lies outside altogether begins where the bounds do, and is no longer than before.
        """
        sides = []
        for side, (low, high) in zip(self.sides.values(), bounds, strict=True):
            low, high = max(0, low), min(high, ranges.MAX_COORDINATE)
            if low >= high:
                return None
            start = side.start if low <= side.start < high else low
            stop = side.stop if side.stop > start else start + len(side)
            sides.append(Range(start, min(stop, high)))
        return Box(*sides)

    def _cut(self, side: int) -> Box:
        z, y, x = (Range(r.start, min(r.stop, r.start + side)) for r in (self.z, self.y, self.x))
        return Box(z, y, x)

    def __str__(self) -> str:
        return f"x {self.x} · y {self.y} · z {self.z}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel of an experiment."""

    name: str
    datatype: str = ""
    """As BOSS says, such as `uint8`; empty where it could not be learned in time or may not be known."""

    @property
    def bytes(self) -> int | None:
        """Bytes of one voxel; None where the data type is unknown or none that programs read."""
        return VOXEL_BYTES.get(self.datatype)


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
    noun: str = "experiment"
    """What people call it: an experiment of BOSS's, or a volume by address."""

    def whole(self, axis: str) -> str:
        """All that can be asked for along that axis, as a person types it. No range where the bounds end below 0."""
        start, stop = self.bounds["zyx".index(axis)]
        return f"{max(0, start)}, {min(stop, ranges.MAX_COORDINATE)}"


class VolumesRefused(Refused):
    """BOSS said no. `field` is the part of a request that BOSS refuses: `token`, `collection` or `experiment`."""

    field: str


class TokenRefused(VolumesRefused):
    """BOSS does not take the token."""

    field = "token"

    def __init__(self) -> None:
        super().__init__("BOSS refuses this token. Copy it again from BOSS's token page, or make a new one there.")


class TokenNeeded(VolumesRefused):
    """BOSS does not show to everybody what was asked for without a token of a person's."""

    field = "token"

    def __init__(self) -> None:
        super().__init__("BOSS does not show this to everybody: paste your BOSS token.")


class NotAllowed(VolumesRefused):
    """The token is valid but gives no right to read. An empty `experiment`: the collection may not be read."""

    def __init__(self, collection: str, experiment: str = "") -> None:
        what = f"the experiment {quoted(experiment)} of {quoted(collection)}" if experiment else quoted(collection)
        super().__init__(
            f"This token may not read {what}. Ask whoever looks after it in BOSS for the right, or use another token."
        )
        self.field = "experiment" if experiment else "collection"


class UnknownCollection(VolumesRefused, NotFound):
    """BOSS has no collection of that name. `near` are names that resemble it."""

    field = "collection"

    def __init__(self, collection: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(f"BOSS has no collection {quoted(collection)}; {_advice(near)}")
        self.near = tuple(near)


class UnknownExperiment(VolumesRefused, NotFound):
    """The collection has no experiment of that name. `near` are names that resemble it."""

    field = "experiment"

    def __init__(self, collection: str, experiment: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(
            f"BOSS has no experiment {quoted(experiment)} in the collection {quoted(collection)}; {_advice(near)}"
        )
        self.near = tuple(near)


class Unusable(VolumesRefused):
    """BOSS shows the experiment, but says too little, or nonsense, of it: nothing can run on it."""

    field = "experiment"


class UnusableAddress(VolumesRefused):
    """At the address lies nothing that can be read, or it may not be read."""

    field = "collection"


def meant(refusal: VolumesRefused, token: SecretStr) -> VolumesRefused:
    """The refusal of what was asked with this token: TokenNeeded where it is `public`, as for who gives none."""
    public = token.get_secret_value() == PUBLIC_TOKEN
    return TokenNeeded() if public and isinstance(refusal, TokenRefused | NotAllowed) else refusal


def _advice(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(quoted(name) for name in near[:3])}?" if near else "check its spelling."
