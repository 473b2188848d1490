"""The state of a run on this machine. `supervise.py` explains the files of its folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from bot.domain.states import FINAL, JobState
from bot.domain.work import Cause, Observation
from bot.files.runs import SPOILED_RUN, ended, is_held, moment

VANISHED = "The program vanished: it or its supervisor was killed, or this machine restarted."
"""How a run ended whose supervisor could not say it."""


def has_vanished(run: Path, *, queued: bool = True) -> bool:
    """Whether the run's supervisor is gone, and nothing that can be read says how the run ended.

    Processes of the run may be alive. `queued`: whether the run had its place in the queue a moment ago; if not, it has
    been started.
    """
    if ended(run) or not ((run / "started").exists() or not queued) or is_held(run / "lock"):
        return False
    return not ended(run)  # it may have ended between the two looks


def look(run: Path, why_it_waits: str = "", *, queued: bool = True) -> Observation:
    """What the run's folder says. A run whose supervisor was killed, or whose files were spoiled, is FAILED.

    `queued`: whether the run had its place in the queue a moment ago.
    """
    if end := ended(run):
        return end
    alive = is_held(run / "lock")
    try:
        started = moment((run / "started").stat().st_mtime)
    except FileNotFoundError:
        if alive:
            return Observation(JobState.STARTING)
        waits = queued and not os.path.lexists(run / "exit.json")
        return ended(run) or (Observation(JobState.RUNNABLE, why_it_waits) if waits else SPOILED_RUN)
    if alive:
        return Observation(JobState.RUNNING, started_at=started)
    if end := ended(run):  # between the two looks
        return end
    if os.path.lexists(run / "exit.json"):
        return replace(SPOILED_RUN, started_at=started)
    return Observation(JobState.FAILED, VANISHED, cause=Cause.MACHINE, started_at=started)


def is_over(run: Path) -> bool:
    """Whether the run has ended."""
    return look(run).state in FINAL
