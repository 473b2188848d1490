"""What a job leaves behind, as people may see it: its results and its log, without the token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from bot.application.ports import Compute, Logs, Results
from bot.application.tokens import TokenKeeper
from bot.domain import words
from bot.domain.errors import NotFound, Refused
from bot.domain.job import Job
from bot.domain.request import PUBLIC_TOKEN
from bot.domain.results import Link
from bot.domain.work import LogLine
from bot.local.supervise import COLOURED, spellings

LINKS = 10
"""How many results are linked one by one; the folder's address leads to the rest."""
LOG_LINES = 20
"""How many of the last log lines are shown when a job fails."""
LOG_FILE = "nomads-log.txt"
"""The whole log, where somebody asked for it, in the results folder."""
MASK = "•••"
TOLD = 4
"""So many letters of a token say too much, where it is cut."""


class Output:
    """Reads what programs wrote and printed. Raises Unavailable and Refused."""

    def __init__(self, *, compute: Compute, logs: Logs, results: Results, tokens: TokenKeeper) -> None:
        self._compute = compute
        self._logs = logs
        self._results = results
        self._tokens = tokens

    def links(self, job: Job) -> list[tuple[str, Link]]:
        """Title and address of each result, made now: some addresses expire."""
        if job.summary is None:
            return []
        files = job.summary.files[:LINKS]
        links = [(file.title or file.name, self._results.link(job.folder, file.name)) for file in files]
        if job.summary.viewer:
            links.append(("Neuroglancer", Link(job.summary.viewer)))
        return links

    def address(self, job: Job) -> str:
        """Where its results folder is looked at."""
        return self._results.address(job.folder)

    def console(self, job: Job) -> str:
        """Where an admin sees its run; empty where there is no such page."""
        return self._compute.console(job.compute_id) if job.compute_id else ""

    def tail(self, job: Job, *, lines: int) -> list[LogLine]:
        """The last lines its program printed, oldest first, printable and without the token.

        Empty where it has not printed any, or where it cannot be told whether they hold the token.
        """
        if job.compute_id is None:
            return []
        try:
            token = self._token(job)
        except (NotFound, Refused):
            return []
        found = self._logs.tail(job.compute_id, log=job.log, lines=lines)
        if found and token:
            # What is read of a long line may begin within the token, and what is written just now may end within it.
            found[0] = replace(found[0], text=_without_rest(found[0].text, token))
            found[-1] = replace(found[-1], text=_without_beginning(found[-1].text.encode(), token).decode())
        return [replace(line, text=words.printable(_masked(line.text, token))) for line in found]

    def whole_log(self, job: Job) -> Link:
        """An address of all it has printed so far, without the token. Raises Refused where there is no telling."""
        if job.compute_id is None:
            raise Refused("This job has no log: its program was never started.")
        token = self._token(job)
        self._results.write(job.folder, LOG_FILE, masked(self._logs.whole(job.compute_id, log=job.log), token))
        return self._results.link(job.folder, LOG_FILE)

    def redact(self, job: Job) -> None:
        """Before its token is forgotten: let no log that is read later hold it."""
        if job.compute_id and job.token_ref:
            with suppress(NotFound, Refused):  # it is kept no more: then nobody can
                self._logs.redact(job.compute_id, self._tokens.open(job.token_ref))

    def _token(self, job: Job) -> str:
        """What must not be shown; empty where nothing is secret. Raises NotFound or Refused where it is not known."""
        if job.token_ref is None:
            if not job.ended:
                raise NotFound("This job's token is not known.")
            return ""  # it was struck out of the log before it was forgotten
        token = self._tokens.open(job.token_ref).get_secret_value()
        return "" if token == PUBLIC_TOKEN else token


def _masked(text: str, token: str) -> str:
    return spellings(token.encode()).sub(MASK.encode(), text.encode()).decode() if token else text


def _without_rest(text: str, token: str) -> str:
    rests = (token[-n:] for n in range(len(token) - 1, TOLD - 1, -1))
    rest = next((rest for rest in rests if text.startswith(rest)), "")
    return MASK + text[len(rest) :] if rest else text


def _without_beginning(text: bytes, token: str) -> bytes:
    beginnings = (token[:n].encode() for n in range(len(token) - 1, TOLD - 1, -1))
    begun = next((begun for begun in beginnings if text.endswith(begun)), b"")
    return text[: len(text) - len(begun)] + MASK.encode() if begun else text


def masked(pieces: Iterable[bytes], token: str) -> Iterator[bytes]:
    """The pieces without the token, also where it lies across two of them; memory stays a piece's."""
    if not token:
        yield from pieces
        return
    word, mask, kept = token.encode(), MASK.encode(), b""
    coloured, shared = spellings(word), 2 * len(word) + COLOURED
    for piece in pieces:
        text = kept + piece
        text = coloured.sub(mask, text) if b"\x1b" in text else text.replace(word, mask)
        # The token may end in the next piece, so as much as it may take waits for that.
        yield text[:-shared]
        kept = text[-shared:]
    yield _without_beginning(kept, token)


def log_lines(lines: Sequence[LogLine]) -> list[str]:
    """Lines with their times, in UTC."""
    return [f"{line.at:%H:%M:%S} {line.text}" if line.at else line.text for line in lines]
