"""Volumes in Neuroglancer's precomputed format: a segmentation's ids, or a channel's values, in several resolutions.

Arrays have the axes z, y, x; what the format calls a size, an offset or a resolution is x, y, z. Every resolution is
sharded (`sharded.py`). Memory holds the chunks of one file, for each copy of the process.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple
from pipelines.common.copies import in_copies
from pipelines.common.results import Done, Results
from pipelines.common.sharded import Numbers, Sharding, morton, morton_bits
from pipelines.common.sparse import TILE, Few, Packed, Sparse

Array = NDArray[Any]
Read = Callable[[int, int, int, int], Array]
"""Rows `[top, bottom)` of the sections `[start, stop)`, called with start, stop, top, bottom, in all their width."""
Chunk = TypeVar("Chunk")
Chunk_co = TypeVar("Chunk_co", covariant=True)

CHUNK: Triple = TILE
"""Extent of a chunk, at most: a section in view takes few requests."""
AT_ONCE = 4
"""Files that a copy of the process makes before the next copy's turn, at most."""
BLOCK = 8
"""Side of a block of the encoding compressed_segmentation, in voxels."""
FILE = 16 * 2**20
"""Bytes of a file of values, at most, before they are compressed."""
FILE_OF_IDS = 64 * 2**20
"""As FILE, of ids, which are compressed to a hundredth: more files would take longer to be written than to be made."""
LEVEL = 2
"""Of zlib, for ids: a tenth larger than at level 4, in two thirds of the time."""
PIECE = 2**20
"""Voxels of a channel of which coarser ones are made at once, about: each takes some 10 bytes meanwhile."""
COARSEST = 512
"""Voxels along x and y of the coarsest resolution, at most."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the voxels lie."""

    start: Triple
    """The first voxel."""
    shape: Triple
    voxel_nm: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """One resolution: voxel i of an axis is made of voxels `[i * factor, (i + 1) * factor)` of the finest one."""

    factor: Triple
    start: Triple
    shape: Triple
    resolution: tuple[float, float, float]

    @property
    def key(self) -> str:
        return "_".join(f"{size:g}" for size in reversed(self.resolution))

    @property
    def chunk(self) -> Triple:
        """Extent of a chunk. Those of the coarsest resolutions are thin.

        A viewer reads, about the section in view, chunks of all resolutions, and one of the coarsest has the ids of a
        large part of all synapses.
        """
        wide = max(self.shape[1:])
        thin = 1 if max(self.factor) == 1 or wide > 2 * COARSEST else 2 if wide > COARSEST else 4
        return CHUNK[0] // thin, CHUNK[1], CHUNK[2]

    @property
    def grid(self) -> list[int]:
        """The number of chunks along x, y, z."""
        return [-(-side // chunk) for side, chunk in zip(reversed(self.shape), reversed(self.chunk), strict=True)]


def write_segmentation(
    results: Results, folder: str, labels: Array | Sparse, frame: Frame, *, title: str, about: str, copies: int = 1
) -> None:
    """Write ids (z, y, x; below 2**32) as a segmentation. In coarse resolutions the greatest id of a voxel stays.

    Ids are read once, and so many `copies` of the process share the work. The files do not depend on whether the volume
    is sparse. Raises Failure where a file cannot be written.
    """
    kind = {"type": "segmentation", "data_type": "uint32"}
    encoding = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [BLOCK] * 3}
    empty: dict[Triple, bytes] = {}

    def encode(chunk: Few, sharding: Sharding) -> bytes:
        if not len(chunk.ids) and chunk.extent in empty:
            return empty[chunk.extent]
        packed = sharding.packed(compressed_segmentation(chunk), LEVEL)
        if not len(chunk.ids):
            empty[chunk.extent] = packed
        return packed

    chunks = FILE_OF_IDS // (math.prod(CHUNK) * 4)
    writer = _Writer(results, folder, _Ids(labels), frame, chunks=chunks, encode=encode, copies=copies)
    writer.write(kind, encoding, title=title, about=about)


def write_image(results: Results, folder: str, read: Read, dtype: Any, frame: Frame, *, title: str, about: str) -> None:
    """Write a channel's values as an image; those of coarse resolutions are means, rounded down. Raises as above."""

    def encode(chunk: Array, sharding: Sharding) -> bytes:
        return sharding.packed(np.ascontiguousarray(chunk.astype(np.dtype(dtype).newbyteorder("<"))).tobytes(), 1)

    voxels = _Values(read, frame)
    chunks = FILE // (math.prod(CHUNK) * np.dtype(dtype).itemsize)
    writer = _Writer(results, folder, voxels, frame, chunks=chunks, encode=encode)
    kind = {"type": "image", "data_type": np.dtype(dtype).name}
    writer.write(kind, {"encoding": "raw"}, title=title, about=about)


class _Voxels(Protocol[Chunk_co]):
    """What a volume's chunks are made of, one resolution after another, the finest first."""

    def begin(self, scale: _Scale, coarser: _Scale | None) -> None:
        """From now on chunks of that resolution are asked for; the next one will be `coarser`."""

    def chunk(self, first: Sequence[int], stop: Sequence[int]) -> Chunk_co:
        """Voxels `[first, stop)` of the resolution."""

    def left(self) -> list[Packed]:
        """What the chunks that were asked for in this process have left for the coarser resolution."""

    def take(self, left: list[Packed]) -> None:
        """Take what chunks have left, wherever they were made."""

    def close(self) -> None:
        """Discard what was made of the volume."""


class _Values:
    """A channel's values, which can be read in any order; every resolution is made of the finest one."""

    def __init__(self, read: Read, frame: Frame) -> None:
        self._read, self._frame = read, frame

    def begin(self, scale: _Scale, coarser: _Scale | None) -> None:
        self._scale = scale

    def chunk(self, first: Sequence[int], stop: Sequence[int]) -> Array:
        factor = self._scale.factor
        if max(factor) == 1:
            return self._finest(first, stop)
        (low, top, left), (high, bottom, right) = first, stop
        # a few rows at a time: one of the coarsest chunks may be made of all that there is
        rows = max(1, PIECE // (factor[0] * factor[1] * self._frame.shape[2]))
        walls = list(itertools.pairwise([*range(top, bottom, rows), bottom]))
        return np.concatenate(
            [
                np.concatenate([_mean(self._finest((z, a, left), (z + 1, b, right)), factor) for a, b in walls], axis=1)
                for z in range(low, high)
            ]
        )

    def _finest(self, first: Sequence[int], stop: Sequence[int]) -> Array:
        """The finest voxels that make voxels `[first, stop)` of the resolution; beyond the ends the last ones again."""
        scale = self._scale
        cut, pad = [], []
        for axis in range(3):
            factor, origin, most = scale.factor[axis], self._frame.start[axis], self._frame.shape[axis]
            a = (scale.start[axis] + first[axis]) * factor - origin
            b = (scale.start[axis] + stop[axis]) * factor - origin
            cut.append((max(0, a), min(b, most)))
            pad.append((max(0, -a), max(0, b - most)))
        (start, end), (top, bottom), (left, right) = cut
        finest = self._read(start, end, top, bottom)[:, :, left:right]
        return np.pad(finest, pad, mode="edge") if np.any(pad) else finest

    def left(self) -> list[Packed]:
        return []

    def take(self, left: list[Packed]) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing was made."""


class _Ids:
    """Ids of few voxels; each resolution is made of the last one, of which the greatest ids stay."""

    def __init__(self, labels: Array | Sparse) -> None:
        self._labels: Array | Sparse = labels
        self._next: Sparse | None = None
        self._made: list[Sparse] = []
        self._left: list[Packed] = []

    def begin(self, scale: _Scale, coarser: _Scale | None) -> None:
        self._labels, self._next = self._labels if self._next is None else self._next, None
        if isinstance(self._labels, Sparse):
            self._labels.settle()
        if coarser:
            self._next = Sparse(coarser.shape)
            self._made.append(self._next)
        self._scale, self._coarser = scale, coarser

    def chunk(self, first: Sequence[int], stop: Sequence[int]) -> Few:
        if isinstance(self._labels, Sparse):
            z, y, x = (low // side for low, side in zip(first, TILE, strict=True))
            few = self._labels.few((z, y, x)).sections(first[0] - z * TILE[0], stop[0] - z * TILE[0])
        else:
            few = Few.of(self._labels[tuple(map(slice, first, stop))])
        if self._next and self._coarser:
            at, ids = _halved(few, np.add(first, self._scale.start).tolist(), self._scale, self._coarser)
            self._left.append(self._next.packed(at.T, ids))
        return few

    def left(self) -> list[Packed]:
        left, self._left = self._left, []
        return left

    def take(self, left: list[Packed]) -> None:
        for some in left:
            assert self._next is not None
            self._next.add(some)

    def close(self) -> None:
        for made in self._made:
            made.close()


def _halved(few: Few, first: Sequence[int], scale: _Scale, coarser: _Scale) -> tuple[Array, Array]:
    """The coarser voxels that a chunk's make, (3, n), and their ids: of several voxels' the greatest one.

    `first` is the chunk's first voxel.
    """
    halves = [(up // down).bit_length() - 1 for up, down in zip(coarser.factor, scale.factor, strict=True)]
    corner = [low >> half for low, half in zip(first, halves, strict=True)]
    sides = [
        (low + long - 1 >> half) - at + 1 for low, long, half, at in zip(first, few.extent, halves, corner, strict=True)
    ]
    z, y, x = ((axis + low >> half) - at for axis, low, half, at in zip(few.zyx, first, halves, corner, strict=True))
    place = (z * sides[1] + y) * sides[2] + x
    greatest = np.zeros(math.prod(sides), np.uint32)
    greatest[place] = few.ids
    while len(less := np.flatnonzero(greatest[place] < few.ids)):  # of several one was set, whichever
        greatest[place[less]] = few.ids[less]
    there = np.flatnonzero(greatest)
    at = np.stack(Few((sides[0], sides[1], sides[2]), there, greatest[there]).zyx)
    at += np.array([[low - start] for low, start in zip(corner, coarser.start, strict=True)])
    return at, greatest[there].astype(np.int64)


class _Writer(Generic[Chunk]):
    """Writes all resolutions of one volume, and its info file last."""

    def __init__(
        self,
        results: Results,
        folder: str,
        voxels: _Voxels[Chunk],
        frame: Frame,
        *,
        chunks: int,
        encode: Callable[[Chunk, Sharding], bytes],
        copies: int = 1,
    ) -> None:
        """So many `chunks` of the extent CHUNK are in a file at most, a power of two."""
        self._results, self._folder, self._voxels, self._frame = results, folder, voxels, frame
        self._chunks_of_file, self._encode, self._copies = chunks, encode, copies

    def write(self, kind: dict[str, str], encoding: dict[str, Any], *, title: str, about: str) -> None:
        info = f"{self._folder}/info"
        self._results.remove(info)
        all_scales = list(_scales(self._frame))
        scales = []
        with closing(self._voxels):
            for scale, coarser in itertools.zip_longest(all_scales, all_scales[1:]):
                self._voxels.begin(scale, coarser)
                scales.append(self._scale(scale, encoding))
        content = {"@type": "neuroglancer_multiscale_volume", **kind, "num_channels": 1, "scales": scales}
        self._results.add(info, as_json(content), title=title, about=about, media_type="application/json")

    def _scale(self, scale: _Scale, encoding: dict[str, Any]) -> dict[str, Any]:
        """Write one resolution and return its description."""
        preshift = (self._chunks_of_file * CHUNK[0] // scale.chunk[0]).bit_length() - 1
        sharding = Sharding.of(morton_bits(scale.grid), preshift=preshift)
        place = f"{self._folder}/{scale.key}"
        cells = np.stack(np.unravel_index(np.arange(math.prod(scale.grid)), scale.grid), axis=1)
        numbers = morton(cells, scale.grid).astype(np.uint64)
        order = np.argsort(numbers)
        cells, numbers = cells[order], numbers[order]
        walls = [0, *(np.flatnonzero(np.diff(numbers >> np.uint64(preshift))) + 1).tolist()]
        shared = min(AT_ONCE, len(walls) // (2 * self._copies))
        step = max(1, shared) if self._copies > 1 else 1
        parts = list(itertools.pairwise([*walls[::step], len(numbers)]))

        def made(part: tuple[int, int]) -> tuple[Done, list[Packed]]:
            """Write the files of those chunks; returns what was written, and what the chunks have left."""
            own, some = self._results.apart(), slice(*part)
            chunks = self._chunks(scale, cells[some], numbers[some], sharding)
            sharding.write(chunks, lambda name, content: own.put(f"{place}/{name}", content))
            return own.done, self._voxels.left()

        for done, left in in_copies(made, parts, most=self._copies):
            self._results.join(done)
            self._voxels.take(left)
        return {
            "key": scale.key,
            "size": scale.shape[::-1],
            "voxel_offset": scale.start[::-1],
            "resolution": scale.resolution[::-1],
            "chunk_sizes": [scale.chunk[::-1]],
            **encoding,
            "sharding": sharding.described(),
        }

    def _chunks(
        self, scale: _Scale, cells: NDArray[np.int64], numbers: Numbers, sharding: Sharding
    ) -> Iterator[tuple[int, bytes]]:
        """Number and content of each of those chunks, in their order."""
        for number, cell in zip(numbers.tolist(), cells.tolist(), strict=True):
            first = [place * side for place, side in zip(cell[::-1], scale.chunk, strict=True)]
            stop = [min(a + side, most) for a, side, most in zip(first, scale.chunk, scale.shape, strict=True)]
            yield number, self._encode(self._voxels.chunk(first, stop), sharding)


def _scales(frame: Frame) -> Iterator[_Scale]:
    """The resolutions, the finest first. Axes are halved that are not much coarser than the finest axis.

    A section of more than a chunk has a coarser one at least, so that a viewer has something to begin with.
    """
    factor = (1, 1, 1)
    while True:
        start = tuple(a // f for a, f in zip(frame.start, factor, strict=True))
        stop = [-(-(a + n) // f) for a, n, f in zip(frame.start, frame.shape, factor, strict=True)]
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        nm = tuple(size * f for size, f in zip(frame.voxel_nm, factor, strict=True))
        yield _Scale(factor=factor, start=_triple(start), shape=_triple(shape), resolution=(nm[0], nm[1], nm[2]))
        if max(shape[1:]) <= (COARSEST if max(factor) > 1 else min(COARSEST, CHUNK[1])):
            return
        factor = _triple([f * 2 if size < 2 * min(nm) else f for f, size in zip(factor, nm, strict=True)])


def _triple(values: Sequence[int]) -> Triple:
    return values[0], values[1], values[2]


def _mean(voxels: Array, factor: Triple) -> Array:
    """The mean of each coarse voxel's voxels, rounded down."""
    z, y, x = (side // f for side, f in zip(voxels.shape, factor, strict=True))
    split = voxels.reshape(z, factor[0], y, factor[1], x, factor[2])
    # floating point, since a sum of uint64 overflows
    found: Array = np.floor(split.mean(axis=(1, 3, 5))).astype(voxels.dtype)
    return found


def compressed_segmentation(chunk: Few) -> bytes:
    """A chunk of ids in Neuroglancer's encoding compressed_segmentation, in blocks of BLOCK voxels a side.

    A block is a table of its ids and, for each voxel, an index into the table of 0, 1, 2, 4, 8, 16 or 32 bits. Tables
    lie before all indices; blocks of one id have no indices. Only voxels that have an id take time.
    """
    grid = [-(-side // BLOCK) for side in chunk.extent]
    z, y, x = chunk.zyx
    block = ((z >> _SIDE) * grid[1] + (y >> _SIDE)) * grid[2] + (x >> _SIDE)
    voxel = ((z & BLOCK - 1) << _SIDE | y & BLOCK - 1) << _SIDE | x & BLOCK - 1
    table, lengths, index = _tables(chunk.ids, block, math.prod(grid))
    bits = _WIDTHS[np.searchsorted(_LENGTHS, lengths)]

    header = np.zeros((len(lengths), 2), np.int64)
    starts = np.cumsum(lengths) - lengths + 2 * len(lengths)
    words = bits * BLOCK**3 // 32
    ends = np.cumsum(words)
    header[:, 0] = starts | bits << 24
    header[:, 1] = ends - words + 2 * len(lengths) + len(table)
    wide = bits[block]
    at = (ends - words)[block] * 32 + voxel * wide
    # bits of different voxels in one word are others, so that a sum is what they are together
    sums = np.bincount(at >> 5, index << (at & 31), minlength=int(ends[-1]) + 1)
    one_channel = np.array([1], np.uint32)  # which begins after this word
    parts = (one_channel, header.reshape(-1).astype(np.uint32), table, sums[: int(ends[-1])].astype(np.uint32))
    return np.concatenate(parts).astype("<u4").tobytes()


_SIDE = BLOCK.bit_length() - 1
_LENGTHS = np.array([1, 2, 4, 16, 2**8, 2**16])
"""Ids of a table, at most, and below them the bits of an index into it."""
_WIDTHS = np.array([0, 1, 2, 4, 8, 16, 32])
_SPAN = 2**22
"""Values that are told from one another by a list of all."""


def _tables(ids: NDArray[np.uint32], block: Array, many: int) -> tuple[NDArray[np.uint32], Array, Array]:
    """The tables of so many blocks, one after another; the length of each; and each voxel's index into its block's.

    `ids` are the voxels' ids, none of them 0, and `block` their blocks. Tables are in ascending order; 0 is in those of
    all blocks that are not full.
    """
    least = int(ids.min(initial=2**32 - 1))
    known, number = _distinct(ids.astype(np.int64) - least)
    pairs, place = _distinct(block * len(known) + number)
    owner, which = np.divmod(pairs, max(1, len(known)))
    zero = (np.bincount(block, minlength=many) < BLOCK**3).astype(np.int64)
    lengths = np.bincount(owner, minlength=many) + zero
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(pairs)) + np.cumsum(zero)[owner]  # after the zeros in tables up to this one's
    table = np.zeros(int(lengths.sum()), np.uint32)
    table[places] = known[which] + least
    return table, lengths, (places - starts[owner])[place]


def _distinct(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values, none below 0, that there are, in order; and which of them each is. Fast where all of them are low."""
    span = int(values.max(initial=-1)) + 1
    if span > _SPAN:
        return np.unique(values, return_inverse=True)
    there = np.zeros(span, np.bool_)
    there[values] = True
    found = np.flatnonzero(there)
    number = np.empty(span, np.int64)
    number[found] = np.arange(len(found))
    return found, number[values]


def as_json(content: object) -> bytes:
    """An info file."""
    return (json.dumps(content, indent=1) + "\n").encode()
