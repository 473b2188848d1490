"""Iterators over a volume (z, y, x): bands of rows, and sections with their neighbours along z."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Band:
    """The rows `[top, bottom)` of every section, and the rows `[low, high)` on which their results depend."""

    top: int
    bottom: int
    low: int
    high: int

    @property
    def own(self) -> slice:
        """The band's own rows, counted from `low`."""
        return slice(self.top - self.low, self.bottom - self.low)


def bands(shape: Sequence[int], *, piece: int, halo: int, step: int = 1) -> Iterator[Band]:
    """All rows of a volume (z, y, x) in bands of about `piece` voxels a section, which begin at multiples of `step`.

    A section of `piece` voxels or fewer is one band. `halo` is the number of rows beyond a band that its results need.
    """
    _, high, wide = shape
    rows = high if high * wide <= piece else max(1, (piece // wide - 2 * halo) // step, halo // step) * step
    for top in range(0, high, rows):
        bottom = min(high, top + rows)
        yield Band(top, bottom, max(0, top - halo), min(high, bottom + halo))


def windows(items: Iterable[T], reach: int) -> Iterator[tuple[T, ...]]:
    """For each item, the items from `reach` before to `reach` after it; the first and the last repeat at the ends."""
    near: deque[T] = deque(maxlen=2 * reach + 1)
    for item in items:
        if not near:
            near.extend([item] * reach)
        near.append(item)
        if len(near) == near.maxlen:
            yield tuple(near)
    for _ in range(reach if near else 0):
        near.append(near[-1])
        if len(near) == near.maxlen:
            yield tuple(near)


def along(array: Array, axis: int, start: int, length: int) -> Array:
    """A view of the array: `length` places from `start` along the axis."""
    return array[(slice(None),) * axis + (slice(start, start + length),)]


def three(padded: Array, axis: int) -> Array:
    """Sums of three neighbours along the axis, which becomes shorter by 2."""
    length = padded.shape[axis] - 2
    sums: Array = along(padded, axis, 0, length) + along(padded, axis, 1, length)
    sums += along(padded, axis, 2, length)
    return sums
