"""What a person does in Slack and gets back: real signed requests through the whole application."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest

from bot.domain.states import JobState
from handlers import modal
from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import BOT_USER, Channel
from sandbox.volumes import Bricks
from tests.support.app import PROGRAMS, RIGHT, Serve, Served
from tests.support.waiting import until


def typed(view: object) -> dict[str, str]:
    """What the fields of a form hold when it opens."""
    found = {}
    for block in view["blocks"]:  # type: ignore[index]
        if block["type"] == "input":
            element = block["element"]
            chosen = element.get("initial_option", {}).get("value")
            found[block["block_id"].rpartition(":")[2].partition("-")[0]] = (
                element.get("initial_value") or element.get("initial_conversation") or chosen
            )
    return found


# Opening the form


def test_the_command_opens_a_form_with_the_channel_and_the_profile_s_address(served: Served) -> None:
    view = served.open_form()
    fields = typed(view)
    assert list(fields) == [
        "pipeline", "method", "false", "register", "witness", "token",
        "collection", "experiment", "x", "y", "z", "channel", "email",
    ]  # fmt: skip
    assert fields["channel"] == served.slack.workspace.channel("#synapses").id
    assert fields["email"] == "demo@example.org"


def test_the_box_to_remember_the_token_is_under_the_token_without_a_label_of_its_own(served: Served) -> None:
    view = served.open_form()
    blocks = [block for block in view["blocks"] if block["block_id"] in ("token", "remember")]  # type: ignore[attr-defined]
    assert view["blocks"].index(blocks[1]) == view["blocks"].index(blocks[0]) + 1  # type: ignore[attr-defined]
    assert (blocks[1]["type"], "label" in blocks[1]) == ("actions", False)
    assert served.slack.person().click(view, "remember", ["yes"]).ok


def test_a_channel_and_an_address_among_the_words_are_understood_as_slack_writes_them(served: Served) -> None:
    served.slack.add_channel(Channel(id="C0ELSEWHERE", name="elsewhere", members={"U01DEMO"}))
    view = served.open_form("submit <#C0ELSEWHERE|elsewhere> <mailto:other@example.org|other@example.org> strange")
    fields = typed(view)
    assert (fields["channel"], fields["email"]) == ("C0ELSEWHERE", "other@example.org")
    assert "Not understood, and left out: strange" in str(view["blocks"])


def test_words_after_the_command_fill_the_form_in(served: Served) -> None:
    view = served.open_form("submit nomads-unsupervised demo/cortex x=0,512 y=0, 512 z=0:16 other@example.org")
    fields = typed(view)
    assert fields["pipeline"] == "nomads-unsupervised"
    assert (fields["collection"], fields["experiment"]) == ("demo", "cortex")
    assert (fields["x"], fields["y"], fields["z"]) == ("0,512", "0, 512", "0:16")
    assert fields["email"] == "other@example.org"


@pytest.mark.parametrize("text", ["0-512", "0..512", "0 512", "０，５１２", "0 - 512"])
def test_a_command_takes_ranges_as_the_form_does(served: Served, text: str) -> None:
    view = served.open_form(f"submit demo/cortex x={text} y=0,512")
    assert (typed(view)["x"], typed(view)["y"]) == (text, "0,512")
    assert "Not understood" not in str(view["blocks"])


@pytest.mark.parametrize("words", ["Submit demo/cortex", "submit\tdemo/cortex", "SUBMIT\ndemo/cortex X=0,9"])
def test_the_command_is_understood_however_it_is_typed(served: Served, words: str) -> None:
    assert typed(served.open_form(words))["experiment"] == "cortex"


def test_words_that_mean_nothing_are_named_in_the_form(served: Served) -> None:
    view = served.open_form("submit quickly demo/cortex")
    assert view["blocks"][0]["elements"][0]["text"] == "Not understood, and left out: quickly"  # type: ignore[index]


def test_the_global_shortcut_opens_the_same_form(served: Served) -> None:
    served.open_form()
    by_command = served.slack.view_of("U01DEMO")
    assert by_command
    served.slack.person().close(by_command)
    assert served.slack.person().shortcut("nomads_submit").ok
    by_shortcut = served.slack.view_of("U01DEMO")
    assert by_shortcut
    assert by_shortcut["callback_id"] == by_command["callback_id"]
    assert list(typed(by_shortcut)) == list(typed(by_command))


@pytest.mark.parametrize("words", ["help", "", "HELP", "quickly"])
def test_help_and_unknown_words_answer_with_usage_only_to_the_person(served: Served, words: str) -> None:
    ack = served.slack.person().slash("/nomads", words)
    assert ack.ok
    (shown,) = served.slack.ephemerals("U01DEMO")
    assert "/nomads submit" in shown["text"]
    assert "nomads-unsupervised" in shown["text"]
    assert "nomads-classifier" in shown["text"]
    assert not served.slack.messages("#synapses")


def test_an_unknown_word_pings_nobody(served: Served) -> None:
    served.slack.person().slash("/nomads", "<!channel>")
    (shown,) = served.slack.ephemerals("U01DEMO")
    assert "<!channel>" not in shown["text"]
    assert "&lt;!channel&gt;" in shown["text"]


def test_a_profile_that_slack_does_not_give_leaves_the_address_empty_and_the_form_open(served: Served) -> None:
    served.slack.fail("users.info", "internal_error")
    assert typed(served.open_form())["email"] is None


def test_a_trigger_that_expired_is_told_to_the_person_in_words(served: Served) -> None:
    served.slack.fail("views.open", "expired_trigger_id")
    ack = served.slack.person().slash("/nomads", "submit")
    assert ack.status == 200
    assert "Slack was slow; try again." in served.slack.ephemerals("U01DEMO")[0]["text"]


def test_the_form_stays_within_slack_s_limits_with_the_longest_presets(served: Served) -> None:
    words = f"submit {'c' * 2000}/{'e' * 2000} {'strange ' * 500}"
    assert served.open_form(words)


# Mistakes: each under its own field, all at once, and the form stays

WRONG = [
    *[("x", text) for text in ("5", "a,b", "5,5", "9,3", "-1,4", "0,1.5", "0,99999999999999999999", "0,5,9", "٣,٤")],
    ("y", "1" * 5000 + ",2"),
    ("z", "0.16"),
    *[("collection", text) for text in ("a b", "a/b", "../etc", "näme", "$(reboot)", "<!channel>")],
    ("experiment", "x;rm -rf"),
    *[("email", text) for text in ("", "nobody", "a@b@c", "a@b.org,c@d.org", "a@b.org\nBcc: c@d.org", "a @b.org")],
    *[("token", text) for text in ("two words", "t" * 513)],
]


@pytest.mark.parametrize(("field", "text"), WRONG, ids=lambda value: value[:24])
def test_a_mistake_is_shown_under_its_field_and_nothing_is_submitted(served: Served, field: str, text: str) -> None:
    ack = served.submit(**{field: text})
    assert list(ack.errors) == [field], ack
    assert len(ack.errors[field]) < 400
    assert served.slack.view_of("U01DEMO")
    assert served.jobs == 0


def test_all_mistakes_are_shown_at_once(served: Served) -> None:
    ack = served.submit(token="two words", collection="a b", experiment="", x="5", y="9,3", z="-1,4", email="nobody")
    assert set(ack.errors) == {"token", "collection", "experiment", "x", "y", "z", "email"}


@pytest.mark.parametrize("text", ["0,512", " 0 , 512 ", "0-512", "0..512", "0 512", "０，５１２"])
def test_a_range_is_understood_in_every_way_people_write_it(served: Served, text: str) -> None:
    assert served.submit(x=text).ok
    assert served.jobs == 1


def test_too_much_data_is_refused_with_its_size_and_the_largest_box_that_fits(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path, max_voxels="1000000000") as served:
        served.boss.add(
            "large", "one", shape=(20, 40000, 40000), channels={n: Bricks("uint8") for n in ("psd", "synapsin")}
        )
        ack = served.submit(collection="large", experiment="one", x="0,40000", y="0,40000", z="0,20")
        assert list(ack.errors) == ["x"]
        assert "64 GB" in ack.errors["x"]
        assert "a job may have 1,000,000,000 voxels" in ack.errors["x"]
        assert "x 0, 7071; y 0, 7071; z 0, 20" in ack.errors["x"]
        assert served.submit(collection="large", experiment="one", x="0,3500", y="0,3500", z="0,20").ok


def test_a_pipeline_without_a_program_is_an_error_under_its_field(serve: Serve, tmp_path: Path) -> None:
    for name, entry in {"shell": "", "whole": 'command = ["true"]\n'}.items():
        (tmp_path / name).mkdir()
        text = f'name = "{name}"\ntitle = "{name}"\ndescription = "One."\n{entry}'
        (tmp_path / name / "pipeline.toml").write_text(text)
    with serve(tmp_path / "data", pipelines=str(tmp_path)) as served:
        assert typed(served.open_form())["pipeline"] == "whole"
        assert list(served.submit(pipeline="shell").errors) == ["pipeline"]
        assert served.submit(pipeline="whole").ok


def test_an_unknown_pipeline_is_an_error_under_its_field(served: Served) -> None:
    """A form opened before the admin took a pipeline away still offers it."""
    view = served.open_form()
    served.nomads.core.catalog._pipelines.pop("nomads-unsupervised")
    ack = served.slack.person().submit(view, RIGHT)
    assert list(ack.errors) == ["pipeline"]
    assert "there is nomads-classifier" in ack.errors["pipeline"]


def test_a_private_channel_without_the_bot_is_an_error_that_says_to_invite_it(served: Served) -> None:
    private = next(
        c
        for c in served.slack.workspace.channels.values()
        if c.private and "U01DEMO" in c.members and BOT_USER not in c.members
    )
    ack = served.submit(channel=private.id)
    assert list(ack.errors) == ["channel"]
    assert "invite" in ack.errors["channel"]
    served.slack.invite(private.id)
    view = served.slack.view_of("U01DEMO")
    assert view
    assert served.slack.person().submit(view, {}).ok


def test_a_slack_that_does_not_say_whether_the_bot_is_in_the_channel_keeps_nobody_waiting(served: Served) -> None:
    view = served.open_form()
    served.slack.delay("conversations.info", 5)
    ack = served.slack.person().submit(view, RIGHT)
    assert ack.ok
    assert ack.seconds < 2.5
    assert served.jobs == 1


# Right input


def test_right_input_closes_the_form_and_the_job_is_in_the_database(served: Served) -> None:
    ack = served.submit()
    assert ack.ok
    assert served.slack.view_of("U01DEMO") is None
    assert served.jobs == 1


def test_the_same_view_delivered_twice_is_one_job(served: Served) -> None:
    ack = served.submit()
    again = served.slack.redeliver(ack)
    assert again.ok
    assert not again.body, "it is that job, not one that does the same"
    assert served.jobs == 1


@pytest.mark.parametrize("signature", ["forged", "stale"])
def test_a_forged_or_stale_signature_gets_401_and_nothing_is_done(served: Served, signature: str) -> None:
    ack = served.submit()
    body, headers = served.slack.request(ack, signature=signature)  # type: ignore[arg-type]
    body = body.replace(b"V0", b"V9")
    answer = httpx.post(f"{served.url}/slack/events", content=body, headers=headers)
    assert answer.status_code == 401
    assert served.jobs == 1


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Slack-Request-Timestamp", b"abc"),
        ("X-Slack-Request-Timestamp", b"1e9"),
        ("X-Slack-Request-Timestamp", b""),
        ("X-Slack-Signature", "v0=ä".encode()),
        ("X-Slack-Signature", b""),
    ],
)
def test_headers_that_slack_never_sends_get_401(served: Served, header: str, value: bytes) -> None:
    body, headers = served.slack.request(served.submit())
    sent = {name.encode(): text.encode() for name, text in headers.items()} | {header.encode(): value}
    answer = httpx.post(f"{served.url}/slack/events", content=body, headers=sent)
    assert answer.status_code == 401
    assert served.jobs == 1


@pytest.mark.parametrize("body", [b"{bad", b"payload={bad", b"payload=%ff", b"", b"\x00"])
def test_a_body_nobody_signed_is_not_read(served: Served, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert httpx.post(f"{served.url}/slack/events", content=body).status_code == 401
    assert "Traceback" not in caplog.text


FORM = "application/x-www-form-urlencoded"


STRANGE = {
    "not JSON": b"{bad",
    "a list": b"[1, 2]",
    "nothing": b"null",
    "a number": b"7",
    "a text": b'"text"',
    "a deep list": b"[" * 100_000,
    "a deep object": b'{"a":' * 50_000,
    "no UTF-8": b"\xff\xfe",
    "no UTF-8 in a text": b'{"type": "\xff"}',
    "a person that is a number": b'{"type": "block_actions", "user": 3, "team": [], "actions": {}}',
    "no view": b'{"type": "view_submission", "view": null}',
    "a view of other types": b'{"type": "view_submission", "view": {"state": {"values": []}, "callback_id": 5}}',
    "a window of no type": b'{"type": "view_submission", "user": {"id": "U01DEMO"}, "view": {"id": "V1", '
    b'"callback_id": "c", "private_metadata": "", "blocks": [], "state": {"values": {}}}}',
    "empty": b"",
    "of a kind that Slack has not": b'{"type": "block_dance", "user": {"id": "U01DEMO"}}',
    "of a kind that this app never gets": b'{"type": "dialog_submission", "user": {"id": "U01DEMO"}}',
    "a deep object of no kind": b'{"user": {"id": {"id": []}}}',
    "an event that is a list": b'{"type": "event_callback", "event": []}',
    "an event of no person": b'{"type": "event_callback", "event": {"type": "app_home_opened", "tab": "home"}}',
    "an empty action": b'{"type": "block_actions", "user": {"id": "U01DEMO"}, "trigger_id": "1", "actions": [{}]}',
    "an action that is a text": b'{"type": "block_actions", "user": {"id": "U01DEMO"}, "trigger_id": "1", '
    b'"actions": ["x"]}',
    "a button without its job": b'{"type": "block_actions", "user": {"id": "U01DEMO"}, "trigger_id": "1", '
    b'"actions": [{"action_id": "nomads_cancel", "block_id": "b"}]}',
    "a choice of the form outside a form": b'{"type": "block_actions", "user": {"id": "U01DEMO"}, "trigger_id": "1", '
    b'"actions": [{"action_id": "pipeline", "block_id": "b"}]}',
    "a suggestion without a view": b'{"type": "block_suggestion", "user": {"id": "U01DEMO"}, "value": "", '
    b'"action_id": "collection", "block_id": "collection", "view": null}',
    "a team that is a number": b'{"type": "shortcut", "user": {"id": "U01DEMO"}, "team": 3, "trigger_id": "1", '
    b'"callback_id": "nomads_submit"}',
}


@pytest.mark.parametrize("kind", [FORM, "application/json"], ids=["form", "json"])
@pytest.mark.parametrize("payload", STRANGE.values(), ids=STRANGE)
def test_what_slack_signed_but_never_sends_is_400_without_a_traceback(
    served: Served, payload: bytes, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    written = payload if b"\xff" in payload else quote_plus(payload).encode()
    refused(served, payload if kind != FORM else b"payload=" + written, kind, caplog)


UNHEARD: dict[str, dict[str, Any]] = {
    "an event": {"type": "event_callback", "event": {"type": "message", "user": "U01DEMO"}},
    "a button of an old message": {
        "type": "block_actions",
        "user": {"id": "U01DEMO"},
        "trigger_id": "1",
        "actions": [{"action_id": "dance", "block_id": "b", "value": "1"}],
    },
    "a shortcut": {"type": "message_action", "user": {"id": "U01DEMO"}, "trigger_id": "1", "callback_id": "old"},
    "a window": {
        "type": "view_submission",
        "user": {"id": "U01DEMO"},
        "view": {
            "id": "V1",
            "type": "modal",
            "callback_id": "old",
            "private_metadata": "",
            "blocks": [],
            "state": {"values": {}},
        },
    },
}


@pytest.mark.parametrize("body", UNHEARD.values(), ids=UNHEARD)
def test_what_slack_sends_and_nobody_listens_to_is_acknowledged(
    served: Served, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    answer = signed(served, body)
    assert (answer.status_code, answer.content) == (200, b"")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_that_slack_limits_the_app_s_events_is_acknowledged_and_one_warning(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    told = {"token": "t", "type": "app_rate_limited", "team_id": "T1", "minute_rate_limited": 1518467820}
    assert signed(served, told | {"api_app_id": "A1"}).status_code == 200
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage().startswith("Slack limits the events that it sends to this app")


@pytest.mark.parametrize(
    "body", [{"type": "url_verification", "token": "t", "challenge": "c"}, {"ssl_check": "1", "token": "t"}]
)
def test_slack_s_own_tests_of_the_address_are_answered(served: Served, body: dict[str, Any]) -> None:
    assert signed(served, body).status_code == 200


def signed(served: Served, body: dict[str, Any]) -> httpx.Response:
    """The answer to what Slack signed."""
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | served.slack.sign(content)
    return httpx.post(f"{served.url}/slack/events", content=content, headers=headers)


@pytest.mark.parametrize(
    "body", [b"command=%2Fnomads&text=status", b"command=%2Fnomads&user_id=&channel_id=C1&trigger_id=1", b"text=status"]
)
def test_a_command_of_nobody_is_400_without_a_traceback(
    served: Served, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refused(served, body, FORM, caplog)


def refused(served: Served, body: bytes, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Send a body that Slack signed; it is refused with one line in the log, and nothing is told to anybody."""
    headers = {"Content-Type": kind} | served.slack.sign(body)
    answer = httpx.post(f"{served.url}/slack/events", content=body, headers=headers)
    assert (answer.status_code, answer.text) == (400, "not a request of Slack's\n")
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "is none of Slack's" in line.getMessage()
    assert "\n" not in line.getMessage()
    assert line.exc_info is None
    assert served.jobs == 0
    assert served.slack.ephemerals("U01DEMO") == []


