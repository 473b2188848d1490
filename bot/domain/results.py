"""What a program leaves behind: files, and the checked part of its results.json."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, BinaryIO, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contract.program import MAX_NOTE, MAX_NOTES, MAX_VIEWER


@dataclass(frozen=True)
class ResultFile:
    """A file in a results folder; `name` is relative to the folder, `size` in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class OpenedFile:
    """A result that is open for reading, whatever becomes of its name meanwhile; whoever asked for it closes it."""

    file: BinaryIO
    status: os.stat_result
    """What the file was when it was opened: its size in bytes, and when it was last changed."""


class ServedResults(Protocol):
    """Results that the bot serves itself, below addresses that hold a signature of their folder."""

    def admits(self, signature: str, folder: str) -> bool:
        """Whether that is the folder's signature; compared in constant time."""

    def list(self, folder: str) -> list[ResultFile]:
        """The folder's files, by name; empty where there is no such folder."""

    def open(self, signature: str, folder: str, name: str) -> OpenedFile:
        """The file behind an address, open. Raises NotFound alike for a missing file and for a wrong signature."""


def _result_name(name: str) -> str:
    """The path, relative to the folder. Raises ValueError where a part of it is no plain name."""
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("this is not the name of a file in the results folder")
    return name


ResultName = Annotated[str, Field(max_length=255), AfterValidator(_result_name)]


class Finding(BaseModel):
    """A file a program announces in its results.json, or left without announcing it."""

    model_config = ConfigDict(extra="ignore")
    name: ResultName
    title: Annotated[str, Field(max_length=255)] = ""
    media_type: Annotated[str, Field(max_length=127)] = "application/octet-stream"


class Summary(BaseModel):
    """What a finished job found: the bounded, checked part of its results.json (data from outside, never trusted)."""

    model_config = ConfigDict(extra="ignore")
    counts: Annotated[dict[Annotated[str, Field(max_length=64)], int], Field(max_length=20)] = {}
    files: Annotated[list[Finding], Field(max_length=100)] = []
    preview: ResultName | None = None
    viewer: Annotated[str, Field(max_length=MAX_VIEWER, pattern=r"^https?://[^\s<>|]+$")] | None = None
    notes: Annotated[list[Annotated[str, Field(max_length=MAX_NOTE)]], Field(max_length=MAX_NOTES)] = []


@dataclass(frozen=True, slots=True)
class Link:
    """An address a person can open, and when it expires; None: it works as long as the file exists."""

    url: str
    expires: datetime | None = None
