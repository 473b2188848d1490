"""What is told of a job: its facts, gathered for a card, a reply or a mail."""

from __future__ import annotations

from bot.application.access import Access
from bot.application.output import Output
from bot.application.queries import Queries
from bot.domain.catalog import Catalog
from bot.domain.checks import channels_read
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.messages import Story
from bot.domain.states import JobState


class Stories:
    """Gathers a job's facts from its row, the catalogue, its output, and the attempts before and after it."""

    def __init__(self, *, catalog: Catalog, output: Output, queries: Queries, access: Access) -> None:
        self._catalog = catalog
        self._output = output
        self._queries = queries
        self._access = access

    def of(self, job: Job, audience: Audience) -> Story:
        """The job's facts as of now, told to that audience; links to results are made anew, since they end."""
        pipeline = self._catalog.get(job.request.pipeline)
        read = channels_read(pipeline, job.request.options) if pipeline else 1
        return Story(
            job=job,
            pipeline_title=pipeline.title if pipeline else job.request.pipeline,
            size=job.size or job.request.box.voxels * read,
            options=self._catalog.told_options(job.request),
            links=self._output.links(job, audience) if job.state is JobState.SUCCEEDED else (),
            address=self._output.page(job, audience),
            view=self._output.view(job, audience) if job.state is JobState.SUCCEEDED else "",
            before=self._heard_of(job.retry_of, audience),
            after=self._heard_of(job.retried_as, audience),
        )

    def _heard_of(self, job_id: str | None, audience: Audience) -> str:
        """The id of another attempt, where the audience may hear of that job; else empty."""
        return job_id if job_id and self._access.tells(audience, self._queries.find(job_id)) else ""
