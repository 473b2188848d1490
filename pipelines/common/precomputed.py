"""Volumes in Neuroglancer's precomputed format: a segmentation's ids, or a channel's values, in several resolutions.

Arrays have the axes z, y, x; what the format calls a size, an offset or a resolution is x, y, z. Every resolution is
sharded (`sharded.py`). Memory holds the chunks of one file.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple
from pipelines.common.results import Results
from pipelines.common.sharded import Sharding, morton, morton_bits

Array = NDArray[Any]
Read = Callable[[int, int, int, int], Array]
"""Rows `[top, bottom)` of the sections `[start, stop)`, called with start, stop, top, bottom, in all their width."""

CHUNK: Triple = (8, 256, 256)
"""Extent of a chunk: a section in view takes few requests."""
BLOCK = 8
"""Side of a block of the encoding compressed_segmentation, in voxels."""
FILE = 16 * 2**20
"""Bytes of a file, at most, before they are compressed."""
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
    def grid(self) -> list[int]:
        """The number of chunks along x, y, z."""
        return [-(-side // chunk) for side, chunk in zip(reversed(self.shape), reversed(CHUNK), strict=True)]


def write_segmentation(results: Results, folder: str, labels: Array, frame: Frame, *, title: str, about: str) -> None:
    """Write ids (z, y, x; below 2**32) as a segmentation. In coarse resolutions the greatest id of a voxel stays.

    Raises Failure where a file cannot be written.
    """

    def rows(start: int, stop: int, top: int, bottom: int) -> Array:
        return labels[start:stop, top:bottom]

    kind = {"type": "segmentation", "data_type": "uint32"}
    encoding = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [BLOCK] * 3}
    empty: dict[Triple, bytes] = {}

    def encode(chunk: Array, sharding: Sharding) -> bytes:
        if chunk.any():
            return sharding.packed(compressed_segmentation(chunk.astype(np.uint32)))
        if chunk.shape not in empty:
            empty[chunk.shape] = sharding.packed(compressed_segmentation(np.zeros(chunk.shape, np.uint32)))
        return empty[chunk.shape]

    writer = _Writer(results, folder, rows, frame, itemsize=4, shrink=_greatest, encode=encode)
    writer.write(kind, encoding, title=title, about=about)


def write_image(results: Results, folder: str, read: Read, dtype: Any, frame: Frame, *, title: str, about: str) -> None:
    """Write a channel's values as an image; those of coarse resolutions are means, rounded down. Raises as above."""

    def encode(chunk: Array, sharding: Sharding) -> bytes:
        return sharding.packed(np.ascontiguousarray(chunk.astype(np.dtype(dtype).newbyteorder("<"))).tobytes(), 1)

    writer = _Writer(results, folder, read, frame, itemsize=np.dtype(dtype).itemsize, shrink=_mean, encode=encode)
    kind = {"type": "image", "data_type": np.dtype(dtype).name}
    writer.write(kind, {"encoding": "raw"}, title=title, about=about)


