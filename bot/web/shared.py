"""The pages and files behind links: a job's results, and the end of a person's mail."""

from __future__ import annotations

import logging
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot.domain import words
from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.html import template
from bot.domain.links import LinkEnded, NoFile, Shared
from bot.domain.results import Opened, shown_as
from bot.web.archive import zipped

log = logging.getLogger(__name__)

ARCHIVE = "zip"
"""The query that asks a page's address for everything in one file."""
_TEMPLATES = Path(__file__).parent / "templates"
_STYLE = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
_PLAIN = {
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",  # the address is the key to the results
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
_PAGE = _PLAIN | {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    f"frame-ancestors 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'"
}
_FILE = _PLAIN | {
    # A report is a page that a program wrote: it may be shown, and run nothing in this site's name.
    "Content-Security-Policy": "sandbox allow-downloads; default-src 'none'; img-src 'self' data:; "
    "style-src 'unsafe-inline'"
}
NOTHING = ("There is nothing here", "The link may be cut short, or it was made for somebody else. Copy all of it.")
NO_FILE = (
    "There is no such file",
    "It was deleted since this link was made, it is not written yet, or the link is cut short.",
)
ENDED = (
    "The results are still there. A new link: press Results on the job's card in Slack, or type /nomads status {}. "
    "Without Slack, ask whoever asked for the job; the mail names them."
)
NO_ANSWER = ("Not just now", "Try again in a moment.")


def shared_routes(shared: Shared) -> list[Route]:
    """The routes of `shared`: results for GET and HEAD, the end of mail for GET and POST."""
    return [
        Route("/results/{path:path}", _told(lambda request: _results(shared, request))),
        Route("/mail/{signed}", _told(lambda request: _mail(shared, request)), methods=["GET", "POST"]),
    ]


def _told(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """The answer, or a page that says why there is none."""

    def told(request: Request) -> Response:
        try:
            return answer(request)
        except LinkEnded as ended:
            return _message("This link has ended", ENDED.format(ended.job_id), status=410)
        except NoFile:
            return _message(*NO_FILE, status=404, page=_page_above(request))
        except Refused as refusal:
            if not isinstance(refusal, NotFound):
                log.warning("A link cannot be answered: %s", refusal)
            return _message(*NOTHING, status=404)
        except Unavailable as error:
            log.info("A link cannot be answered now: %s", error)
            return _message(*NO_ANSWER, status=503, headers={"Retry-After": "10"})

    return told


def _results(shared: Shared, request: Request) -> Response:
    signed, slash, name = request.path_params["path"].partition("/")
    if not slash:  # below an address without its slash, relative links lead elsewhere
        raise NotFound("no such page")
    if name:
        return _file(shared, request, signed, name)
    if request.url.query == ARCHIVE:
        return _archive(shared, request, signed)
    return _page("results.html", page=shared.page(signed), words=words, archive=f"?{ARCHIVE}", quote=quote)


def _file(shared: Shared, request: Request, signed: str, name: str) -> Response:
    found = shared.file(signed, name)
    if not isinstance(found, Opened):
        return RedirectResponse(found.url, status_code=307, headers=_PLAIN)
    kind = shown_as(name)
    headers = _FILE | ({} if kind else _saved(name.rpartition("/")[2]))
    kind = kind or "application/octet-stream"
    if isinstance(found.file, BufferedReader):
        return _OnThisMachine(found.file, found.status, headers, kind)
    headers |= {"Content-Length": str(found.size)}
    if request.method == "HEAD":
        found.file.close()
        return Response(headers=headers, media_type=kind)
    return StreamingResponse(found.pieces(), headers=headers, media_type=kind)


class _OnThisMachine(FileResponse):
    """An open file, read through its descriptor: another file may have taken its name since it was opened."""

    def __init__(
        self, file: BufferedReader, status: os.stat_result | None, headers: Mapping[str, str], kind: str
    ) -> None:
        # /dev/fd/N is the open file itself, so that ranges, HEAD and ETags stay Starlette's.
        super().__init__(f"/dev/fd/{file.fileno()}", headers=headers, media_type=kind, stat_result=status)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, and close it."""
        with self._file:
            await super().__call__(scope, receive, send)


def _archive(shared: Shared, request: Request, signed: str) -> Response:
    name, files = shared.archive(signed)
    headers = _FILE | _saved(f"{name}.zip")
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/zip")
    return StreamingResponse(zipped(name, files), headers=headers, media_type="application/zip")


def _mail(shared: Shared, request: Request) -> Response:
    """GET shows a button and changes nothing, since mail scanners follow links; POST ends the mail (RFC 8058)."""
    signed = request.path_params["signed"]
    if request.method == "POST":
        shared.end_mail(signed)
    ended = shared.mail_ends(signed)
    return _page("mail.html", ended=ended)


def _saved(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}"}


def _page_above(request: Request) -> str:
    """Where the results page lies, seen from a file's address: other addresses may lie before the bot's own path."""
    below = request.scope["raw_path"].split(b"/")[3:]  # after /results/ and the signed part
    return "../" * (len(below) - 1) or "./"


def _message(
    title: str, text: str, *, status: int, headers: Mapping[str, str] | None = None, page: str = ""
) -> Response:
    """`page` is the address of the results page, where the reader can go there."""
    return _page("message.html", status=status, headers=headers, title=title, text=text, page=page)


def _page(name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    html = template(_TEMPLATES / name).render(style=_STYLE, **values)
    return HTMLResponse(html, status_code=status, headers=_PAGE | dict(headers or {}))
