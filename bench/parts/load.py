"""A load generator: connections that each send the next request as soon as the last one is answered.

The generator is asyncio on bare sockets with prepared requests, about 30 µs of processor time each, so that on two
cores the server is what is measured.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from bench.processes import questions, say

SECONDS = 60.0
"""Seconds after which a run is stopped; requests unanswered by then have failed."""


def main() -> None:
    """Run the load of each question and answer with the outcome."""
    say()
    for question in questions():
        requests = signed(**question["requests"])
        gc.collect()
        gc.freeze()
        bodies = question.get("bodies", False)
        say(**asyncio.run(run(question["requests"]["url"], requests, question["connections"], bodies=bodies)))


def signed(*, url: str, body: str, count: int, secret: str, mark: str = "") -> list[bytes]:
    """`count` signed POSTs of the body; each occurrence of `mark` in it becomes the request's own number."""
    parts = urlsplit(url)
    stamp = str(int(time.time()))
    made = []
    for number in range(count):
        content = (body.replace(mark, f"{number:08d}") if mark else body).encode()
        signature = hmac.new(secret.encode(), f"v0:{stamp}:".encode() + content, hashlib.sha256).hexdigest()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: Slackbot 1.0\r\nAccept: */*\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(content)}\r\n"
            f"X-Slack-Request-Timestamp: {stamp}\r\nX-Slack-Signature: v0={signature}\r\n\r\n"
        )
        made.append(head.encode() + content)
    return made


class Connection(asyncio.Protocol):
    """Sends requests one after the other and records the time of each."""

    def __init__(
        self, requests: Iterator[bytes], times: list[float], wrong: list[str], *, bodies: bool = False
    ) -> None:
        """`bodies`: whether answers have a body; otherwise a body means an error."""
        self.bodies = bodies
        self.requests = requests
        self.times = times
        self.wrong = wrong
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport: Any = transport
        self.send()

    def send(self) -> None:
        """Send the next request, if there is one."""
        request = next(self.requests, None)
        if request is None:
            self.over.set_result(None)
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Record an answer once it is complete."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        _, named, rest = head.lower().partition(b"content-length:")
        length = int(rest.split(b"\r\n")[0]) if named else 0
        if len(body) < length:
            return
        self.times.append(time.perf_counter() - self.began)
        # an acknowledgement has no body; errors by field have one
        if not head.startswith(b"HTTP/1.1 200") or bool(length) != self.bodies:
            self.wrong.append(self.buffer[:500].decode("utf-8", "replace"))
        self.buffer = b""
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        """An end in the middle leaves a request unanswered."""
        if not self.over.done():
            self.over.set_result(None)


async def run(url: str, requests: list[bytes], connections: int, *, bodies: bool = False) -> dict[str, Any]:
    """Send all requests; returns the numbers of answers and failures, and the times in seconds."""
    place, loop = urlsplit(url), asyncio.get_running_loop()
    times: list[float] = []
    wrong: list[str] = []
    waiting = iter(requests)
    processor, began = time.process_time(), time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: Connection(waiting, times, wrong, bodies=bodies), str(place.hostname), int(place.port or 80)
        )
        for _ in range(connections)
    ]
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(connection.over for _, connection in made))
    seconds = time.perf_counter() - began
    ranked = sorted(times) or [SECONDS]
    return {
        "answered": len(times),
        "failed": len(wrong) + len(requests) - len(times),
        "wrong": wrong[:3],
        "seconds": seconds,
        "rate": len(times) / seconds,
        "p50": ranked[len(ranked) // 2],
        "p95": ranked[min(len(ranked) - 1, int(len(ranked) * 0.95))],
        "slowest": ranked[-1],
        "p99": ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))],
        "processor": time.process_time() - processor,
    }


if __name__ == "__main__":
    main()
