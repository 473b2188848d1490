"""The stand-in's HTTP side: the Web API, uploads, response URLs, Socket Mode, and the page with its own small API."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from sandbox.slack.delivery import Courier
from sandbox.slack.methods import WebApi
from sandbox.slack.person import Person, answer
from sandbox.slack.quick import Answer, protocol
from sandbox.slack.screen import screen
from sandbox.slack.workspace import RESPONSE_URL_SECONDS, RESPONSE_URL_USES, Json, SlackError, Workspace

T = TypeVar("T")
PAGE = Path(__file__).parent.parent / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; "
    "img-src 'self' data: http://127.0.0.1:* http://localhost:* https:; base-uri 'none'; form-action 'none'"
)
_JSON = [("content-type", "application/json; charset=utf-8")]
_MAIL_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: cid:; sandbox allow-popups"


@dataclass(frozen=True)
class Call:
    """One call of a Web API method: arguments and headers without the token, and the time on the stand-in's clock.

    `error` is the error of the answer: a code of Slack's, `ratelimited`, `lost`, `answered otherwise`, or empty.
    """

    method: str
    arguments: Json
    headers: dict[str, str]
    at: float
    error: str


class Faults:
    """Failures ordered for future calls, by method, in the order of the orders."""

    def __init__(self) -> None:
        self._due: defaultdict[str, deque[tuple[str, Any]]] = defaultdict(deque)
        self.delays: dict[str, float] = {}
        self._lock = threading.Lock()

    def order(self, method: str, kind: str, detail: Any, times: int) -> None:
        """Order this failure for the next `times` calls of the method."""
        with self._lock:
            self._due[method].extend([(kind, detail)] * times)

    def clear(self) -> None:
        """Cancel all orders."""
        with self._lock:
            self._due.clear()
            self.delays.clear()

    def take(self, method: str) -> tuple[str, Any]:
        """The failure for this call; ("", None) where there is none."""
        if not self._due:
            return "", None
        with self._lock:
            due = self._due.get(method)
            return due.popleft() if due else ("", None)


class Site:
    """The ASGI application, and `call`, through which the Web API bypasses it."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        api: WebApi,
        courier: Courier,
        faults: Faults,
        calls: list[Call] | None,
        person: Callable[[str], Person],
        page_facts: Mapping[str, Any],
        mailbox: Callable[[], Sequence[EmailMessage]] | None,
    ) -> None:
        self.workspace = workspace
        self.api = api
        self.courier = courier
        self.faults = faults
        self.calls = calls
        self.latency = 0.0
        self.levers: Sequence[tuple[str, str, Callable[[], None]]] = ()
        """Name, what should happen, and what breaks something: buttons of the page."""
        self.person = person
        self.page_facts = page_facts
        self.mailbox = mailbox
        self.closing = asyncio.Event()
        self.watchers: set[asyncio.Event] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.rest = Starlette(
            routes=[
                Route("/", self.page),
                Route("/api/{method}", self.slow_call, methods=["GET", "POST"]),
                Route("/link/", Response("", 426)),
                WebSocketRoute("/link/", courier.serve),
                Route("/upload/v1/{file}", self.upload, methods=["POST"]),
                Route("/files/{file}/{name:path}", self.download),
                Route("/response/{name}", self.respond, methods=["POST"]),
                Route("/page/state", self.state),
                Route("/page/changes", self.changes),
                Route("/page/act", self.act, methods=["POST"]),
                Route("/page/mail/{number:int}", self.mail),
                Mount("/page", StaticFiles(directory=PAGE)),
            ],
            # no other site may reach the stand-in under its own host name
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that `quick` left to uvicorn."""
        await self.rest(scope, receive, send)

    async def slow_call(self, request: Request) -> Response:
        """Answer a Web API call that `quick` leaves to uvicorn, such as a GET."""
        headers = dict(request.headers)
        answer = await self.call(request.path_params["method"], request.url.query, headers, await request.body())
        if answer is None:
            return PlainTextResponse("the answer got lost", 500)
        status, more, payload = answer
        return Response(payload, status, headers=dict(more))

    async def call(self, method: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answer one call of a Web API method; None where the answer is to be lost."""
        try:
            arguments = _arguments(body, headers.get("content-type", ""), query)
        except ValueError:
            return 200, _JSON, b'{"ok":false,"error":"invalid_json"}'
        token = headers.pop("authorization", "").removeprefix("Bearer ").strip()
        token = str(arguments.pop("token", "") or token)
        kind, detail = self.faults.take(method)
        wait = self.latency + self.faults.delays.get(method, 0.0)
        if wait:
            epoch = self.workspace.epoch
            await asyncio.sleep(wait)
            if epoch != self.workspace.epoch:  # the workspace was reset since the call
                return None
        status, more, payload, error = self._perform(method, arguments, token, kind, detail)
        if self.calls is not None:
            with self.workspace.change():
                self.calls.append(Call(method, arguments, headers, self.workspace.clock(), error))
        kinds = [] if any(name == "content-type" for name, _ in more) else _JSON
        return None if error == "lost" else (status, more + kinds, payload)

    def _perform(
        self, method: str, arguments: Json, token: str, kind: str, detail: Any
    ) -> tuple[int, list[tuple[str, str]], bytes, str]:
        """Perform one call; returns status, headers, answer and error."""
        match kind:
            case "rate_limit":
                return 429, [("retry-after", str(detail))], _refusal("ratelimited"), "ratelimited"
            case "status":
                return detail, [], _refusal("internal_error"), "internal_error"
            case "fail":
                return 200, [], _refusal(detail), detail
            case "say":
                return (*detail, "answered otherwise")
        try:
            with self.workspace.change():
                # serialized while the workspace is held
                payload = json.dumps({"ok": True, **self.api.call(method, arguments, token)}, separators=(",", ":"))
        except SlackError as refusal:
            return 200, [], _refusal(refusal.code, refusal.extra), refusal.code
        scopes = [("x-oauth-scopes", ",".join(sorted(self.api.scopes)))] if self.api.scopes else []
        if kind == "garble":
            return (*detail, "answered otherwise")
        return 200, scopes, payload.encode(), "lost" if kind == "lose" else ""

    async def upload(self, request: Request) -> Response:
        """Receive a file: the request's body is its content."""
        content = await request.body()
        with self.workspace.change():
            file = self.workspace.files.get(request.path_params["file"])
            if file is None or file.content is not None:
                return PlainTextResponse("not found", 404)
            if len(content) != file.length:
                return PlainTextResponse("length differs from what was announced", 400)
            file.content = content
        return PlainTextResponse(f"OK - {len(content)}")

    async def download(self, request: Request) -> Response:
        """Serve a shared file to the page."""
        with self.workspace.lock:
            file = self.workspace.files.get(request.path_params["file"])
        if file is None or file.content is None:
            return PlainTextResponse("not found", 404)
        kind = file.as_json("")["mimetype"]
        headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
        headers |= {"x-content-type-options": "nosniff"}
        return Response(file.content, media_type=kind, headers=headers)

    async def respond(self, request: Request) -> Response:
        """Take an answer to a response_url."""
        try:
            body = json.loads(await request.body())
        except ValueError:
            return PlainTextResponse("invalid_payload", 400)
        with self.workspace.change():
            leave = self.workspace.response_urls.get(request.path_params["name"])
            if leave is None:
                return PlainTextResponse("not_found", 404)
            if self.workspace.clock() - leave.born > RESPONSE_URL_SECONDS:
                return PlainTextResponse("expired_url", 404)
            if leave.uses >= RESPONSE_URL_USES:
                return PlainTextResponse("used_url", 404)
            leave.uses += 1
            if not isinstance(body, dict) or not answer(
                self.workspace, leave.user, leave.channel, body, original=leave.message
            ):
                return PlainTextResponse("invalid_blocks", 400)
        return PlainTextResponse("ok")

    async def page(self, request: Request) -> Response:
        """Serve the page."""
        return FileResponse(
            PAGE / "index.html", headers={"content-security-policy": _POLICY, "cache-control": "no-store"}
        )

    async def state(self, request: Request) -> Response:
        """Serve all that a person can see, as JSON."""
        user = request.query_params.get("person", "")
        if user not in self.workspace.members:
            return JSONResponse({"error": "no such person"}, 404)
        mails = list(self.mailbox()) if self.mailbox else None
        with self.workspace.lock:
            shown = screen(self.workspace, user, mails)
            shown |= {"levers": [{"name": name, "says": says} for name, says, _ in self.levers]}
            return JSONResponse(shown | dict(self.page_facts), headers={"cache-control": "no-store"})

    async def changes(self, request: Request) -> Response:
        """Serve server-sent events: the workspace's version after every change."""
        return StreamingResponse(
            self._versions(), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _versions(self) -> AsyncIterator[str]:
        changed = asyncio.Event()
        self.watchers.add(changed)
        try:
            while not self.closing.is_set():
                yield f"data: {self.workspace.version}\n\n"
                await changed.wait()
                changed.clear()
        finally:
            self.watchers.discard(changed)

    async def act(self, request: Request) -> Response:
        """Perform one action of a person at the page, `{"person", "act", …}`; answers with the outcome."""
        if request.headers.get("content-type") != "application/json":  # no other site can send this type unasked
            return JSONResponse({"error": "application/json is needed"}, 415)
        wanted = await request.json()
        try:
            return JSONResponse(await run_in_threadpool(self._act, wanted))
        except (LookupError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 409)

    def _act(self, wanted: Json) -> Json:
        person = self.person(str(wanted.get("person")))
        view = str(wanted.get("view") or "")
        match wanted.get("act"):
            case "slash":
                ack = person.slash(wanted["command"], wanted["text"], channel=wanted["channel"])
            case "shortcut":
                ack = person.shortcut(wanted["callback_id"])
            case "submit":
                ack = person.submit(view, wanted["values"])
            case "click":
                if view and wanted.get("values"):
                    person.fill(view, wanted["values"])
                target = view or {"ts": wanted["ts"], "channel": wanted["channel"]}
                ack = person.click(target, wanted["action_id"], wanted.get("value"), block_id=wanted["block_id"])
            case "suggest":
                person.fill(view, wanted.get("values") or {})
                return {"options": person.suggest(view, wanted["action_id"], wanted["query"])}
            case "close":
                closed = person.close(view)
                return {"error": closed.error if closed else ""}
            case "home":
                ack = person.open_home()
            case "lever":
                name, says, pull = self.levers[int(wanted["number"])]
                pull()
                return {"error": "", "said": f"{name}. {says}"}
            case unknown:
                raise ValueError(f"nobody can {unknown}")
        return {"error": ack.error, "errors": ack.errors}

    async def mail(self, request: Request) -> Response:
        """Serve a received mail's HTML, for a frame without any rights."""
        mails = self.mailbox() if self.mailbox else ()
        number = request.path_params["number"]
        if number >= len(mails):
            return PlainTextResponse("not found", 404)
        part = mails[number].get_body(("html",))
        content = part.get_content() if part else ""
        return Response(content, media_type="text/html", headers={"content-security-policy": _MAIL_POLICY})

    def changed(self) -> None:
        """Tell the pages of a change; callable from any thread."""
        if self.watchers and self.loop is not None:
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for watcher in self.watchers:
            watcher.set()

    async def close(self) -> None:
        """End the event streams, so that the server can end."""
        self.closing.set()
        self._wake()


def _refusal(error: str, extra: Mapping[str, Any] | None = None) -> bytes:
    return json.dumps({"ok": False, "error": error, **(extra or {})}).encode()


def _arguments(body: bytes, content_type: str, query: str) -> Json:
    """A call's arguments, from JSON or a form and from the query, without nulls."""
    found: Json = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    if content_type.startswith("application/json"):
        decoded = json.loads(body or b"{}")
        if isinstance(decoded, dict):
            found |= {k: v for k, v in decoded.items() if v is not None}
    elif body:
        found |= dict(parse_qsl(body.decode(), keep_blank_values=True))
    return found


class _Server(uvicorn.Server):
    """uvicorn that signals when it serves, and waits to be stopped instead of polling ten times a second."""

    def __init__(self, config: uvicorn.Config, site: Site, ready: threading.Event) -> None:
        super().__init__(config)
        self.site = site
        self.ready = ready
        self.end = asyncio.Event()

    async def main_loop(self) -> None:
        self.site.loop = asyncio.get_running_loop()
        self.ready.set()
        await self.end.wait()
        await self.site.close()


def bound_socket(port: int = 0) -> socket.socket:
    """A socket bound on 127.0.0.1, for uvicorn to serve."""
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer waits 40 ms for an ACK
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


class ThreadedServer:
    """A server in its own thread, on a port of 127.0.0.1 that is known before the server runs."""

    def __init__(self, *, port: int = 0) -> None:
        self._socket = bound_socket(port)
        self.port: int = self._socket.getsockname()[1]

    def start(self, site: Site) -> None:
        """Start the server; returns once it serves."""
        config = uvicorn.Config(
            site,
            http=protocol(site.call),
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        ready = threading.Event()
        self._server = _Server(config, site, ready)
        work = self._server.serve([self._socket])
        self._thread = threading.Thread(target=asyncio.run, args=(work,), name="slack stand-in", daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Stop the server; returns once it has ended."""
        loop = self._server.site.loop
        if loop is not None:
            loop.call_soon_threadsafe(self._server.end.set)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop and return its result."""
        loop = self._server.site.loop
        if loop is None:
            raise RuntimeError("the server is not running")
        return asyncio.run_coroutine_threadsafe(work, loop).result()
