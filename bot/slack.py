"""Chat over Slack's Web API: the job's card, the replies in its thread, and the preview."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)
from slack_sdk.models.metadata import Metadata
from slack_sdk.web import SlackResponse

from bot import words
from bot.jobs import FINAL, WAITING, Job, JobState, Refused, Unavailable
from bot.ports import EDIT, Step, Story

log = logging.getLogger(__name__)

SECTION, HEADER = 3000, 150
"""Slack's limits on a section's and a header's text, in characters."""
BLOCKS = 12_000
"""Characters that all blocks of a message hold together; Slack refuses some 13,000 (msg_blocks_too_long)."""
EVENT_TYPE = "nomads_message"
"""The metadata event that marks this app's messages."""
CLOCK_SKEW = 60
"""Seconds by which Slack's clock and ours may differ."""

_PASSING = {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
_FOR_AN_ADMIN = {"invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive"}
_OUTSIDE = {"not_in_channel", "channel_not_found"}
_STATES = {
    JobState.ACCEPTED: "📥 Accepted",
    JobState.RUNNING: "⚙️ Running",
    JobState.SUCCEEDED: "✅ Finished",
    JobState.FAILED: "❌ Failed",
    JobState.CANCELLED: "🚫 Cancelled",
    JobState.LOST: "❓ Lost",
} | dict.fromkeys(WAITING, "⏳ Waiting to run")
T = TypeVar("T")


class SlackChat:
    """Posts as the app. Obeys Retry-After, for the method that was told, whoever calls it next."""

    def __init__(self, *, client: WebClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def post_card(self, story: Story, *, key: str) -> str:
        """Post the job's card; returns its timestamp."""
        return self._post(story, _card(story), _summary_line(story.job), key=key, thread=None)

    def edit_card(self, story: Story, timestamp: str) -> None:
        """Bring the card up to date."""
        self._edit(story, _card(story), _summary_line(story.job), timestamp)

    def post_reply(self, story: Story, steps: Sequence[Step], *, thread: str, key: str) -> str:
        """Tell the steps in the thread; returns the reply's timestamp."""
        return self._post(story, _reply(story, steps), _spoken(steps), key=key, thread=thread)

    def edit_reply(self, story: Story, steps: Sequence[Step], timestamp: str) -> None:
        """Let that reply tell these steps."""
        self._edit(story, _reply(story, steps), _spoken(steps), timestamp)

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

    def find(self, story: Story, *, thread: str | None, key: str) -> str | None:
        """The timestamp of the message with that key, or of the file of that name.

        Where the history may not be read nothing is found: a message told twice is better than one that is lost.
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
        """Call, once more after joining a public channel where Slack wants the app inside. Raises domain errors."""
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


def _summary_line(job: Job) -> str:
    """The card in one line, for notifications and screen readers."""
    request = job.request
    return words.mrkdwn(
        f"{request.pipeline} on {request.collection}/{request.experiment}: {_STATES[job.state][2:].strip()}"
    )


def _card(story: Story) -> list[Block]:
    job, request = story.job, story.job.request
    facts = [
        f"*Volume*\n{words.mrkdwn(f'{request.collection}/{request.experiment}')}\n{request.box}",
        f"*Size*\n{words.count(request.box.voxels)} voxels, {words.size(story.size)}",
        f"*Asked by*\n{_who(job)}",
        f"*State*\n{_state(job)}{_since(job)}{_progress(job)}",
    ]
    if effort := _effort(job):
        facts.append(effort)
    return [
        HeaderBlock(text=PlainTextObject(text=words.shortened(story.pipeline_title, HEADER))),
        SectionBlock(fields=[MarkdownTextObject(text=words.shortened(fact, 2000)) for fact in facts]),
        ContextBlock(
            elements=[MarkdownTextObject(text=f"Job `{job.id}` · results: {words.link(story.address, 'folder')}")]
        ),
    ]


def _who(job: Job) -> str:
    return f"<@{job.actor}>" if re.fullmatch(r"[UW][A-Z0-9]+", job.actor) else words.mrkdwn(job.actor)


def _state(job: Job) -> str:
    return _STATES[job.state] if job.checked or job.state in FINAL else "🔎 Checking with BOSS"


def _effort(job: Job) -> str:
    """What the job is expected to take; at its end, what it took."""
    expected, took = job.expected, job.took
    if took is None:
        return f"*Expected*\n{words.forecast(expected)}" if expected and job.state not in FINAL else ""
    said = f"*Took*\n{words.duration(took)}"
    if expected:
        said += f" (expected {words.duration(timedelta(seconds=expected.seconds))})"
        cost = expected.cost_of(took.total_seconds())
        if cost is not None and expected.cost is not None:
            said += (
                f"\n{words.money(cost, expected.currency)} (expected {words.money(expected.cost, expected.currency)})"
            )
    return said


def _progress(job: Job) -> str:
    """How far a running program is, as `▓▓▓▓░░░░░░ 42 % reading`."""
    if job.progress is None or job.state is not JobState.RUNNING:
        return ""
    done = round(job.progress.part * 10)
    percent = f"{job.progress.part * 100:.0f} %"
    return f"\n{'▓' * done}{'░' * (10 - done)} {percent} {words.mrkdwn(job.progress.phase)}"


def _since(job: Job) -> str:
    when = {JobState.ACCEPTED: job.accepted_at, JobState.RUNNING: job.started_at}.get(job.state, job.submitted_at)
    if job.state in FINAL:
        when = job.finished_at
    return f"\n{'' if job.state in FINAL else 'since '}{_time(int(when.timestamp()))}" if when else ""


def _time(seconds: int) -> str:
    """A time that Slack shows in the reader's own zone."""
    fallback = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    return f"<!date^{seconds}^{{date_short_pretty}} {{time}}|{fallback}>"


def _spoken(steps: Sequence[Step]) -> str:
    return words.shortened(words.mrkdwn(" ".join(step.text for step in steps)), SECTION)


def _reply(story: Story, steps: Sequence[Step]) -> list[Block]:
    job = story.job
    texts = _packed([words.mrkdwn(step.text) for step in steps])
    ended = bool(steps) and steps[-1].state in FINAL
    if ended and job.state is JobState.SUCCEEDED:
        folder = words.link(story.address, "All files")
        lines = [f"• {words.mrkdwn(note)}" for note in (job.summary.notes if job.summary else [])]
        lines += [f"• {words.link(link.url, title)}" for title, link in story.links]
        texts += _packed(_fitting(lines, BLOCKS - len(folder) - sum(map(len, texts)))) + _packed([folder])
    elif ended:
        if job.log_tail:
            texts += _log(job.log_tail)
        texts.append(f"*What next?* {words.mrkdwn(job.advice)}")
    blocks: list[Block] = [SectionBlock(text=MarkdownTextObject(text=text)) for text in texts]
    if ended and job.turned_down:
        button = ButtonElement(action_id=EDIT, text="Edit and resubmit", value=job.id)
        whom = [ContextBlock(elements=[MarkdownTextObject(text=f"For {_who(job)}")])]
        blocks += [*whom, ActionsBlock(elements=[button])]
    return blocks


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    """The first lines that fit into so many characters: signed links can be very long, and lie in the folder anyway."""
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def _packed(lines: Sequence[str], room: int = SECTION) -> list[str]:
    """The lines in as few sections as hold them. A line no section holds is left out: half a link leads nowhere."""
    packed: list[str] = []
    for line in lines:
        if len(line) > room:
            continue
        if packed and len(packed[-1]) + 1 + len(line) <= room:
            packed[-1] += "\n" + line
        else:
            packed.append(line)
    return packed


def _log(tail: Sequence[str]) -> list[str]:
    """The last lines a program printed, as code blocks, one a section; every line is there, a long one cut."""
    room = BLOCKS // 2 // max(len(tail), 1)
    lines = [_cut(words.mrkdwn(words.printable(line)).replace("```", "'''"), min(room, 1000)) for line in tail]
    fence = "```\n"
    return [f"{fence}{text}\n```" for text in _packed(lines, SECTION - 2 * len(fence))]


def _cut(text: str, limit: int) -> str:
    """Escaped text, cut where it breaks no escape."""
    return text if len(text) <= limit else re.sub(r"&[a-z]*$", "", text[: limit - 1]) + "…"
