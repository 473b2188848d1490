"""A service that answers what it would never answer: the whole bot, over HTTP, until the service is itself again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.domain.job import Job
from bot.domain.states import JobState
from tests.support.app import PROGRAMS, Serve, Served
from tests.support.waiting import until


@pytest.fixture
def served(serve: Serve, tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS), watch_interval="0.1") as served:
        yield served


def ended(served: Served) -> Job:
    """The newest job, once it has ended and everybody was told."""
    (job,) = served.rows.jobs()
    until(lambda: served.rows.job(job.id).ended and not served.rows.open_effects(job.id), within=60, what="the end")
    return served.rows.job(job.id)


def keys(served: Served) -> list[str]:
    """The keys of all messages in the channel."""
    messages = served.slack.messages("#synapses")
    return [m["metadata"]["event_payload"]["key"] for m in messages if m.get("metadata")]


OTHERWISE: dict[str, dict[str, Any]] = {
    "200 with HTML": {"content": b"<h1>Welcome</h1>", "headers": {"Content-Type": "text/html"}},
    "200 with nothing": {"content": b""},
    "200 with null": {"content": b"null"},
    "200 with a list": {"content": b"[]"},
    "302": {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    "403": {"status": 403, "content": b"<h1>Forbidden</h1>", "headers": {"Content-Type": "text/html"}},
    "404": {"status": 404, "content": b"<h1>Not found</h1>", "headers": {"Content-Type": "text/html"}},
    "407": {"status": 407, "content": b"<h1>Proxy authentication</h1>"},
    "502": {"status": 502, "content": b"<h1>Bad gateway</h1>"},
    "an unknown error": {"content": b'{"ok": false, "error": "never_heard_of"}'},
    "ok without more": {"content": b'{"ok": true}'},
}


@pytest.mark.parametrize("performed", [False, True], ids=["not performed", "performed"])
@pytest.mark.parametrize("answer", OTHERWISE.values(), ids=OTHERWISE.keys())
def test_the_story_stands_in_slack_once_when_slack_is_itself_again(
    served: Served, answer: dict[str, Any], performed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.application.worker.lanes.FIRST_DELAY", 0.1)
    for method in ("chat.postMessage", "conversations.history", "conversations.replies", "chat.update"):
        served.slack.answer_otherwise(method, **answer, performed=performed)

    assert served.submit(pipeline="quick").ok
    job = ended(served)

    assert job.state is JobState.SUCCEEDED
    told = keys(served)
    assert told.count(f"{job.id}-card") == 1
    assert len(told) == len(set(told))
    shown = json.dumps(served.slack.messages("#synapses"), ensure_ascii=False)
    assert "✅ Finished" in shown
    assert "Accepted as job" in shown
    assert "Finished after" in shown


@pytest.mark.parametrize("header", ["1000000000", "1e15", "0", "-5", "nan"])
def test_a_wrong_retry_after_neither_puts_a_card_off_for_ever_nor_has_slack_asked_without_a_pause(
    served: Served, header: str
) -> None:
    served.slack.rate_limit("chat.postMessage", retry_after=header)

    assert served.submit(pipeline="quick").ok
    until(lambda: served.slack.calls_of("chat.postMessage"), what="the first attempt")
    first = served.slack.calls_of("chat.postMessage")[0].at
    (job,) = served.rows.jobs()
    if header.startswith("1"):
        until(lambda: served.rows.put_off(job.id, "card"), what="the card's delay")
        assert 590 < served.rows.put_off(job.id, "card") <= 600
        return
    ended(served)
    again = served.slack.calls_of("chat.postMessage")[1].at
    assert again - first >= 1
    assert keys(served).count(f"{job.id}-card") == 1
