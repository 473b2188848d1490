"""The folder of a run: its name, its lock, and how it ended.

Backends whose runs lie in folders share it. The compute id of a run is its name, which is its folder's.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bot.domain.errors import Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Work

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""A run's name, which cannot lead out of the folder of all runs."""
RUN = re.compile(rf"({NAME.pattern})(?:\.([0-9]{{1,6}}))?")
"""The compute id of a run: its name, or the name of an array and its number within it."""


def folder_of(runs: Path, compute_id: str) -> Path | None:
    """Where the run of that id lies, below the folder of all runs; None: no run has such an id."""
    found = RUN.fullmatch(compute_id)
    return runs.joinpath(*(part for part in found.groups() if part)) if found else None


def check(work: Work, problem: str, *, most: int, place: str, exposed: str) -> None:
    """Raise Refused for work that cannot run at a place in folders: for that problem, its name, or its count.

    So is work whose token stands on a command line; `exposed` says who could read it there, and what to do.
    """
    if problem:
        raise Refused(f"{work.pipeline}: {problem}")
    if work.token_argument:
        raise Refused(f"{work.pipeline} takes its BOSS token on the command line, where {exposed}.")
    if not NAME.fullmatch(work.name):
        raise Refused("A run's name has letters, digits, - and _, at most 128 of them.")
    if work.count is not None and not 1 <= work.count <= most:
        raise Refused(f"An array has 1 to {most:,} programs {place}, and this one {work.count:,}.")


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


MAX_EXIT = 64 * 1024
"""Bytes of an exit.json that are read: its reason has a few hundred characters."""
SPOILED = "How it ended is not known: something other than NOMADS has changed the files of its run."
SPOILED_RUN = Observation(JobState.FAILED, SPOILED, cause=Cause.UNKNOWN)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC; None stays None."""
    return None if seconds is None else _time(seconds)


def ended(run: Path) -> Observation | None:
    """How the run ended, by its exit.json; None: there is none, or a program has put something else in its place."""
    try:
        with open(run / "exit.json", "rb", opener=_at_once) as file:
            said = json.loads(file.read(MAX_EXIT))
        reason, code = said["reason"], said["code"]
        if not isinstance(reason, str) or not (code is None or (type(code) is int and abs(code) < 2**31)):
            return None
        return Observation(
            JobState.SUCCEEDED if code == 0 and not reason else JobState.FAILED,
            reason,
            exit_code=code,
            cause=Cause(said["cause"]) if said.get("cause") else None,  # runs of older releases name none
            started_at=moment(said["started"]),
            stopped_at=_time(said["stopped"]),
            children={JobState(state): int(number) for state, number in said.get("children", {}).items()},
        )
    except (FileNotFoundError, IsADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _at_once(path: str, flags: int) -> int:
    """An opener that does not wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
