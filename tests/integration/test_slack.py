"""How cards and replies look in Slack, and how its answers are taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from slack_sdk import WebClient

from bot.domain.errors import Refused, Unavailable
from bot.domain.job import Job
from bot.domain.messages import Home
from bot.domain.people import Preferences
from bot.domain.results import Link
from bot.domain.states import JobState
from bot.domain.work import Progress
from bot.slack.chat import SlackChat
from bot.slack.client import PooledWebClient
from sandbox.slack import SlackStandIn
from tests.support.stories import a_job, a_step, a_story, a_summary


@pytest.fixture
def slack() -> Iterator[SlackStandIn]:
    with SlackStandIn() as slack:
        yield slack


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chat(slack: SlackStandIn, clock: Clock) -> SlackChat:
    client = WebClient(token=slack.bot_token, base_url=slack.api_url, timeout=5, retry_handlers=[])
    return SlackChat(client=client, clock=clock)


def home(slack: SlackStandIn) -> str:
    return slack.workspace.channel("#synapses").id


def a_home() -> Home:
    """The home tab of a person without jobs."""
    return Home(running=(), running_in_all=0, recent=(), saved=None, preferences=Preferences())


def said(slack: SlackStandIn) -> list[dict[str, Any]]:
    return slack.messages("#synapses")


def reply_to(chat: SlackChat, slack: SlackStandIn, job: Job, text: str, **story: Any) -> str:
    """Post a card and a reply that tells the job's end; the reply's blocks as text."""
    card = chat.post_card(a_story(job), key="card")
    chat.post_reply(a_story(job, **story), [a_step(text, job.state)], thread=card, key="reply")
    return "\n".join(block["text"]["text"] for block in said(slack)[-1]["blocks"])


def test_the_card_says_pipeline_volume_voxels_size_who_and_state(slack: SlackStandIn, chat: SlackChat) -> None:
    chat.post_card(a_story(a_job(channel=home(slack))), key="card")
    text = json.dumps(said(slack)[0]["blocks"], ensure_ascii=False)
    for part in (
        "Unsupervised",
        "demo/cortex",
        "x 0, 512",
        "4,194,304 voxels",
        "8.39 MB",
        "<@U01DEMO>",
        "Accepted",
        "abcd1234",
    ):
        assert part in text


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_has_words_that_slack_takes(slack: SlackStandIn, chat: SlackChat, state: JobState) -> None:
    timestamp = chat.post_card(a_story(a_job(channel=home(slack))), key="card")
    chat.edit_card(a_story(a_job(state, channel=home(slack))), timestamp)
    (card,) = said(slack)
    assert "*State*" in json.dumps(card["blocks"])


def test_results_are_counts_notes_and_links(slack: SlackStandIn, chat: SlackChat) -> None:
    job = a_job(JobState.SUCCEEDED, channel=home(slack), summary=a_summary(notes=["Demo <model>."]))
    text = reply_to(chat, slack, job, "1,234 synapses. Finished after 1 min 1 s.")
    assert "1,234 synapses. Finished after 1 min 1 s." in text
    assert "• <https://results.test/synapses.csv|Table>" in text
    assert "Demo &lt;model&gt;." in text
    assert "<https://results.test/|All files>" in text


def test_a_failure_shows_the_log_as_code_that_pings_nobody_and_stays_code(slack: SlackStandIn, chat: SlackChat) -> None:
    tail = ["\x1b[31mred\x1b[0m <!channel> ```break``` 🧠", "x" * 5000, *(f"line {n} " + "y" * 200 for n in range(18))]
    job = a_job(JobState.FAILED, channel=home(slack), log_tail=tail, exit_code=3)
    text = reply_to(chat, slack, job, "Failed after 1 s: BOSS refused <!here>.")
    assert "<!channel>" not in text
    assert "<!here>" not in text
    assert "\x1b" not in text
    assert text.count("```") == 4  # two sections, each a block that ends
    assert all(f"line {n} " in text for n in range(18))
    assert "*What next?* If it is the token" in text


def test_a_short_log_is_shown_whole(slack: SlackStandIn, chat: SlackChat) -> None:
    job = a_job(JobState.FAILED, channel=home(slack), log_tail=["first", "a <!channel> ```x```", "last"])
    text = reply_to(chat, slack, job, "Failed.")
    assert "```\nfirst\na &lt;!channel&gt; '''x'''\nlast\n```" in text


def test_links_as_long_as_presigned_ones_fill_a_message_and_no_more(slack: SlackStandIn, chat: SlackChat) -> None:
    links = [(f"File {n}", Link(f"https://results.test/{n}?{'s' * 1800}", datetime.now(UTC))) for n in range(10)]
    job = a_job(JobState.SUCCEEDED, channel=home(slack), summary=a_summary())
    text = reply_to(chat, slack, job, "Finished.", links=links)
    assert [n for n in range(10) if f"|File {n}>" in text] == [0, 1, 2, 3, 4, 5]
    assert "<https://results.test/|All files>" in text


def test_neither_a_title_nor_an_address_can_break_out_of_its_link(slack: SlackStandIn, chat: SlackChat) -> None:
    links = [
        ("a|b\n<!here>", Link("https://results.test/a")),
        ("Neuroglancer", Link("https://x.test/|evil> <!channel>")),
    ]
    job = a_job(JobState.SUCCEEDED, channel=home(slack), summary=a_summary())
    text = reply_to(chat, slack, job, "Finished.", links=links)
    assert "<https://results.test/a|a¦b &lt;!here&gt;>" in text
    assert "<https://x.test/%7Cevil%3E%20%3C!channel%3E|Neuroglancer>" in text


def test_a_link_no_section_holds_is_left_out(slack: SlackStandIn, chat: SlackChat) -> None:
    links = [("Too long", Link("https://results.test/" + "s" * 4000)), ("Table", Link("https://results.test/t"))]
    job = a_job(JobState.SUCCEEDED, channel=home(slack), summary=a_summary())
    text = reply_to(chat, slack, job, "Finished.", links=links)
    assert "Too long" not in text
    assert "|Table>" in text


def test_what_slack_asked_to_wait_for_is_not_asked_again_before_its_time(
    slack: SlackStandIn, chat: SlackChat, clock: Clock
) -> None:
    story = a_story(a_job(channel=home(slack)))
    slack.rate_limit("chat.postMessage", retry_after=30)
    with pytest.raises(Unavailable):
        chat.post_card(story, key="card")
    calls = len(slack.calls)
    clock.now += 10
    with pytest.raises(Unavailable) as caught:
        chat.post_card(a_story(a_job(channel=home(slack))), key="another")
    assert caught.value.retry_after == pytest.approx(20)
    assert len(slack.calls) == calls
    clock.now += 21
    assert chat.post_card(story, key="card")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1000000000", 600),
        ("1e15", 600),
        ("inf", 600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("0", 1),
        ("-5", 1),
        ("nan", 1),
        ("soon", 1),
        ("", 1),
        ("Sun, 01 Mar 2020 12:00:00 GMT", 1),
    ],
)
def test_slack_is_asked_again_between_a_second_and_ten_minutes_after_any_retry_after(
    slack: SlackStandIn, chat: SlackChat, clock: Clock, header: str, seconds: float
) -> None:
    story = a_story(a_job(channel=home(slack)))
    slack.rate_limit("chat.postMessage", retry_after=header)
    with pytest.raises(Unavailable) as caught:
        chat.post_card(story, key="card")
    assert caught.value.retry_after == seconds
    clock.now += seconds - 0.5
    with pytest.raises(Unavailable):
        chat.post_card(story, key="card")
    assert len(slack.calls) == 1
    clock.now += 1
    assert chat.post_card(story, key="card")


@pytest.mark.parametrize(
    "code",
    ["internal_error", "service_unavailable", "invalid_auth", "token_revoked", "missing_scope", "never_heard_of"],
)
def test_what_may_pass_or_an_admin_can_mend_is_tried_again(slack: SlackStandIn, chat: SlackChat, code: str) -> None:
    slack.fail("chat.postMessage", code)
    with pytest.raises(Unavailable, match=code):
        chat.post_card(a_story(a_job(channel=home(slack))), key="card")


@pytest.mark.parametrize("code", ["is_archived", "invalid_blocks", "msg_too_long", "channel_not_found"])
def test_what_slack_would_refuse_again_is_refused(slack: SlackStandIn, chat: SlackChat, code: str) -> None:
    slack.fail("chat.postMessage", code)
    with pytest.raises(Refused, match=code):
        chat.post_card(a_story(a_job(channel=home(slack))), key="card")


def test_a_broken_slack_is_unavailable(slack: SlackStandIn, chat: SlackChat) -> None:
    slack.break_down("chat.postMessage", status=503)
    with pytest.raises(Unavailable):
        chat.post_card(a_story(a_job(channel=home(slack))), key="card")


OTHERWISE: dict[str, dict[str, Any]] = {
    "HTML": {"content": b"<h1>Welcome</h1>", "headers": {"Content-Type": "text/html"}},
    "nothing": {"content": b""},
    "null": {"content": b"null"},
    "a list": {"content": b"[]"},
    "great depth": {"content": b"[" * 100_000},
    "a redirect": {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    "403": {"status": 403, "content": b"<h1>Forbidden</h1>", "headers": {"Content-Type": "text/html"}},
    "404": {"status": 404, "content": b"not found"},
    "407": {"status": 407, "content": b"<h1>Proxy</h1>"},
    "502": {"status": 502, "content": b"<h1>Bad gateway</h1>"},
    "a refusal in a 403": {"status": 403, "content": b'{"ok": false, "error": "is_archived"}'},
    "a refusal without ok": {"content": b'{"error": "is_archived"}'},
    "ok that is no boolean": {"content": b'{"ok": "yes"}'},
    "no ok": {"content": b"{}"},
    "ok without more": {"content": b'{"ok": true}'},
    "an error that is no text": {"content": b'{"ok": false, "error": ["is_archived"]}'},
    "null for what was asked for": {"content": b'{"ok": true, "ts": null, "messages": null, "view": null}'},
    "another type than Slack's": {
        "content": b'{"ok": true, "ts": 1, "messages": {}, "view": [], "files": {}, "channel": "C1", "upload_url": 1}'
    },
}
"""Answers that are not Slack's own, or do not say what was asked for."""


