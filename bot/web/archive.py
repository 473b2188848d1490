"""A zip of many files, made while it is sent."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bot.domain.results import Opened

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


def zipped(top: str, files: Iterable[tuple[str, Opened]]) -> Iterator[bytes]:
    """A zip of the files below a folder named `top`, in pieces. Memory holds a piece of one file at a time.

    The files are stored as they are: what fills a results folder is compressed already. Errors of `files` pass, so that
    a zip that breaks off is cut short and not one that looks whole.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, opened in files:
            entry = zipfile.ZipInfo(f"{top}/{name}", date_time=time.gmtime()[:6])
            entry.external_attr = 0o644 << 16
            entry.file_size = opened.size
            with archive.open(entry, "w", force_zip64=True) as member:
                for piece in opened.pieces():
                    member.write(piece)
                    yield sink.taken()
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """What zipfile writes to: a file that cannot seek and is emptied all the time."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def write(self, content: Buffer, /) -> int:
        """Hold the content until it is taken."""
        view = memoryview(content)
        self._held += view
        return view.nbytes

    def taken(self) -> bytes:
        """What was written since the last call."""
        taken = bytes(self._held)
        self._held.clear()
        return taken
