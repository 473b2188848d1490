"""Chat over Slack's Web API: messages, files and the home tab, whose blocks `bot.slack.cards` makes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.models.blocks import Block
from slack_sdk.models.metadata import Metadata
from slack_sdk.web import SlackResponse

from bot.domain import words
from bot.domain.errors import SHORTEST_PATIENCE, Busy, Refused, Unavailable, patience
from bot.domain.messages import Home, Step, Story
from bot.slack import answers, cards
from bot.slack.client import refusal

log = logging.getLogger(__name__)

EVENT_TYPE = "nomads_message"
"""The metadata event that marks this app's messages."""
CLOCK_SKEW = 2 * 3600
"""Seconds by which Slack's clock and ours may differ: a card that is not found is posted a second time."""

_GONE = {"channel_not_found", "is_archived", "is_inactive", "not_in_channel"}
_MALFORMED = {"invalid_arg_name", "invalid_arguments", "invalid_array_arg"}
_CONTENT = {
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "metadata_too_large",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
}
_HISTORY = _GONE | {"method_not_supported_for_channel_type", "missing_scope", "no_permission", "thread_not_found"}
_REFUSALS = {
    "chat.postMessage": _GONE
    | _CONTENT
    | {
        "cannot_reply_to_message",
        "messages_tab_disabled",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "restricted_action_read_only_channel",
        "restricted_action_thread_only_channel",
        "thread_not_found",
        "user_not_found",
    },
    "chat.update": _GONE
    | _CONTENT
    | {"block_mismatch", "cant_update_message", "edit_window_closed", "message_not_found"},
    "conversations.history": _HISTORY,
    "conversations.replies": _HISTORY,
    "conversations.join": _GONE | {"method_not_supported_for_channel_type", "missing_scope", "no_permission"},
    "conversations.open": {"cannot_dm_bot", "missing_scope", "user_disabled", "user_not_found", "user_not_visible"},
    "files.completeUploadExternal": _GONE | {"invalid_channel", "posting_to_channel_denied", "thread_not_found"},
    "views.publish": {"not_enabled", "user_not_found", "view_too_large"},
}
"""For each method the errors that Slack documents and would answer again, besides _MALFORMED. Whatever is not listed
may pass, or an admin can mend it (a token, a scope, a migration), so it is no refusal."""
_SAID: dict[str, tuple[type, str]] = {
    "chat.postMessage": (str, "ts"),
    "chat.update": (str, "ts"),
    "conversations.history": (list, "messages"),
    "conversations.join": (dict, "channel"),
    "conversations.open": (dict, "channel"),
    "conversations.replies": (list, "messages"),
    "files.completeUploadExternal": (list, "files"),
    "views.publish": (dict, "view"),
}
"""What an answer to each method says besides `"ok": true`, and its type: without it, it is not known to be Slack's."""
_WORDS = {
    "channel_not_found": "The channel is gone, or NOMADS is not in it",
    "invalid_channel": "The channel is gone, or NOMADS is not in it",
    "is_archived": "The channel is archived",
    "is_inactive": "The channel is archived",
    "message_not_found": "The message is gone",
    "messages_tab_disabled": "The app's manifest does not allow direct messages",
    "missing_scope": "The app lacks a scope that its manifest names",
    "not_in_channel": "NOMADS is not in the channel",
    "posting_to_channel_denied": "NOMADS may not post to the channel",
    "restricted_action": "The workspace does not let NOMADS post to the channel",
    "thread_not_found": "The thread is gone",
    "user_not_found": "This person is not in the workspace",
}
_OUTSIDE = {"not_in_channel", "channel_not_found", "invalid_channel"}


