"""What a person is told when something unforeseen happens.

The log gets the error's type and traceback, but neither message nor request body, which may hold a token.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from slack_bolt import BoltResponse, Respond
from slack_bolt.error import BoltUnhandledRequestError
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from bot.domain import words
from bot.domain.errors import NomadsError
from bot.slack import cards
from handlers.windows import window

log = logging.getLogger(__name__)

TOO_SLOW = "Slack was slow; try again."
UNFORESEEN = "Something went wrong inside NOMADS. Please try once more, or tell whoever runs it."
_LATE = {
    *("expired_trigger_id", "trigger_expired", "invalid_trigger_id"),
    *("exchanged_trigger_id", "trigger_exchanged"),
    *("ratelimited", "rate_limited"),
}
"""What Slack answers where nothing can be opened any more, or not now."""


def answer(error: Exception, body: dict[str, Any], client: WebClient, respond: Respond) -> BoltResponse:
    """Answer a request whose listener raised: log the error unless it is a NomadsError, and tell the person.

    A request for which there is no listener is answered with nothing: Slack sends what an app subscribes to and the
    clicks on old messages, tries again what is not acknowledged, and ends the subscription of an app that refuses much.
    """
    if isinstance(error, BoltUnhandledRequestError):
        log.info("Slack sent a %s to which nothing of NOMADS listens.", body.get("type", "command"))
        return BoltResponse(status=200)
    if isinstance(error, NomadsError):  # raised on purpose, with a text for people
        return _told(body, client, respond, words.mrkdwn(str(error)))
    code = str(error.response.get("error")) if isinstance(error, SlackApiError) else ""
    kind = body.get("type") or ("command" if "command" in body else "request")
    if code in _LATE:
        log.warning("A %s could not be answered in time: Slack says %s.", kind, code)
        return _told(body, client, respond, TOO_SLOW, opening=False)
    log.error("A %s failed %s: %s", kind, code, words.where(error))
    return _told(body, client, respond, UNFORESEEN)


def _told(
    body: dict[str, Any], client: WebClient, respond: Respond, text: str, *, opening: bool = True
) -> BoltResponse:
    """Tell the person: beside what was clicked, in a window (unless not `opening`), or in a direct message."""
    if body.get("type") == "view_submission":
        text = f"{text} Nothing was submitted."
        first = next(iter(body["view"]["state"]["values"]), "pipeline")
        return BoltResponse(status=200, body={"response_action": "errors", "errors": {first: text}})
    with suppress(OSError, SlackClientError):  # there is no other way to tell the person
        if body.get("response_url") and "command" not in body:
            respond(text=text, response_type="ephemeral", replace_original=False)
        elif opening and body.get("type") == "block_actions":  # in the home tab or a window
            over = (body.get("view") or {}).get("type") == "modal"
            show = client.views_push if over else client.views_open
            show(trigger_id=body["trigger_id"], view=window("NOMADS", [cards.section(text)]))
        elif body.get("type") in ("block_actions", "shortcut"):
            client.chat_postMessage(channel=body["user"]["id"], text=text)
    return BoltResponse(status=200, body={"response_type": "ephemeral", "text": text} if "command" in body else "")