def test_a_command_with_the_word_payload_in_it_is_understood(served: Served) -> None:
    ack = served.slack.person().slash("/nomads", "payload please")
    assert ack.ok
    assert "NOMADS does not know “payload”" in served.slack.ephemerals("U01DEMO")[0]["text"]


def test_a_request_that_says_its_length_twice_is_refused(served: Served) -> None:
    body, headers = served.slack.request(served.submit())
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Host: test", f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"]
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    asked = "\r\n".join(["POST /slack/events HTTP/1.1", *lines]).encode() + b"\r\n\r\n" + chunk
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(asked)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))  # the connection is closed, too
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert served.jobs == 1


def test_no_address_redirects_to_the_host_that_a_request_names(served: Served) -> None:
    for path in ("/health/", "/ready/", "/slack/events/", "//example.org/health"):
        answer = httpx.get(f"{served.url}{path}", headers={"Host": "evil.example"})
        assert answer.status_code == 404
        assert "location" not in answer.headers


def test_a_body_without_end_is_refused(served: Served) -> None:
    answer = httpx.post(f"{served.url}/slack/events", content=b"x" * (2**20 + 1))
    assert answer.status_code == 413


def test_a_locked_database_is_told_in_the_form_and_the_next_try_succeeds(served: Served, tmp_path: Path) -> None:
    view = served.open_form()
    other = sqlite3.connect(tmp_path / "nomads.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ack = served.slack.person().submit(view, RIGHT)
    assert list(ack.errors) == ["pipeline"]
    assert "Nothing was submitted" in ack.errors["pipeline"]
    assert ack.seconds < 3
    other.execute("ROLLBACK")
    other.close()
    assert served.slack.person().submit(view, RIGHT).ok
    assert served.jobs == 1


def test_a_locked_database_is_told_in_time_also_while_the_worker_works(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        other = sqlite3.connect(tmp_path / "nomads.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            ack = served.submit()
            assert list(ack.errors) == ["pipeline"], ack
            assert ack.seconds < 3
        other.execute("ROLLBACK")
        other.close()
        assert served.jobs == 0


def test_an_unforeseen_error_is_told_without_a_traceback_and_logged_without_the_body(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = served.open_form()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("".join(["canary", "-token in an error text"]))

    monkeypatch.setattr(served.nomads.core.submission, "review", broken)
    ack = served.slack.person().submit(view, RIGHT | {"token": "canary-token"})
    assert list(ack.errors) == ["pipeline"]
    assert "Nothing was submitted" in ack.errors["pipeline"]
    assert "RuntimeError" in caplog.text
    assert "canary-token" not in caplog.text


# The thread, with the real Web API client and the real worker


def test_slack_s_429_is_obeyed_and_nothing_is_lost(serve: Serve, slack: SlackStandIn, tmp_path: Path) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        slack.rate_limit("chat.postMessage", times=1, retry_after=1)
        slack.lose_answer("chat.postMessage")
        assert served.submit(collection="fails").ok
        job = until(lambda: _the_job(served))
        until(lambda: served.nomads.core.queries.find(job).state is JobState.FAILED)
        until(lambda: served.rows.open_effects() == 0)
        cards = [m for m in slack.messages("#synapses") if m.get("thread_ts") in (None, m["ts"])]
        assert len(cards) == 1
        replies = slack.thread("#synapses", cards[0]["ts"])
        assert "Accepted as job" in replies[0]["text"]
        assert "Failed" in replies[-1]["text"]
        assert "What next?" in str(replies[-1]["blocks"])


def _the_job(served: Served) -> str:
    keys = [m.get("metadata", {}).get("event_payload", {}).get("job") for m in served.slack.messages("#synapses")]
    return next((key for key in keys if key), "")


def test_health_and_readiness(served: Served) -> None:
    assert httpx.get(f"{served.url}/health").text == "ok\n"
    assert httpx.get(f"{served.url}/ready").text == "ready\n"


def test_every_error_field_is_a_block_of_the_form(served: Served) -> None:
    view = modal.view(served.nomads.core.catalog, modal.Wish())
    blocks = {block["block_id"] for block in view["blocks"]}
    assert {"pipeline", "token", "collection", "experiment", "x", "y", "z", "channel", "email"} <= blocks
