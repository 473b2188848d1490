"""The Web API's own way through HTTP/1.1.

h11 takes some 0.4 ms of processor time for a request, several times what a Web API method here does, and benchmarks
share their two cores with this stand-in. So a plain POST to /api/ is read here; everything else goes to uvicorn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

Answer = tuple[int, list[tuple[str, str]], bytes] | None
"""Status, headers and body; None: close the connection instead of answering."""
Answering = Callable[[str, str, dict[str, str], bytes], Awaitable[Answer]]
"""A function of the method's name, the query, the headers (names in lower case) and the body."""

_STATUS = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}


def protocol(answering: Answering) -> type[asyncio.Protocol]:
    """An HTTP protocol for uvicorn that answers `POST /api/…` with this function."""

    class Quick(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.buffer = b""
            self.busy = False

        def data_received(self, data: bytes) -> None:
            if self.busy or self.buffer:
                self.buffer += data
            elif data.startswith(b"POST /api/") and self.idle:
                self.buffer = data
            else:
                super().data_received(data)
                return
            if not self.busy:
                self.proceed()

        @property
        def idle(self) -> bool:
            """Whether uvicorn has no request under way on this connection."""
            return self.conn.our_state is h11.IDLE and not self.conn.trailing_data[0]

        def proceed(self) -> None:
            """Take the request from the buffer, if it is complete."""
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            length = headers.get("content-length", "")
            if not first.startswith("POST /api/") or not length.isdigit() or "expect" in headers:
                data, self.buffer = self.buffer, b""
                super().data_received(data)
                return
            if len(rest) < int(length):
                return
            body, self.buffer = rest[: int(length)], rest[int(length) :]
            self.busy = True
            path, _, query = first.split(" ")[1].partition("?")
            task = self.loop.create_task(self.reply(path.removeprefix("/api/"), query, headers, body))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        async def reply(self, method: str, query: str, headers: dict[str, str], body: bytes) -> None:
            try:
                answer = await answering(method, query, headers, body)
            except BaseException:
                self.transport.abort()
                raise
            if answer is None:
                self.transport.abort()
                return
            status, more, payload = answer
            lines = [f"HTTP/1.1 {status} {_STATUS.get(status, 'Status')}", f"content-length: {len(payload)}"]
            lines += [f"{name}: {value}" for name, value in more]
            last = headers.get("connection", "").lower() == "close"
            if last:
                lines.append("connection: close")
            self.transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload)
            if last:
                self.transport.close()
                return
            self.busy = False
            if self.buffer:
                self.proceed()

    return Quick