@pytest.mark.parametrize("answer", OTHERWISE.values(), ids=OTHERWISE.keys())
@pytest.mark.parametrize("pooled", [True, False], ids=["kept connections", "slack_sdk's own connections"])
def test_an_answer_that_is_not_slacks_own_is_no_refusal(
    slack: SlackStandIn, clock: Clock, answer: dict[str, Any], pooled: bool
) -> None:
    made: dict[str, Any] = {"token": slack.bot_token, "base_url": slack.api_url, "timeout": 5}
    client = PooledWebClient(**made) if pooled else WebClient(**made, retry_handlers=[])
    chat = SlackChat(client=client, clock=clock)
    story = a_story(a_job(channel=home(slack)))
    card = chat.post_card(story, key="card")
    calls: dict[str, Any] = {
        "chat.postMessage": lambda: chat.post_card(story, key="another"),
        "conversations.history": lambda: chat.find(story, thread=None, key="none"),
        "conversations.replies": lambda: chat.find(story, thread=card, key="none"),
        "files.getUploadURLExternal": lambda: chat.post_file(story, thread=card, name="n", title="t", content=b"c"),
        "files.completeUploadExternal": lambda: chat.post_file(story, thread=card, name="n", title="t", content=b"c"),
        "chat.update": lambda: chat.edit_card(story, card),
        "views.publish": lambda: chat.show_home("U01DEMO", a_home()),
        "conversations.open": lambda: chat.find_direct(story, key="none"),
    }
    for method, call in calls.items():
        slack.answer_otherwise(method, **answer)
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.retry_after is None, method
    if isinstance(client, PooledWebClient):
        client.close()


