"""The states a job passes through, and the groups of them that matter."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. ACCEPTED is ours, SUBMITTED to RUNNING are AWS Batch's words, the rest are ends."""

    ACCEPTED = "ACCEPTED"
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    RUNNABLE = "RUNNABLE"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"

    def follows(self, other: JobState) -> bool:
        """Whether a job in `other` may move to this state. Jobs never move backwards, and an end is an end."""
        return other not in FINAL and _RANK[self] > _RANK[other]


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST})
"""Ends: nothing happens to a job any more."""
UNFINISHED = tuple(state for state in JobState if state not in FINAL)
"""States that are no end, in the order in which a job passes through them."""
MISSED = frozenset({JobState.FAILED, JobState.LOST})
"""Ends without success that nobody asked for."""
WATCHED = frozenset({JobState.SUBMITTED, JobState.PENDING, JobState.RUNNABLE, JobState.STARTING, JobState.RUNNING})
"""States in which compute has the job, and is asked about it."""
WAITING = frozenset({JobState.SUBMITTED, JobState.PENDING, JobState.RUNNABLE, JobState.STARTING})
"""States in which compute has the job, and its program does not run yet."""
_RANK = {state: min(rank, 6) for rank, state in enumerate(JobState)}
