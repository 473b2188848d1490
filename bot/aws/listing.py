"""Which jobs have not moved since AWS Batch described them, by what it lists of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bot.aws.observations import SENSELESS
from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation

PAGES = 10
"""Pages of a hundred jobs that are read of one queue. Jobs further back are described, a hundred with one call."""


@dataclass(frozen=True)
class _Standing:
    queue: str
    created: int
    """In milliseconds since 1970."""
    said: tuple[Any, ...]
    seen: Observation


class Described:
    """What DescribeJobs said last of jobs that had not ended. Threads may share it."""

    def __init__(self) -> None:
        self._known: dict[str, _Standing] = {}

    def forget(self, ids: Sequence[str]) -> None:
        """Forget what was said of these."""
        for one in ids:
            self._known.pop(one, None)

    def note(self, job: Mapping[str, Any], seen: Observation) -> None:
        """Keep what was seen in a job of DescribeJobs, unless there will be more to see without a move of the job.

        That is so where it runs and has no log yet.
        """
        lacks = seen.state is JobState.RUNNING and not (seen.log or seen.children)
        if seen.state not in FINAL and not lacks and job.get("jobQueue") and job.get("createdAt"):
            self._known[job["jobId"]] = _Standing(job["jobQueue"], job["createdAt"], _said(job), seen)

    def unmoved(
        self, ids: Sequence[str], since: Callable[[str, int], Iterator[Sequence[Mapping[str, Any]]]]
    ) -> dict[str, Observation]:
        """What was seen of those of the jobs that are listed as they were described; the others are forgotten.

        `since` gives pages of the jobs of a queue made at that time or later, the newest first.
        """
        self.forget(list(self._known.keys() - set(ids)))
        known = {one: self._known[one] for one in ids if one in self._known}
        found: dict[str, Observation] = {}
        for queue in sorted({one.queue for one in known.values()}):
            left = {name for name, one in known.items() if one.queue == queue}
            for page in islice(since(queue, min(known[name].created for name in left)), PAGES):
                for job in page:
                    with suppress(*SENSELESS):
                        if job["jobId"] in left and _said(job) == known[job["jobId"]].said:
                            found[job["jobId"]] = known[job["jobId"]].seen
                left -= {job.get("jobId") for job in page}
                if not left:
                    break
        return found


def _said(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """What DescribeJobs and ListJobs both say of how a job is: none of it stays the same when the job moves."""
    children = (job.get("arrayProperties") or {}).get("statusSummary") or {}
    return (
        job["status"],
        job.get("statusReason") or "",
        job.get("startedAt") or 0,
        bool(job.get("isCancelled")),
        bool(job.get("isTerminated")),
        {state: number for state, number in children.items() if number},
    )
