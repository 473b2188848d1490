"""What a program leaves behind: files, and links to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol


@dataclass(frozen=True)
class ResultFile:
    """A file in a results folder; `name` is relative to the folder, `size` in bytes."""

    name: str
    size: int


class Readable(Protocol):
    """A file that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; none at the end."""

    def close(self) -> None:
        """Give the file back."""


PIECE = 256 * 1024
"""Bytes of a file that are held at a time while it is handed on."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A result that is open for reading, whatever becomes of its name. Its owner exhausts `pieces`, or closes it."""

    size: int
    """Bytes."""
    file: Readable
    status: os.stat_result | None = None
    """What the file was when it was opened, where it is one of this machine; `file` then has a descriptor."""

    def pieces(self) -> Iterator[bytes]:
        """The content in pieces of at most PIECE bytes; the file is closed with the iteration."""
        with closing(self.file):
            while piece := self.file.read(PIECE):
                yield piece


MAX_PART = 8 * 2**20
"""Bytes of a part of a file, at most: more than a chunk of a volume has."""


@dataclass(frozen=True, slots=True)
class Part:
    """Successive bytes of a file."""

    content: bytes
    """Empty where the part begins at the file's end or beyond it; shorter than asked for where the file ends in it."""
    size: int
    """Bytes of the whole file."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a layer."""

    content: bytes
    gzipped: bool


_SHOWN = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}


def shown_as(name: str) -> str:
    """The media type in which a browser shows such a file; empty where it should save the file instead."""
    return _SHOWN.get(PurePosixPath(name).suffix.lower(), "")


@dataclass(frozen=True, slots=True)
class Link:
    """An address a person can open, and when it expires; None: it works as long as the file exists."""

    url: str
    expires: datetime | None = None
    at_latest: bool = False
    """Whether it may end before `expires`, at a time that nothing tells."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """Until when all of some links work."""

    until: datetime
    at_latest: bool
    """Whether some may end before, at a time that nothing tells."""

    @property
    def how(self) -> str:
        """What follows the time in a sentence; empty where the time is certain."""
        return " at the latest" if self.at_latest else ""

    @classmethod
    def of(cls, links: Iterable[Link]) -> Lasting | None:
        """Until when all of these work; None: for good."""
        ending = [(link.expires, link.at_latest) for link in links if link.expires]
        return cls(min(end for end, _ in ending), any(early for _, early in ending)) if ending else None
