"""What is told of a job: its facts, gathered for a card, a reply or a mail."""

from __future__ import annotations

from bot.application.output import Output
from bot.domain.catalog import Catalog
from bot.domain.checks import channels_read
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.messages import Story
from bot.domain.states import JobState


class Stories:
    """Gathers a job's facts from its row, the catalogue and its output."""

    def __init__(self, *, catalog: Catalog, output: Output) -> None:
        self._catalog = catalog
        self._output = output

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
        )