class SlackChat:
    """Chat as the app. A Retry-After holds for every later call of the same method.

    A refusal is an answer of Slack's own (status 200, `"ok": false`) with an error that _REFUSALS lists for the method.
    Everything else is in doubt and raises Unavailable: other errors, other statuses, an answer that is not Slack's, an
    answer without what Slack always says (_SAID) or with another type of it, and no answer.
    """

    def __init__(self, *, client: WebClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def post_card(self, story: Story, *, key: str) -> str:
        """Post the job's card; returns its timestamp."""
        return self._post(story, cards.card(story), cards.summary(story.job), key=key, thread=None)

    def edit_card(self, story: Story, timestamp: str) -> None:
        """Show the story on the posted card."""
        self._edit(story, cards.card(story), cards.summary(story.job), timestamp)

    def post_reply(self, story: Story, steps: Sequence[Step], *, thread: str, key: str) -> str:
        """Tell the steps in the thread; returns the reply's timestamp."""
        return self._post(story, cards.reply(story, steps), cards.spoken(story, steps), key=key, thread=thread)

    def edit_reply(self, story: Story, steps: Sequence[Step], timestamp: str) -> None:
        """Replace the steps that a posted reply tells."""
        self._edit(story, cards.reply(story, steps), cards.spoken(story, steps), timestamp)

    def post_file(self, story: Story, *, thread: str, name: str, title: str, content: bytes) -> None:
        """Show a file in the thread."""
        channel = story.job.request.channel

        def upload() -> SlackResponse:
            try:
                return self._client.files_upload_v2(
                    channel=channel, thread_ts=thread, filename=name, title=title, content=content
                )
            # slack_sdk stumbles over what an answer lacks, and urllib over addresses and lengths that make no sense.
            except (TypeError, AttributeError, ValueError, OverflowError, MemoryError, HTTPException):
                raise Unavailable("An answer to the upload of a file was not Slack's own.") from None

        self._call("files.completeUploadExternal", upload, join=channel)

    def tell(self, person: str, text: str) -> None:
        """Send a direct message. An answer that is lost lets it be sent twice: the app reads no direct messages."""
        self._call("chat.postMessage", lambda: self._client.chat_postMessage(channel=person, text=words.mrkdwn(text)))

    def post_direct(self, story: Story, steps: Sequence[Step], *, key: str) -> str:
        """Tell the job's owner alone these steps; without any, that the job's card could not be posted.

        Slack opens the direct message by itself where a message goes to a person's id.
        """
        told = cards.direct(story, steps)
        return self._post(story, told, cards.plain(told), key=key, thread=None, channel=story.job.actor)

    def show_home(self, person: str, home: Home) -> None:
        """Publish the home tab. Raises Refused for a person who has left the workspace."""
        self._call("views.publish", lambda: self._client.views_publish(user_id=person, view=cards.home(home)))

    def find(self, story: Story, *, thread: str | None, key: str) -> str | None:
        """The timestamp of the message with that key, or with a file of that name.

        None also where the history may not be read: a message posted twice is better than one that is lost.
        """
        return self._search(story, lambda: story.job.request.channel or "", thread, key)

    def find_direct(self, story: Story, *, key: str) -> str | None:
        """The timestamp of the direct message with that key; None also where it may not be read."""

        def conversation() -> str:
            answer = self._call("conversations.open", lambda: self._client.conversations_open(users=story.job.actor))
            return answers.needed(answer, str, "channel", "id")

        return self._search(story, conversation, None, key)

    def _search(self, story: Story, place: Callable[[], str], thread: str | None, key: str) -> str | None:
        try:
            for message in self._messages(story, place(), thread):
                payload = answers.found(message, dict, "metadata", "event_payload") or {}
                names = [file.get("name") for file in answers.listed(message, dict, "files")]
                if payload.get("key") == key or key in names:
                    return answers.needed(message, str, "ts")
        except Refused as error:
            log.warning("Job %s: the channel's history cannot be searched: %s", story.job.id, error)
        return None

    def _messages(self, story: Story, channel: str, thread: str | None) -> Iterator[dict[str, Any]]:
        since = f"{story.job.accepted_at.timestamp() - CLOCK_SKEW:.6f}"
        more: dict[str, Any] = {"limit": 200, "include_all_metadata": True}
        while True:
            if thread is None:
                answer = self._call(
                    "conversations.history",
                    lambda: self._client.conversations_history(channel=channel, oldest=since, **more),
                    join=channel,
                )
            else:
                answer = self._call(
                    "conversations.replies",
                    lambda: self._client.conversations_replies(channel=channel, ts=thread, **more),
                    join=channel,
                )
            yield from answers.listed(answer, dict, "messages")
            more["cursor"] = answers.cursor(answer, before=more.get("cursor", ""))
            if not more["cursor"]:
                return

    def _post(
        self,
        story: Story,
        blocks: Sequence[Block],
        text: str,
        *,
        key: str,
        thread: str | None,
        channel: str | None = None,
    ) -> str:
        channel = channel or story.job.request.channel or ""
        answer = self._call(
            "chat.postMessage",
            lambda: self._client.chat_postMessage(
                channel=channel,
                thread_ts=thread,
                text=text,
                blocks=blocks,
                metadata=Metadata(event_type=EVENT_TYPE, event_payload={"key": key, "job": story.job.id}),
                unfurl_links=False,
                unfurl_media=False,
            ),
        )
        return answers.needed(answer, str, "ts")

    def _edit(self, story: Story, blocks: Sequence[Block], text: str, timestamp: str) -> None:
        channel = story.job.request.channel or ""
        self._call(
            "chat.update",
            lambda: self._client.chat_update(channel=channel, ts=timestamp, text=text, blocks=blocks),
        )

    def _call(self, method: str, call: Callable[[], SlackResponse], *, join: str | None = None) -> SlackResponse:
        """Call Slack; where the app must be in `join`, a public channel, join and call again. Raises domain errors."""
        with self._lock:
            wait = self._until.get(method, 0) - self._clock()
        if wait > 0:
            raise Busy(f"Slack asked for patience with {method}.", retry_after=wait)
        try:
            answer = call()
            if answer.get("ok") is not True:
                raise SlackApiError("This is no answer of Slack's.", answer)  # type: ignore[no-untyped-call]
            answers.needed(answer, *_SAID[method])
            return answer
        except SlackApiError as error:
            code = refusal(error.response)
            if join and code in _OUTSIDE and self._join(join):
                return self._call(method, call)
            raise self._domain_error(method, code, error.response) from None
        except (URLError, OSError, TimeoutError, SlackRequestError, RecursionError) as error:
            raise Unavailable(f"Slack does not answer ({type(error).__name__}).") from None

    def _join(self, channel: str) -> bool:
        """Whether the app has joined the channel. Raises Unavailable where that is not known."""
        try:
            self._call("conversations.join", lambda: self._client.conversations_join(channel=channel))
        except Refused:
            return False
        return True

    def _domain_error(self, method: str, code: str, answer: SlackResponse | Any) -> Unavailable | Refused:
        status = getattr(answer, "status_code", 0)
        if status == 429 or code in ("ratelimited", "rate_limited"):
            headers = {name.lower(): value for name, value in (getattr(answer, "headers", None) or {}).items()}
            wait = patience(headers.get("retry-after")) or SHORTEST_PATIENCE
            with self._lock:
                self._until[method] = self._clock() + wait
            return Busy(f"Slack asked for patience with {method}.", retry_after=wait)
        if code in _REFUSALS.get(method, set()) | _MALFORMED:
            return Refused(f"{_WORDS.get(code, 'Slack does not take it')} (Slack answered {code} to {method}).")
        if code:
            return Unavailable(f"Slack answered {code} to {method}.")
        return Unavailable(f"An answer to {method} was not Slack's own (HTTP status {status or 'unknown'}).")
