"""Slack's Web API over connections that stay open.

slack_sdk's client opens a connection for every call: a TCP and a TLS handshake each time, two to three round trips
before Slack hears anything, and half of the processor time of a call.
"""

from __future__ import annotations

import json as jsonlib
import select
import threading
import time
from collections import deque
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import create_default_context
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit

from slack_sdk import WebClient
from slack_sdk.web import SlackResponse

IDLE_SECONDS = 30.0
"""Idle connections older than this are not used: a gateway on the way may have dropped them silently."""
NOT_SLACKS = "answer_is_not_slacks"
"""The error code of an answer that is no JSON object with a boolean `ok`: a proxy's, or that of a failing server."""
_FORM = "application/x-www-form-urlencoded;charset=utf-8"


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
        self._path = urlsplit(base_url).path
        self._idle: deque[tuple[HTTPConnection, float]] = deque()  # the most recently used last
        self._lock = threading.Lock()
        self._ended = False

    def close(self) -> None:
        """Close the idle connections, and each that is in use as soon as its call is answered."""
        with self._lock:
            self._ended = True
            idle = [connection for connection, _ in self._idle]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def __deepcopy__(self, _memo: object) -> Self:
        """Itself: Bolt copies what a lazy listener gets, and connections cannot be copied."""
        return self

    def api_call(
        self,
        api_method: str,
        *,
        http_verb: str = "POST",
        files: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        json: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        auth: dict[str, Any] | None = None,
    ) -> SlackResponse:
        """Call a method of the Web API, as every other method of this class does; every call is a POST.

        Raises SlackApiError where Slack says no, URLError or OSError where Slack does not answer. Calls with a proxy,
        with files, `data` or `auth` go through WebClient's own connections.
        """
        if self.proxy is not None or files or data or auth:
            return super().api_call(
                api_method,
                http_verb=http_verb,
                files=files,
                data=data,
                params=params,
                json=json,
                headers=headers,
                auth=auth,
            )
        given = json if json is not None else params
        values = {name: value for name, value in (given or {}).items() if value is not None or json is not None}
        token = values.pop("token", None) or self.token
        if json is not None:
            body, kind = jsonlib.dumps(values).encode(), "application/json;charset=utf-8"
        else:
            body, kind = urlencode({k: _plain(v) for k, v in values.items()}).encode(), _FORM
        sent = {**self.headers, **(headers or {}), "Authorization": f"Bearer {token}", "Content-Type": kind}
        status, got, content = self._post(self._path + api_method, body, sent)
        response = SlackResponse(
            client=self,
            http_verb="POST",
            api_url=self.base_url + api_method,
            req_args={"params": params, "json": json},
            data=_read(content),
            headers={name.title(): value for name, value in got.items()},  # HTTP may send any case
            status_code=status,
        )
        response.validate()  # type: ignore[no-untyped-call]  # raises SlackApiError
        return response

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Message, bytes]:
        connection = self._take() or self._connect()
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException as error:
            connection.close()
            # ValueError, OverflowError and MemoryError: lengths that no answer has.
            broken = isinstance(error, HTTPException | OSError | ValueError | OverflowError | MemoryError)
            if broken and not isinstance(error, TimeoutError):
                raise URLError(str(error) or type(error).__name__) from error  # as urllib does with most errors
            raise
        self._give_back(connection, answer)
        return answer.status, answer.headers, content

    def _take(self) -> HTTPConnection | None:
        """An idle connection that is still open; None where there is none."""
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
            if self._ended:
                connection.close()
                return
            self._idle.append((connection, now))
            while now - self._idle[0][1] > IDLE_SECONDS:
                self._idle.popleft()[0].close()


def _closed(connection: HTTPConnection) -> bool:
    """Whether the other end closed the connection, or sent something unasked."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _plain(value: Any) -> Any:
    """A value as Slack's forms take it: a bool as 1 or 0."""
    return ("1" if value else "0") if isinstance(value, bool) else value


def _read(content: bytes) -> dict[str, Any]:
    """Slack's answer; the error NOT_SLACKS where the content is none."""
    try:
        found = jsonlib.loads(content)
    except (ValueError, RecursionError):
        found = None
    said = isinstance(found, dict) and isinstance(found.get("ok"), bool)
    return found if said else {"ok": False, "error": NOT_SLACKS}


def refusal(answer: Any) -> str:
    """The error code of an answer of a SlackApiError, if Slack itself said no; empty for any other answer.

    Slack says no with status 200, `"ok": false` and an `error`. A proxy on the way, or a server that fails, may send
    anything else, also instead of an answer to a call that Slack has performed.
    """
    data = getattr(answer, "data", None)  # where WebClient's own connections are used, the answer may be a mere dict
    if getattr(answer, "status_code", 0) != 200 or not isinstance(data, dict) or data.get("ok") is not False:
        return ""
    code = data.get("error")
    return code if isinstance(code, str) and code != NOT_SLACKS else ""
