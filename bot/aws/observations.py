"""What AWS Batch says of a job, in DescribeJobs and in its events, as an Observation in words for a person."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bot.domain.states import FINAL, JobState
from bot.domain.work import Cause, Observation
from contract.program import INDEX_VARIABLE

_TIMED_OUT = "Job attempt duration exceeded timeout"
"""How AWS's status reason begins for a job that ran into its limit; a person's reason may hold any words."""
_ADMIN = "whoever looks after the AWS account"
_WAITS = {
    "CAPACITY": "AWS has no free machine of the kind it needs just now; it starts by itself once there is one. "
    "Whoever looks after the AWS account can allow more kinds of machines.",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": "It needs more processors than the queue's machines may have "
    f"together, so it cannot start: {_ADMIN} has to raise the compute environment's maximum.",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": "It needs a larger machine than the queue may use, so it cannot "
    f"start: {_ADMIN} has to allow larger ones; a smaller box may need less.",
    "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS": "AWS Batch lacks a right it needs to start machines, so it cannot "
    f"start: {_ADMIN} has to mend the permissions of AWS Batch's service role.",
    "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED": "The kinds of machines the queue is set to use do not "
    f"exist in its region or do not fit its launch template, so it cannot start: {_ADMIN} has to choose others.",
    "MISCONFIGURATION": f"The queue cannot run it as it is set up ({{said}}): {_ADMIN} has to change that.",
    "ACTION_REQUIRED": f"The machines behind the queue cannot be used as they are set up ({{said}}): {_ADMIN} has to "
    "mend the compute environment.",
    "UNDETERMINED": f"Something blocks the queue, and AWS does not know what: {_ADMIN} can look at the queue and its "
    "compute environment.",
}
"""Why a job waits, by AWS Batch's code (user guide, “Jobs stuck in a RUNNABLE status”) or by the code's family, with
AWS's own words in place of `{said}`."""
_TAKEN_BACK = "The machine it ran on was taken back by AWS, as happens to spot machines, or broke down."
MAX_WORDS = 300
"""Characters of AWS's own words that are told of a waiting job."""
_QUEUED = (JobState.SUBMITTED, JobState.PENDING, JobState.RUNNABLE)
"""States in which no attempt is under way: all that a job has had are over."""
_BEGUN = (JobState.RUNNING, *FINAL)
SENSELESS = (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError)
"""What reading a job raises that is not as AWS documents it; OSError is a time beyond the machine's calendar."""
_JOB_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:[:#][0-9]+)?")
ONE: list[Any] = [{"name": INDEX_VARIABLE, "value": "0"}]
"""What the program of an array of one finds in its environment, and a plain job does not."""
_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("jobId", "jobQueue", "status", "statusReason", "reason", "logStreamName"), str),
    **dict.fromkeys(("createdAt", "startedAt", "stoppedAt", "exitCode", "attempts", "size", "index"), int),
    "statusSummary": dict,
    **dict.fromkeys(("isCancelled", "isTerminated"), bool),
}
"""What AWS documents of the fields of DescribeJobs that are read."""

_PLAIN = (
    *("jobId", "jobQueue", "createdAt", "status", "statusReason"),
    *("startedAt", "stoppedAt", "isCancelled", "isTerminated"),
)
"""The fields of a job that are kept as they are."""


def is_job_id(text: str) -> bool:
    """Whether the text has the form of a job's id, or of that of a child of an array."""
    return bool(_JOB_ID.fullmatch(text))


def slimmed(job: Any) -> dict[str, Any]:
    """What an observation needs of one job of DescribeJobs or of an event.

    Of one that is not as AWS describes it, the id is kept at most.
    """
    try:
        kept = _part(job, *_PLAIN)
        kept["container"] = _container(job)
        kept["attempts"] = [
            _part(attempt, "statusReason", "startedAt", "stoppedAt") | {"container": _container(attempt)}
            for attempt in job.get("attempts") or ()
        ]
        kept["retryStrategy"] = _part(job.get("retryStrategy") or {}, "attempts")
        if array := job.get("arrayProperties"):
            kept["arrayProperties"] = _part(array, "size", "index", "statusSummary")
    except SENSELESS:
        name = job.get("jobId") if isinstance(job, dict) else None
        return {"jobId": name} if isinstance(name, str) else {}
    return kept


