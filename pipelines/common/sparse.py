"""Volumes of ids in which few voxels have one, which take place for these alone. Axes are z, y, x."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple

Array = NDArray[Any]
T = TypeVar("T")

TILE: Triple = (8, 256, 256)
"""Extent of a tile, whose voxels lie together in the file."""
_SIDES = (TILE[0].bit_length() - 1, TILE[1].bit_length() - 1, TILE[2].bit_length() - 1)
"""Of a tile's sides, which are powers of two, the bits of places along them: shifts are faster than division."""
_BITS = sum(_SIDES)
_RECORD = np.dtype("<u8")
"""A voxel: its place within its tile, above the 32 bits of its id."""
_SPAN = 2 ** (63 - 32 - _BITS)
"""Tiles that a sort can tell from one another, besides places and ids."""


@dataclass(frozen=True, slots=True)
class Few:
    """The voxels of a box that have an id other than 0, n of them."""

    extent: Triple
    places: NDArray[np.int64]
    """(n,): their places in the box, as C order counts them."""
    ids: NDArray[np.uint32]

    @classmethod
    def of(cls, ids: Array) -> Few:
        """Those of an array."""
        depth, high, wide = ids.shape
        ids = ids.reshape(-1)
        places = np.flatnonzero(ids != 0)
        return cls((depth, high, wide), places, ids[places].astype(np.uint32, copy=False))

    @property
    def zyx(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(n,) each: how many voxels they lie from the box's corner."""
        if self.extent == TILE:
            y_bits, x_bits = _SIDES[1:]
            y, x = self.places >> x_bits & TILE[1] - 1, self.places & TILE[2] - 1
            return self.places >> y_bits + x_bits, y, x
        rest, x = np.divmod(self.places, self.extent[2])
        z, y = np.divmod(rest, self.extent[1])
        return z, y, x

    def sections(self, low: int, high: int) -> Few:
        """Those of the sections `[low, high)`, as a box of its own."""
        if (low, high) == (0, self.extent[0]):
            return self
        section = self.extent[1] * self.extent[2]
        own = (self.places >= low * section) & (self.places < high * section)
        return Few((high - low, *self.extent[1:]), self.places[own] - low * section, self.ids[own])


@dataclass(frozen=True, slots=True)
class Share:
    """One of several shares of work, dealt out in turns."""

    number: int
    of: int

    def __call__(self, work: Iterable[T]) -> Iterator[T]:
        """What is this share's of the work."""
        return itertools.islice(work, self.number, None, self.of)


WHOLE = Share(0, 1)


@dataclass(frozen=True, slots=True)
class Packed:
    """Ids for voxels, tile by tile."""

    tiles: NDArray[np.int64]
    counts: NDArray[np.int64]
    """How many voxels each of the tiles has here."""
    records: NDArray[np.uint64]
    """All of them, as the file has them."""


class Sparse:
    """A volume of ids below 2**32, all 0 at first, whose other voxels lie in an unnamed file; a context manager.

    Of several ids that a voxel is given, the greatest one stays; it is given one `once` at most, where that is said.
    """

    def __init__(self, extent: Triple, *, once: bool = False) -> None:
        self.shape, self._once = extent, once
        self.grid: Triple = _grid(extent)
        """How many tiles there are along each axis; those at the ends may be smaller."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - the block ends it, or the end of this object
        weakref.finalize(self, self._file.close)
        self._size, self._settled = 0, False
        self._added: list[tuple[Array, Array, Array]] = []

    def __enter__(self) -> Sparse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Discard the volume."""
        self._file.close()

    @property
    def size(self) -> int:
        """How many voxels there are, whether they have an id or not."""
        return math.prod(self.shape)

    def packed(self, at: Array, ids: Array) -> Packed:
        """Ids, none of them 0, for voxels (n, 3) of this volume, as `add` takes them. Changes nothing."""
        z, y, x = at.T
        tiles = ((z >> _SIDES[0]) * self.grid[1] + (y >> _SIDES[1])) * self.grid[2] + (x >> _SIDES[2])
        places = ((z & TILE[0] - 1) << _SIDES[1] | y & TILE[1] - 1) << _SIDES[2] | x & TILE[2] - 1
        least = int(tiles.min()) if len(tiles) else 0
        numbers, named = tiles - least, None
        if len(tiles) and int(numbers.max()) >= _SPAN:
            named, numbers = np.unique(tiles, return_inverse=True)
        keys = _in_order((numbers << _BITS | places) << 32 | ids)  # of one voxel's ids the greatest comes last
        if not self._once:
            last = np.ones(len(keys), np.bool_)
            last[:-1] = keys[1:] >> 32 != keys[:-1] >> 32
            keys = keys[last]
        found = keys >> (32 + _BITS)
        starts = np.flatnonzero(np.diff(found, prepend=-1))
        records = (keys & (1 << 32 + _BITS) - 1).astype(_RECORD)
        which = found[starts]
        return Packed(named[which] if named is not None else which + least, np.diff(starts, append=len(keys)), records)

    def add(self, some: Packed) -> None:
        """Give voxels their ids."""
        ends = np.cumsum(some.counts)
        self._added.append((some.tiles, self._size + ends - some.counts, some.counts))
        self._file.write(some.records.data)
        self._size += int(ends[-1]) if len(ends) else 0

    def settle(self) -> None:
        """Make what was added ready to be read, by copies of the process too: after this, nothing may be added."""
        if self._settled:
            return
        self._settled = True
        self._file.flush()
        none = np.zeros(0, np.int64)
        tiles, starts, counts = (
            (np.concatenate([none, *some]) for some in zip(*self._added, strict=True))
            if self._added
            else (none, none, none)
        )
        order = np.argsort(tiles, kind="stable")
        self._starts, self._counts = starts[order], counts[order]
        self._first = np.searchsorted(tiles[order], np.arange(math.prod(self.grid) + 1))
        self._added = []

    def few(self, cell: Triple) -> Few:
        """The voxels of a tile, by its place in the grid."""
        number = (cell[0] * self.grid[1] + cell[1]) * self.grid[2] + cell[2]
        low, high = self._first[number : number + 2].tolist()
        sides = [min(side, long - n * side) for side, long, n in zip(TILE, self.shape, cell, strict=True)]
        keys = np.concatenate([self._read(n) for n in range(low, high)]) if low < high else np.zeros(0, np.int64)
        if high - low > 1:
            keys = _in_order(keys)
            if not self._once:  # of several the last one stays
                keys = keys[np.diff(keys >> 32, append=-1) != 0]
        places, ids = keys >> 32, (keys & 0xFFFFFFFF).astype(np.uint32)
        full = Few(TILE, places, ids)
        if tuple(sides) == TILE:
            return full
        z, y, x = full.zyx
        return Few((sides[0], sides[1], sides[2]), (z * sides[1] + y) * sides[2] + x, ids)

    def slabs(self, values: Callable[[NDArray[np.uint32]], Array]) -> Iterator[Array]:
        """A value for each voxel, by its id, some sections at a time; `values` is asked for that of 0, too.

        The next array takes the place of the last one.
        """
        self.settle()
        nothing = values(np.zeros(1, np.uint32))
        whole = np.empty((min(TILE[0], self.shape[0]), *self.shape[1:]), nothing.dtype)
        for z in range(self.grid[0]):
            slab = whole[: self.shape[0] - z * TILE[0]]
            slab[:] = nothing[0]
            self._fill(slab, z, values)
            yield slab

    def whole(self) -> NDArray[np.uint32]:
        """All voxels' ids."""
        self.settle()
        found = np.zeros(self.shape, np.uint32)
        for z in range(self.grid[0]):
            self._fill(found[z * TILE[0] :], z, lambda ids: ids)
        return found

    def _fill(self, slab: Array, z: int, values: Callable[[NDArray[np.uint32]], Array]) -> None:
        """Set the values of the voxels that have ids, in an array that begins with a layer of tiles."""
        for y, x in itertools.product(range(self.grid[1]), range(self.grid[2])):
            few = self.few((z, y, x))
            down, top, left = few.zyx
            slab[down, top + y * TILE[1], left + x * TILE[2]] = values(few.ids)

    def bands(self, share: Share = WHOLE) -> Iterator[tuple[Triple, Few]]:
        """All voxels, some rows of a section at a time, in all their width; with the place of the first one.

        Or one of several shares of them.
        """
        self.settle()
        for z, y in share(itertools.product(range(self.grid[0]), range(self.grid[1]))):
            row = [self.few((z, y, x)) for x in range(self.grid[2])]
            down, top, left = (np.concatenate(axis) for axis in zip(*(few.zyx for few in row), strict=True))
            left += np.repeat(np.arange(len(row)) * TILE[2], [len(few.places) for few in row])
            ids = np.concatenate([few.ids for few in row])
            deep, high, _ = row[0].extent
            order = np.argsort(down, kind="stable")
            walls = np.searchsorted(down[order], np.arange(deep + 1))
            for n, (first, last) in enumerate(itertools.pairwise(walls.tolist())):
                some = order[first:last]
                places = top[some] * self.shape[2] + left[some]
                yield (z * TILE[0] + n, y * TILE[1], 0), Few((1, high, self.shape[2]), places, ids[some])

    def _read(self, n: int) -> NDArray[np.int64]:
        size = _RECORD.itemsize
        content = os.pread(self._file.fileno(), int(self._counts[n]) * size, int(self._starts[n]) * size)
        return np.frombuffer(content, _RECORD).astype(np.int64, copy=False)


def _in_order(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The keys in order, in which many come already."""
    return np.sort(keys) if np.any(keys[1:] < keys[:-1]) else keys


def bands(ids: Array | Sparse, *, piece: int, share: Share = WHOLE) -> Iterator[tuple[Triple, Few]]:
    """As `Sparse.bands`, of an array too: about `piece` voxels at a time."""
    if isinstance(ids, Sparse):
        yield from ids.bands(share)
        return
    depth, high, wide = ids.shape
    slab, lines = max(1, piece // (high * wide)), max(1, piece // wide)
    for start, top in share(itertools.product(range(0, depth, slab), range(0, high, lines))):
        yield (start, top, 0), Few.of(ids[start : start + slab, top : top + lines])


def slabs(ids: Array | Sparse, values: Callable[[NDArray[np.uint32]], Array]) -> Iterator[Array]:
    """As `Sparse.slabs`, of an array too: section by section, which is several times as fast as all at once."""
    if isinstance(ids, Sparse):
        yield from ids.slabs(values)
        return
    for section in ids:
        yield values(section)[None]


def filled(ids: Array | Sparse, values: Callable[[NDArray[np.uint32]], Array], dtype: Any) -> Array:
    """What `slabs` gives, as one array."""
    found, first = np.empty(ids.shape, dtype), 0
    for slab in slabs(ids, values):
        found[first : first + len(slab)] = slab
        first += len(slab)
    return found


def _grid(extent: Triple) -> Triple:
    z, y, x = (-(-long // side) for long, side in zip(extent, TILE, strict=True))
    return z, y, x
