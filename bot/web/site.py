"""The HTTP side: Slack's requests, health, and the results that the bot serves."""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from mimetypes import guess_type
from pathlib import Path

import anyio.to_thread
from pydantic import SecretStr
from slack_bolt import App, BoltRequest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.domain.errors import NotFound
from bot.domain.health import Health
from bot.domain.html import template
from bot.domain.results import OpenedFile, ResultFile, ServedResults

log = logging.getLogger(__name__)

_FOLDER_PAGE = Path(__file__).parent / "templates" / "folder.html"
THREADS = 64
"""Requests answered at once: a request mostly waits, for Slack or the database."""
SIGNED_WITHIN = 300
"""Seconds for which a signature of Slack's holds (Slack's guide to verifying requests)."""
MAX_BODY = 2**20
"""Bytes of the largest request; Slack's largest (a view of 250 kB and its state) stay well below."""


def web(
    *,
    app: App | None,
    results: ServedResults | None,
    health: Callable[[], Health],
    signing_secret: SecretStr | None = None,
) -> Starlette:
    """The routes: Slack's where `app` is given (not in Socket Mode), those of `results` where they are given.

    `app` needs the `signing_secret`: a request that Slack did not sign gets 401 before its content is parsed.
    """

    async def alive(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readiness(_request: Request) -> Response:
        found = await run_in_threadpool(health)
        note = f"; {found.note}" if found.note else ""
        return PlainTextResponse(
            f"{found.problem or f'ready{note}'}\n", status_code=503 if found.problem else 200, headers=_FRESH
        )

    routes = [Route("/health", alive), Route("/ready", readiness)]
    if app and signing_secret:
        routes.append(Route("/slack/events", _SlackEvents(app, signing_secret), methods=["POST"]))
    if results:
        routes.append(Route("/results/{path:path}", _results(results)))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    site = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(OneLength)])
    site.router.redirect_slashes = False  # it would redirect to whatever Host the request names
    return site


class OneLength:
    """Refuses a request that says its length twice, chunked and in bytes: two readers would see two requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        names = [name for name, _ in scope.get("headers", ())]
        if b"transfer-encoding" in names and b"content-length" in names:
            answer = PlainTextResponse("chunked, or with a length\n", status_code=400, headers={"Connection": "close"})
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _SlackEvents:
    """Slack's requests as an ASGI application of its own: a function would be wrapped twice by Starlette."""

    def __init__(self, app: App, signing_secret: SecretStr) -> None:
        self._app = app
        self._secret = signing_secret.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    return PlainTextResponse("too large\n", status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        if not _is_slack_s(self._secret, request.headers, body):
            return PlainTextResponse("not signed by Slack, or too long ago\n", status_code=401)
        return await run_in_threadpool(self._dispatched, body, str(request.query_params), dict(request.headers))

    def _dispatched(self, body: bytes, query: str, headers: dict[str, str | Sequence[str]]) -> Response:
        """Bolt's answer, found in a thread of its own: Bolt's adapter would hold up all others with a slow one."""
        try:
            asked = BoltRequest(body=body.decode(), query=query, headers=headers)
            if not isinstance(asked.body, dict) or not asked.body:
                raise TypeError("not an object")
            answer = self._app.dispatch(asked)
        except Exception as error:  # listeners' errors are Bolt's; what is raised here comes of a strange body
            log.warning("A request is signed by Slack, and is none of Slack's (%s).", type(error).__name__)
            return PlainTextResponse("not a request of Slack's\n", status_code=400)
        return Response(answer.body, status_code=answer.status, headers=_flat(answer.headers))


def _is_slack_s(secret: bytes, headers: Headers, body: bytes) -> bool:
    """Whether Slack signed these bytes within the last five minutes. Malformed headers give False.

    Slack's own SDK decodes the bytes first, and raises where they are no text.
    """
    timestamp, signature = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp, re.ASCII) or abs(time.time() - int(timestamp)) > SIGNED_WITHIN:
        return False
    right = "v0=" + hmac.digest(secret, b"v0:" + timestamp.encode() + b":" + body, "sha256").hex()
    return hmac.compare_digest(right.encode(), signature.encode())


def _flat(headers: dict[str, Sequence[str]]) -> dict[str, str]:
    return {name: ", ".join([values] if isinstance(values, str) else values) for name, values in headers.items()}


def _results(results: ServedResults) -> Callable[[Request], object]:
    def read(request: Request) -> Response:
        signature, *parts = request.path_params["path"].split("/")
        folder, name = "/".join(parts[:2]), "/".join(parts[2:])
        try:
            if not name:
                if len(parts) < 3 or not results.admits(signature, folder):
                    raise NotFound("no such folder")
                return HTMLResponse(_page(folder, results.list(folder)), headers=_FOLDER)
            return _Served(results.open(signature, folder, name), name)
        except NotFound:
            return PlainTextResponse("There is nothing here; the link may be cut short.\n", status_code=404)

    return read


_FRESH = {"Cache-Control": "no-store"}


class _Served(FileResponse):
    """An open file, read through its descriptor: another file may have taken its name since it was opened."""

    def __init__(self, opened: OpenedFile, name: str) -> None:
        # /dev/fd/N is the open file itself, so that ranges, HEAD and ETags stay Starlette's.
        super().__init__(
            f"/dev/fd/{opened.file.fileno()}",
            headers=_FILE,
            media_type=guess_type(name)[0] or "application/octet-stream",
            stat_result=opened.status,
        )
        self._file = opened.file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, and close it."""
        with self._file:
            await super().__call__(scope, receive, send)


_PLAIN = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_FOLDER = _PLAIN | {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_FILE = _PLAIN | {
    # A report is a page that a program wrote: it may be shown, and run nothing in this site's name.
    "Content-Security-Policy": "sandbox allow-downloads; default-src 'none'; img-src 'self' data:; "
    "style-src 'unsafe-inline'"
}


def _page(folder: str, files: Sequence[ResultFile]) -> str:
    return template(_FOLDER_PAGE).render(folder=folder, files=files)