@pytest.mark.parametrize(
    "messages",
    [
        "[null]",
        '["text"]',
        '[{"metadata": "text"}]',
        '[{"metadata": {"event_payload": []}}]',
        '[{"files": [null]}]',
        '[{"files": {}}]',
        '[{"metadata": {"event_payload": {"key": "card"}}}]',
        '[{"metadata": {"event_payload": {"key": "card"}}, "ts": 5}]',
    ],
)
@pytest.mark.parametrize("method", ["conversations.history", "conversations.replies"])
def test_messages_of_another_kind_than_slack_s_are_in_doubt(
    slack: SlackStandIn, chat: SlackChat, method: str, messages: str
) -> None:
    slack.answer_otherwise(method, f'{{"ok": true, "messages": {messages}}}'.encode())
    with pytest.raises(Unavailable):
        chat.find(a_story(a_job(channel=home(slack))), thread="1.1" if "replies" in method else None, key="card")


@pytest.mark.parametrize("further", ['"text"', '{"next_cursor": 5}'])
def test_a_next_page_that_is_none_is_in_doubt(slack: SlackStandIn, chat: SlackChat, further: str) -> None:
    slack.answer_otherwise(
        "conversations.history", f'{{"ok": true, "messages": [], "response_metadata": {further}}}'.encode()
    )
    with pytest.raises(Unavailable):
        chat.find(a_story(a_job(channel=home(slack))), thread=None, key="card")


