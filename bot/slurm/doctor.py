"""What `nomads doctor` tries of a cluster. Nothing is submitted."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from bot.domain.errors import NomadsError, Refused
from bot.slurm.commands import Commands
from bot.slurm.config import SlurmConfig

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
"""Slurm's commands that NOMADS uses, `sinfo` by the doctor alone."""


class Doctor:
    """Tests the cluster's parts, each once."""

    def __init__(self, config: SlurmConfig, commands: Commands) -> None:
        self._config = config
        self._commands = commands

    @property
    def checks(self) -> Mapping[str, Callable[[], str]]:
        """The checks, by name. Each returns what it could not look at, and raises NomadsError for what is wrong."""
        return {
            "slurm commands": self._installed,
            "slurm controller": self._controller,
            "slurm partition": self._partition,
            "slurm arrays": self._arrays,
            "shared folder": self._folder,
        }

    def _installed(self) -> str:
        if missing := [name for name in COMMANDS if shutil.which(name) is None]:
            raise NomadsError(
                f"This machine lacks {', '.join(missing)}: install Slurm's commands (on Debian the package "
                "slurm-client) and have them in PATH."
            )
        return ""

    def _controller(self) -> str:
        said = " ".join(self._commands.run("scontrol", "ping").split())
        if " UP" not in f" {said}":
            raise NomadsError(f"No controller of Slurm's answers: {said[:200]}.")
        return ""

    def _partition(self) -> str:
        """Whether the cluster takes a small job with these settings, which it is asked without submitting one."""
        config = self._config
        if config.partition:
            said = self._commands.run("sinfo", "--noheader", "--format=%a", f"--partition={config.partition}").split()
            if not said:
                raise NomadsError(
                    f"NOMADS_SLURM_PARTITION: the cluster has no partition {config.partition}; sinfo lists them."
                )
            if "up" not in said:
                raise NomadsError(f"The partition {config.partition} is {said[0]}: jobs wait there until it is up.")
        where = [f"--partition={config.partition}"] if config.partition else []
        where += [f"--account={config.account}"] if config.account else []
        try:
            self._commands.run(
                "sbatch", "--test-only", *config.arguments, *where, "--ntasks=1", "--time=1", "--wrap=true"
            )
        except Refused as error:
            raise NomadsError(f"The cluster would not take a job: {error}") from None
        return ""

    def _arrays(self) -> str:
        found = re.search(r"MaxArraySize\s*=\s*([0-9]+)", self._commands.run("scontrol", "show", "config"))
        if found and self._config.max_array > int(found[1]):
            raise NomadsError(
                f"NOMADS_SLURM_MAX_ARRAY is {self._config.max_array}, and the cluster takes arrays of {found[1]} at "
                "most (its MaxArraySize)."
            )
        return ""

    def _folder(self) -> str:
        folder = self._config.folder
        try:
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            probe = folder / f".nomads-doctor-{secrets.token_hex(4)}"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise NomadsError(
                f"NOMADS_SLURM_FOLDER: nothing can be written to {folder}: {error.strerror or type(error).__name__}."
            ) from None
        if open_ := _open_to_others(folder):
            raise NomadsError(f"Other users can write to {open_}, and so change what programs run: chmod go-w {open_}")
        return "ok here; that the nodes have it at the same path shows with the first job"


def _open_to_others(folder: Path) -> str:
    """The folder, or its folder of runs, where others may write to it; empty: neither."""
    for path in (folder, folder / "runs"):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            return os.fspath(path)
    return ""
