"""What chunks that are packed with blosc unpack to, from their first bytes.

tensorstore ends every other way of packing where a chunk grows beyond what its array says. Blosc's chunks it unpacks as
a whole, to the size that their header states; here that size is looked at first.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorstore as ts

_HEADER = struct.Struct("<4B3I")
"""Version, version of the format, flags, size of a type; bytes unpacked, of a block, and packed."""
_AT_ONCE = 256
"""Headers that are asked for before the first answer is waited for."""


class TooLarge(Exception):
    """A chunk says that it unpacks to more than it may."""


@dataclass(frozen=True)
class Shards:
    """How an array's shards hold its chunks."""

    options: Mapping[str, Any]
    """Of tensorstore's driver for a single shard."""
    order: tuple[int, ...]
    """The array's axis for each axis of a shard."""
    chunk: tuple[int, ...]
    """Extent of a chunk, by the shard's axes."""


@dataclass(frozen=True)
class Blosc:
    """The chunks of an array that blosc packs."""

    files: Any
    """tensorstore's store of the array's files."""
    most: int
    """Bytes to which a chunk may unpack."""
    ahead: int
    """Bytes before the header of the first chunk's block, at most; N5's blocks begin with their extent."""
    shards: Shards | None
    context: Any
    """tensorstore's, with its limits."""

    @classmethod
    def of(cls, array: Any, context: Any) -> Blosc | None:
        """Of an opened array of tensorstore's; None where blosc does not pack its chunks."""
        codec = array.codec.to_json() if array.codec else {}
        chunk = array.chunk_layout.read_chunk.shape
        most = math.prod(chunk) * array.dtype.numpy_dtype.itemsize
        alone = codec.get("compressor") or codec.get("compression") or {}
        if "blosc" in (alone.get("id"), alone.get("type")):
            ahead = 8 + 4 * len(chunk) if codec["driver"] == "n5" else 0
            return cls(array.kvstore, most, ahead, None, context)
        order, codecs, shards = tuple(range(len(chunk))), codec.get("codecs", []), None
        for each in codecs:
            options = each.get("configuration", {})
            if each["name"] == "transpose":
                order = tuple(order[axis] for axis in options["order"])
            elif each["name"] == "sharding_indexed":
                inner, outer = options["chunk_shape"], array.chunk_layout.write_chunk.shape
                grid = [outer[axis] // side for axis, side in zip(order, inner, strict=True)]
                about = {"grid_shape": grid, **{key: options[key] for key in ("index_codecs", "index_location")}}
                shards, codecs = Shards(about, order, tuple(inner)), options["codecs"]
                break
        packs = any(each["name"] == "blosc" for each in codecs)
        return cls(array.kvstore, most, 0, shards, context) if packs else None

    def check(self, chunks: Iterable[tuple[str, Sequence[range]]], wait: Callable[[Any], Any]) -> None:
        """Look at the headers of chunks: of each file its name, and which of its voxels are read, by the array's axes.

        `wait` gives a future's result. Raises TooLarge, and what `wait` raises. Chunks that are not stored, or are too
        short for a header, are passed over.
        """
        heads = self._heads(chunks, wait)
        while some := list(itertools.islice(heads, _AT_ONCE)):
            asked = [
                (store, key, store.read(key, byte_range=slice(0, self.ahead + _HEADER.size))) for store, key in some
            ]
            for store, key, future in asked:
                self._judge(_begun(store, key, future, wait))

    def _heads(
        self, chunks: Iterable[tuple[str, Sequence[range]]], wait: Callable[[Any], Any]
    ) -> Iterator[tuple[Any, str | bytes]]:
        """Stores, and the keys of chunks in them."""
        for name, read in chunks:
            if self.shards is None:
                yield self.files, name
                continue
            base = (self.files / name).spec().to_json()
            spec = {"driver": "zarr3_sharding_indexed", "base": base, **self.shards.options}
            shard = wait(ts.KvStore.open(spec, context=self.context))
            sides = zip(self.shards.order, self.shards.chunk, strict=True)
            spans = [range(read[axis].start // side, (read[axis].stop - 1) // side + 1) for axis, side in sides]
            for index in itertools.product(*spans):
                yield shard, struct.pack(f">{len(index)}I", *index)

    def _judge(self, begun: bytes) -> None:
        """Raises TooLarge for a chunk that begins so."""
        at = 0
        if self.ahead and len(begun) >= 4:  # N5: mode and number of axes, an extent by axis, and for mode 1 a length
            mode, axes = struct.unpack_from(">2H", begun)
            at = 4 + 4 * axes + 4 * (mode == 1)
        if len(begun) < at + _HEADER.size:
            return
        _, _, _, _, unpacked, block, _ = _HEADER.unpack_from(begun, at)
        if max(unpacked, block) > self.most:
            raise TooLarge


def _begun(store: Any, key: str | bytes, future: Any, wait: Callable[[Any], Any]) -> bytes:
    """The first bytes of a chunk; empty where none is stored."""
    try:
        found = wait(future)
    except (ValueError, OSError, RuntimeError) as error:
        short, whole = "OUT_OF_RANGE" in str(error), "was ignored by server" in str(error)
        if not short and not whole:
            raise
        found = wait(store.read(key))  # it is shorter than that, or its server sends files as a whole
    return bytes(found.value)
