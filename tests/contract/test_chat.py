"""What every Chat keeps: the fake in memory, and Slack's Web API against the workspace stand-in."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from slack_sdk import WebClient

from bot.application.ports import Chat
from bot.domain.errors import Busy, Refused, Unavailable
from bot.domain.states import JobState
from bot.slack.chat import SlackChat
from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import BOT_USER
from tests.support.app import MANIFEST
from tests.support.memory import MemoryChat
from tests.support.stories import a_job, a_step, a_story


class Rig:
    """A chat, and hands to make its days bad."""

    chat: Chat
    channel: str
    """Where the bot may post."""
    lose_answer: Callable[[str], None]
    """Let the next call (`card`, `reply` or `file`) be done and its answer get lost."""
    throttle: Callable[[], None]
    """Let the next card be answered with: come back in 30 seconds."""
    count: Callable[[], int]
    """How many messages there are."""
    told: Callable[[], list[str]]
    """The direct messages to U01DEMO."""


class MemoryRig(Rig):
    def __init__(self) -> None:
        memory = MemoryChat()
        self.chat, self.channel = memory, "C01SYNAPSES"
        self.lose_answer = lambda what: memory.fail_after(Unavailable("lost"), call=f"post_{what}")
        self.throttle = lambda: memory.fail_next(Busy("429", retry_after=30), call="post_card")
        self.count = lambda: len(memory.messages)
        self.told = lambda: [text for person, text in memory.told if person == "U01DEMO"]


class SlackRig(Rig):
    def __init__(self, slack: SlackStandIn, channel: str) -> None:
        client = WebClient(token=slack.bot_token, base_url=slack.api_url, timeout=5, retry_handlers=[])
        self.chat, self.channel = SlackChat(client=client), slack.workspace.channel(channel).id
        methods = {"card": "chat.postMessage", "reply": "chat.postMessage", "file": "files.completeUploadExternal"}
        # Where the bot is not inside, an upload is refused first and asked again after joining.
        inside = BOT_USER in slack.workspace.channel(channel).members
        self.lose_answer = lambda what: slack.lose_answer(methods[what], times=1 if inside or what != "file" else 2)
        self.throttle = lambda: slack.rate_limit("chat.postMessage", retry_after=30)
        self.count = lambda: len(slack.messages(channel))
        self.told = lambda: [
            html.unescape(message["text"]) for message in slack.workspace.direct("U01DEMO").messages.values()
        ]


def _public_without_the_bot(slack: SlackStandIn) -> str:
    member = slack.workspace.channel("#synapses").members
    return next(
        c.id for c in slack.workspace.channels.values() if not c.private and not c.direct and c.members != member
    )


@pytest.fixture(params=["memory", "slack", "slack, a public channel the bot is not in"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    with SlackStandIn(manifest=MANIFEST) as slack:
        yield SlackRig(slack, "#synapses" if request.param == "slack" else _public_without_the_bot(slack))


def test_a_card_is_found_by_its_key_and_no_other(rig: Rig) -> None:
    story = a_story(a_job(channel=rig.channel))
    timestamp = rig.chat.post_card(story, key="one")
    assert rig.chat.find(story, thread=None, key="one") == timestamp
    assert rig.chat.find(story, thread=None, key="two") is None


def test_a_card_is_found_although_the_clock_was_an_hour_ahead_when_its_job_was_accepted(rig: Rig) -> None:
    job = a_job(channel=rig.channel, accepted_at=datetime.now(UTC) + timedelta(hours=1))
    timestamp = rig.chat.post_card(a_story(job), key="one")
    assert rig.chat.find(a_story(job), thread=None, key="one") == timestamp


def test_a_reply_is_found_in_its_thread_by_its_key(rig: Rig) -> None:
    story = a_story(a_job(channel=rig.channel))
    card = rig.chat.post_card(story, key="card")
    reply = rig.chat.post_reply(story, [a_step()], thread=card, key="reply-1")
    assert rig.chat.find(story, thread=card, key="reply-1") == reply
    assert rig.chat.find(story, thread=card, key="reply-2") is None


def test_edits_change_messages_and_add_none(rig: Rig) -> None:
    story = a_story(a_job(channel=rig.channel))
    card = rig.chat.post_card(story, key="card")
    reply = rig.chat.post_reply(story, [a_step()], thread=card, key="reply-1")
    before = rig.count()
    later = a_story(a_job(JobState.RUNNING, channel=rig.channel))
    rig.chat.edit_card(later, card)
    rig.chat.edit_reply(later, [a_step(), a_step("Running.", JobState.RUNNING)], reply)
    assert rig.count() == before


def test_a_file_is_found_in_its_thread_by_its_name(rig: Rig) -> None:
    story = a_story(a_job(channel=rig.channel))
    card = rig.chat.post_card(story, key="card")
    rig.chat.post_file(story, thread=card, name="abcd1234-preview.png", title="Preview", content=b"\x89PNG")
    assert rig.chat.find(story, thread=card, key="abcd1234-preview.png")
    assert rig.chat.find(story, thread=card, key="other.png") is None


@pytest.mark.parametrize("what", ["card", "reply", "file"])
def test_what_was_posted_and_not_answered_can_be_found(rig: Rig, what: str) -> None:
    story = a_story(a_job(channel=rig.channel))
    card = None if what == "card" else rig.chat.post_card(story, key="card")
    rig.lose_answer(what)
    post: dict[str, Callable[[], object]] = {
        "card": lambda: rig.chat.post_card(story, key="k"),
        "reply": lambda: rig.chat.post_reply(story, [a_step()], thread=card or "", key="k"),
        "file": lambda: rig.chat.post_file(story, thread=card or "", name="k", title="K", content=b"k"),
    }
    with pytest.raises(Unavailable) as caught:
        post[what]()
    assert caught.value.retry_after is None
    assert rig.chat.find(story, thread=card, key="k")


def test_a_direct_message_to_the_owner_is_found_by_its_key_and_stands_in_no_channel(rig: Rig) -> None:
    story = a_story(a_job(channel=rig.channel, unposted="The channel is archived."))
    assert rig.chat.find_direct(story, key="one") is None
    first = rig.chat.post_direct(story, [], key="one")
    second = rig.chat.post_direct(story, [a_step("Finished.", JobState.SUCCEEDED)], key="two")
    assert (rig.chat.find_direct(story, key="one"), rig.chat.find_direct(story, key="two")) == (first, second)
    assert rig.chat.find(story, thread=None, key="one") is None


def test_being_told_to_wait_names_the_seconds_and_posts_nothing(rig: Rig) -> None:
    story = a_story(a_job(channel=rig.channel))
    rig.throttle()
    with pytest.raises(Unavailable) as caught:
        rig.chat.post_card(story, key="card")
    assert caught.value.retry_after == 30
    assert rig.count() == 0


def test_a_job_without_a_channel_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused):
        rig.chat.post_card(a_story(a_job(channel=None)), key="card")


def test_a_person_can_be_told_something_directly(rig: Rig) -> None:
    before = rig.count()
    rig.chat.tell("U01DEMO", "AWS does not answer: <!channel> & more.")
    assert rig.count() == before, "nobody else sees it"
    assert rig.told() == ["AWS does not answer: <!channel> & more."]
