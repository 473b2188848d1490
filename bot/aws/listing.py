"""Which jobs have not moved since AWS Batch described them, by what it lists of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bot.aws.observations import SENSELESS
from bot.domain.errors import Refused, Unavailable
from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation

log = logging.getLogger(__name__)

PAGE = 100
"""Jobs of a page of a listing, at most."""
Listing = Callable[[str, int], Iterator[Sequence[Mapping[str, Any]]]]
"""Gives pages of the jobs of a queue that were made at a time or later, in milliseconds; the newest first."""


@dataclass(frozen=True)
class _Standing:
    queue: str
    created: int
    """In milliseconds since 1970."""
    said: tuple[Any, ...]
    seen: Observation


class Described:
    """What DescribeJobs said last of jobs that had not ended. Threads may share it.

    Nothing is kept before the first look at a listing: there may never be one.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Standing] = {}
        self._far: set[str] = set()
        """Jobs that so many others came after that to list these costs more than to describe the job."""
        self._looks = False

    def forget(self, ids: Sequence[str]) -> None:
        """Forget what was said of these."""
        for one in ids:
            self._known.pop(one, None)

    def note(self, job: Mapping[str, Any], seen: Observation) -> None:
        """Keep what was seen in a job of DescribeJobs, unless there will be more to see without a move of the job.

        That is so where it runs and has no log yet; its last attempt's is another one.
        """
        container = job.get("container") or {}
        lacks = seen.state is JobState.RUNNING and not (container.get("logStreamName") or seen.children)
        wanted = self._looks and seen.state not in FINAL and job["jobId"] not in self._far
        if wanted and not lacks and job.get("jobQueue") and job.get("createdAt"):
            self._known[job["jobId"]] = _Standing(job["jobQueue"], job["createdAt"], _said(job), seen)

    def unmoved(self, ids: Sequence[str], listing: Listing) -> dict[str, Observation]:
        """What was seen of those of the jobs that are listed as they were described; all others are forgotten.

        Of a queue, a page is read for each hundred of the jobs, and one more. Where a queue is not listed, its jobs
        are absent.
        """
        self._looks = True
        self.forget(list(self._known.keys() - set(ids)))
        self._far &= set(ids)
        known = {one: self._known[one] for one in ids if one in self._known and one not in self._far}
        found: dict[str, Observation] = {}
        for queue in sorted({one.queue for one in known.values()}):
            try:
                there = {name: one for name, one in known.items() if one.queue == queue}
                found |= self._unmoved_of(queue, there, listing)
            except (Unavailable, Refused) as error:
                log.warning("The jobs of a queue are described, since they are not listed: %s", error)
        return found

    def _unmoved_of(self, queue: str, known: Mapping[str, _Standing], listing: Listing) -> dict[str, Observation]:
        """What was seen of those that are listed as they were described, of the jobs of that queue."""
        left, found, read = dict(known), dict[str, Observation](), 0
        pages, most = listing(queue, min(one.created for one in known.values())), math.ceil(len(known) / PAGE) + 1
        for page in islice(pages, most):
            read += 1
            for job in page:
                with suppress(*SENSELESS):
                    one = left.pop(job["jobId"], None)
                    if one and _said(job) == one.said:
                        found[job["jobId"]] = one.seen
            if not left:
                return found
        if read == most:
            self._far |= left.keys()
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
