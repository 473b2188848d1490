"""Chat over Slack's Web API: messages, files and the home tab, whose blocks `bot.slack.cards` makes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.models.blocks import Block
from slack_sdk.models.metadata import Metadata
from slack_sdk.web import SlackResponse

from bot.domain.errors import Refused, Unavailable
from bot.domain.messages import Home, Step, Story
from bot.slack import cards

log = logging.getLogger(__name__)

EVENT_TYPE = "nomads_message"
"""The metadata event that marks this app's messages."""
CLOCK_SKEW = 2 * 3600
"""Seconds by which Slack's clock and ours may differ: a card that is not found is posted a second time."""

_PASSING = {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
_FOR_AN_ADMIN = {"invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive"}
_OUTSIDE = {"not_in_channel", "channel_not_found"}
T = TypeVar("T")


class SlackChat:
    """Chat as the app. A Retry-After holds for every later call of the same method."""

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
        self._call(
            "files.completeUploadExternal",
            lambda: self._client.files_upload_v2(
                channel=channel, thread_ts=thread, filename=name, title=title, content=content
            ),
            join=channel,
        )

    def show_home(self, person: str, home: Home) -> None:
        """Publish the home tab. Raises Refused for a person who has left the workspace."""
        self._call("views.publish", lambda: self._client.views_publish(user_id=person, view=cards.home(home)))

    def find(self, story: Story, *, thread: str | None, key: str) -> str | None:
        """The timestamp of the message with that key, or with a file of that name.

        None also where the history may not be read: a message posted twice is better than one that is lost.
        """
        try:
            for message in self._messages(story, thread):
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                names = [file.get("name") for file in message.get("files") or []]
                if payload.get("key") == key or key in names:
                    return str(message["ts"])
        except Refused as error:
            log.warning("Job %s: the channel's history cannot be searched: %s", story.job.id, error)
        return None

    def _messages(self, story: Story, thread: str | None) -> Iterator[dict[str, Any]]:
        channel = story.job.request.channel or ""
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
            yield from answer.get("messages") or []
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return
            more["cursor"] = cursor

    def _post(self, story: Story, blocks: Sequence[Block], text: str, *, key: str, thread: str | None) -> str:
        channel = story.job.request.channel or ""
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
        return str(answer["ts"])

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
            raise Unavailable(f"Slack asked for patience with {method}.", retry_after=wait)
        try:
            return call()
        except SlackApiError as error:
            code = str(error.response.get("error", ""))
            if join and code in _OUTSIDE and self._join(join):
                return self._call(method, call)
            raise self._domain_error(method, code, error.response) from None
        except (URLError, OSError, TimeoutError) as error:
            raise Unavailable(f"Slack does not answer ({type(error).__name__}).") from None

    def _join(self, channel: str) -> bool:
        try:
            self._client.conversations_join(channel=channel)
        except SlackApiError:
            return False
        return True

    def _domain_error(self, method: str, code: str, answer: SlackResponse | Any) -> Unavailable | Refused:
        if answer.status_code == 429 or code == "ratelimited":
            wait = float(answer.headers.get("Retry-After") or answer.headers.get("retry-after") or 1)
            with self._lock:
                self._until[method] = self._clock() + wait
            return Unavailable(f"Slack asked for patience with {method}.", retry_after=wait)
        if code in _PASSING or code in _FOR_AN_ADMIN or answer.status_code >= 500:
            return Unavailable(f"Slack answered {code or answer.status_code} to {method}.")
        return Refused(f"Slack answered {code} to {method}.")
