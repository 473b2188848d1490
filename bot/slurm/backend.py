"""NOMADS_COMPUTE=slurm: programs run on a cluster, and the bot serves what they write to a folder that both share."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bot.files.logs import FolderLogs
from bot.files.results import FolderResults
from bot.settings import ROOT, Settings, read
from bot.slurm.commands import Commands
from bot.slurm.compute import SlurmCompute, Tokens, is_over
from bot.slurm.config import SlurmConfig
from bot.slurm.doctor import Doctor

SERVED_BY_THE_BOT = True
SETTINGS = SlurmConfig
WATCH_INTERVAL = 10.0
"""Seconds between two looks at running jobs: a look is one squeue, and Slurm's controller serves everybody."""


@dataclass(frozen=True, kw_only=True)
class SlurmBackend:
    """The adapters of one cluster."""

    compute: SlurmCompute
    logs: FolderLogs
    results: FolderResults
    secrets: None = None
    events: None = None
    watch_interval: float = WATCH_INTERVAL
    submissions: None = None
    announcement: str
    config: SlurmConfig


def backend(settings: Settings, *, tokens: Tokens, key_for: Callable[[str], bytes]) -> SlurmBackend:
    """The adapters of the cluster that this machine's Slurm commands reach. None is run. `tokens` opens sealed rows.

    Raises NomadsError, which names every missing and wrong setting.
    """
    config = read(SETTINGS)
    return SlurmBackend(
        compute=SlurmCompute(config=config, tokens=tokens, root=ROOT),
        logs=FolderLogs(folder=config.folder / "runs", is_over=is_over),
        results=FolderResults(folder=config.folder / "results"),
        announcement=(
            f"Programs run on the cluster's nodes as {_user()}, the bot's own user, and can read what that user can "
            f"there. Keep NOMADS_DATA ({settings.data.resolve()}), where the key and the database lie, on a disk that "
            "the nodes do not see."
        ),
        config=config,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.geteuid()}"


def checks(made: SlurmBackend, pipelines: Iterable[object]) -> Mapping[str, Callable[[], str]]:
    """What `doctor` tries of this backend: see `Doctor`."""
    return Doctor(made.config, Commands(patience=made.config.patience)).checks
