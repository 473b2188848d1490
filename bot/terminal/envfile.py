"""Writes settings into `.env` and leaves the rest of it as it is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bot.domain.errors import NomadsError

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=")
HEADING = "# Written by nomads deploy; what you write elsewhere in this file stays."


def value(path: Path, setting: str) -> str:
    """The value that the file gives the setting, of one word; empty where it gives none.

    Raises NomadsError as `merge` does.
    """
    found = [line.partition("=")[2] for line in _lines(path) if (name := _LINE.match(line)) and name[1] == setting]
    return re.split(r"\s#", found[-1])[0].strip().strip("'\"") if found else ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError):
        raise NomadsError(f"{path} cannot be read, or is no text in UTF-8; nothing was written.") from None


def merge(path: Path, settings: Mapping[str, str]) -> list[str]:
    """Give these settings these values in the file; returns the names of those that changed, in order.

    Lines of other settings, comments and blank lines stay, in their order. A setting that was there is changed in its
    place (the last of several counts, as for who reads it); a new one comes at the end. Values are of one line, as
    AWS's names and JSON are. The file is replaced at once or not at all, and only its owner may read it. Raises
    NomadsError where it cannot be written or is no text.
    """
    lines = _lines(path)
    there = {found[1]: number for number, line in enumerate(lines) if (found := _LINE.match(line))}
    changed = []
    for name, value in settings.items():
        line = f"{name}={value}"  # without quotes: Docker would take them for a part of the value
        if name in there:
            if lines[there[name]] == line:
                continue
            lines[there[name]] = line
        else:
            if HEADING not in lines:
                lines += [*([""] if lines else []), HEADING]
            lines.append(line)
        changed.append(name)
    if changed:
        _replace(path, "\n".join(lines) + "\n")
    return changed


def _replace(path: Path, text: str) -> None:
    place = path.resolve()
    try:
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=".env-")  # of mode 600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, place)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise NomadsError(f"{path} cannot be written: {error.strerror}.") from None
