"""What a person is told when something unforeseen happens.

The log gets the error's type and traceback, but neither message nor request body, which may hold a token.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from slack_bolt import BoltResponse, Respond
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from bot.domain import words
from bot.domain.errors import NomadsError
from bot.slack import cards
from handlers.windows import window

log = logging.getLogger(__name__)

TOO_SLOW = "Slack gave up waiting before the form could open. Please try once more."
UNFORESEEN = "Something went wrong inside NOMADS. Please try once more, or tell whoever runs it."
_LATE = {"expired_trigger_id", "trigger_exchanged", "exchanged_trigger_id", "invalid_trigger_id"}


def answer(error: Exception, body: dict[str, Any], client: WebClient, respond: Respond) -> BoltResponse:
    """Answer a request whose listener raised: log the error unless it is a NomadsError, and tell the person."""
    if isinstance(error, NomadsError):  # raised on purpose, with a text for people
        return _told(body, client, respond, words.mrkdwn(str(error)))
    code = str(error.response.get("error")) if isinstance(error, SlackApiError) else ""
    kind = body.get("type") or ("command" if "command" in body else "request")
    log.error("A %s failed %s: %s", kind, code, words.where(error))
    text = TOO_SLOW if code in _LATE else UNFORESEEN
    return _told(body, client, respond, text)


def _told(body: dict[str, Any], client: WebClient, respond: Respond, text: str) -> BoltResponse:
    if body.get("type") == "view_submission":
        text = f"{text} Nothing was submitted."
        first = next(iter(body["view"]["state"]["values"]), "pipeline")
        return BoltResponse(status=200, body={"response_action": "errors", "errors": {first: text}})
    with suppress(OSError, SlackClientError):  # there is no other way to tell the person
        if body.get("response_url") and "command" not in body:
            respond(text=text, response_type="ephemeral", replace_original=False)
        elif body.get("type") == "block_actions":  # in the home tab or a window
            over = (body.get("view") or {}).get("type") == "modal"
            opening = client.views_push if over else client.views_open
            opening(trigger_id=body["trigger_id"], view=window("NOMADS", [cards.section(text)]))
    return BoltResponse(status=200, body={"response_type": "ephemeral", "text": text} if "command" in body else "")
