"""Slurm's commands: each is a process that answers within a deadline, and which gets nothing of the bot's secrets."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from bot.domain.errors import Refused, Unavailable

MAX_WORDS = 300
"""Characters of Slurm's own words that are told."""
_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "TZ", "LD_LIBRARY_PATH", "SLURM_CONF")
"""The variables that Slurm's commands need. sbatch hands every variable that begins with SLURM_ to the job."""
_REFUSALS = re.compile(
    r"invalid partition|Invalid account|Invalid qos|Requested node configuration is not available"
    r"|Requested time limit is invalid|Memory specification can not be satisfied|More processors requested than permit"
    r"|Invalid job array specification|Invalid feature specification|Invalid license|Invalid generic resource"
    r"|Invalid job id|Access/permission denied|group not permitted to use this partition|Invalid reservation"
    r"|Node count specification invalid|[Uu]nrecognized option|[Ii]nvalid option|[Ii]nvalid numeric value"
    r"|[Ii]nvalid --|User not found on host",
    re.IGNORECASE,
)
"""What Slurm says of a request that it would turn away again. Everything else is in doubt."""
_UNTAKEN = re.compile(r"Unable to contact slurm controller|Unable to establish|Connection refused|temporarily unable")
"""What Slurm's commands say where the controller has surely done nothing."""


class Unanswered(Unavailable):
    """There was no answer, and the controller may have done what it was asked."""


class Commands:
    """Runs sbatch, squeue, scancel, sinfo and scontrol of this machine."""

    def __init__(self, *, patience: float) -> None:
        self._patience = patience

    def run(self, command: str, *arguments: str, cwd: str = "/") -> str:
        """What the command prints. Raises Refused, or Unavailable (Unanswered where Slurm may have done it).

        Slurm's own words are part of the error; they hold what stands in the arguments at most.
        """
        try:
            done = subprocess.run(  # noqa: S603  an argument list, without a shell
                [command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._patience,
                check=False,
                cwd=cwd,
                env=_environment(),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Unavailable(
                f"This machine has no command {command}: install Slurm's commands (on Debian the package slurm-client) "
                "where NOMADS runs, and have them in PATH."
            ) from None
        except subprocess.TimeoutExpired:
            raise Unanswered(f"Slurm did not answer within {self._patience:g} seconds ({command}).") from None
        except OSError as error:
            raise Unavailable(f"{command} could not be run: {error.strerror or type(error).__name__}.") from None
        if done.returncode == 0:
            return done.stdout.decode(errors="replace")
        said = _words(done.stderr.decode(errors="replace").splitlines())
        if _REFUSALS.search(said):
            raise Refused(f"Slurm refused it ({command}): {said}.{_advice(said)}")
        kind = Unavailable if _UNTAKEN.search(said) else Unanswered
        raise kind(f"Slurm did not do it ({command}): {said}.")


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    # In English, and with every number of an array's waiting jobs.
    return passed | {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0"}


def _words(lines: Sequence[str]) -> str:
    """What a command printed, on one line and without what each line begins with."""
    said = " ".join(re.sub(r"^\w+: (error: |fatal: )?", "", line).strip().rstrip(".") for line in lines)
    said = "".join(c if c.isprintable() else " " for c in said).strip()
    said = said or "it gave no reason"
    return said if len(said) <= MAX_WORDS else said[: MAX_WORDS - 1] + "…"


def _advice(said: str) -> str:
    """What whoever runs NOMADS can do about a refusal; empty where Slurm's words say it."""
    known = {
        "partition": " NOMADS_SLURM_PARTITION names the partition; sinfo lists those that there are.",
        "account": " NOMADS_SLURM_ACCOUNT names the account.",
        "job array specification": " The cluster takes smaller arrays: NOMADS_SLURM_MAX_ARRAY may be its MaxArraySize "
        "at most (scontrol show config).",
        "option": " NOMADS_SLURM_ARGUMENTS has to hold arguments that sbatch knows.",
        "node configuration": " No node of the partition has as many processors or as much memory.",
        "memory specification": " No node of the partition has as much memory.",
    }
    return next((advice for word, advice in known.items() if word in said.lower()), "")
