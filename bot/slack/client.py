"""Slack's Web API over connections that stay open.

slack_sdk's client opens a connection for every call: a TCP and a TLS handshake each time, two to three round trips
before Slack hears anything, and half of the processor time of a call.
"""

from __future__ import annotations

import io
import select
import threading
import time
from collections import deque
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import create_default_context
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

from slack_sdk import WebClient

IDLE_SECONDS = 30.0
"""A connection that was idle for longer is not trusted: whatever lies between may have forgotten it without a word."""


class PooledWebClient(WebClient):
    """A WebClient whose calls share connections; any number of threads may call at once. Errors are WebClient's.

    A call is sent once and never repeated, also where a connection turns out to be closed: Slack may have heard it.
    So a connection that Slack closed while it was idle is noticed before anything is sent.
    """

    def __init__(self, *, token: str, base_url: str = WebClient.BASE_URL, timeout: float = 30) -> None:
        """`timeout` is in seconds, for connecting and for each wait for an answer."""
        # To load the certificates of all authorities takes longer than a handshake, so it is done once.
        context = create_default_context() if base_url.startswith("https:") else None
        super().__init__(
            token=token,
            base_url=base_url,
            timeout=timeout,  # type: ignore[arg-type]  # annotated int, handed on to sockets, which take fractions
            ssl=context,
            retry_handlers=[],
        )
        self._idle: deque[tuple[HTTPConnection, float]] = deque()  # the most recently used last
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the idle connections; those in use close as they come back empty-handed or grow old."""
        with self._lock:
            idle = [connection for connection, _ in self._idle]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def __deepcopy__(self, _memo: object) -> Self:
        """Itself: Bolt copies what a lazy listener gets, and connections cannot be copied."""
        return self

    def _perform_urllib_http_request_internal(self, url: str, req: Request) -> dict[str, Any]:
        """The one step of WebClient that speaks HTTP."""
        if self.proxy is not None or not url.startswith(self.base_url):
            return super()._perform_urllib_http_request_internal(url, req)
        connection = self._take() or self._connect()
        try:
            connection.request("POST", req.selector, req.data, dict(req.header_items()))
            answer = connection.getresponse()
            content = answer.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, HTTPException | OSError) and not isinstance(error, TimeoutError):
                raise URLError(error) from error  # what urllib makes of most of them
            raise
        self._give_back(connection, answer)
        if answer.status >= 300:
            raise HTTPError(url, answer.status, answer.reason, answer.headers, io.BytesIO(content))
        return {"status": answer.status, "headers": answer.headers, "body": _text(content, answer.headers)}

    def _take(self) -> HTTPConnection | None:
        """An idle connection that is still open."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            if time.monotonic() - since < IDLE_SECONDS and not _closed(connection):
                return connection
            connection.close()

    def _connect(self) -> HTTPConnection:
        parts = urlsplit(self.base_url)
        assert parts.hostname
        if parts.scheme == "https":
            return HTTPSConnection(parts.hostname, parts.port, timeout=self.timeout, context=self.ssl)
        return HTTPConnection(parts.hostname, parts.port, timeout=self.timeout)

    def _give_back(self, connection: HTTPConnection, answer: HTTPResponse) -> None:
        if answer.will_close:
            connection.close()
            return
        now = time.monotonic()
        with self._lock:
            self._idle.append((connection, now))
            while now - self._idle[0][1] > IDLE_SECONDS:
                self._idle.popleft()[0].close()


def _closed(connection: HTTPConnection) -> bool:
    """Whether the other end closed it, or said something nobody asked for."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _text(content: bytes, headers: Message) -> str | bytes:
    if headers.get_content_type() == "application/gzip":  # admin.analytics.getFile
        return content
    return content.decode(headers.get_content_charset() or "utf-8")
