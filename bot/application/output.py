"""What a program tells, prints and leaves, as people may see it: without the token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from bot.application.links import Links
from bot.application.ports import Compute, Logs, Results
from bot.application.tokens import TokenKeeper
from bot.domain import words
from bot.domain.errors import NotFound, Refused
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.results import Link, ResultFile
from bot.domain.summary import KNOWN_FILES, Summary
from bot.domain.work import LogLine
from contract import masking
from contract.program import RESULTS

LINKS = 10
"""How many results are linked one by one; the folder's address leads to the rest."""
LOG_LINES = 20
"""How many of the last log lines are shown when a job fails."""
MAX_SUMMARY = 2**20
"""Bytes of the largest results.json that is read."""
VIEW = "View in 3D"
"""Title of the link to Neuroglancer, which the bot's web serves."""
LOG_FILE = "nomads-log.txt"
"""Name of the whole log in the results folder, once somebody has asked for it."""


_BROWSED = ("http://", "https://", "file://")
"""How an address begins that a browser opens."""


class Output:
    """Reads what programs wrote and printed. Methods raise Unavailable and Refused."""

    def __init__(
        self,
        *,
        compute: Compute,
        logs: Logs,
        results: Results,
        tokens: TokenKeeper,
        links: Links,
        boss_host: str = "",
    ) -> None:
        """`boss_host` is the BOSS into which detections are written: a host name, or a URL where it is not https."""
        self._compute = compute
        self._logs = logs
        self._results = results
        self._tokens = tokens
        self._links = links
        self._boss = boss_host if "://" in boss_host or not boss_host else f"https://{boss_host}"

    def summary(self, job: Job, *, within: str = "") -> Summary:
        """What an ended job's results.json tells, or that in a folder `within/` of its results, without the token.

        Where the token to hide is not known, only numbers and known names are told. Raises NotFound where there is no
        results.json, and Unreadable.
        """
        content = self._results.read(job.folder, f"{within}{RESULTS}", limit=MAX_SUMMARY)
        return Summary.read(content, token=self._hidden(job))

    def left(self, job: Job) -> tuple[list[ResultFile], bool]:
        """The files of an ended job's folder without those whose names hold the token, and whether there are such.

        Where the token to hide is not known, any name may hold it but those of KNOWN_FILES.
        """
        return _shown(self._results.list(job.folder), self._hidden(job))

    def listed(self, job: Job, found: list[ResultFile]) -> list[ResultFile]:
        """Of the files in the job's folder those that are listed for people: without the token in their names.

        Only files of known names where the token to hide is not known.
        """
        if job.summary or job.token_ref is None:  # what the summary does not say was not to be hidden
            only = {*job.summary.names, *KNOWN_FILES} if job.summary and job.summary.only_named else None
            return [file for file in found if only is None or file.name in only]
        try:
            return _shown(found, self._token(job))[0]
        except (NotFound, Refused):
            return _shown(found, None)[0]

    def links(self, job: Job, audience: Audience) -> list[tuple[str, Link]]:
        """Title and address of VIEW, of at most LINKS results, of BOSS's layers, and of what was written in BOSS.

        The addresses are made anew, since they end.
        """
        if job.summary is None:
            return []
        files = [file for file in job.summary.files if not file.folder][:LINKS]  # folders are for viewers
        links = [(file.title or file.name, self._link(job, file.name, audience)) for file in files]
        if view := self._view(job, audience):
            links.insert(0, (VIEW, view))
        if job.summary.viewer:
            links.append(("Neuroglancer", Link(job.summary.viewer)))
        if job.summary.written_back and self._boss:
            # BOSS's management console, for people; the channel's address in the REST API shows a browser nothing.
            links.append(("Detections in BOSS", Link(f"{self._boss}/v1/mgmt/resources/{job.summary.written_back}")))
        return links

    def address(self, job: Job, audience: Audience) -> str:
        """Where the job's results are: on a page of the bot's web, or without a web at the folder's own URI."""
        page = self._links.to_results(job, audience)
        return page.url if page else self._results.uri(job.folder)

    def page(self, job: Job, audience: Audience) -> str:
        """As `address`, where a browser opens the address; else empty."""
        address = self.address(job, audience)
        return address if address.startswith(_BROWSED) else ""

    def view(self, job: Job, audience: Audience) -> str:
        """The address at which the results are seen in three dimensions; empty without layers or without a web."""
        view = self._view(job, audience)
        return view.url if view else ""

    def _view(self, job: Job, audience: Audience) -> Link | None:
        return self._links.to_view(job, audience) if job.summary and job.summary.layers else None

    def _link(self, job: Job, name: str, audience: Audience) -> Link:
        page = self._links.to_results(job, audience)
        return Link(page.url + quote(name), page.expires) if page else self._results.link(job.folder, name)

    def console(self, job: Job) -> str:
        """The address at which an admin sees the job's run; empty where there is no such page."""
        return self._compute.console(job.compute_id) if job.compute_id else ""

    def tail(self, job: Job, *, lines: int) -> list[LogLine]:
        """The last lines that the job's program printed, oldest first, printable and without the token.

        Empty where nothing was printed, or where the token to hide is not known.
        """
        if job.compute_id is None:
            return []
        try:
            token = self._token(job)
        except (NotFound, Refused):
            return []
        found = self._logs.tail(job.compute_id, log=job.log, lines=lines)
        texts = masking.hidden_in_lines([line.text for line in found], token)
        return [replace(line, text=words.printable(text)) for line, text in zip(found, texts, strict=True)]

    def whole_log(self, job: Job, audience: Audience) -> Link:
        """The address of a copy of the log so far, without the token.

        Raises Refused where the program was never started, or where the token to hide is not known.
        """
        if job.compute_id is None:
            raise Refused("This job has no log: its program was never started.")
        token = self._token(job)
        log = self._logs.whole(job.compute_id, log=job.log)
        self._results.write(job.folder, LOG_FILE, masking.hidden_in_pieces(log, token))
        return self._link(job, LOG_FILE, audience)

    def redact(self, job: Job) -> bool:
        """Strike the token out of an ended job's stored log; to be called before the token is erased.

        Returns False where the token may still be in the log, since it is not known.
        """
        ids = [*(job.blocks.ended if job.blocks else ()), *([job.compute_id] if job.compute_id else [])]
        if ids and job.token_ref:
            try:
                token = self._tokens.open(job.token_ref)
            except (NotFound, Refused):
                return False
            for compute_id in ids:
                self._logs.redact(compute_id, token)
        return True

    def _hidden(self, job: Job) -> str | None:
        """The token to hide in what an ended job's program wrote into files; None where it is not known any more."""
        if job.token_ref is None:
            return None
        try:
            return self._tokens.open(job.token_ref).get_secret_value()
        except (NotFound, Refused):
            return None

    def _token(self, job: Job) -> str:
        """The token to hide in a log; empty: there is none in it. Raises NotFound or Refused where it is not known."""
        if job.token_ref is None:
            if not job.ended:
                raise NotFound("This job's token is not known.")
            return ""  # the token was struck out of the log before it was erased
        return self._tokens.open(job.token_ref).get_secret_value()


def _shown(files: Sequence[ResultFile], token: str | None) -> tuple[list[ResultFile], bool]:
    if token is None:
        known = [file for file in files if file.name in KNOWN_FILES]
        return known, len(known) < len(files)
    names = [file.name for file in files]
    shown = masking.hidden_in_texts(names, token)
    clean = [file for file, name in zip(files, shown, strict=True) if file.name == name]
    return clean, len(clean) < len(files)


def log_lines(lines: Sequence[LogLine]) -> list[str]:
    """Each line as text, after its time in UTC where that is known."""
    return [f"{line.at:%H:%M:%S} {line.text}" if line.at else line.text for line in lines]
