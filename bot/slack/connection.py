"""The connection to Slack: tested by `doctor`, and held open in Socket Mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import SecretStr
from slack_bolt import BoltRequest, BoltResponse
from slack_bolt.middleware import Middleware
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from bot.domain.errors import NomadsError, Unavailable
from bot.slack.client import refusal
from bot.slack.requests import Requests

if TYPE_CHECKING:
    from slack_sdk.socket_mode.client import BaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest


class SharedClient(Middleware):
    """Gives listeners one client: Bolt makes one for each request, whose connections end with the request."""

    def __init__(self, client: WebClient) -> None:
        self._client = client

    def process(self, *, req: BoltRequest, resp: BoltResponse, next: Callable[[], BoltResponse]) -> BoltResponse:
        """Put the client in place and go on. A function in its place would be given two dozen arguments."""
        req.context["client"] = self._client
        return next()


@contextmanager
def socket_mode(requests: Requests, token: SecretStr) -> Iterator[None]:
    """Slack's requests reach the app of `requests` over a WebSocket as long as the block lasts.

    Raises NomadsError where Slack does not take the app-level token, and Unavailable where Slack cannot be reached.
    """
    from slack_bolt.adapter.socket_mode import SocketModeHandler
    from slack_bolt.adapter.socket_mode.internals import build_headers, send_response

    class Handler(SocketModeHandler):
        def handle(self, client: BaseSocketModeClient, req: SocketModeRequest) -> None:
            began = time.time()
            send_response(client, req, requests.answer(req.payload, headers=build_headers(req)), began)

    connection = Handler(requests.app, token.get_secret_value())
    try:
        try:
            connection.connect()  # type: ignore[no-untyped-call]
        except SlackApiError as error:
            raise _not_taken("SLACK_APP_TOKEN", error) from None
        except OSError as error:
            raise Unavailable(f"Slack cannot be reached ({type(error).__name__}).") from None
        yield
    finally:
        connection.close()  # type: ignore[no-untyped-call]


def greet(client: WebClient, app_token: SecretStr | None) -> None:
    """Ask Slack whether it takes the bot token, and the app-level token where there is one.

    Raises NomadsError where Slack refuses a token or cannot be reached.
    """
    asked = "SLACK_BOT_TOKEN"
    try:
        client.auth_test()
        if app_token:
            asked = "SLACK_APP_TOKEN"
            client.apps_connections_open(app_token=app_token.get_secret_value())
    except SlackApiError as error:
        raise _not_taken(asked, error) from None
    except (SlackClientError, OSError) as error:
        raise NomadsError(f"Slack cannot be reached ({type(error).__name__}).") from None


def _not_taken(token: str, error: SlackApiError) -> NomadsError:
    if code := refusal(error.response):
        return NomadsError(f"Slack did not take {token} ({code}).")
    return Unavailable(f"What answered when {token} was tried is not Slack; is there a proxy on the way?")
