"""The folder of a run: its name, its lock, and its state. `supervise.py` explains the files."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bot.domain.errors import Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""A run's name, which cannot lead out of the folder of all runs."""


@contextmanager
def disk(what: str) -> Iterator[None]:
    """Turn OSErrors of the block into Unavailable; `what` begins the text."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what} cannot be used: {error.strerror or type(error).__name__}.") from error


@contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[int | None]:
    """Hold the file's lock; yields its descriptor, or None where another process holds it and `wait` is False."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield descriptor  # closing releases the lock, unless a child has inherited it
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the file's lock; False where there is no file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


VANISHED = "The program vanished: it or its supervisor was killed, or this machine restarted."
"""How a run ended whose supervisor could not say it."""


def has_vanished(run: Path) -> bool:
    """Whether the run's supervisor is gone and has not said how the run ended. Processes of the run may be alive."""
    if (run / "exit.json").exists() or not (run / "started").exists() or is_held(run / "lock"):
        return False
    return not (run / "exit.json").exists()  # it may have ended between the two looks


def look(run: Path, why_it_waits: str = "") -> Observation:
    """What the run's folder says. A run whose supervisor was killed is FAILED."""
    if ended := _ended(run):
        return ended
    alive = is_held(run / "lock")
    try:
        started = _time((run / "started").stat().st_mtime)
    except FileNotFoundError:
        return Observation(JobState.STARTING) if alive else Observation(JobState.RUNNABLE, why_it_waits)
    if alive:
        return Observation(JobState.RUNNING, started_at=started)
    return _ended(run) or Observation(  # the run may have ended between the two looks
        JobState.FAILED, VANISHED, cause=Cause.MACHINE, started_at=started
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC; None stays None."""
    return None if seconds is None else _time(seconds)


def _ended(run: Path) -> Observation | None:
    try:
        ended = json.loads((run / "exit.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Observation(
        JobState.SUCCEEDED if ended["code"] == 0 and not ended["reason"] else JobState.FAILED,
        ended["reason"],
        exit_code=ended["code"],
        cause=Cause(ended["cause"]) if ended.get("cause") else None,  # runs of older releases name none
        started_at=moment(ended["started"]),
        stopped_at=_time(ended["stopped"]),
    )
