"""Chunks of precomputed volumes out of their shards, unpacked to no more than they may have.

tensorstore unpacks a shard's indices and chunks as a whole, whatever they unpack to, before it looks at their size. So
they are read and unpacked here, once. Chunks in an encoding are given to tensorstore then, each as a file in memory.
"""

from __future__ import annotations

import math
import os
import struct
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from volumes.described import MAX_CHUNK
from volumes.packed import TooLarge
from volumes.sharding import ENTRY, PLACE, Sharding, morton

MAX_INDEX = ENTRY * 2**20
"""Bytes to which the index of a minishard may unpack, of a million chunks."""
_WIDER = 8
"""Times its voxels' size that a chunk may have in an encoding: of noise, compressed_segmentation makes more of it."""
_SMALL = 2**20
"""Bytes that a chunk may always have in an encoding, whose headers are larger than few voxels."""
_HEADER = 2**10
"""Bytes that headers and an index may add for each chunk of a file."""
Cell = tuple[int, int, int]
"""Where a chunk is in the grid of chunks, (x, y, z)."""
Wait = Callable[[Any], Any]
"""Gives a future's result."""
Take = Callable[[Cell, NDArray[Any] | None], None]
"""Gets a chunk's voxels, (channel, z, y, x), as far as the volume reaches; None where it is not stored."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class _Part:
    """Bytes of a file, and of which chunks they tell: cells by the chunks' numbers."""

    file: str
    start: int
    size: int
    cells: Mapping[int, Cell]


