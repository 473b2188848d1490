"""What a link leads to, when somebody opens it: the results of a job, or the end of a person's mail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count

from bot.application.addresses import Addresses
from bot.application.links import Links
from bot.application.output import LOG_FILE, Output
from bot.application.ports import Results
from bot.application.queries import Queries
from bot.domain import words
from bot.domain.catalog import Catalog
from bot.domain.errors import NotFound, Unavailable, UnknownJob
from bot.domain.job import Job
from bot.domain.links import NoFile, Reader, ResultsPage, SharedFile
from bot.domain.people import TERMINAL
from bot.domain.results import Link, Opened, ResultFile
from bot.domain.summary import KNOWN_FILES

REPORT = "report.html"
"""The report, where a program has written one."""
_KNOWN = KNOWN_FILES | {LOG_FILE: "What the program printed."}
UNREACHABLE = "Its name cannot stand in an address; ask whoever runs NOMADS for it."
ABSENT_FILE = "not-in-this-zip.txt"
ABSENT = (
    "These files are in the results folder, or were, and not in this zip: their names cannot stand in it, or they were "
    "taken away meanwhile. Ask whoever runs NOMADS for them. Characters that cannot be printed are escaped."
)
MOST = 1000
"""Files that a page lists; the archive has all."""


class Visits:
    """Answers links: implements `bot.domain.links.Shared`."""

    def __init__(
        self,
        *,
        links: Links,
        queries: Queries,
        catalog: Catalog,
        results: Results,
        output: Output,
        addresses: Addresses,
        sees: Callable[[str, Job], bool | None],
    ) -> None:
        """`sees` tells whether a person may see a job now; None: nobody can tell just now."""
        self._links = links
        self._queries = queries
        self._catalog = catalog
        self._results = results
        self._output = output
        self._addresses = addresses
        self._sees = sees

    def page(self, signed: str) -> ResultsPage:
        """What the page of the results shows. Raises NotFound, LinkEnded and Unavailable."""
        job = self._job(signed)
        found = self._listed(job)
        names = {file.name for file in found}
        summary, pipeline = job.summary, self._catalog.get(job.request.pipeline)
        preview = summary.preview if summary and summary.preview in names else ""
        return ResultsPage(
            job=job,
            pipeline_title=pipeline.title if pipeline else job.request.pipeline,
            options=self._catalog.told_options(job.request),
            files=[self._shared(job, file) for file in found[:MOST]],
            more=max(0, len(found) - MOST),
            report=REPORT if REPORT in names else "",
            preview=preview or "",
            until=self._links.read(signed).until,
        )

    def file(self, signed: str, name: str) -> Opened | Link:
        """A file, open, or the address at which its store gives it. Raises NotFound, LinkEnded and Unavailable."""
        job = self._job(signed)
        try:
            if job.summary and name == job.summary.preview:  # part of the page itself, whose images come from here
                return self._results.open(job.folder, name)
            return self._results.redirect(job.folder, name) or self._results.open(job.folder, name)
        except NotFound as absent:
            raise NoFile(str(absent)) from None

    def archive(self, signed: str) -> tuple[str, Iterator[tuple[str, Opened]]]:
        """The archive's name, and the files, each opened when reached. Raises NotFound, LinkEnded and Unavailable."""
        job = self._job(signed)
        files = self._listed(job)
        if not files:
            raise NoFile("There are no files.")
        return f"nomads-{job.id}", self._opened(job, files)

    def mail_ends(self, signed: str) -> bool:
        """Whether the address that the link is for has asked for no more mail. Raises NotFound and Unavailable."""
        return self._addresses.ended(self._links.read_end_of_mail(signed))

    def end_mail(self, signed: str) -> None:
        """Send no more mail to the address that the link is for. Raises NotFound and Unavailable."""
        self._addresses.end(self._links.read_end_of_mail(signed))

    def _listed(self, job: Job) -> list[ResultFile]:
        return self._output.listed(job, self._results.list(job.folder))

    def _opened(self, job: Job, files: list[ResultFile]) -> Iterator[tuple[str, Opened]]:
        """The files; and where some cannot be opened, a text that names them."""
        absent = []
        for file in files:
            try:
                opened = self._results.open(job.folder, file.name)
            except NotFound:  # gone since, or without a name that can be asked for
                absent.append(_escaped(file.name))
                continue
            yield file.name, opened
        if absent:
            text = "\n".join([ABSENT, *absent, ""]).encode()
            names = {file.name for file in files}
            name = next(name for n in count() if (name := f"{'_' * n}{ABSENT_FILE}") not in names)
            yield name, Opened(len(text), BytesIO(text))

    def _job(self, signed: str) -> Job:
        claim = self._links.read(signed)
        try:
            job = self._queries.find(claim.job_id)
        except UnknownJob:
            raise NotFound("There is no such job.") from None
        person = claim.name if claim.reader is Reader.PERSON and not claim.name.startswith(TERMINAL) else ""
        seen = self._sees(person, job) if person else True
        if seen is None:
            raise Unavailable("Slack did not answer; try again in a moment.")
        if not seen:
            raise NotFound("There is no such job for this person.")
        return job

    def _shared(self, job: Job, file: ResultFile) -> SharedFile:
        said = {found.name: found.about or found.title for found in job.summary.files} if job.summary else {}
        askable = file.name.isprintable()
        about = words.printable(said.get(file.name, "")) or _KNOWN.get(file.name, "")
        return SharedFile(
            name=file.name if askable else "",
            shown=words.printable(file.name),
            size=file.size,
            about=about if askable else UNREACHABLE,
        )


def _escaped(name: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)
