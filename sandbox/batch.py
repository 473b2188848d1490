"""moto's AWS Batch, brought closer to AWS's own: jobs that wait, arrays that move with their children, told ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch

from moto.batch.models import Job, batch_backends
from moto.batch_simple.models import BatchSimpleBackend

from bot.domain.states import FINAL, WAITING, JobState

_moto_container_details = Job._container_details
_moto_describe = Job.describe


@contextmanager
def as_aws(
    *, kept: Callable[[Any], None] = lambda job: None, ended: Callable[[Any], None] = lambda job: None
) -> Iterator[None]:
    """Let moto's jobs stay SUBMITTED until `set_state` moves them, and tell of them what AWS does.

    `kept` is called with each new job, an array's children among them, and `ended` with each that TerminateJob ends.
    """

    def keep(self: Any, include_start_attempt: bool, job: Any) -> None:
        """In place of moto's `_mark_job_as_finished`, which ends it at once."""
        self.backend._jobs[job.job_id] = job
        if include_start_attempt:  # not of an array itself, which runs nothing
            kept(job)

    def terminate(self: Any, reason: str) -> None:
        """In place of moto's `terminate`, which only notes the reason: AWS also ends the job, and says that it did.

        So it does with the children of an array.
        """
        settle(self)
        for child in self._child_jobs or ():
            terminate(child, reason)
        if not self.job_stopped:
            self.how_ended = "isTerminated" if self.status in ("STARTING", "RUNNING") else "isCancelled"
            code = 137 if self.status == "RUNNING" else None
            set_state(self.job_id, JobState.FAILED, reason=reason, exit_code=code)
            ended(self)

    with ExitStack() as patches:
        for what, name, instead in (
            (BatchSimpleBackend, "_mark_job_as_finished", keep),
            (Job, "terminate", terminate),
            (Job, "describe", _describe),
            (Job, "_container_details", _container_details),
        ):
            patches.enter_context(patch.object(what, name, instead))
        yield


def _container_details(self: Any) -> dict[str, Any]:
    """What moto leaves out of DescribeJobs' container."""
    details: dict[str, Any] = _moto_container_details(self)
    if self.exit_code is not None:
        details["exitCode"] = self.exit_code
    if getattr(self, "container_reason", ""):
        details["reason"] = self.container_reason
    return details


def _describe(self: Any) -> dict[str, Any]:
    """What moto leaves out of DescribeJobs' job."""
    ended = getattr(self, "how_ended", "")
    settle(self)
    told = {**_moto_describe(self), "isCancelled": ended == "isCancelled", "isTerminated": ended == "isTerminated"}
    if "index" in self.array_properties:
        told["arrayProperties"] = {"statusSummary": {}, "index": self.array_properties["index"]}
    return told


def settle(job: Any) -> None:
    """Move an array as AWS does: PENDING while a child is open, then FAILED if one of them is."""
    if not job._child_jobs or job.job_stopped:
        return
    states = {JobState(child.status) for child in job._child_jobs}
    if FINAL.issuperset(states):
        failed = JobState.FAILED in states
        reason = "Array Child Job failed" if failed else ""
        set_state(job.job_id, JobState.FAILED if failed else JobState.SUCCEEDED, reason=reason)
    elif states != {JobState.SUBMITTED}:
        job.status = "PENDING"


def moto_job(compute_id: str) -> Any:
    """Moto's own object for the job. A plain job is the first program of an array of one, too."""
    for name in (compute_id, compute_id.removesuffix(":0")):
        for account in batch_backends.values():
            for backend in account.values():
                if name in backend._jobs:
                    return backend._jobs[name]
    raise LookupError(f"moto has no job {compute_id}")


def set_state(
    compute_id: str,
    state: JobState,
    *,
    reason: str = "",
    exit_code: int | None = None,
    container_reason: str = "",
) -> None:
    """Move moto's job to one of Batch's states: `reason` is its statusReason, `container_reason` its container's."""
    job = moto_job(compute_id)
    job.status = str(state)
    job.job_stopped_reason = reason or None
    job.exit_code = exit_code
    job.container_reason = container_reason
    if state not in WAITING:
        if not job.log_stream_name:  # it has not started yet
            job.job_started_at = datetime.now()  # noqa: DTZ005  moto reckons in naive local time
        job.log_stream_name = job._stream_name
    if state in FINAL:
        job.job_stopped = True
        job.job_stopped_at = datetime.now()  # noqa: DTZ005