def test_a_page_that_leads_to_itself_ends_the_search(slack: SlackStandIn, chat: SlackChat) -> None:
    page = b'{"ok": true, "messages": [], "response_metadata": {"next_cursor": "here"}}'
    slack.answer_otherwise("conversations.history", page, times=2)
    with pytest.raises(Unavailable, match="same page"):
        chat.find(a_story(a_job(channel=home(slack))), thread=None, key="card")
    assert len(slack.calls_of("conversations.history")) == 2


@pytest.mark.parametrize("answer", [b'{"ok": true}', b'{"ok": true, "ts": 5}', b"<h1>Welcome</h1>"])
def test_a_notice_without_a_timestamp_does_not_count_as_told(
    slack: SlackStandIn, chat: SlackChat, answer: bytes
) -> None:
    slack.answer_otherwise("chat.postMessage", answer)
    with pytest.raises(Unavailable):
        chat.tell("U01DEMO", "Compute does not answer.")


def test_a_channel_that_could_not_be_joined_just_now_is_not_taken_for_one_that_cannot_be_read(
    slack: SlackStandIn, chat: SlackChat
) -> None:
    """Otherwise a message that stands there would be posted again."""
    job = a_job(channel=slack.workspace.channel("#general").id)
    slack.answer_otherwise("conversations.join", b"<h1>Forbidden</h1>", status=403)
    with pytest.raises(Unavailable):
        chat.find(a_story(job), thread=None, key="card")


def test_a_thread_of_hundreds_is_searched_to_its_end(slack: SlackStandIn, chat: SlackChat) -> None:
    story = a_story(a_job(channel=home(slack)))
    card = chat.post_card(story, key="card")
    for n in range(230):
        last = chat.post_reply(story, [a_step()], thread=card, key=f"reply-{n}")
    assert chat.find(story, thread=card, key="reply-229") == last


def test_where_the_history_may_not_be_read_nothing_is_found_and_the_log_says_so(
    slack: SlackStandIn, chat: SlackChat, caplog: pytest.LogCaptureFixture
) -> None:
    private = next(c for c in slack.workspace.channels.values() if c.private)
    slack.remove(private.id)
    assert chat.find(a_story(a_job(channel=private.id)), thread=None, key="card") is None
    assert "cannot be searched" in caplog.text


def test_the_card_of_a_running_job_shows_its_progress_and_no_other_does(slack: SlackStandIn, chat: SlackChat) -> None:
    for state in (JobState.RUNNING, JobState.FAILED):
        chat.post_card(a_story(a_job(state, channel=home(slack), progress=Progress(0.42, "reading"))), key=state)

    running, failed = (json.dumps(message["blocks"], ensure_ascii=False) for message in said(slack))
    assert "▓▓▓▓░░░░░░ 42 % reading" in running
    assert "42 %" not in failed
