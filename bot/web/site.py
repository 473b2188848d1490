"""The HTTP side: Slack's requests, health, and the results that the bot serves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from mimetypes import guess_type
from pathlib import Path
from typing import Protocol

import anyio.to_thread
from pydantic import SecretStr
from slack_bolt import App, BoltRequest
from slack_sdk.signature import SignatureVerifier
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot.domain.errors import NotFound
from bot.domain.html import template
from bot.domain.results import OpenedFile, ResultFile, ServedResults

_FOLDER_PAGE = Path(__file__).parent / "templates" / "folder.html"
THREADS = 64
"""Requests answered at once: a request mostly waits, for Slack or the database."""
MAX_BODY = 2**20
"""Bytes of the largest request; Slack's largest (a view of 250 kB and its state) stay well below."""


class Ready(Protocol):
    """Tells why the process is not ready to work."""

    def __call__(self) -> str:
        """The reason, in words for an admin; empty where the process is ready."""


def web(
    *, app: App | None, results: ServedResults | None, ready: Ready, signing_secret: SecretStr | None = None
) -> Starlette:
    """The routes: Slack's where `app` is given (not in Socket Mode), those of `results` where they are given.

    `app` needs the `signing_secret`: a request that Slack did not sign gets 401 before its content is parsed.
    """

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readiness(_request: Request) -> Response:
        problem = await run_in_threadpool(ready)
        return PlainTextResponse(f"{problem or 'ready'}\n", status_code=503 if problem else 200)

    routes = [Route("/health", health), Route("/ready", readiness)]
    if app and signing_secret:
        routes.append(Route("/slack/events", _SlackEvents(app, signing_secret), methods=["POST"]))
    if results:
        routes.append(Route("/results/{path:path}", _results(results)))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    return Starlette(routes=routes, lifespan=lifespan)


class _SlackEvents:
    """Slack's requests as an ASGI application of its own: a function would be wrapped twice by Starlette."""

    def __init__(self, app: App, signing_secret: SecretStr) -> None:
        self._app = app
        self._verifier = SignatureVerifier(signing_secret.get_secret_value())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                return PlainTextResponse("too large\n", status_code=413)
        if not _is_slack_s(self._verifier, request.headers, body):
            return PlainTextResponse("not signed by Slack, or too long ago\n", status_code=401)
        asked = BoltRequest(
            body=body.decode("utf-8", "replace"), query=str(request.query_params), headers=dict(request.headers)
        )
        # Bolt's own adapter runs the sync app on the event loop, where one slow answer holds up all the others.
        answer = await run_in_threadpool(self._app.dispatch, asked)
        return Response(answer.body, status_code=answer.status, headers=_flat(answer.headers))


def _is_slack_s(verifier: SignatureVerifier, headers: Headers, body: bytes) -> bool:
    """Whether Slack signed these bytes within the last five minutes. Malformed headers give False."""
    timestamp, signature = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp, re.ASCII) or not signature.isascii():
        return False
    return verifier.is_valid(body=body, timestamp=timestamp, signature=signature)


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
