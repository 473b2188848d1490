"""Going through a volume in bands of rows, and section by section, each with its neighbours along z."""

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
    """The rows `[top, bottom)` of every section, and the rows `[low, high)` that have a say in them."""

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

    One band where a section is no larger. `halo` is how many rows beyond a band matter to it.
    """
    _, high, wide = shape
    rows = high if high * wide <= piece else max(1, (piece // wide - 2 * halo) // step, halo // step) * step
    for top in range(0, high, rows):
        bottom = min(high, top + rows)
        yield Band(top, bottom, max(0, top - halo), min(high, bottom + halo))


def windows(items: Iterable[T], reach: int) -> Iterator[tuple[T, ...]]:
    """For each item, those from `reach` before it to `reach` after it; beyond the ends, the outermost item again."""
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
    """A view of `length` places along an axis."""
    return array[(slice(None),) * axis + (slice(start, start + length),)]


def three(padded: Array, axis: int) -> Array:
    """Sums of three neighbours along an axis; the result is shorter by 2."""
    length = padded.shape[axis] - 2
    sums: Array = along(padded, axis, 0, length) + along(padded, axis, 1, length)
    sums += along(padded, axis, 2, length)
    return sums
