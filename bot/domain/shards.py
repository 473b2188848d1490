"""Chunks of a layer by their names, out of Neuroglancer's sharded files (`neuroglancer_uint64_sharded_v1`).

A viewer that reads shards by itself asks three times for a chunk: where the index is, the index, the chunk. Here it
asks once. A layer's description, its files and the names that are asked for are data from outside.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.domain.errors import NotFound
from bot.domain.results import MAX_PART
from volumes.sharding import PLACE, morton
from volumes.sharding import Sharding as Places

MAX_INDEX = 2**20
"""Bytes of an unpacked index, at most."""
MAX_FILE = 2**50
"""Bytes of a file, at most: a place beyond is none."""
Read = Callable[[str, int, int], bytes]
"""Bytes of the layer's file of that name, by start and length."""
Indices = dict[int, tuple[int, int]]
"""Number of each chunk to where it begins in its file, and its length."""
_BOX = re.compile(r"([0-9]{1,12})-[0-9]{1,12}_([0-9]{1,12})-[0-9]{1,12}_([0-9]{1,12})-[0-9]{1,12}", re.ASCII)
_CELL = re.compile(r"([0-9]{1,12})_([0-9]{1,12})_([0-9]{1,12})", re.ASCII)
_ID = re.compile(r"([0-9]{1,19})", re.ASCII)


class Sharding(BaseModel):
    """How a chunk's number says where it is."""

    model_config = ConfigDict(frozen=True)
    hash: Literal["identity"]
    preshift_bits: Annotated[int, Field(ge=0, le=64)]
    minishard_bits: Annotated[int, Field(ge=0, le=16)]
    shard_bits: Annotated[int, Field(ge=0, le=64)]
    minishard_index_encoding: Literal["gzip", "raw"] = "raw"
    data_encoding: Literal["gzip", "raw"] = "raw"

    def place(self, number: int) -> tuple[str, int]:
        """The name of the file that holds that chunk, and the number of its index there."""
        return self._lies.place(number)

    def index(self, minishard: int, read: Callable[[int, int], bytes]) -> Indices:
        """Where the chunks of a minishard are. Raises NotFound where that makes no sense."""
        lies = self._lies
        try:
            start, stop = PLACE.unpack(read(PLACE.size * minishard, PLACE.size))
            if not (0 <= stop - start <= MAX_INDEX and stop < MAX_FILE):
                raise NotFound("This is no place of an index.")
            packed = read(lies.first + start, stop - start) if stop > start else b""
            if self.minishard_index_encoding == "gzip" and packed:
                packed = zlib.decompressobj(31).decompress(packed, MAX_INDEX)
            return {number: (begin, size) for number, begin, size in lies.entries(packed)}
        except (struct.error, zlib.error):
            raise NotFound("This is no shard.") from None

    @property
    def _lies(self) -> Places:
        return Places(preshift=self.preshift_bits, minishard=self.minishard_bits, shard=self.shard_bits)


class Layer:
    """A layer's description, and its chunks by the names that they have in an unsharded layer."""

    def __init__(self, info: bytes) -> None:
        """Raises NotFound where the description cannot be read."""
        try:
            said = json.loads(info)
            self._levels: dict[str, tuple[Sharding, Callable[[str], int]]] = {}
            for level in [*said.get("scales", ()), *said.get("spatial", ()), *filter(None, [said.get("by_id")])]:
                if "sharding" in level:
                    self._levels[str(level["key"])] = Sharding.model_validate(level.pop("sharding")), _numbered(level)
        except (ValueError, ArithmeticError, TypeError, LookupError, AttributeError, RecursionError):
            raise NotFound("This is no description of a layer.") from None
        self.info = json.dumps(said).encode()
        """The description of the same layer without shards."""

    def chunk(
        self, name: str, read: Read, known: Callable[[str, Callable[[], Indices]], Indices]
    ) -> tuple[bytes, bool]:
        """A chunk as it lies in its file, and whether it is gzipped. Raises NotFound.

        `known` gives what was found before under a name, else what the function finds.
        """
        key, _, place = name.rpartition("/")
        if key not in self._levels:
            raise NotFound("There is no such level.")
        sharding, numbered = self._levels[key]
        number = numbered(place)
        file, minishard = sharding.place(number)
        file = f"{key}/{file}"

        def index() -> Indices:
            return sharding.index(minishard, lambda start, length: read(file, start, length))

        start, size = known(f"{file}#{minishard}", index).get(number, (0, 0))
        if not (0 < size <= MAX_PART and start < MAX_FILE):
            raise NotFound("There is no such chunk.")
        return read(file, start, size), sharding.data_encoding == "gzip"


def _numbered(level: Mapping[str, Any]) -> Callable[[str], int]:
    """How a chunk's name gives its number; raises NotFound for a name that has none."""
    if "size" in level:
        sides, begins, sizes = map(_three, (level["chunk_sizes"][0], level["voxel_offset"], level["size"]))
        grid = [-(-size // side) for size, side in zip(sizes, sides, strict=True)]

        def of_box(name: str) -> int:
            corner = zip(_parts(_BOX, name), begins, sides, strict=True)
            return _morton([(int(first) - begin) // side for first, begin, side in corner], grid)

        return of_box
    if "grid_shape" in level:
        shape = _three(level["grid_shape"])
        return lambda name: _morton([int(place) for place in _parts(_CELL, name)], shape)
    return lambda name: int(_parts(_ID, name)[0])


def _three(said: Sequence[Any]) -> tuple[int, int, int]:
    """The numbers x, y, z. Raises ValueError or TypeError where there are not three."""
    x, y, z = said
    return int(x), int(y), int(z)


def _parts(pattern: re.Pattern[str], name: str) -> Sequence[str]:
    found = pattern.fullmatch(name)
    if not found:
        raise NotFound("This is no name of a chunk.")
    return found.groups()


def _morton(cell: Sequence[int], grid: Sequence[int]) -> int:
    """The compressed Morton code of a cell (x, y, z) within a grid of that shape."""
    if not all(0 <= place < side for place, side in zip(cell, grid, strict=True)):
        raise NotFound("There is no such chunk.")
    return morton(cell, grid)
