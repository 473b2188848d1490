"""Where chunks lie in Neuroglancer's sharded files (`neuroglancer_uint64_sharded_v1`): chunks have numbers.

https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md is the format. What is said
here of files is said by others: numbers may be any, and lead anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLACE = struct.Struct("<2Q")
"""Start and stop of a minishard's index; a file begins with one for each of its minishards."""
ENTRY = 24
"""Bytes of an index for each chunk."""
_WORD, _LONG = 2**32 - 1, 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a chunk's number says in which file it lies, and in which minishard of the file."""

    murmur: bool = False
    """Whether numbers are hashed, with murmurhash3_x86_128."""
    preshift: int
    minishard: int
    shard: int

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Sharding:
        """Of the member `sharding` of a scale, once somebody has checked it."""
        return cls(
            murmur=said["hash"] == "murmurhash3_x86_128",
            preshift=said["preshift_bits"],
            minishard=said["minishard_bits"],
            shard=said["shard_bits"],
        )

    @property
    def first(self) -> int:
        """Bytes at a file's beginning that say where its indices are; other places count from their end."""
        return PLACE.size << self.minishard

    def place(self, number: int) -> tuple[str, int]:
        """The name of the file that holds the chunk of that number, and its minishard."""
        group = number >> self.preshift
        if self.murmur:
            group = _murmur(group)
        file = group >> self.minishard & (1 << self.shard) - 1
        return f"{file:0{max(1, -(-self.shard // 4))}x}.shard", group & (1 << self.minishard) - 1

    def entries(self, index: bytes) -> Iterator[tuple[int, int, int]]:
        """Of a minishard's unpacked index: each chunk's number, where it begins in its file, and its length.

        Raises struct.error where these are not such rows.
        """
        if len(index) % ENTRY:
            raise struct.error("This is no index.")
        third = len(index) // 3
        rows = (struct.iter_unpack("<Q", memoryview(index)[part * third : (part + 1) * third]) for part in range(3))
        number, end = 0, self.first
        for (more,), (gap,), (size,) in zip(*rows, strict=True):
            number, begin = (
                number + more & _LONG,
                end + gap & _LONG,
            )  # a chunk may lie before the one that is named last
            end = begin + size
            yield number, begin, size


def morton(cell: Sequence[int], grid: Sequence[int]) -> int:
    """A chunk's number: the compressed Morton code of its cell (x, y, z) within a grid of that shape."""
    code, out = 0, 0
    for bit in range(max(side - 1 for side in grid).bit_length()):
        for place, side in zip(cell, grid, strict=True):
            if 1 << bit < side:
                code |= (place >> bit & 1) << out
                out += 1
    return code


def _murmur(number: int) -> int:
    """The lower 64 bits of murmurhash3_x86_128, with the seed 0, of a number's eight bytes."""
    one, two, three = 0x239B961B, 0xAB0E9789, 0x38B34AE5
    h1 = _turned(number * one, 15) * two & _WORD
    h2 = _turned((number >> 32) * two, 16) * three & _WORD
    h1, h2, h3, h4 = h1 ^ 8, h2 ^ 8, 8, 8
    h1, h2, h3, h4 = _mixed(*map(_final, _mixed(h1, h2, h3, h4)))
    return h1 | h2 << 32


def _turned(word: int, bits: int) -> int:
    """The lowest 32 bits, turned left."""
    word &= _WORD
    return (word << bits | word >> 32 - bits) & _WORD


def _mixed(h1: int, h2: int, h3: int, h4: int) -> tuple[int, int, int, int]:
    h1 = h1 + h2 + h3 + h4 & _WORD
    return h1, h2 + h1 & _WORD, h3 + h1 & _WORD, h4 + h1 & _WORD


def _final(word: int) -> int:
    word = (word ^ word >> 16) * 0x85EBCA6B & _WORD
    word = (word ^ word >> 13) * 0xC2B2AE35 & _WORD
    return word ^ word >> 16
