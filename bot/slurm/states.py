"""What Slurm's states and reasons mean, for people and for the application."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bot.domain.states import JobState
from bot.domain.work import Cause

ADMIN = "whoever looks after the cluster"
OPEN: Mapping[str, JobState] = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"), JobState.RUNNABLE),
    "SPECIAL_EXIT": JobState.RUNNABLE,
    "CONFIGURING": JobState.STARTING,
    **dict.fromkeys(("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"), JobState.RUNNING),
    "RESIZING": JobState.RUNNING,
}
"""Slurm's states of a job that has not ended."""
OVER = frozenset(("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED"))
OVER |= frozenset(("BOOT_FAIL", "DEADLINE", "REVOKED"))
"""Slurm's states of a job that has ended."""
CAUSES: Mapping[str, tuple[str, Cause]] = {
    "TIMEOUT": (
        "It ran longer than its pipeline allows and was stopped; a smaller box takes less time.",
        Cause.TIME_LIMIT,
    ),
    "OUT_OF_MEMORY": (
        "It needed more memory than it was given and was stopped; a smaller box needs less.",
        Cause.MEMORY,
    ),
    "NODE_FAIL": ("The node that it ran on broke down.", Cause.MACHINE),
    "BOOT_FAIL": ("The node that it was to run on did not start.", Cause.MACHINE),
    "PREEMPTED": ("Its node was taken back for a job that comes first.", Cause.MACHINE),
    "REVOKED": ("The cluster took it back.", Cause.MACHINE),
    "DEADLINE": (
        "The cluster gave it up, since it could not have ended before its deadline; NOMADS_SLURM_ARGUMENTS or the "
        f"cluster sets that: ask {ADMIN}.",
        Cause.SETUP,
    ),
    "CANCELLED": (f"It was cancelled on the cluster, and not from NOMADS: {ADMIN} may know why.", Cause.UNKNOWN),
}
"""Why a job failed that ended in this state, whatever its program says."""
_LIMIT = (
    f"The cluster's limits for its account, user or partition are reached ({{said}}); it starts when others end. "
    f"{ADMIN[0].upper()}{ADMIN[1:]} can raise them."
)
_NEVER = f"It cannot start as it is ({{said}}): {ADMIN} has to change that, or the settings NOMADS_SLURM_…."
_WAITS: Mapping[str, str] = {
    "None": "",
    "": "",
    "Resources": "The cluster has no free node of the kind it needs just now; it starts by itself once there is one.",
    "Priority": "Jobs that come first wait too; it starts by itself when its turn comes.",
    "JobArrayTaskLimit": "As many programs of its array run as may run at once; it starts when one of them ends.",
    "BeginTime": "The cluster begins it in a moment.",
    "Cleaning": "The cluster begins it in a moment.",
    "NodeDown": f"A node that it needs is down; it starts when {ADMIN} has mended that.",
    "ReqNodeNotAvail": (
        "The nodes that it could have are down or reserved; it starts by itself once one is back. "
        f"{ADMIN[0].upper()}{ADMIN[1:]} may know when."
    ),
    "Reservation": "It waits for its reservation to begin.",
    "Licenses": "It waits for a licence.",
    "JobHeldUser": "It is held, by its own user; `scontrol release` lets it go.",
    "JobHeldAdmin": f"It is held: {ADMIN} can let it go.",
    "PartitionDown": f"Its partition is down; it starts when {ADMIN} has it up again.",
    "PartitionInactive": f"Its partition is inactive; it starts when {ADMIN} has it up again.",
    "PartitionNodeLimit": _NEVER,
    "PartitionTimeLimit": _NEVER,
    "BadConstraints": _NEVER,
    "InvalidAccount": _NEVER,
    "InvalidQOS": _NEVER,
    "AccountNotAllowed": _NEVER,
    "QOSNotAllowed": _NEVER,
}
"""Why a job waits, by Slurm's reason, with its own words in place of `{said}`."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of squeue about one job, or one program of an array."""

    state: str
    reason: str


def read_queue(printed: str) -> dict[tuple[str, str], dict[int | None, Listed]]:
    """What squeue printed in FORMAT: by the job's id and name, what is listed of each number, None for no array.

    A line that is not in that form is left out, as squeue may print warnings of its own.
    """
    found: dict[tuple[str, str], dict[int | None, Listed]] = {}
    for line in printed.splitlines():
        parts = line.strip().split("|", 4)
        if len(parts) == 5 and parts[0].isdecimal():
            job, numbers, state, name, reason = parts
            of = found.setdefault((job, name), {})
            of |= dict.fromkeys(_numbers(numbers), Listed(state, reason))
    return found


FORMAT = "%F|%K|%T|%j|%r"
"""What squeue is to print of each job: id (of the whole array), number or numbers, state, name, reason."""


def _numbers(said: str) -> list[int | None]:
    """The numbers in squeue's `7`, `[2,5-9%4]` or `N/A`; None stands for a job that is no array."""
    if said in ("N/A", ""):
        return [None]
    numbers: list[int | None] = []
    for part in said.strip("[]").partition("%")[0].split(","):
        if found := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
            numbers.extend(range(first, last + 1, step))
    return numbers


def waiting(reason: str) -> str:
    """Why a job waits, in words for a person, by Slurm's reason; empty while there is nothing to say."""
    said = reason.strip("() ")
    if said.startswith("Nodes required for job are DOWN"):  # the later passes of the scheduler say it so
        said = "ReqNodeNotAvail"
    word = re.split(r"[,( ]", said)[0]
    if re.match(r"(QOS|Assoc|MaxJobs|MaxMem|Max[A-Z])", word):
        return _LIMIT.format(said=word)
    return _WAITS[word].format(said=word) if word in _WAITS else f"The cluster says why it waits: {said}."