class Shards:
    """The chunks of an array that lie in shards. Safe in several threads."""

    def __init__(self, array: Any, *, together: int, room: int) -> None:
        """Of an opened array of tensorstore's.

        So many chunks are held `together` at most, and no more than have `room` bytes, but one.
        """
        spec = array.spec().to_json()
        scale, shape = spec["scale_metadata"], array.chunk_layout.read_chunk.shape
        said = scale["sharding"]
        self._files, self._folder = array.kvstore, scale["key"]
        self._sharding = Sharding.of(said)
        self._packed = said["data_encoding"] == "gzip"
        self._index_packed = said["minishard_index_encoding"] == "gzip"
        self._alone = {
            "driver": spec["driver"],
            "dtype": spec["dtype"],
            "kvstore": "memory://",
            "multiscale_metadata": spec["multiscale_metadata"],
            "scale_metadata": {name: value for name, value in scale.items() if name != "sharding"} | {"key": "alone"},
        }
        self._raw, self._dtype = scale["encoding"] == "raw", array.dtype.numpy_dtype.newbyteorder("<")
        *self._sides, self._channels = shape
        self._first, self._sizes = scale["voxel_offset"], scale["size"]
        self._grid = [-(-size // side) for size, side in zip(self._sizes, self._sides, strict=True)]
        self._most_of_index = min(MAX_INDEX, ENTRY * math.prod(self._grid))
        voxels = math.prod(shape) * self._dtype.itemsize
        self._most = voxels if self._raw else _encoded(voxels)
        self._together = max(1, min(together, room // self._most))

    @classmethod
    def of(cls, array: Any, *, together: int, room: int) -> Shards | None:
        """As the constructor; None where the array's chunks are in no such shards."""
        scale = array.spec().to_json().get("scale_metadata") or {}
        return cls(array, together=together, room=room) if scale.get("sharding") else None

    def each(self, cells: Iterable[Cell], take: Take, wait: Wait) -> None:
        """Give `take` each chunk, in several threads; what it raises ends it.

        Raises TooLarge, ValueError for what is damaged, and what tensorstore and `wait` raise.
        """
        whole = self._decoder()
        groups = defaultdict[tuple[str, int], dict[int, Cell]](dict)
        for cell in cells:
            number = morton(cell, self._grid)
            groups[self._sharding.place(number)][number] = cell

        def places() -> Iterator[_Part]:
            for (file, minishard), wanted in groups.items():
                yield _Part(file, PLACE.size * minishard, PLACE.size, wanted)

        def index(place: _Part, stored: bytes | None) -> _Part | None:
            start, stop = PLACE.unpack(stored) if stored else (0, 0)
            if start == stop:
                for cell in place.cells.values():
                    take(cell, None)
                return None
            _check(stop - start, self._most_of_index, self._index_packed)
            return _Part(place.file, self._sharding.first + start, stop - start, place.cells)

        def chunks(index: _Part, stored: bytes | None) -> list[_Part]:
            found = []
            places = self._wanted(stored or b"", index.cells)
            for number, cell in index.cells.items():
                if number not in places:
                    take(cell, None)
                    continue
                start, size = places[number]
                _check(size, self._most, self._packed)
                found.append(_Part(index.file, start, size, {number: cell}))
            return found

        def chunk(part: _Part, stored: bytes | None) -> None:
            (cell,) = part.cells.values()
            take(cell, whole(cell, _unpacked(stored or b"", self._most) if self._packed else stored or b""))

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            indices = (each for each in self._done(threads, places(), index, wait) if each)
            parts = (each for some in self._done(threads, indices, chunks, wait) for each in some)
            for _ in self._done(threads, parts, chunk, wait):
                pass

    def _done(
        self,
        threads: ThreadPoolExecutor,
        parts: Iterable[_Part],
        work: Callable[[_Part, bytes | None], Found],
        wait: Wait,
    ) -> Iterator[Found]:
        """What threads make of parts of files, in order: some parts are read ahead. None: there is no such file."""

        def made(part: _Part, read: Any) -> Found:
            found = wait(read)
            if found.state == "missing":
                return work(part, None)
            if len(found.value) != part.size:
                raise ValueError("This is not as long as it should be.")
            return work(part, bytes(found.value))

        ahead = deque[tuple[Any, Future[Found]]]()
        try:
            for part in parts:
                if part.start + part.size >= 2**63:
                    raise ValueError("This is no place in a file.")
                span = slice(part.start, part.start + part.size)
                read = self._files.read(f"{self._folder}/{part.file}", byte_range=span)
                ahead.append((read, threads.submit(made, part, read)))
                if len(ahead) == self._together:
                    yield ahead.popleft()[1].result()
            while ahead:
                yield ahead.popleft()[1].result()
        finally:
            for read, task in ahead:
                task.cancel()
                read.cancel()

    def _wanted(self, stored: bytes, wanted: Mapping[int, Cell]) -> dict[int, tuple[int, int]]:
        """Where wanted chunks begin in a file, and their length, by an index as it is stored."""
        index = _unpacked(stored, self._most_of_index) if self._index_packed else stored
        try:
            entries = self._sharding.entries(index)
            return {number: (begin, size) for number, begin, size in entries if number in wanted}
        except struct.error:
            raise ValueError("This is no index of a shard.") from None

    def _decoder(self) -> Callable[[Cell, bytes], NDArray[Any]]:
        """What gives a chunk's voxels, as Take has them, by its content. Raises ValueError for what is damaged."""

        def as_it_is(cell: Cell, content: bytes) -> NDArray[Any]:
            z, y, x = (stop - start for start, stop in reversed(self._spans(cell)))
            return np.frombuffer(content, self._dtype).reshape(self._channels, z, y, x)

        if self._raw:
            return as_it_is
        context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
        alone: Any = ts.open(self._alone, create=True, context=context).result()

        def decoded(cell: Cell, content: bytes) -> NDArray[Any]:
            spans = self._spans(cell)
            name = "alone/" + "_".join(f"{start}-{stop}" for start, stop in spans)
            alone.kvstore[name] = content
            found: NDArray[Any] = alone[tuple(slice(*span) for span in spans)].T.read(order="C").result()
            del alone.kvstore[name]
            return found

        return decoded

    def _spans(self, cell: Cell) -> list[tuple[int, int]]:
        """The chunk's ranges along x, y and z."""
        sides = zip(cell, self._sides, self._first, self._sizes, strict=True)
        return [(first + at * side, first + min(size, (at + 1) * side)) for at, side, first, size in sides]


def most_stored(voxels: int, chunks: int) -> int:
    """Bytes that a file of so many chunks may have, at most, whose voxels have so many, however it is packed."""
    return _packed(_encoded(voxels)) + _HEADER * chunks


def _encoded(voxels: int) -> int:
    """Bytes that chunks may have in an encoding, at most."""
    return max(voxels, min(MAX_CHUNK, max(_SMALL, _WIDER * voxels)))


def _packed(most: int) -> int:
    """Bytes that so many may have when they are packed: at worst packing makes more of them, and headers hold names."""
    return most + most // 8 + _SMALL


def _check(size: int, most: int, packed: bool) -> None:
    """Check what an index says of a size in a file. Raises TooLarge, and ValueError for what is no size."""
    if size <= 0:
        raise ValueError("This is no size.")
    if size > (_packed(most) if packed else most):
        raise TooLarge


def _unpacked(packed: bytes, most: int) -> bytes:
    """What gzip has packed, alone. Raises TooLarge beyond `most` bytes, and ValueError for what is damaged."""
    unpacker = zlib_ng.decompressobj(31)
    try:
        content: bytes = unpacker.decompress(packed, most + 1)
    except zlib_ng.error:  # type: ignore[misc]  # its stub takes the class for an object
        raise ValueError("This cannot be unpacked.") from None
    if len(content) > most:
        raise TooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("This is cut short, or followed by something.")
    return content
