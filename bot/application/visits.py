"""What a link leads to, when somebody opens it: the results of a job, or the end of a person's mail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from threading import Lock
from typing import TypeVar

from cachetools import LRUCache

from bot.application.addresses import Addresses
from bot.application.links import Links
from bot.application.output import LOG_FILE, Output
from bot.application.ports import Results
from bot.application.queries import Queries
from bot.domain import words
from bot.domain.blocks import PILOT
from bot.domain.catalog import Catalog
from bot.domain.errors import NotFound, Unavailable, UnknownJob
from bot.domain.job import Job
from bot.domain.links import NoFile, Reader, ResultsPage, Scene, SharedFile
from bot.domain.people import TERMINAL
from bot.domain.results import MAX_PART, Chunk, Link, Opened, Part, ResultFile
from bot.domain.shards import Indices, Layer
from bot.domain.summary import KNOWN_FILES, Summary
from contract.program import BLOCKS

REPORT = "report.html"
"""The report, where a program has written one."""
TABLE = "synapses.csv"
"""The table of which a viewer shows rows."""
MAX_INFO = 2**20
"""Bytes of a layer's description, at most."""
LAYERS = 256
"""Layers whose description is kept in memory."""
INDICES = 100_000
"""Chunks whose places are kept in memory."""
T = TypeVar("T")
_KNOWN = KNOWN_FILES | {LOG_FILE: "What the program printed."}
_FOLDERS = {
    f"{PILOT}/": "The results of the pilot, by itself.",
    f"{BLOCKS}/": "What was found in each block, for a repair of those that are missing.",
}
"""Folders of a job in blocks which no program announces, and what lies in them."""
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
        self._layers: LRUCache[str, Layer] = LRUCache(LAYERS)
        self._indices: LRUCache[str, Indices] = LRUCache(INDICES, getsizeof=lambda index: len(index) + 1)
        self._lock = Lock()

    def page(self, signed: str) -> ResultsPage:
        """What the page of the results shows. Raises NotFound, LinkEnded and Unavailable."""
        job = self._job(signed)
        found = self._listed(job)
        listed, names = _folded(found, job.summary), {file.name for file in found}
        summary, pipeline = job.summary, self._catalog.get(job.request.pipeline)
        preview = summary.preview if summary and summary.preview in names else ""
        return ResultsPage(
            job=job,
            pipeline_title=pipeline.title if pipeline else job.request.pipeline,
            options=self._catalog.told_options(job.request),
            files=[self._shared(job, file) for file in listed[:MOST]],
            more=max(0, len(listed) - MOST),
            report=REPORT if REPORT in names else "",
            preview=preview or "",
            until=self._links.read(signed).until,
            scene=_scene(job),
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

    def scene(self, signed: str) -> Scene:
        """What a viewer shows. Raises NotFound, LinkEnded and Unavailable."""
        scene = _scene(self._job(signed))
        if scene is None:
            raise NotFound("There are no layers.")
        return scene

    def part(self, signed: str, name: str, start: int, length: int) -> Part:
        """Bytes of a layer's file or of the table. Raises NotFound, LinkEnded and Unavailable."""
        job = self._job(signed)
        scene = _scene(job)
        if scene is None or not (name == TABLE or any(name.startswith(f"{layer}/") for layer in scene.layers)):
            raise NotFound("This is no part of a layer.")
        return self._results.part(job.folder, name, start, min(length, MAX_PART))

    def chunk(self, signed: str, name: str) -> Chunk:
        """A chunk of a layer, or its description. Raises NotFound, LinkEnded and Unavailable."""
        job = self._job(signed)
        scene = _scene(job)
        folder = next((one for one in scene.layers if name.startswith(f"{one}/")), "") if scene else ""
        if not folder:
            raise NotFound("This is no part of a layer.")

        def read(file: str, start: int, length: int) -> bytes:
            return self._results.part(job.folder, f"{folder}/{file}", start, length).content

        place = f"{job.folder}/{folder}"
        layer = self._remembered(self._layers, place, lambda: Layer(read("info", 0, MAX_INFO)))
        if name == f"{folder}/info":
            return Chunk(layer.info, gzipped=False)
        content, gzipped = layer.chunk(
            name.removeprefix(f"{folder}/"),
            read,
            lambda index, find: self._remembered(self._indices, f"{place}/{index}", find),
        )
        return Chunk(content, gzipped)

    def _remembered(self, kept: LRUCache[str, T], name: str, find: Callable[[], T]) -> T:
        """What is kept under that name, else what `find` finds, which is kept."""
        with self._lock:
            if name in kept:
                return kept[name]
        found = find()
        with self._lock:
            kept[name] = found
        return found

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
        said = {found.name: found for found in job.summary.files}.get(file.name) if job.summary else None
        askable = file.name.isprintable()
        own = _own(file.name)
        about = words.printable((said.about or said.title) if said else "") or _KNOWN.get(file.name, "")
        return SharedFile(
            name=file.name if askable else "",
            shown=own or words.printable((said.folder if said else "") or file.name),
            size=file.size,
            about=_FOLDERS[own] if own else about if askable else UNREACHABLE,
        )


def _own(name: str) -> str:
    """The folder of a job in blocks in which the file lies, below the results; empty: none."""
    return next((folder for folder in _FOLDERS if name.startswith(folder)), "")


def _scene(job: Job) -> Scene | None:
    if job.summary is None or job.summary.view is None or not job.summary.layers:
        return None
    title = f"{job.request.place}: job {job.id}"
    return Scene(title=title, view=job.summary.view, layers=job.summary.layers)


def _folded(files: list[ResultFile], summary: Summary | None) -> list[ResultFile]:
    """The files, with those of a folder that a program announces, or of one of _FOLDERS, as one.

    That is the folder's first file, of the size of all.
    """
    folders = {said.folder: said.name for said in summary.files if said.folder} if summary else {}
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    for file in files:
        if own := _own(file.name):
            name = first.setdefault(own, file.name)
            sizes[name] = sizes.get(name, 0) + file.size
            continue
        parts = file.name.split("/")
        above = ("/".join(parts[:depth]) + "/" for depth in range(len(parts) - 1, 0, -1))
        name = next((folders[folder] for folder in above if folder in folders), file.name)
        sizes[name] = sizes.get(name, 0) + file.size
    return [ResultFile(name, size) for name, size in sorted(sizes.items())]


def _escaped(name: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)
