"""A stand-in of Slack, a client for its Web API, and a tiny Bolt app it can deliver to in both modes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from slack_bolt import Ack, App, BoltRequest
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_sdk import WebClient

from sandbox.slack import SlackStandIn
from tests.support.waiting import until

Serving = Callable[[App, SlackStandIn], AbstractContextManager[None]]

MANIFEST: dict[str, Any] = {
    "features": {
        "app_home": {"home_tab_enabled": True},
        "slash_commands": [{"command": "/tiny", "description": "", "usage_hint": "submit"}],
        "shortcuts": [{"type": "global", "callback_id": "tiny", "name": "Tiny", "description": ""}],
    },
    "oauth_config": {
        "scopes": {
            "bot": [
                "commands",
                "chat:write",
                "channels:read",
                "channels:history",
                "groups:read",
                "files:write",
                "users:read",
            ]
        }
    },
    "settings": {"event_subscriptions": {"bot_events": ["app_home_opened"]}},
}


def plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def question(block_id: str, element: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An input block whose element has the action id `value`."""
    return {
        "type": "input",
        "block_id": block_id,
        "label": plain(block_id),
        "element": {"action_id": "value", **element},
        **more,
    }


def modal(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "modal",
        "callback_id": "tiny",
        "title": plain("Tiny"),
        "submit": plain("Go"),
        "blocks": list(blocks) or [question("name", {"type": "plain_text_input"})],
        **more,
    }


def new_client(slack: SlackStandIn) -> WebClient:
    """A client that repeats nothing by itself."""
    return WebClient(token=slack.bot_token, base_url=slack.api_url, retry_handlers=[])


def new_app(slack: SlackStandIn) -> App:
    """A Bolt app without listeners, bound to the stand-in."""
    return App(client=new_client(slack), signing_secret=slack.signing_secret, process_before_response=True)


def tiny_app(slack: SlackStandIn) -> App:
    """`/tiny submit` opens a modal that refuses the name `wrong` and posts every other one."""
    app = new_app(slack)

    @app.command("/tiny")
    def command(ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        if body["text"] != "submit":
            ack("Usage: `/tiny submit`")
            return
        client.views_open(trigger_id=body["trigger_id"], view=modal())
        ack()

    @app.view("tiny")
    def submitted(ack: Ack, view: dict[str, Any], client: WebClient) -> None:
        name = view["state"]["values"]["name"]["value"]["value"]
        if name == "wrong":
            ack(response_action="errors", errors={"name": "Not this one."})
            return
        client.chat_postMessage(channel="C01SYNAPSES", text=name)
        ack()

    return app


@contextmanager
def over_sockets(app: App, slack: SlackStandIn) -> Iterator[None]:
    """The app listens over Socket Mode."""
    handler = SocketModeHandler(app, slack.app_token)
    handler.connect()  # type: ignore[no-untyped-call]  # Bolt has no types here
    slack.wait_for_connection()
    yield
    with handler.client.connect_operation_lock:  # a connection that is being made is not known to the client yet
        handler.client.auto_reconnect_enabled = False
    slack.drop_connections()
    until(lambda: not handler.client.is_connected(), what="the end of the connection")
    handler.close()  # type: ignore[no-untyped-call]  # nor here


@contextmanager
def over_http(app: App, slack: SlackStandIn) -> Iterator[None]:
    """The app listens on a port of its own."""

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = app.dispatch(BoltRequest(body=body, headers=dict(self.headers.items())))
            self.send_response(answer.status)
            for name, values in answer.headers.items():
                self.send_header(name, values[0])
            content = (answer.body or "").encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    slack.request_url = f"http://127.0.0.1:{server.server_port}/slack/events"
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def slack() -> Iterator[SlackStandIn]:
    """A workspace in which everything is allowed."""
    with SlackStandIn(ack_timeout=2) as stand_in:
        yield stand_in


@pytest.fixture
def client(slack: SlackStandIn) -> WebClient:
    """The Web API, with every scope."""
    return new_client(slack)


@pytest.fixture(params=[over_sockets, over_http], ids=["socket mode", "http"])
def served(request: pytest.FixtureRequest) -> Serving:
    """Either way of listening."""
    way: Serving = request.param
    return way
