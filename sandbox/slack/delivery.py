"""How Slack hands an interaction to an app and waits for the acknowledgement: over Socket Mode or signed HTTP."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

import httpx
from starlette.websockets import WebSocket, WebSocketDisconnect

from sandbox.slack.workspace import APP, Json

Kind = Literal["slash_commands", "interactive", "events_api"]
Signature = Literal["right", "forged", "stale"]

OPERATION_TIMEOUT = "operation_timeout"
"""What a person sees when the app did not acknowledge in time."""
DISPATCH_FAILED = "dispatch_failed"
"""What a person sees when the app could not be reached or answered with an error."""


@dataclass(frozen=True)
class Envelope:
    """One message from Slack to the app."""

    kind: Kind
    payload: Json


@dataclass(frozen=True)
class Ack:
    """The outcome of an interaction.

    `status` is the app's HTTP status (200 for an acknowledgement over Socket Mode, None where none came), `body` the
    app's answer (parsed JSON, a text, or empty), `seconds` the time to the answer. `error` is what Slack shows the
    person when something went wrong, and `errors` are the texts shown under fields, by block id.
    """

    status: int | None
    body: Any = ""
    seconds: float = 0.0
    error: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    envelope: Envelope | None = None

    @property
    def ok(self) -> bool:
        """Whether the app acknowledged in time, and neither app nor Slack found anything wrong."""
        return self.status == 200 and not self.error and not self.errors


class Courier:
    """Delivers envelopes: over HTTP where `request_url` is set, else over any open Socket Mode connection."""

    def __init__(self, *, signing_secret: str, ack_timeout: float, changed: Callable[[], None]) -> None:
        self.signing_secret = signing_secret
        self.ack_timeout = ack_timeout
        self.request_url: str | None = None
        self.connections: list[WebSocket] = []
        self._changed = changed
        self._tickets: set[str] = set()
        self._pending: dict[str, Future[Any]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http = httpx.Client(trust_env=False, timeout=ack_timeout)

    def close(self) -> None:
        """Close the connections to the app."""
        self._http.close()

    def deliver(self, envelope: Envelope, *, signature: Signature = "right", retry: int = 0) -> Ack:
        """Deliver the envelope and wait for the acknowledgement, at most `ack_timeout` seconds."""
        began = time.perf_counter()
        send = self._over_http if self.request_url else self._over_socket
        status, body, error = send(envelope, signature, retry)
        seconds = time.perf_counter() - began
        if seconds > self.ack_timeout:
            error = OPERATION_TIMEOUT
        return Ack(status, body, seconds, error, envelope=envelope)

    def sign(self, body: bytes, *, signature: Signature = "right") -> dict[str, str]:
        """Slack's headers for this body; a forged signature has another secret, a stale one is six minutes old."""
        stamp = str(int(time.time()) - (360 if signature == "stale" else 0))
        secret = secrets.token_hex(16) if signature == "forged" else self.signing_secret
        made = hmac.digest(secret.encode(), b"v0:" + stamp.encode() + b":" + body, "sha256").hex()
        return {
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": f"v0={made}",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
        }

    def encode(self, envelope: Envelope) -> tuple[bytes, str]:
        """An envelope as an HTTP request's body and content type."""
        if envelope.kind == "events_api":
            return json.dumps(envelope.payload).encode(), "application/json"
        form = envelope.payload if envelope.kind == "slash_commands" else {"payload": json.dumps(envelope.payload)}
        return urlencode(form).encode(), "application/x-www-form-urlencoded"

    def _over_http(self, envelope: Envelope, signature: Signature, retry: int) -> tuple[int | None, Any, str]:
        body, kind = self.encode(envelope)
        headers = {"Content-Type": kind, "Accept": "*/*"} | self.sign(body, signature=signature)
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": "http_timeout"}
        try:
            answer = self._http.post(self.request_url or "", content=body, headers=headers)
        except httpx.TimeoutException:
            return None, "", OPERATION_TIMEOUT
        except httpx.HTTPError:
            return None, "", DISPATCH_FAILED
        content: Any = answer.text
        if answer.headers.get("content-type", "").startswith("application/json") and content:
            try:
                content = answer.json()
            except ValueError:
                return answer.status_code, content, DISPATCH_FAILED
        return answer.status_code, content, "" if answer.status_code == 200 else DISPATCH_FAILED

    def _over_socket(self, envelope: Envelope, signature: Signature, retry: int) -> tuple[int | None, Any, str]:
        if signature != "right":
            raise ValueError("Socket Mode has no signatures")
        message: Json = {
            "envelope_id": str(uuid.uuid4()),
            "type": envelope.kind,
            "payload": envelope.payload,
            "accepts_response_payload": envelope.kind != "events_api",
        }
        if envelope.kind == "events_api":
            message |= {"retry_attempt": retry, "retry_reason": "timeout" if retry else ""}
        waiting: Future[Any] = Future()
        with self._lock:
            if not self.connections or self._loop is None:
                return None, "", DISPATCH_FAILED
            self._next += 1
            socket = self.connections[self._next % len(self.connections)]
            self._pending[message["envelope_id"]] = waiting
            loop = self._loop
        try:
            asyncio.run_coroutine_threadsafe(socket.send_text(json.dumps(message)), loop).result(self.ack_timeout)
            return 200, waiting.result(self.ack_timeout), ""
        except TimeoutError:
            return None, "", OPERATION_TIMEOUT
        except (RuntimeError, WebSocketDisconnect):  # the connection closed meanwhile
            return None, "", DISPATCH_FAILED
        finally:
            with self._lock:
                self._pending.pop(message["envelope_id"], None)

    def ticket(self) -> str:
        """A ticket to open one Socket Mode connection."""
        made = str(uuid.uuid4())
        self._tickets.add(made)
        return made

    async def serve(self, socket: WebSocket) -> None:
        """Serve one Socket Mode connection, from hello to its end."""
        try:
            self._tickets.remove(socket.query_params.get("ticket", ""))
        except KeyError:
            await socket.close(code=4001, reason="unknown or used ticket")
            return
        await socket.accept()
        with self._lock:
            self._loop = asyncio.get_running_loop()
            number = len(self.connections) + 1
        hello: Json = {
            "type": "hello",
            "num_connections": number,
            "debug_info": {"host": "applink-sandbox", "build_number": 1, "approximate_connection_time": 18060},
            "connection_info": {"app_id": APP},
        }
        try:
            await socket.send_text(json.dumps(hello))
            with self._lock:
                self.connections.append(socket)
            self._changed()
            while True:
                self._acknowledged(json.loads(await socket.receive_text()))
        except (WebSocketDisconnect, RuntimeError, ValueError):
            pass
        finally:
            with self._lock:
                if socket in self.connections:
                    self.connections.remove(socket)
            self._changed()

    def _acknowledged(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            waiting = self._pending.get(str(message.get("envelope_id")))
            if waiting is not None and not waiting.done():
                waiting.set_result(message.get("payload") or "")

    async def disconnect(self, reason: str = "") -> None:
        """Close every connection; with a reason, ask the app to connect again first, as Slack does now and then."""
        with self._lock:
            leaving, self.connections = self.connections, []
        for socket in leaving:
            if reason:
                await socket.send_text(json.dumps({"type": "disconnect", "reason": reason, "debug_info": {}}))
            await socket.close()
