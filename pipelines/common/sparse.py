"""Volumes of ids in which few voxels have one, which take place for these alone. Axes are z, y, x."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple

Array = NDArray[Any]

TILE: Triple = (8, 256, 256)
"""Extent of a tile, whose voxels lie together in the file."""
_BITS = (TILE[0] * TILE[1] * TILE[2] - 1).bit_length()
_RECORD = np.dtype([("id", "<u4"), ("place", "<u4")])
_SPAN = 2 ** (63 - 32 - _BITS)
"""Tiles that a sort can tell from one another, besides places and ids."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Ids for voxels, tile by tile."""

    tiles: NDArray[np.int64]
    counts: NDArray[np.int64]
    """How many voxels each of the tiles has here."""
    records: Array
    """Id, and place within the tile, of all of them."""


class Sparse:
    """A volume of ids below 2**32, all 0 at first, whose other voxels lie in an unnamed file; a context manager.

    Of several ids that a voxel is given, the greatest one stays; it is given one `once` at most, where that is said.
    """

    def __init__(self, extent: Triple, *, once: bool = False) -> None:
        self.shape, self._once = extent, once
        self.grid: Triple = _grid(extent)
        """How many tiles there are along each axis; those at the ends may be smaller."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - the block ends it, or the end of this object
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
        tiles = (z // TILE[0] * self.grid[1] + y // TILE[1]) * self.grid[2] + x // TILE[2]
        places = (z % TILE[0] * TILE[1] + y % TILE[1]) * TILE[2] + x % TILE[2]
        least = int(tiles.min()) if len(tiles) else 0
        numbers, named = tiles - least, None
        if len(tiles) and int(numbers.max()) >= _SPAN:
            named, numbers = np.unique(tiles, return_inverse=True)
        keys = np.sort(((numbers << _BITS | places) << 32) | ids)  # of one voxel's ids the greatest comes last
        if not self._once:
            last = np.ones(len(keys), np.bool_)
            last[:-1] = keys[1:] >> 32 != keys[:-1] >> 32
            keys = keys[last]
        found = keys >> (32 + _BITS)
        starts = np.flatnonzero(np.diff(found, prepend=-1))
        records = np.empty(len(keys), _RECORD)
        records["id"] = keys & 0xFFFFFFFF
        records["place"] = keys >> 32 & ((1 << _BITS) - 1)
        which = found[starts]
        return Packed(named[which] if named is not None else which + least, np.diff(starts, append=len(keys)), records)

    def add(self, some: Packed) -> None:
        """Give voxels their ids."""
        ends = np.cumsum(some.counts)
        self._added.append((some.tiles, self._size + ends - some.counts, some.counts))
        self._file.write(some.records.data)
        self._size += int(ends[-1]) if len(ends) else 0

    def settle(self) -> None:
        """Make what was added ready to be read by `tile`: after this, nothing may be added."""
        if self._settled:
            return
        self._settled = True
        self._file.flush()
        none = np.zeros(0, np.int64)
        tiles, starts, counts = (
            (np.concatenate([none, *some]) for some in zip(*self._added, strict=True))
            if (self._added)
            else (none, none, none)
        )
        order = np.argsort(tiles, kind="stable")
        self._starts, self._counts = starts[order], counts[order]
        self._first = np.searchsorted(tiles[order], np.arange(math.prod(self.grid) + 1))
        self._added = []

    def tile(self, cell: Triple) -> NDArray[np.uint32]:
        """The ids of a tile, by its place in the grid."""
        found = np.zeros(math.prod(TILE), np.uint32)
        number = (cell[0] * self.grid[1] + cell[1]) * self.grid[2] + cell[2]
        low, high = self._first[number : number + 2].tolist()
        if low < high:
            records = np.concatenate([self._read(n) for n in range(low, high)])
            if not self._once and high - low > 1:
                records = records[np.argsort(records["id"], kind="stable")]
            found[records["place"]] = records["id"]  # of several the last one stays
        sides = [min(side, long - n * side) for side, long, n in zip(TILE, self.shape, cell, strict=True)]
        return found.reshape(TILE)[: sides[0], : sides[1], : sides[2]]

    def slabs(self) -> Iterator[NDArray[np.uint32]]:
        """All voxels, some sections at a time."""
        self.settle()
        for z in range(self.grid[0]):
            deep = min(TILE[0], self.shape[0] - z * TILE[0])
            slab = np.zeros((deep, *self.shape[1:]), np.uint32)
            for y, x in itertools.product(range(self.grid[1]), range(self.grid[2])):
                tile = self.tile((z, y, x))
                top, left = y * TILE[1], x * TILE[2]
                slab[:, top : top + tile.shape[1], left : left + tile.shape[2]] = tile
            yield slab

    def _read(self, n: int) -> Array:
        size = _RECORD.itemsize
        content = os.pread(self._file.fileno(), int(self._counts[n]) * size, int(self._starts[n]) * size)
        return np.frombuffer(content, _RECORD)


def _grid(extent: Triple) -> Triple:
    z, y, x = (-(-long // side) for long, side in zip(extent, TILE, strict=True))
    return z, y, x
