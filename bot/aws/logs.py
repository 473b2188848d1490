"""Logs in CloudWatch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import SecretStr

from bot.aws.clients import Clients, translated
from bot.aws.config import AwsConfig
from bot.domain.work import LogLine

EVENTS = 10_000
"""Events that GetLogEvents gives at once, at most."""


class CloudWatchLogs:
    """The log streams of AWS Batch jobs."""

    def __init__(
        self, *, config: AwsConfig, stream_of: Callable[[str], str | None], clients: Clients | None = None
    ) -> None:
        """`stream_of` tells the log stream of a job id; None where there is none (yet)."""
        self._config = config
        self._stream = stream_of
        self._clients = clients or Clients(config)

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last `lines` lines of the job's log stream, with CloudWatch's times; empty where there is none yet."""
        if lines < 1 or (stream := log or self._stream(compute_id)) is None:
            return []
        tail: list[LogLine] = []
        token: str | None = None
        # CloudWatch may give an empty page although there is more, so up to five pages are read.
        for _ in range(5):
            page = self._page(stream, token, startFromHead=False, limit=min(lines, EVENTS))
            if page is None:
                break
            tail = [line for event in page["events"] for line in _lines(event)] + tail
            if len(tail) >= lines or page["nextBackwardToken"] == token:
                break
            token = page["nextBackwardToken"]
        return tail[-lines:]

    def whole(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """The job's log stream from its beginning, a page at a time; every event ends with a line feed."""
        if (stream := log or self._stream(compute_id)) is None:
            return
        token: str | None = None
        while (page := self._page(stream, token, startFromHead=True, limit=EVENTS)) is not None:
            if piece := b"".join(_bytes(event).removesuffix(b"\n") + b"\n" for event in page["events"]):
                yield piece
            if page["nextForwardToken"] == token:  # an empty page is not the end; a token that comes again is
                return
            token = page["nextForwardToken"]

    def _page(self, stream: str, token: str | None, **how: Any) -> Mapping[str, Any] | None:
        """One answer of CloudWatch, of at most 1 MB; None where there is no such stream."""
        more = how | ({"nextToken": token} if token else {})
        with translated("CloudWatch did not show the log"):
            client = self._clients.logs
            try:
                return cast(
                    "Mapping[str, Any]",
                    client.get_log_events(logGroupName=self._config.log_group, logStreamName=stream, **more),
                )
            except client.exceptions.ResourceNotFoundException:
                return None

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        """Do nothing: log events in CloudWatch cannot be changed, so the output is masked whenever it is read."""


def _bytes(event: Mapping[str, Any]) -> bytes:
    return str(event["message"]).encode(errors="replace")


def _lines(event: Mapping[str, Any]) -> list[LogLine]:
    """A log event's lines. Only line feeds and carriage returns end one; other characters belong to the text."""
    return [LogLine(line.decode(), _time(event["timestamp"])) for line in _bytes(event).splitlines()]


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC) if milliseconds else None
