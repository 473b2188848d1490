"""The HTTP side: Slack's requests, health, and the links that the bot answers."""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import parse_qsl

import anyio.to_thread
from pydantic import SecretStr
from slack_bolt import BoltResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.domain.health import Health
from bot.domain.links import Shared
from bot.web.shared import shared_routes

THREADS = 64
"""Requests answered at once: a request mostly waits, for Slack or the database."""
SIGNED_WITHIN = 300
"""Seconds for which a signature of Slack's holds (Slack's guide to verifying requests)."""
MAX_BODY = 2**20
"""Bytes of the largest request; Slack's largest (a view of 250 kB and its state) stay well below."""


class Requests(Protocol):
    """What answers Slack's requests."""

    def answer(self, body: Any, *, headers: Mapping[str, str | Sequence[str]] | None, query: str) -> BoltResponse:
        """The answer to a body; it has the status 400 where that is none of Slack's."""


def web(
    *,
    slack: Requests | None,
    shared: Shared | None,
    health: Callable[[], Health],
    signing_secret: SecretStr | None = None,
) -> Starlette:
    """The routes: Slack's where `slack` is given (not in Socket Mode), those of links where `shared` answers them.

    `slack` needs the `signing_secret`: a request that Slack did not sign gets 401 before its content is parsed.
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
    if slack and signing_secret:
        routes.append(Route("/slack/events", _SlackEvents(slack, signing_secret), methods=["POST"]))
    if shared:
        routes += shared_routes(shared)

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

    def __init__(self, requests: Requests, signing_secret: SecretStr) -> None:
        self._requests = requests
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

    def _dispatched(self, body: bytes, query: str, headers: dict[str, str]) -> Response:
        """The answer, found in a thread of its own: Bolt's adapter would hold up all others with a slow one."""
        answer = self._requests.answer(_read(body), query=query, headers=headers)
        return Response(answer.body, status_code=answer.status, headers=_flat(answer.headers))


def _read(body: bytes) -> Any:
    """What a body says: JSON, a form, or JSON in a form's `payload`; None where it cannot be read.

    Bolt takes each form in which the word payload occurs for one that has such a field.
    """
    try:
        text = body.decode()
        if text[:1] not in ("{", "["):
            form = dict(parse_qsl(text, keep_blank_values=True))
            if "payload" not in form:
                return form
            text = form["payload"]
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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


_FRESH = {"Cache-Control": "no-store"}
