"""NOMADS_COMPUTE=local: programs run as subprocesses of this machine, and the bot serves what they write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bot.local.compute import LocalCompute, Tokens
from bot.local.logs import LocalLogs
from bot.local.results import LocalResults
from bot.settings import ROOT, Settings

SERVED_BY_THE_BOT = True
WATCH_INTERVAL = 0.5
"""Seconds between two looks at running jobs: a look reads a few files."""


@dataclass(frozen=True, kw_only=True)
class LocalBackend:
    """The adapters of this machine."""

    compute: LocalCompute
    logs: LocalLogs
    results: LocalResults
    secrets: None = None
    watch_interval: float = WATCH_INTERVAL
    announcement: str


def backend(settings: Settings, *, tokens: Tokens, key_for: Callable[[str], bytes]) -> LocalBackend:
    """This machine's adapters. `tokens` opens sealed rows."""
    data = settings.data.resolve()
    return LocalBackend(
        compute=LocalCompute(folder=data / "runs", tokens=tokens, root=ROOT, slots=settings.local_slots),
        logs=LocalLogs(folder=data / "runs"),
        results=LocalResults(folder=data / "results"),
        announcement=(
            f"Programs run on this machine itself, at most {settings.local_slots} at once; they share its memory and "
            "processors with everything else here. Set NOMADS_COMPUTE=aws to run them on AWS Batch."
        ),
    )
