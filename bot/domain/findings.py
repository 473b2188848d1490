"""The fields of a results.json, each checked by itself: what cannot be used is left out, and said in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bot.domain import urls, words
from contract.program import MAX_NOTE, MAX_NOTES, MAX_VIEWER

MAX_COUNT = 10**15
"""The largest count that is believed."""
MAX_COUNTS = 20
"""Counts that are taken, at most."""
MAX_COUNTED = 64
"""Characters of what is counted, at most."""
MAX_FILES = 100
"""Files that are taken, at most."""
T = TypeVar("T")


def line(text: str) -> str:
    """The text as one printable line that opens no code block: a program cannot fake the lines round it."""
    return " ".join(words.printable(text).replace("`", "'").split())


def _result_name(name: str) -> str:
    """The path, relative to the folder. Raises ValueError where a part of it is no plain name."""
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("this is not the name of a file in the results folder")
    return name


def _address(url: str) -> str:
    """The address. Raises ValueError where a browser cannot open it, or a link in Slack cannot hold it."""
    if re.search(r"[<>|]", url):
        raise ValueError("this would end a link of Slack's")
    return urls.web(url)


Line = Annotated[str, AfterValidator(line)]
ResultName = Annotated[str, Field(max_length=255), AfterValidator(_result_name)]


class Finding(BaseModel):
    """A file a program announces in its results.json, or left without announcing it."""

    model_config = ConfigDict(extra="ignore")
    name: ResultName
    title: Annotated[Line, Field(max_length=255)] = ""
    """A word or two, by which links to it are named."""
    about: Annotated[Line, Field(max_length=500)] = ""
    """What it is, in a sentence."""
    media_type: Annotated[Line, Field(max_length=127)] = "application/octet-stream"

    @property
    def folder(self) -> str:
        """The folder that this announces, with a slash, where it is one of many files for a viewer; else empty."""
        return self.name.removesuffix("info") if self.name.endswith("/info") else ""


_COUNTED: TypeAdapter[str] = TypeAdapter(Annotated[Line, Field(max_length=MAX_COUNTED)])
_FINDING = TypeAdapter(Finding)
_NOTE: TypeAdapter[str] = TypeAdapter(Annotated[Line, Field(max_length=MAX_NOTE)])
_RESULT_NAME: TypeAdapter[str] = TypeAdapter(ResultName)
_VIEWER: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(max_length=MAX_VIEWER), AfterValidator(_address)])


class Reading:
    """What of a results.json can be used, whatever else is wrong with it, and what cannot."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._left_out: Counter[str] = Counter()
        self.counts = self._counts(self._all("counts", said, dict))
        """What is counted, in a line, to how many."""
        self.files = self._files(self._all("files", said, list))
        self.notes = self._notes(self._all("notes", said, list))
        self.preview = self._one(
            "a preview that is no path of a file in the results folder", said, "preview", _RESULT_NAME
        )
        """A file's name."""
        self.viewer = self._one(
            f"a viewer that is no address of http or https, {MAX_VIEWER:,} characters at most", said, "viewer", _VIEWER
        )
        """An address."""

    @property
    def left_out(self) -> str:
        """What cannot be used, and how often, such as `files beyond the first 100 (12)`; empty: nothing."""
        return "; ".join(what if what.startswith("a ") else f"{what} ({n})" for what, n in self._left_out.items())

    def _counts(self, said: Mapping[str, Any]) -> dict[str, int]:
        found: dict[str, int] = {}
        for written, number in said.items():
            name = _fitting(_COUNTED, written)
            if not name:
                self._left_out[f"counts without a name of 1 to {MAX_COUNTED} characters"] += 1
            elif not _is_count(number):
                self._left_out[f"counts that are no whole numbers from 0 to {MAX_COUNT:,}"] += 1
            elif len(found) == MAX_COUNTS and name not in found:
                self._left_out[f"counts beyond the first {MAX_COUNTS}"] += 1
            else:
                found[name] = int(number)
        return found

    def _files(self, said: list[Any]) -> list[Finding]:
        found: list[Finding] = []
        for written in said:
            file = _fitting(_FINDING, written) or self._in_part(written)
            if file is None:
                self._left_out["files whose name is no path in the results folder"] += 1
            elif len(found) == MAX_FILES:
                self._left_out[f"files beyond the first {MAX_FILES}"] += 1
            else:
                found.append(file)
        return found

    def _in_part(self, written: Any) -> Finding | None:
        """The file with what can be used of the words about it; None where its name cannot be used."""
        if not isinstance(written, dict) or _fitting(_RESULT_NAME, written.get("name")) is None:
            return None
        self._left_out["titles, descriptions or media types of files that are no texts or too long"] += 1
        usable = {name: value for name, value in written.items() if _fitting(_FINDING, {"name": "x", name: value})}
        return Finding.model_validate(usable)

    def _notes(self, said: list[Any]) -> list[str]:
        found: list[str] = []
        for written in said:
            note = _fitting(_NOTE, written)
            if note is None:
                self._left_out[f"notes that are no texts of {MAX_NOTE} characters at most"] += 1
            elif note and len(found) == MAX_NOTES:
                self._left_out[f"notes beyond the first {MAX_NOTES}"] += 1
            elif note:
                found.append(note)
        return found

    def _all(self, name: str, said: Mapping[str, Any], kind: type[T]) -> T:
        """The field, which holds several things; empty where it is not of its kind."""
        value = said.get(name)
        if isinstance(value, kind):
            return value
        if value is not None:
            self._left_out[f"a field “{name}” that is no {'list' if kind is list else 'object'}"] += 1
        return kind()

    def _one(self, wrong: str, said: Mapping[str, Any], name: str, kind: TypeAdapter[str]) -> str | None:
        value = said.get(name)
        found = _fitting(kind, value)
        if found is None and value is not None:
            self._left_out[wrong] += 1
        return found


def _fitting(kind: TypeAdapter[T], value: Any) -> T | None:
    """The value, where it is of that kind; else None."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def _is_count(value: Any) -> bool:
    """Whether JSON says a count: a whole number, `12.0` among them, and neither `true` nor `"12"`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= MAX_COUNT and value == int(value)
