"""Arrays in a compressed .npz: a ZIP archive of .npy files, packed by zlib-ng in a third of zlib's time.

Python's `zipfile` packs by zlib alone, so the archive is written here: by sections 4.3.7 to 4.3.16 of PKWARE's
APPNOTE 6.3.10, without the extensions for 4 GiB and more.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

_NEEDED = 20
"""The version of the format that a reader has to know, in tenths."""
_TIME, _DATE = 0, 1 << 5 | 1
"""1980-01-01 00:00:00, the first time that the format has."""
_FACTS = struct.Struct("<5H3I2H")
"""Of a file, at both places: version, flags, method, time, date, checksum, sizes, lengths of its name and of more."""
_PLACE = struct.Struct("<3H2I")
"""Of a file, in the directory: length of its comment, disk, attributes (two), where it begins."""
_END = struct.Struct("<4H2IH")
"""Disks (two), files (twice), the directory's size and place, length of the archive's comment."""
_MOST = 2**32 - 1


@dataclass(frozen=True)
class Slabs:
    """An array that is made some entries of the first axis at a time."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slabs: Iterable[NDArray[Any]]


def npz(arrays: Mapping[str, NDArray[Any] | Slabs], *, level: int = 6, runs: bool = False) -> bytes:
    """A compressed .npz that loads without pickle. The same arrays give the same bytes: the file holds no times.

    `level` is zlib's, from 1, the fastest, to 9. With `runs` nothing but runs of equal bytes is looked for: a mask has
    little else, and becomes smaller by that. Raises ValueError where a file, or the archive, would have 4 GiB or more.
    """
    out, directory = io.BytesIO(), []
    for name, array in arrays.items():
        start, path = out.tell(), f"{name}.npy".encode("ascii")
        out.write(b"PK\3\4" + bytes(_FACTS.size) + path)
        member = _Member(out, level=level, strategy=zlib_ng.Z_RLE if runs else zlib_ng.Z_DEFAULT_STRATEGY)
        _write(member, array)
        end, facts = member.end(), member.facts(len(path))
        if max(end, member.size) > _MOST:
            raise ValueError(f"{name} has 4 GiB or more, which an .npz of NOMADS does not hold.")
        out.seek(start + 4)
        out.write(facts)
        out.seek(end)
        version = struct.pack("<H", _NEEDED)
        directory.append(b"PK\1\2" + version + facts + _PLACE.pack(0, 0, 0, 0, start) + path)
    start, content = out.tell(), b"".join(directory)
    out.write(content + b"PK\5\6" + _END.pack(0, 0, len(directory), len(directory), len(content), start, 0))
    return out.getvalue()


class _Member:
    """A file of the archive, as it is written."""

    def __init__(self, out: io.BytesIO, *, level: int, strategy: int) -> None:
        self._out, self._from = out, out.tell()
        self._packer = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15, 8, strategy)
        self._checksum, self.size = 0, 0
        """Bytes before they were packed."""

    def write(self, content: bytes | memoryview) -> int:
        """Pack some more; returns the number of bytes, as files do."""
        content = memoryview(content).cast("B")
        self._checksum = zlib_ng.crc32(content, self._checksum)
        self.size += len(content)
        self._out.write(self._packer.compress(content))
        return len(content)

    def end(self) -> int:
        """Pack what is left; returns the place of what follows."""
        self._out.write(self._packer.flush())
        self._to = self._out.tell()
        return self._to

    def facts(self, name: int) -> bytes:
        """What the archive says of it, once it has ended; `name` is the length of its name."""
        packed = self._to - self._from
        return _FACTS.pack(_NEEDED, 0, zlib_ng.DEFLATED, _TIME, _DATE, self._checksum, packed, self.size, name, 0)


def _write(member: _Member, array: NDArray[Any] | Slabs) -> None:
    if not isinstance(array, Slabs):
        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
        return
    described = np.lib.format.dtype_to_descr(array.dtype)
    header = {"descr": described, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(member, header)
    for slab in filter(np.size, array.slabs):  # no memoryview casts one without bytes
        member.write(np.ascontiguousarray(slab).data)
