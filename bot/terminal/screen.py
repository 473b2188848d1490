"""What a person at a terminal sees of jobs: colours, a table and a live bar. Anywhere else plain lines.

Scripts rely on the plain lines: whatever is added for people goes to stderr there. rich is imported only where stdout
is a terminal that can be drawn on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TextIO

from bot.domain import words
from bot.domain.ids import ID_LENGTH
from bot.domain.job import Job, now
from bot.domain.states import WAITING, JobState

NOTABLE = 0.1
"""Progress within a phase that is worth a plain line."""
BAR = 24
"""Width of the bar in characters."""
WIDEST = 1000
"""Characters of a row of a table."""
COLUMNS = ("JOB", "ACCEPTED", "STATE", "PIPELINE", "VOLUME", "BOX", "BY")
_WIDTHS = (ID_LENGTH, 16, 16)
"""Widths of the first columns of a plain table."""
_STYLES: Mapping[JobState, str] = {
    **dict.fromkeys(WAITING, "yellow"),
    JobState.ACCEPTED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "bold red",
    JobState.LOST: "bold red",
    JobState.CANCELLED: "magenta",
}


class Screen(Protocol):
    """Where a command prints."""

    def say(self, text: str, state: JobState | None = None) -> None:
        """Print text on stdout, its first line in the state's colour."""

    def note(self, text: str, state: JobState | None = None) -> None:
        """Print text on stderr, in the state's colour."""

    def table(self, jobs: Sequence[Job]) -> None:
        """Print one row a job below a header."""

    def show(self, job: Job) -> None:
        """Show how far a job is that is being waited for."""


@contextlib.contextmanager
def screen(*, progress: bool = True, plain: bool = False) -> Iterator[Screen]:
    """The screen for one command; a bar that is drawn is gone at the end of the block.

    `plain`: nothing is drawn even on a terminal. `progress`: plain output tells notable progress too.
    """
    if plain or not drawable(sys.stdout, os.environ):
        yield _Plain(progress=progress)
        return
    drawn = _Drawn()
    try:
        yield drawn
    finally:
        drawn.close()


def drawable(output: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the output is a terminal on which colours and a bar can be drawn."""
    return output.isatty() and environment.get("TERM", "").lower() not in ("", "dumb", "unknown")


class StderrHandler(logging.StreamHandler[TextIO]):
    """Logs to the stderr of the moment: while a bar is drawn, that one prints above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        self.stream = sys.stderr
        super().emit(record)


def how_far(job: Job) -> str:
    """How far a running job is, as `42 %, detecting; about 2 min 3 s left`; empty for any other.

    Of a job in blocks with the blocks: `42 %, working on blocks; 4 of 10 blocks; about 2 min 3 s left`.
    """
    if job.state is not JobState.RUNNING:
        return ""
    if job.asked:
        return "the pilot was shown; waiting for Go or Cancel in Slack"
    at = now()
    left = job.left(at)
    said = [f"{job.progress.part * 100:.0f} %, {job.progress.phase}"] if job.progress else []
    if left is not None:
        said.append(f"about {words.duration(left)} left")
    elif _overdue(job, at):
        said.append("longer than expected")
    if job.blocks and job.blocks.said:
        said.insert(1, job.blocks.said)
    return "; ".join(said)


def _overdue(job: Job, at: datetime) -> bool:
    expected = job.expected
    if expected is None or expected.together or job.started_at is None:
        return False
    return (at - job.started_at).total_seconds() > expected.seconds


def row(job: Job) -> tuple[str, ...]:
    """What COLUMNS say of a job."""
    request = job.request
    progress = f" {job.progress.part * 100:.0f} %" if job.progress and job.state is JobState.RUNNING else ""
    return (
        job.id,
        f"{job.accepted_at:%Y-%m-%d %H:%M}",
        words.state(job.state) + progress,
        request.pipeline,
        request.place,
        str(request.box),
        job.actor,
    )


class _Plain:
    """Lines for a file, a pipe or a terminal that cannot be drawn on."""

    def __init__(self, *, progress: bool) -> None:
        self._progress = progress
        self._shown: tuple[str, float] = ("", 0.0)

    def say(self, text: str, state: JobState | None = None) -> None:
        print(text, flush=True)

    def note(self, text: str, state: JobState | None = None) -> None:
        print(text, file=sys.stderr, flush=True)

    def table(self, jobs: Sequence[Job]) -> None:
        if jobs:  # scripts read stdout, one job a line
            self.note(_line(COLUMNS))
        for job in jobs:
            self.say(_line(row(job)))

    def show(self, job: Job) -> None:
        if not self._progress or job.ended:
            return
        phase, part = (job.progress.phase, job.progress.part) if job.progress else (job.waiting, 0.0)
        if phase and (phase != self._shown[0] or part - self._shown[1] >= NOTABLE):
            self._shown = (phase, part)
            self.note(f"{now():%H:%M:%S} {how_far(job) or job.waiting}")


def _line(cells: Sequence[str]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)]
    return "  ".join([*padded, *cells[len(padded) :]])


class _Drawn:
    """A terminal: colours, which rich leaves out for NO_COLOR, and a bar below the lines while a job is waited for."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._console = Console(highlight=False, markup=False, emoji=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(BAR),
            TextColumn("{task.fields[said]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self._console,
            auto_refresh=False,  # each look at the job draws it
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # a file that stderr goes to gets its lines as ever
        )
        self._task = self._bar.add_task("", said="", total=1.0)
        self._waiting = ""
        self._drawing = False

    def say(self, text: str, state: JobState | None = None) -> None:
        from rich.text import Text

        first, feed, rest = text.partition("\n")
        shown = Text.assemble((first, _STYLES[state] if state else ""), feed + rest)
        self._console.print(shown, soft_wrap=True)

    def note(self, text: str, state: JobState | None = None) -> None:
        if sys.stderr.isatty():
            self.say(text, state)
        else:
            print(text, file=sys.stderr, flush=True)

    def table(self, jobs: Sequence[Job]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        if not jobs:
            self.note("There are no such jobs.")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in COLUMNS:
            table.add_column(name)
        for job in jobs:
            cells = [Text(cell) for cell in row(job)]
            cells[COLUMNS.index("STATE")].stylize(_STYLES[job.state])
            table.add_row(*cells)
        # A narrow terminal breaks a long line itself, so that it can still be copied in one piece.
        Console(highlight=False, width=WIDEST).print(table, crop=False)

    def show(self, job: Job) -> None:
        if job.ended:
            self.close()
            return
        if job.waiting and job.waiting != self._waiting:  # a sentence, too long for the bar's line
            self._waiting = job.waiting
            self.say(f"{now():%H:%M:%S} {job.waiting}", job.state)
        part = job.progress.part if job.progress and job.state is JobState.RUNNING else None
        since = (job.started_at if job.state is JobState.RUNNING else None) or job.accepted_at
        took = words.duration(now() - since) if now() - since >= timedelta(seconds=1) else ""
        # Without a part the bar pulses.
        self._bar.update(
            self._task,
            description=words.state(job.state).capitalize(),
            total=1.0 if part is not None else None,
            completed=part or 0.0,
            said="; ".join(filter(None, (how_far(job), f"{took} so far" if took else ""))),
        )
        if not self._drawing:
            self._bar.start()
            self._drawing = True
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._drawing:
            self._bar.stop()
            self._drawing = False
