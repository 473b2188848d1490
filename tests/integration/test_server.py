"""The HTTP server's limits, and the log that strangers can cause: time, connections, repeated lines."""

from __future__ import annotations

import logging
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h11
import httpx
import pytest

from bot.domain.health import Health
from bot.terminal.log import SAME_A_MINUTE, Sparing
from bot.web import server
from bot.web.site import web
from sandbox.house import House
from tests.support.app import Door
from tests.support.processes import Lab

HEADER = b"POST /slack/events HTTP/1.1\r\nHost: test\r\n"
BODY = HEADER + b"Content-Length: 1000\r\n\r\nhalf"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    for state in (h11.IDLE, h11.SEND_BODY):
        monkeypatch.setitem(server._WITHIN, state, 0.2)


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door, door.leads_to(web(slack=None, shared=None, health=Health)):
        yield door


@contextmanager
def half_sent(port: int, *beginnings: bytes) -> Iterator[list[socket.socket]]:
    """Connections on which these beginnings of requests were sent, and nothing more."""
    with ExitStack() as until_the_end:
        opened = []
        for beginning in beginnings:
            connection = until_the_end.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            opened.append(connection)
            connection.sendall(beginning)
        yield opened


def closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection, before the test's patience ends."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("beginning", [b"", b"GE", HEADER, BODY], ids=["nothing", "a word", "a header", "a body"])
@pytest.mark.usefixtures("quick")
def test_a_request_that_does_not_arrive_is_given_up(door: Door, beginning: bytes) -> None:
    with half_sent(door.port, beginning) as (connection,):
        assert closed(connection)


@pytest.mark.usefixtures("quick")
def test_a_second_request_on_a_connection_has_to_arrive_in_time_too(door: Door) -> None:
    with half_sent(door.port, b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n" + HEADER) as (connection,):
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert closed(connection)


def test_the_connection_that_waits_longest_makes_room_for_a_new_one(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 3)
    with half_sent(door.port, HEADER, BODY, HEADER) as connections:
        assert httpx.get(f"{door.url}/health").status_code == 200
        assert closed(connections[0])
        connections[2].sendall(b"Content-Length: 0\r\n\r\n")
        assert connections[2].recv(65536).startswith(b"HTTP/1.1 404 ")


@contextmanager
def unread(door: Door, number: int) -> Iterator[list[socket.socket]]:
    """Connections with very many requests, of whose answers nothing is read."""
    door.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what the system itself would hold is little
    with ExitStack() as until_the_end:
        opened = []
        for _ in range(number):
            connection = until_the_end.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", door.port))
            connection.settimeout(0.5)
            with suppress(TimeoutError, ConnectionError):  # the server has stopped to read, or has ended it already
                connection.sendall(b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n" * 200_000)
            opened.append(connection)
        yield opened


def reset(connection: socket.socket) -> bool:
    """Whether the server resets the connection while nothing of it is read."""
    watch = select.poll()
    watch.register(connection, select.POLLRDHUP)
    return bool(watch.poll(20_000))


@pytest.mark.usefixtures("quick")
def test_a_connection_whose_answer_nobody_reads_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.2)
    with unread(door, 1) as (connection,):
        assert reset(connection)


def test_a_connection_whose_answer_nobody_reads_makes_room_for_a_new_one(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 2)
    with unread(door, 2) as connections:
        assert httpx.get(f"{door.url}/health").status_code == 200
        assert reset(connections[0])


def test_a_connection_that_sends_request_upon_request_makes_room_for_a_new_one(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 2)
    many = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n" * 2000  # the system holds all answers, so that none waits here
    with half_sent(door.port, many, many) as connections:
        assert httpx.get(f"{door.url}/health").status_code == 200
        assert closed(connections[0])


def test_fifteen_hundred_half_sent_requests_neither_stop_the_bot_nor_fill_its_log(house: House, tmp_path: Path) -> None:
    with Lab(house, tmp_path) as lab:
        bot = lab.start()
        resource.prlimit(bot.process.pid, resource.RLIMIT_NOFILE, (512, 512))
        port = int(bot.url.rsplit(":", 1)[1])
        with half_sent(port, *[HEADER, BODY, b"", b"G"] * 375):
            assert httpx.get(f"{bot.url}/health", timeout=10).status_code == 200
            assert httpx.get(f"{bot.url}/ready", timeout=10).status_code == 200
            lab.submit(pipeline="quick")
        assert lab.newest.request.collection == "demo"
        for _ in range(200):
            with half_sent(port, b"\x00\x01 this is no request\r\n\r\n") as (connection,):
                assert closed(connection)
        assert bot.log.stat().st_size < 20_000, bot.log.read_text()[-2000:]


# The log


def record(line: str, *, name: str = "uvicorn.error") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, "%s", (line,), None)


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_who_asks_for_another_protocol_gets_the_plain_answer_and_the_log_no_line(
    door: Door, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"Connection": "Upgrade", "Upgrade": protocol, "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "k"}
    assert httpx.get(f"http://127.0.0.1:{door.port}/health", headers=asked).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_line_that_repeats_is_left_out_and_counted() -> None:
    at = [0.0]
    sparing = Sparing(clock=lambda: at[0])
    lines = [record("Invalid HTTP request received.") for _ in range(1000)]
    kept = [line.getMessage() for line in lines if sparing.filter(line)]
    assert len(kept) == SAME_A_MINUTE
    assert kept[-1] == "Invalid HTTP request received. (this line is now left out for a minute)"
    assert sparing.filter(record("another line"))
    assert sparing.filter(record("Invalid HTTP request received.", name="another"))
    at[0] = 61
    later = record("Invalid HTTP request received.")
    assert sparing.filter(later)
    assert later.getMessage() == f"Invalid HTTP request received. (and {1000 - SAME_A_MINUTE:,} times more before)"


@pytest.mark.parametrize("socket_mode", [False, True])
def test_a_normal_start_logs_five_lines_at_most_each_of_use(house: House, tmp_path: Path, socket_mode: bool) -> None:
    with Lab(house, tmp_path, **house.environment(tmp_path / "data", socket_mode=socket_mode)) as lab:
        bot = lab.launch()
        assert bot.url
        lines = bot.log.read_text().splitlines()
    assert len(lines) <= 5, lines
    assert "`token` will be unused" not in "\n".join(lines)
    assert lines[-1].endswith("Slack over Socket Mode." if socket_mode else "Slack over HTTP.")