def _container(job: Mapping[str, Any]) -> dict[str, Any]:
    container = job.get("container") or {}
    kept = _part(container, "exitCode", "reason", "logStreamName")
    return kept | ({"environment": ONE} if ONE[0] in (container.get("environment") or ()) else {})


def _part(whole: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the fields that there are. Raises TypeError where one has a type that AWS does not document for it."""
    part = {name: whole[name] for name in names if whole.get(name) is not None}
    for name, value in part.items():
        if not isinstance(value, _TYPES[name]):
            raise TypeError(name)
    return part


def observation(job: Mapping[str, Any]) -> Observation:
    """The observation of one job of DescribeJobs; its last attempt fills in what the job itself does not say.

    Raises one of SENSELESS where the job is not as AWS describes it.
    """
    if "size" in (array := job.get("arrayProperties") or {}) and "index" not in array:
        return _of_array(job, {JobState(state): int(number) for state, number in array["statusSummary"].items()})
    attempts: Sequence[Mapping[str, Any]] = job.get("attempts") or ()
    attempt: Mapping[str, Any] = attempts[-1] if attempts else {}
    container = {**attempt.get("container", {}), **job.get("container", {})}
    state = JobState(job["status"])
    over = [one for one in attempts if state in _QUEUED or one.get("stoppedAt") or one.get("statusReason")]
    reason = str(job.get("statusReason") or attempt.get("statusReason") or "")
    exit_code = _number(container, "exitCode") if state in FINAL else None
    cause: Cause | None = None
    if state is JobState.SUCCEEDED:
        words = ""
    elif state is JobState.RUNNABLE:
        words = _waiting(reason)
    elif (job.get("isCancelled") or job.get("isTerminated")) and reason and not reason.startswith(_TIMED_OUT):
        # Whoever ended it said why; the container's reason says nothing more.
        words, cause = _given_up(reason) or reason, Cause.UNKNOWN
    else:
        words, cause = _words(reason, str(container.get("reason", "")), exit_code)
    return Observation(
        state=state,
        reason=words,
        exit_code=exit_code,
        cause=cause,
        # AWS says it of no child of an array, but of its attempts.
        started_at=_time(job.get("startedAt") or (attempt.get("startedAt") if state in _BEGUN else None)),
        stopped_at=_time(job.get("stoppedAt")),
        log=container.get("logStreamName"),
        attempt=None if state in FINAL else len(over) + 1,  # an end is an end, whichever attempt it was
        attempts=_number(job.get("retryStrategy") or {}, "attempts"),
        again=_again(over[-1], state) if over and state not in FINAL else "",
        children={state: 1} if job.get("container", {}).get("environment") == ONE else {},
    )


def is_one(said: Observation) -> bool:
    """Whether this is said of an array of one."""
    return sum(said.children.values()) == 1


def _of_array(job: Mapping[str, Any], children: Mapping[JobState, int]) -> Observation:
    """The observation of an array job; its end is what AWS says of the parent, which may come after the summary's."""
    state, reason = JobState(job["status"]), str(job.get("statusReason") or "")
    times: Any = {"started_at": _time(job.get("startedAt")), "stopped_at": _time(job.get("stoppedAt"))}
    counted = {one: number for one, number in children.items() if number}
    if state not in FINAL:
        # A child stands for the parent, which is open.
        seen = Observation.of_array(Counter(counted) + Counter({state: 1}), **times)
    elif state is JobState.SUCCEEDED:
        seen = Observation.of_array({state: 1}, **times)
    else:
        cancelled = job.get("isCancelled") or job.get("isTerminated")
        failed = {one: number for one, number in counted.items() if one in FINAL}
        words = reason if cancelled or JobState.FAILED not in failed else ""
        seen = Observation.of_array(failed | {state: failed.get(state, 1)}, reason=words, **times)
    return replace(seen, children=counted)


def _number(said: Mapping[str, Any], name: str) -> int | None:
    """The number of that name, of 32 bits; None: there is none. Raises ValueError for a larger one."""
    number: int | None = said.get(name)
    if number is not None and not -(2**31) <= number < 2**31:
        raise ValueError(name)
    return number


def _again(attempt: Mapping[str, Any], state: JobState) -> str:
    """Why a job begins another attempt, and for what, by the attempt that is over."""
    reason = str(attempt.get("statusReason") or "")
    if reason.startswith("Host EC2"):
        waits = "running again on another" if state is JobState.RUNNING else "waiting for another"
        return f"Its machine was taken back; {waits}"
    words, _ = _words(reason, str(attempt.get("container", {}).get("reason", "")), None)
    said = f" ({words.rstrip('.')})" if words else ""
    return f"It could not be run{said}; {'running' if state is JobState.RUNNING else 'waiting to run'} again"


def _waiting(status_reason: str) -> str:
    """Why a job waits, and who can help; empty where AWS Batch gives no cause, as while a job waits its turn."""
    if status_reason.startswith("Host EC2"):
        return f"{_TAKEN_BACK} It starts again by itself on another one."
    said = " ".join("".join(c if c.isprintable() else " " for c in status_reason).split())
    said = said if len(said) <= MAX_WORDS else said[: MAX_WORDS - 1] + "…"
    code = re.match(r"([A-Z_]+)(?::[A-Z0-9_]+)?", said)
    known = code and (_WAITS.get(code[0]) or _WAITS.get(code[1]))
    return known.format(said=said.rstrip(".")) if known else said


def _given_up(status_reason: str) -> str:
    """What is told where the queue's own limit ended a job that could not start; empty for any other end."""
    if not status_reason.startswith(("CAPACITY:", "MISCONFIGURATION:")):
        return ""
    said = " ".join("".join(c if c.isprintable() else " " for c in status_reason).split()).rstrip(".")[:MAX_WORDS]
    return f"It could not start, and the queue gave it up after the time that it allows ({said}): ask {_ADMIN}."


def _words(status_reason: str, container_reason: str, exit_code: int | None) -> tuple[str, Cause | None]:
    """Why a job is in its state, in words for a person (AWS's own where ours would say less), and the cause.

    The cause is None where the program ended by itself: its exit code says more.
    """
    both = f"{status_reason} {container_reason}"
    said = container_reason or status_reason
    itself = not status_reason or status_reason.startswith("Essential container")  # nobody else ended it
    if status_reason.startswith("Host EC2"):
        return _TAKEN_BACK, Cause.MACHINE
    if "OutOfMemory" in both or (exit_code == 137 and itself and not container_reason):
        return "It needed more memory than it was given and was stopped; a smaller box needs less.", Cause.MEMORY
    if status_reason.startswith(_TIMED_OUT):
        return (
            "It ran longer than its pipeline allows and was stopped; a smaller box takes less time.",
            Cause.TIME_LIMIT,
        )
    if re.search(r"assume (the )?role", both):
        return f"AWS could not use the role that it is to run with: {said}", Cause.ROLE
    if "no space left on device" in both:
        return f"The machine that it was to run on had no room left on its disk: {said}", Cause.DISK
    if "CannotPull" in both or re.search(r"registry auth from|retrieve ecr registry auth", both):
        return f"Its container image could not be fetched: {said}", Cause.IMAGE
    if "CannotStartContainer" in both or "CannotCreateContainer" in both:
        return f"The program in its container image could not be started: {said}", Cause.IMAGE
    if ("ResourceInitializationError" in both and "secret" in both) or "Fetching secret data" in both:
        return f"AWS could not hand it the token: {said}", Cause.SECRET
    if exit_code and itself and not container_reason:
        return f"The program ended with exit code {exit_code}.", None
    return " — ".join(part for part in (status_reason, container_reason) if part), Cause.UNKNOWN


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC) if milliseconds else None