class _Writer:
    """Writes all resolutions of one volume, and its info file last."""

    def __init__(
        self,
        results: Results,
        folder: str,
        read: Read,
        frame: Frame,
        *,
        itemsize: int,
        shrink: Callable[[Array, Triple], Array],
        encode: Callable[[Array, Sharding], bytes],
    ) -> None:
        self._results, self._folder, self._read, self._frame = results, folder, read, frame
        self._itemsize, self._shrink, self._encode = itemsize, shrink, encode

    def write(self, kind: dict[str, str], encoding: dict[str, Any], *, title: str, about: str) -> None:
        info = f"{self._folder}/info"
        self._results.remove(info)
        scales = [self._scale(scale, encoding) for scale in _scales(self._frame)]
        content = {"@type": "neuroglancer_multiscale_volume", **kind, "num_channels": 1, "scales": scales}
        self._results.add(info, as_json(content), title=title, about=about, media_type="application/json")

    def _scale(self, scale: _Scale, encoding: dict[str, Any]) -> dict[str, Any]:
        """Write one resolution and return its description."""
        preshift = (FILE // (math.prod(CHUNK) * self._itemsize)).bit_length() - 1
        sharding = Sharding.of(morton_bits(scale.grid), preshift=preshift)
        place = f"{self._folder}/{scale.key}"
        sharding.write(
            self._chunks(scale, sharding), lambda name, content: self._results.put(f"{place}/{name}", content)
        )
        return {
            "key": scale.key,
            "size": scale.shape[::-1],
            "voxel_offset": scale.start[::-1],
            "resolution": scale.resolution[::-1],
            "chunk_sizes": [CHUNK[::-1]],
            **encoding,
            "sharding": sharding.described(),
        }

    def _chunks(self, scale: _Scale, sharding: Sharding) -> Iterator[tuple[int, bytes]]:
        """Number and content of each chunk, in the order of their numbers."""
        cells = np.array(list(itertools.product(*map(range, scale.grid))), np.int64)
        numbers = morton(cells, scale.grid)
        for i in np.argsort(numbers):
            first = [int(cell) * side for cell, side in zip(cells[i][::-1], CHUNK, strict=True)]
            stop = [min(a + side, most) for a, side, most in zip(first, CHUNK, scale.shape, strict=True)]
            yield int(numbers[i]), self._encode(self._chunk(scale, first, stop), sharding)

    def _chunk(self, scale: _Scale, first: Sequence[int], stop: Sequence[int]) -> Array:
        """Voxels `[first, stop)` of a resolution."""
        cut, pad = [], []
        for axis in range(3):
            factor, origin, most = scale.factor[axis], self._frame.start[axis], self._frame.shape[axis]
            a = (scale.start[axis] + first[axis]) * factor - origin
            b = (scale.start[axis] + stop[axis]) * factor - origin
            cut.append((max(0, a), min(b, most)))
            pad.append((max(0, -a), max(0, b - most)))
        (start, end), (top, bottom), (left, right) = cut
        chunk = self._read(start, end, top, bottom)[:, :, left:right]
        if max(scale.factor) == 1:
            return chunk
        return self._shrink(np.pad(chunk, pad, mode="edge"), scale.factor)


def _scales(frame: Frame) -> Iterator[_Scale]:
    """The resolutions, the finest first. Axes are halved that are not much coarser than the finest axis."""
    factor = (1, 1, 1)
    while True:
        start = tuple(a // f for a, f in zip(frame.start, factor, strict=True))
        stop = [-(-(a + n) // f) for a, n, f in zip(frame.start, frame.shape, factor, strict=True)]
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        nm = tuple(size * f for size, f in zip(frame.voxel_nm, factor, strict=True))
        yield _Scale(factor=factor, start=_triple(start), shape=_triple(shape), resolution=(nm[0], nm[1], nm[2]))
        if max(shape[1:]) <= COARSEST:
            return
        factor = _triple([f * 2 if size < 2 * min(nm) else f for f, size in zip(factor, nm, strict=True)])


def _triple(values: Sequence[int]) -> Triple:
    return values[0], values[1], values[2]


def _split(voxels: Array, factor: Triple) -> Array:
    """Each coarse voxel's voxels, on the axes 1, 3 and 5."""
    z, y, x = (side // f for side, f in zip(voxels.shape, factor, strict=True))
    return voxels.reshape(z, factor[0], y, factor[1], x, factor[2])


def _greatest(voxels: Array, factor: Triple) -> Array:
    found: Array = _split(voxels, factor).max(axis=(1, 3, 5))
    return found


def _mean(voxels: Array, factor: Triple) -> Array:
    # floating point, since a sum of uint64 overflows
    found: Array = np.floor(_split(voxels, factor).mean(axis=(1, 3, 5))).astype(voxels.dtype)
    return found


def compressed_segmentation(ids: NDArray[np.uint32]) -> bytes:
    """A chunk of ids (z, y, x) in Neuroglancer's encoding compressed_segmentation, in blocks of BLOCK voxels a side.

    A block is a table of its ids and, for each voxel, an index into the table of 0, 1, 2, 4, 8, 16 or 32 bits. Tables
    lie before all indices; blocks of one id have no indices.
    """
    grid = [-(-side // BLOCK) for side in ids.shape]
    ids = np.pad(ids, [(0, n * BLOCK - side) for n, side in zip(grid, ids.shape, strict=True)], mode="edge")
    split = ids.reshape(grid[0], BLOCK, grid[1], BLOCK, grid[2], BLOCK)
    blocks = split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, BLOCK**3)
    bits, tables, indices = _tabled(blocks)

    header = np.zeros((len(blocks), 2), np.uint32)
    lengths = np.array([len(table) for table in tables])
    starts = np.cumsum(lengths) - lengths + 2 * len(blocks)
    words = bits.astype(np.int64) * BLOCK**3 // 32
    values = np.cumsum(words) - words + 2 * len(blocks) + lengths.sum()
    header[:, 0] = starts | bits.astype(np.int64) << 24
    header[:, 1] = values
    one_channel = np.array([1], np.uint32)  # which begins after this word
    parts = [one_channel, header.reshape(-1), *tables, *indices]
    return np.concatenate(parts).astype("<u4").tobytes()


def _tabled(blocks: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], list[Array], list[Array]]:
    """For each block the bits of an index and its table; and the packed indices of the blocks that have any."""
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    bits = np.zeros(len(blocks), np.uint8)
    tables: list[Array] = list(low[:, None])
    mixed = np.flatnonzero(low != high)
    indices: list[Array] = []
    if mixed.size:
        some = blocks[mixed]
        upper = some == high[mixed, None]
        two = (upper | (some == low[mixed, None])).all(axis=1)
        packed = np.packbits(upper, axis=1, bitorder="little").view("<u4")
        for i, block, simple, index in zip(mixed.tolist(), some, two.tolist(), packed, strict=True):
            if simple:
                bits[i], tables[i] = 1, np.array([low[i], high[i]], np.uint32)
                indices.append(index)
            else:
                tables[i], places = np.unique(block, return_inverse=True)
                bits[i] = next(n for n in (2, 4, 8, 16, 32) if len(tables[i]) <= 1 << n)
                indices.append(_packed(places, int(bits[i])))
    return bits, tables, indices


def _packed(indices: Array, bits: int) -> NDArray[np.uint32]:
    """Indices of so many bits in words, the first in the lowest bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    apart: NDArray[np.uint32] = indices.astype(np.uint32).reshape(-1, len(shifts)) << shifts
    words: NDArray[np.uint32] = np.bitwise_or.reduce(apart, axis=1)
    return words


def as_json(content: object) -> bytes:
    """An info file."""
    return (json.dumps(content, indent=1) + "\n").encode()
