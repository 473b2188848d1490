"""The floor of a slash command: a bare Starlette endpoint that checks the signature and makes the same Slack call."""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import anyio.to_thread
import uvicorn
from slack_sdk import WebClient
from slack_sdk.signature import SignatureVerifier
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.processes import questions, say
from bot.domain.catalog import Catalog
from bot.settings import ROOT
from bot.slack.client import PooledWebClient
from bot.web.site import THREADS
from handlers import modal

Opening = Callable[[str], Awaitable[Any]]
"""A function that opens the view for a trigger id."""


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    for name in ("--client", "--api", "--token", "--secret"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    wish = modal.Wish({"channel": "C01SYNAPSES", "email": "demo@example.org"})
    view = modal.view(Catalog.read(ROOT / "pipelines"), wish)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = _app(_CLIENTS[arguments.client](arguments.api, arguments.token, view), arguments.secret)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))

    def end() -> None:
        for _ in questions():
            pass
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    listener.listen(2048)
    say(url=f"http://127.0.0.1:{listener.getsockname()[1]}/slack/events")
    server.run(sockets=[listener])


def _app(opening: Opening, secret: str) -> Starlette:
    verifier = SignatureVerifier(secret)

    async def events(request: Request) -> Response:
        body = await request.body()
        if not verifier.is_valid_request(body, dict(request.headers)):
            return Response(status_code=401)
        await opening(parse_qs(body.decode())["trigger_id"][0])
        return Response()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    return Starlette(routes=[Route("/slack/events", events, methods=["POST"])], lifespan=lifespan)


def _sdk(api: str, token: str, view: dict[str, Any]) -> Opening:
    """Open views with slack_sdk's own client, in threads."""
    return _threaded(WebClient(token=token, base_url=api), view)


def _pooled(api: str, token: str, view: dict[str, Any]) -> Opening:
    """Open views with the bot's client, whose connections stay open, in threads."""
    return _threaded(PooledWebClient(token=token, base_url=api), view)


def _threaded(client: WebClient, view: dict[str, Any]) -> Opening:
    async def opening(trigger: str) -> None:
        await run_in_threadpool(client.views_open, trigger_id=trigger, view=view)

    return opening


_CLIENTS: dict[str, Callable[[str, str, dict[str, Any]], Opening]] = {"sdk": _sdk, "pooled": _pooled}

if __name__ == "__main__":
    main()
