"""Why a database cannot be used at the start, in words for whoever wrote the settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from bot.domain import words

_SERVER_SAYS: Sequence[tuple[str, str]] = (
    ("connection refused", "nothing listens there"),
    ("timeout expired", "it did not answer in time"),
    ("timed out", "it did not answer in time"),
    ("resolve", "there is no host of that name"),
    ("translate host", "there is no host of that name"),
    ("password authentication failed", "it does not take the user and password"),
    ("no password supplied", "it wants a password"),
    ('role "', "it has no user of that name"),
    ("does not exist", "it has no database of that name"),
    ("unreachable", "there is no way to that host"),
    ("too many", "it has as many connections as it takes"),
)
"""Parts of what PostgreSQL and its library say, in small letters, and their meaning; the first that fits counts."""


def unreachable(url: sa.URL, error: DBAPIError) -> str:
    """A sentence that names the setting, the place and the reason; never the password, nor the driver's own words."""
    said = str(error.orig).lower()
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        place = f"The database {words.printable(str(path))}"
        setting = "NOMADS_DATABASE_URL, or NOMADS_DATA where that is not set"
        why = _file_problem(path, said)
    else:
        port = f":{url.port}" if url.port else ""
        place = words.printable(f"The database “{url.database or ''}” at {url.host or 'this machine'}{port}")
        setting = "NOMADS_DATABASE_URL"
        why = next((meaning for part, meaning in _SERVER_SAYS if part in said), "it does not answer as PostgreSQL does")
    return f"{place} cannot be used: {why}. Mend that, or correct {setting}."


def _file_problem(path: Path, said: str) -> str:
    if "locked" in said:
        return "another process keeps it locked"
    if path.is_dir():
        return "this is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {words.printable(str(path.parent))}"
    if "full" in said:
        return "the disk is full"
    if "readonly" in said or not os.access(path if path.exists() else path.parent, os.R_OK | os.W_OK):
        return "this user may not read and write it"
    return "it cannot be opened"
