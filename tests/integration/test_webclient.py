"""Calls to Slack over connections that stay open: shared, never repeated, and no less honest about failures."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import URLError

import pytest
from slack_sdk.errors import SlackApiError

from bot.slack import client as webclient
from bot.slack.client import PooledWebClient
from sandbox.slack import SlackStandIn
from tests.support.waiting import until


class Server(ThreadingHTTPServer):
    """Says back what it was sent; `mood` says how."""

    request_queue_size = 64  # Python's five are too few for sixteen at once: the kernel turns some away under load

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mood = "kind"
        self.connections = 0
        self.ended = 0
        self.requests: list[str] = []
        self.released = threading.Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.ended += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        socketserver.StreamRequestHandler.setup(self)
        self.connection.settimeout(30)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.requests.append(body)
        mood = self.server.mood
        if mood in ("silent", "slow"):
            self.server.released.wait(30)
        if mood in ("silent", "lossy"):
            self.close_connection = True
            return
        content = json.dumps({"ok": True, "said": body}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = mood == "curt"  # without having said so

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[PooledWebClient]:
    client = PooledWebClient(
        token="demo-token", base_url=f"http://127.0.0.1:{server.server_address[1]}/api/", timeout=0.5
    )
    yield client
    client.close()
    server.released.set()


def test_calls_one_after_the_other_share_a_connection(server: Server, client: PooledWebClient) -> None:
    for text in ("one", "two", "three"):
        assert client.api_call("chat.postMessage", json={"text": text})["said"] == json.dumps({"text": text})
    assert server.connections == 1


def test_calls_at_the_same_time_each_get_their_own_answer(server: Server, client: PooledWebClient) -> None:
    def call(number: int) -> bool:
        return bool(client.api_call("api.test", json={"n": number})["said"] == json.dumps({"n": number}))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(200)))
    assert len(server.requests) == 200
    assert server.connections <= 16


def test_a_connection_that_was_closed_while_idle_is_noticed_before_anything_is_sent(
    server: Server, client: PooledWebClient
) -> None:
    server.mood = "curt"
    client.api_call("api.test")
    until(lambda: server.ended == 1)
    client.api_call("api.test")
    assert len(server.requests) == server.connections == 2


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    server: Server, client: PooledWebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webclient, "IDLE_SECONDS", 0.0)
    client.api_call("api.test")
    client.api_call("api.test")
    assert server.connections == 2


def test_a_call_that_is_answered_after_the_client_was_closed_leaves_no_connection_behind(server: Server) -> None:
    server.mood = "slow"
    address = f"http://127.0.0.1:{server.server_address[1]}/api/"
    client = PooledWebClient(token="demo-token", base_url=address, timeout=30)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.api_call, "api.test")
        until(lambda: len(server.requests) == 1)
        client.close()
        server.released.set()
        assert answer.result()["ok"]
    until(lambda: server.ended == 1)


def test_a_call_whose_answer_was_lost_is_not_repeated(server: Server, client: PooledWebClient) -> None:
    client.api_call("api.test")
    server.mood = "lossy"
    with pytest.raises(URLError):
        client.api_call("chat.postMessage", json={"text": "once"})
    assert server.requests.count(json.dumps({"text": "once"})) == 1


def test_an_answer_that_comes_too_late_is_a_timeout_and_reaches_nobody_else(
    server: Server, client: PooledWebClient
) -> None:
    server.mood = "silent"
    with pytest.raises(TimeoutError):
        client.api_call("api.test", json={"text": "late"})
    server.mood = "kind"
    assert client.api_call("api.test", json={"text": "next"})["said"] == json.dumps({"text": "next"})


def test_a_slack_that_is_not_there_is_a_url_error() -> None:
    with Server() as gone:
        address = gone.server_address
    with pytest.raises(URLError):
        PooledWebClient(token="demo-token", base_url=f"http://127.0.0.1:{address[1]}/api/").api_call("api.test")


def test_slacks_own_errors_and_its_calls_for_patience_come_as_they_do_from_any_web_client() -> None:
    with SlackStandIn() as slack:
        client = PooledWebClient(token=slack.bot_token, base_url=slack.api_url)
        slack.rate_limit("auth.test", retry_after=7)
        with pytest.raises(SlackApiError) as patience:
            client.auth_test()
        slack.fail("auth.test", "account_inactive")
        with pytest.raises(SlackApiError) as refused:
            client.auth_test()
        slack.break_down("auth.test", status=503)
        with pytest.raises(SlackApiError) as broken:
            client.auth_test()
        assert client.auth_test()["ok"]
        client.close()
    assert patience.value.response.status_code == 429
    assert patience.value.response.headers["Retry-After"] == "7"
    assert refused.value.response["error"] == "account_inactive"
    assert broken.value.response.status_code == 503


def test_the_certificate_of_slack_is_checked() -> None:
    context = PooledWebClient(token="demo-token").ssl
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
def test_an_answer_of_an_impossible_length_is_a_url_error(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def say() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        with ThreadPoolExecutor(max_workers=1) as pool:
            said = pool.submit(say)
            port = listener.getsockname()[1]
            client = PooledWebClient(token="xoxb-example", base_url=f"http://127.0.0.1:{port}/api/", timeout=5)
            with pytest.raises(URLError):
                client.auth_test()
            said.result()
