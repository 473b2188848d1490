"""What is written into the folder of a run, and what is read of its log.

`bot/local/supervise.py` uses this module, so it imports the standard library and `contract` alone.
"""

from __future__ import annotations

import bisect
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contract import masking
from contract.program import MEANINGS, read_progress

FILE_MODE = 0o640
"""Who may read a result, whatever the umask: its owner, and the owner's group."""
FOLDER_MODE = 0o750
"""The same for a folder of results."""
TAIL = 64 * 1024
"""Bytes at the end of a log that are read for its last lines."""
MAX_REASON = 500
"""Characters of a reason that are stored."""


def tail(log: Path) -> list[tuple[str, int]]:
    """The last lines of a log, oldest first, out of its last TAIL bytes, each with the byte at which it ends.

    Lines have no line feeds or carriage returns at their ends; bytes that are no UTF-8 become U+FFFD.
    Empty where there is no log.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = end = file.seek(max(0, size - TAIL))
            whole = file.read(TAIL).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    lines = []
    for line in whole:
        end += len(line)
        lines.append((line.rstrip(b"\r\n").decode(errors="replace"), end))
    return lines[1:] if start and len(lines) > 1 else lines  # the first line is cut somewhere


def times(run: Path, ends: Sequence[int]) -> list[float | None]:
    """When the run's log had grown to each of these sizes (ascending), in seconds since 1970; None: not known.

    Times are as late as the notes of the log's size, which whoever runs the program takes. Output after the last note
    has the time at which the log was last written.
    """
    try:
        notes = _notes(run / "log.times", back_to=ends[0] if ends else 0)
        written = (run / "log").stat().st_mtime
    except FileNotFoundError:
        return [None] * len(ends)
    last = max(written, notes[-1][0]) if notes else written  # file times are a little behind the clock
    places = (bisect.bisect_left(notes, end, key=lambda note: note[1]) for end in ends)
    return [notes[place][0] if place < len(notes) else last for place in places]


def _notes(path: Path, *, back_to: int) -> list[tuple[float, int]]:
    """The last notes, oldest first, back to a size below `back_to`: a long log's notes are not read whole."""
    notes: list[tuple[float, int]] = []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        block = 4096
        while True:
            start = file.seek(max(0, size - block))
            lines = file.read(size - start).split(b"\n")[:-1]  # a note cut short by a kill has no line feed
            notes = [note for line in lines[1 if start else 0 :] if (note := _note(line))]
            if not start or (notes and notes[0][1] < back_to):
                return notes
            block *= 4


def _note(line: bytes) -> tuple[float, int] | None:
    try:
        at, size = line.split()
        return float(at), int(size)
    except ValueError:  # a machine that lost its power may leave anything
        return None


def private(path: str, flags: int) -> int:
    """An opener of files that only their owner reads, whatever the umask."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def write(path: Path, content: str) -> None:
    """Write a file, whole or not at all, and flush it to disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    with open(temporary, "x", encoding="utf-8", opener=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_exit(
    run: Path,
    *,
    code: int | None,
    reason: str,
    started: float | None = None,
    stopped: float | None = None,
    cause: str | None = None,
    children: Mapping[str, int] | None = None,
) -> None:
    """Record how the run ended: with success where the code is 0 and the reason is empty.

    `started` and `stopped` are in seconds since 1970; `stopped` None: now. `cause` is one of `bot.domain.work.Cause`,
    where it was not the program that failed. `children`, of an array: how many programs ended in which state.
    """
    stopped = time.time() if stopped is None else stopped
    ended: dict[str, Any] = {"code": code, "started": started, "stopped": stopped, "reason": reason, "cause": cause}
    if children:
        ended["children"] = children
    write(run / "exit.json", json.dumps(ended))


def explain(code: int, log: Path, *, secret: str = "") -> str:
    """Why the program failed, in words: its last line, or the code's meaning; empty for code 0."""
    if code == 0:
        return ""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " This machine may be short of memory." if -code == signal.SIGKILL else ""
        return f"The program was ended by signal {name}.{hint}"
    # The token is hidden before the last line is chosen: it may be split over several.
    text = masking.hidden("\n".join(line for line, _ in tail(log)), secret, mask=masking.SHORT_MASK)
    last = next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
    last = "" if read_progress(last) else last
    return last[:MAX_REASON] or MEANINGS.get(code, f"The program ended with exit code {code}.")


def cancelled(run: Path) -> str:
    """Why the run is to be cancelled; empty if it is not."""
    try:
        return (run / "cancel").read_text(encoding="utf-8") or "It was cancelled."
    except FileNotFoundError:
        return ""
