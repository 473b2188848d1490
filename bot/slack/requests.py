"""What Slack sends to the app, over HTTP or Socket Mode; its shape is checked before Bolt and the listeners read it.

Only what is read of a request is checked, so that a field that Slack adds refuses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from slack_bolt import App, BoltRequest, BoltResponse

log = logging.getLogger(__name__)


class Requests:
    """Slack's requests, on their way to the listeners of one app."""

    def __init__(self, app: App) -> None:
        self.app = app

    def answer(
        self, body: Any, *, headers: Mapping[str, str | Sequence[str]] | None = None, query: str = ""
    ) -> BoltResponse:
        """The app's answer to a body that was read from JSON or a form; that of `refused` where it is none of Slack's.

        Whoever calls this has made sure that the body came from Slack.
        """
        if problem := misshapen(body):
            return refused(problem)
        if body.get("type") == _RATE_LIMITED:
            log.warning(
                "Slack limits the events that it sends to this app, since there are too many of them or too few were "
                "acknowledged; home tabs may be out of date until it stops."
            )
            return BoltResponse(status=200)
        # Bolt's mode for bodies that are read already.
        return self.app.dispatch(BoltRequest(body=body, headers=dict(headers or {}), query=query, mode="socket_mode"))


def refused(problem: str) -> BoltResponse:
    """The answer to what Slack never sends to this app: 400, and one line in the log."""
    log.warning("A request comes from Slack, and is none of Slack's (%s).", problem)
    return BoltResponse(status=400, body="not a request of Slack's\n")


def misshapen(body: Any) -> str:
    """Where a body has not the shape of its kind, as `block_actions: actions`; empty where it has.

    No text of the body is repeated, since that may hold a token.
    """
    if not isinstance(body, dict):
        return type(body).__name__
    kind = next((name for name in _IN_FORMS if name in body), body.get("type"))
    shape = _SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        return "of no known kind"
    try:
        shape.model_validate(body)
    except ValidationError as error:
        return f"{kind}: {error.errors(include_url=False, include_input=False)[0]['loc'][0]}"
    return ""


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


_Name = Annotated[str, Field(min_length=1)]


class _Named(_Shape):
    id: _Name


class _Authorization(_Shape):
    team_id: str | None = None
    enterprise_id: str | None = None
    user_id: str | None = None


class _Block(_Shape):
    type: _Name
    block_id: _Name


class _Option(_Shape):
    value: str


class _Element(_Shape):
    value: str | None = None
    selected_option: _Option | None = None
    selected_options: list[_Option] | None = None
    selected_conversation: str | None = None


class _State(_Shape):
    values: dict[str, dict[str, _Element | None]]


class _View(_Shape):
    id: _Name
    type: str | None = None
    callback_id: str | None = None
    private_metadata: str | None = None
    blocks: list[_Block]
    state: _State | None = None
    app_installed_team_id: str | None = None


class _FilledView(_View):
    type: Literal["modal"]
    callback_id: _Name
    private_metadata: str
    state: _State


class _Action(_Element):
    action_id: _Name
    block_id: _Name


class _Request(_Shape):
    """What any request may say of where it comes from."""

    team: _Named | str | None = None
    team_id: str | None = None
    enterprise: _Named | str | None = None
    enterprise_id: str | None = None
    authorizations: list[_Authorization] | None = None
    channel: _Named | str | None = None
    channel_id: str | None = None
    user_id: str | None = None
    response_url: str | None = None
    message: dict[str, Any] | None = None
    view: _View | None = None


class _Interaction(_Request):
    user: _Named


class _Clicked(_Interaction):
    trigger_id: _Name
    actions: Annotated[list[_Action], Field(min_length=1)]


class _Suggestion(_Interaction):
    action_id: _Name
    block_id: _Name
    value: str
    view: _View


class _Submission(_Interaction):
    view: _FilledView


class _Closed(_Interaction):
    view: _View


class _Shortcut(_Interaction):
    callback_id: _Name
    trigger_id: _Name


class _Event(_Shape):
    type: _Name
    user: _Named | str | None = None
    channel: _Named | str | None = None
    message: dict[str, Any] | None = None
    previous_message: dict[str, Any] | None = None


class _EventCallback(_Request):
    event: _Event


class _Command(_Request):
    command: _Name
    text: str | None = None
    user_id: _Name
    channel_id: _Name
    trigger_id: _Name


class _Challenge(_Request):
    challenge: _Name


_IN_FORMS = ("command", "ssl_check")
"""Kinds of requests that come as a form of their own, and have no `type`."""
_RATE_LIMITED = "app_rate_limited"
"""What Slack sends in place of events, once a minute and workspace. It is no event, and Bolt does not know it."""
_SHAPES: Mapping[str, type[_Request]] = {
    "command": _Command,
    "ssl_check": _Request,
    "block_actions": _Clicked,
    "block_suggestion": _Suggestion,
    "view_submission": _Submission,
    "view_closed": _Closed,
    "shortcut": _Shortcut,
    "message_action": _Shortcut,
    "event_callback": _EventCallback,
    "url_verification": _Challenge,
    _RATE_LIMITED: _Request,
}
