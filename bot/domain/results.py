"""What a program leaves behind: files, and the checked part of its results.json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, BinaryIO, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bot.domain import words
from bot.domain.errors import NomadsError
from contract.program import MAX_NOTE, MAX_NOTES, MAX_VIEWER, RESULTS

MAX_COUNT = 10**15
"""The largest count that is believed."""


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


class Unreadable(NomadsError):
    """A results.json cannot be used; the text says why, in words for whoever wrote the program."""


def _line(text: str) -> str:
    """The text as one printable line that opens no code block: a program cannot fake the lines round it."""
    return " ".join(words.printable(text).replace("`", "'").split())


def _address(url: str) -> str:
    """The address. Raises ValueError where it cannot be printed."""
    if not url.isprintable():
        raise ValueError("an address is printable")
    return url


def _result_name(name: str) -> str:
    """The path, relative to the folder. Raises ValueError where a part of it is no plain name."""
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("this is not the name of a file in the results folder")
    return name


Line = Annotated[str, AfterValidator(_line)]
ResultName = Annotated[str, Field(max_length=255), AfterValidator(_result_name)]


class Finding(BaseModel):
    """A file a program announces in its results.json, or left without announcing it."""

    model_config = ConfigDict(extra="ignore")
    name: ResultName
    title: Annotated[Line, Field(max_length=255)] = ""
    media_type: Annotated[Line, Field(max_length=127)] = "application/octet-stream"


class Summary(BaseModel):
    """What a finished job found: the bounded, checked part of its results.json (data from outside, never trusted)."""

    model_config = ConfigDict(extra="ignore")
    counts: Annotated[dict[Annotated[Line, Field(max_length=64)], int], Field(max_length=20)] = {}
    files: Annotated[list[Finding], Field(max_length=100)] = []
    preview: ResultName | None = None
    viewer: (
        Annotated[str, Field(max_length=MAX_VIEWER, pattern=r"^https?://[^\s<>|]+$"), AfterValidator(_address)] | None
    ) = None
    notes: Annotated[list[Annotated[Line, Field(max_length=MAX_NOTE)]], Field(max_length=MAX_NOTES)] = []

    @classmethod
    def read(cls, content: bytes) -> Summary:
        """The checked part of a results.json, whatever a program has written there. Raises Unreadable."""
        try:
            said = json.loads(content)
        except RecursionError:
            raise Unreadable(f"{RESULTS} is nested too deeply.") from None
        except ValueError:  # no UTF-8, no JSON, a number of thousands of digits
            raise Unreadable(f"{RESULTS} is not JSON.") from None
        try:
            summary = cls.model_validate(said)
        except ValidationError as error:
            place = ".".join(_line(str(part))[:40] for part in error.errors()[0]["loc"][:3])
            what = f"“{place}” is not as the contract has it" if place else "it is not an object"
            raise Unreadable(f"{RESULTS} cannot be used: {what}.") from None
        if not all(name and 0 <= number <= MAX_COUNT for name, number in summary.counts.items()):
            raise Unreadable(f"{RESULTS} cannot be used: a count is a name and a number from 0 to {MAX_COUNT:,}.")
        return summary.model_copy(update={"notes": [note for note in summary.notes if note]})


@dataclass(frozen=True, slots=True)
class Link:
    """An address a person can open, and when it expires; None: it works as long as the file exists."""

    url: str
    expires: datetime | None = None
