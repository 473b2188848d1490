"""NOMADS_COMPUTE=local: programs run as subprocesses of this machine, and the bot serves what they write."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.domain.errors import NomadsError
from bot.files.logs import FolderLogs
from bot.files.records import FILE_MODE, FOLDER_MODE
from bot.files.results import FolderResults
from bot.local.compute import LocalCompute, Tokens
from bot.local.confinement import (
    OFF,
    PASSAGE_MODE,
    Impossible,
    Limits,
    User,
    narrowed,
    tighten,
    users,
)
from bot.local.runs import is_over
from bot.settings import ENV_FILE, ROOT, Settings

SERVED_BY_THE_BOT = True
WATCH_INTERVAL = 0.5
"""Seconds between two looks at running jobs: a look reads a few files."""


@dataclass(frozen=True, kw_only=True)
class LocalBackend:
    """The adapters of this machine."""

    compute: LocalCompute
    logs: FolderLogs
    results: FolderResults
    secrets: None = None
    events: None = None
    watch_interval: float = WATCH_INTERVAL
    submissions: None = None
    announcement: str


def backend(settings: Settings, *, tokens: Tokens, key_for: Callable[[str], bytes]) -> LocalBackend:
    """This machine's adapters. `tokens` opens sealed rows.

    Raises NomadsError where programs are to run as another user and cannot.
    """
    data = settings.data.resolve()
    users, trusted = _users(settings, reads=[ROOT, Path(sys.executable), data.parent])
    tighten(data / "runs", folders=0o700, files=0o600)
    tighten(data / "results", folders=FOLDER_MODE, files=FILE_MODE)
    open_to_others = [narrowed(data, take=0o022)]
    if users:
        data.chmod(PASSAGE_MODE)
        open_to_others.append(narrowed(Path(ENV_FILE).resolve(), take=0o077))
    return LocalBackend(
        compute=LocalCompute(
            folder=data / "runs",
            tokens=tokens,
            root=ROOT,
            slots=settings.local_slots,
            users=users,
            limits=_limits(settings),
            scratch=data / "scratch",
        ),
        logs=FolderLogs(folder=data / "runs", is_over=is_over),
        results=FolderResults(folder=data / "results", owners=[user.uid for user in users]),
        announcement=(
            f"Programs run on this machine itself, at most {settings.local_slots} at once; they share its memory and "
            f"processors with everything else here. Set NOMADS_COMPUTE=aws to run them on AWS Batch.{trusted}"
            + "".join(f" {sentence}" for sentence in open_to_others if sentence)
        ),
    )


def _users(settings: Settings, *, reads: Sequence[Path]) -> tuple[list[User], str]:
    """The users of programs; where there are none, the sentence that says so."""
    wanted = settings.local_user
    try:
        return users(wanted, settings.local_slots, reads=reads), ""
    except Impossible as error:
        if wanted not in ("", OFF):
            raise NomadsError(
                f"NOMADS_LOCAL_USER: programs cannot run as {wanted}: {error}. Mend that (in a container, start it "
                f"with --user 0), or set NOMADS_LOCAL_USER={OFF} and trust programs with the bot's key and database."
            ) from None
        return [], (
            " Programs are trusted with everything: they run as the bot's own user and can read its key, its database "
            f"and its tokens, since {error}."
        )


def _limits(settings: Settings) -> Limits:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Limits(
        memory=settings.local_memory or machine * 9 // 10,
        processes=settings.local_processes,
        files=settings.local_files,
        disk=settings.local_disk,
        log=settings.local_log,
    )
