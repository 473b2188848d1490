"""Jobs as chat and mail tell them, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bot.domain.job import Job
from bot.domain.messages import Step, Story
from bot.domain.results import Link
from bot.domain.states import JobState
from bot.domain.summary import Summary
from bot.domain.work import Observation
from tests.support.world import a_request


def a_job(state: JobState = JobState.ACCEPTED, *, channel: str | None = "C01SYNAPSES", **more: Any) -> Job:
    """A job in that state, accepted now."""
    request = more.pop("request", None) or a_request(channel=channel)
    at = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": "abcd1234",
        "key": "view:V1",
        "request": request,
        "actor": "U01DEMO",
        "state": state,
        "accepted_at": at,
        "submitted_at": at + timedelta(seconds=1),
        "started_at": at + timedelta(seconds=2),
        "finished_at": at + timedelta(seconds=63),
    }
    values["cause"] = Observation(state, exit_code=more.get("exit_code")).why
    return Job(**(values | more))


def a_story(job: Job | None = None, **more: Any) -> Story:
    """That job's story."""
    job = job or a_job()
    links = [("Table", Link("https://results.test/synapses.csv"))] if job.state is JobState.SUCCEEDED else []
    values: dict[str, Any] = {
        "job": job,
        "pipeline_title": "Unsupervised",
        "size": 8_388_608,
        "links": links,
        "address": "https://results.test/",
    }
    return Story(**(values | more))


def a_step(text: str = "Accepted as job abcd1234.", state: JobState = JobState.ACCEPTED) -> Step:
    """One line of the story."""
    return Step(text=text, at=datetime.now(UTC), state=state)


def a_summary(**more: Any) -> Summary:
    """What a run found."""
    return Summary.model_validate({"counts": {"synapses": 1234}, "files": [{"name": "synapses.csv"}], **more})
