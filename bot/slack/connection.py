"""The connection to Slack: tested by `doctor`, and held open in Socket Mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from slack_bolt import App, BoltRequest, BoltResponse
from slack_bolt.middleware import Middleware
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from bot.domain.errors import NomadsError, Unavailable
from bot.slack.client import refusal


class SharedClient(Middleware):
    """Gives listeners one client: Bolt makes one for each request, whose connections end with the request."""

    def __init__(self, client: WebClient) -> None:
        self._client = client

    def process(self, *, req: BoltRequest, resp: BoltResponse, next: Callable[[], BoltResponse]) -> BoltResponse:
        """Put the client in place and go on. A function in its place would be given two dozen arguments."""
        req.context["client"] = self._client
        return next()


@contextmanager
def socket_mode(app: App, token: SecretStr) -> Iterator[None]:
    """Slack's requests reach the app over a WebSocket as long as the block lasts.

    Raises NomadsError where Slack does not take the app-level token, and Unavailable where Slack cannot be reached.
    """
    from slack_bolt.adapter.socket_mode import SocketModeHandler

    connection = SocketModeHandler(app, token.get_secret_value())
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
