"""Neuroglancer's sharded format (`neuroglancer_uint64_sharded_v1`): many chunks, each under a number, in few files.

A folder, S3 and any web server that answers range requests serve it alike: chunks are compressed within the file, so no
header has to say how. The same chunks give the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

Numbers = NDArray[np.uint64]
Put = Callable[[str, bytes], None]
"""Writes a file of that name."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a chunk's number says in which file it is, and where its index is within the file."""

    preshift: int
    """2**preshift successive numbers share a minishard, whose index is read at once."""
    minishard: int = 0
    """2**minishard minishards share a file."""
    shard: int
    """2**shard files at most."""
    gzip: bool = True
    """Whether chunks are compressed; the indices are always."""

    @classmethod
    def of(cls, bits: int, *, preshift: int, minishard: int = 0, gzip: bool = True) -> Sharding:
        """For numbers of `bits` bits."""
        return cls(preshift=preshift, minishard=minishard, shard=max(0, bits - preshift - minishard), gzip=gzip)

    def described(self) -> dict[str, Any]:
        """The member `sharding` of an info file."""
        return {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": "identity",
            "preshift_bits": self.preshift,
            "minishard_bits": self.minishard,
            "shard_bits": self.shard,
            "minishard_index_encoding": "gzip",
            "data_encoding": "gzip" if self.gzip else "raw",
        }

    def name(self, number: int) -> str:
        """The name of the file that holds the chunk of that number."""
        return f"{number >> self.preshift >> self.minishard:0{max(1, -(-self.shard // 4))}x}.shard"

    def write(self, chunks: Iterable[tuple[int, bytes]], put: Put) -> None:
        """Write chunks, (number, content) in ascending order of their numbers. Memory holds one file."""
        for name, of_file in itertools.groupby(chunks, key=lambda chunk: self.name(chunk[0])):
            minishards = []
            for minishard, group in itertools.groupby(of_file, key=lambda chunk: self._minishard(chunk[0])):
                numbers, contents = zip(*group, strict=True)
                sizes = np.array([len(content) for content in contents], np.uint64)
                minishards.append((minishard, np.array(numbers, np.uint64), sizes, b"".join(contents)))
            put(name, self._file(minishards))

    def write_alike(self, numbers: Numbers, size: int, contents: bytes | memoryview, put: Put) -> None:
        """Write uncompressed chunks of `size` bytes each: `contents` holds them in the order of ascending `numbers`."""
        ends = np.flatnonzero(np.diff(numbers >> np.uint64(self.preshift))) + 1
        parts = itertools.pairwise([0, *ends.tolist(), len(numbers)])
        for name, of_file in itertools.groupby(parts, key=lambda part: self.name(int(numbers[part[0]]))):
            minishards = [
                (
                    self._minishard(int(numbers[first])),
                    numbers[first:stop],
                    np.full(stop - first, size, np.uint64),
                    contents[first * size : stop * size],
                )
                for first, stop in of_file
            ]
            put(name, self._file(minishards))

    def packed(self, content: bytes, level: int = 6) -> bytes:
        """A chunk's content as it lies in the file."""
        return gzipped(content, level) if self.gzip else content

    def _minishard(self, number: int) -> int:
        return number >> self.preshift & (1 << self.minishard) - 1

    def _file(self, minishards: Sequence[tuple[int, Numbers, Numbers, bytes | memoryview]]) -> bytes:
        """A file: where each minishard's index is, all chunks, the indices. Places count from the end of the first."""
        places = np.zeros((1 << self.minishard, 2), "<u8")
        indices, start = [], 0
        end = sum(len(contents) for *_, contents in minishards)
        for minishard, numbers, sizes, contents in minishards:
            index = np.zeros((3, len(numbers)), "<u8")
            index[0] = np.diff(numbers, prepend=np.uint64(0))
            index[1, 0] = start  # the others begin where the one before ends
            index[2] = sizes
            indices.append(gzipped(index.tobytes()))
            places[minishard] = end, end + len(indices[-1])
            start += len(contents)
            end += len(indices[-1])
        return b"".join([places.tobytes(), *(contents for *_, contents in minishards), *indices])


def gzipped(content: bytes, level: int = 6) -> bytes:
    """The content in gzip's format, without a name and a time."""
    packer = zlib_ng.compressobj(level, zlib_ng.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


def morton(cells: NDArray[np.integer[Any]], grid: Sequence[int]) -> NDArray[np.unsignedinteger[Any]]:
    """The compressed Morton code of each cell: (n, 3) places within a grid of that shape, both x, y, z.

    Codes are of 32 bits where these are enough.
    """
    kind = np.dtype(np.uint32 if morton_bits(grid) <= 32 else np.uint64)
    along, out = [np.zeros(side, kind) for side in grid], 0
    for bit in range(max(_bits(side) for side in grid)):
        for codes, side in zip(along, grid, strict=True):
            if bit < _bits(side):
                codes |= (np.arange(side, dtype=kind) >> kind.type(bit) & kind.type(1)) << kind.type(out)
                out += 1
    found = np.zeros(len(cells), kind)
    for codes, axis in zip(along, cells.T, strict=True):
        found |= codes[axis]
    return found


def morton_bits(grid: Sequence[int]) -> int:
    """Bits of the largest code in a grid of that shape."""
    return sum(_bits(side) for side in grid)


def _bits(side: int) -> int:
    return (side - 1).bit_length()
