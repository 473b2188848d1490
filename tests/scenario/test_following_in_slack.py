"""Following and steering jobs from Slack: signed requests through the whole application, with programs that run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.app import Nomads
from bot.domain.errors import Unavailable
from bot.domain.job import Job
from bot.domain.states import JobState
from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import Member
from tests.support.app import PROGRAMS, Serve, Served
from tests.support.waiting import until

OWNER, OTHER, ADMIN = "U01DEMO", "U02OTHER", "U03ADMIN"


@pytest.fixture
def served(serve: Serve, slack: SlackStandIn, tmp_path: Path) -> Iterator[Served]:
    for identity in (OTHER, ADMIN):
        name = identity[3:].lower()
        slack.add_person(Member(id=identity, name=name, real_name=name, email=f"{name}@example.org"))
    settings = {"pipelines": str(PROGRAMS), "admins": [ADMIN], "explain_after": "0.5", "watch_interval": "0.1"}
    with serve(tmp_path, working=True, adjust=looks_often, **settings) as served:
        yield served


def looks_often(nomads: Nomads) -> None:
    """Let open logs be looked at more often than every three seconds."""
    nomads.logs._every = 0.1


def submitted(served: Served, collection: str = "demo", **typed: Any) -> Job:
    """A job that was asked for in the form."""
    before = {job.id for job in jobs(served)}
    ack = served.submit(pipeline="quick", collection=collection, **typed)
    assert ack.ok, ack
    assert not ack.errors, ack
    return next(job for job in jobs(served) if job.id not in before)


def jobs(served: Served) -> list[Job]:
    return served.rows.jobs()[::-1]


def now(served: Served, job: Job) -> Job:
    return served.nomads.core.queries.find(job.id)


def reaches(served: Served, job: Job, state: JobState) -> Job:
    until(lambda: now(served, job).state is state, what=f"state {state}")
    return now(served, job)


def finished(served: Served, **typed: Any) -> Job:
    """A job that has ended, as everybody was told."""
    job = submitted(served, **typed)
    until(lambda: now(served, job).ended and not served.rows.open_effects(job.id), what="the end")
    return now(served, job)


def running(served: Served, **typed: Any) -> Job:
    return reaches(served, submitted(served, "waits", **typed), JobState.RUNNING)


def go(served: Served, job: Job) -> None:
    """Let a waiting program end."""
    folder = served.nomads.core.settings.data / "results" / job.folder
    folder.mkdir(parents=True, exist_ok=True)  # the program may not have come so far
    (folder / "go").touch()


def card(served: Served, job: Job, *having: str) -> dict[str, Any]:
    """The job's card, once it has these actions."""

    def look() -> list[dict[str, Any]]:
        found = [
            m for m in served.slack.messages("#synapses") if f"Job `{job.id}`" in json.dumps(m.get("blocks") or [])
        ]
        cards = [m for m in found if any(b["type"] == "header" for b in m["blocks"])]
        return [m for m in cards if set(having) <= set(actions(m))]

    return until(look, what=f"a card with {having}")[0]


def actions(shown: dict[str, Any]) -> list[str]:
    """The actions of the buttons that are shown."""
    found = []
    for block in shown["blocks"]:
        elements = block.get("elements") or [block.get("accessory") or {}]
        found += [element["action_id"] for element in elements if "action_id" in element]
    return found


def text(shown: dict[str, Any]) -> str:
    return json.dumps(shown.get("blocks") or [], ensure_ascii=False)


def told(served: Served, person: str = OWNER) -> str:
    """The last thing that person alone was told."""
    return str(until(lambda: served.slack.ephemerals(person), what="an answer")[-1]["text"])


def opened(served: Served, having: str, person: str = OWNER) -> dict[str, Any]:
    """The window on that person's screen, once it shows this."""

    until(lambda: having in text(served.slack.view_of(person) or {"blocks": []}), what=f"a window with {having}")
    view = served.slack.view_of(person)
    assert view
    return view


def said(served: Served, words: str, person: str = OWNER) -> dict[str, Any]:
    """What a command is answered with."""
    before = len(served.slack.ephemerals(person))
    ack = served.slack.person(person).slash("/nomads", words)
    assert ack.ok, ack
    found = served.slack.ephemerals(person)[before:]
    return found[0] if found else {"text": "", "blocks": []}


# The card's buttons


def test_a_card_has_the_buttons_that_make_sense_in_its_state(served: Served) -> None:
    job = running(served)
    shown = card(served, job, "nomads_cancel", "nomads_logs", "nomads_details")
    assert "nomads_retry" not in actions(shown)
    assert "nomads_results" not in actions(shown)
    (cancel,) = [e for b in shown["blocks"] for e in b.get("elements", []) if e.get("action_id") == "nomads_cancel"]
    assert cancel["confirm"]["title"]["text"] == "Cancel this job?"
    go(served, job)
    shown = card(served, job, "nomads_results", "nomads_edit", "nomads_logs", "nomads_details")
    assert not {"nomads_cancel", "nomads_retry"} & set(actions(shown))
    job = finished(served, collection="fails")
    assert {"nomads_retry", "nomads_edit", "nomads_logs"} <= set(actions(card(served, job, "nomads_retry")))


def test_cancel_ends_the_program_and_the_card_says_who_and_when(served: Served) -> None:
    job = running(served)
    slack = served.slack
    assert slack.person(OTHER).click(card(served, job, "nomads_cancel"), "nomads_cancel").ok
    assert told(served, OTHER) == f"Only whoever asked for job {job.id}, or an admin of NOMADS, may cancel it."
    assert now(served, job).cancelled_by is None
    assert slack.person(ADMIN).click(card(served, job, "nomads_cancel"), "nomads_cancel").ok
    assert told(served, ADMIN) == f"Job {job.id} is being cancelled."
    reaches(served, job, JobState.CANCELLED)
    shown = card(served, job, "nomads_retry")
    assert f"Cancelled by <@{ADMIN}>, <!date^" in text(shown)
    runs = served.nomads.core.settings.data / "runs" / job.name
    assert json.loads((runs / "exit.json").read_text())["reason"].startswith("Cancelled from NOMADS")


def test_a_click_on_a_card_three_weeks_old_is_answered_in_words(served: Served) -> None:
    job = finished(served, collection="fails")
    old = card(served, job, "nomads_retry")
    stale = {**old, "blocks": [*old["blocks"]]}
    assert served.slack.person().click(stale, "nomads_retry").ok
    form = opened(served, "attempt 2")
    ack = served.slack.person().submit(form, {"token": "demo-token"})
    assert ack.ok
    assert not ack.errors
    until(lambda: now(served, job).retried_as, what="the retry")
    first = now(served, job).retried_as
    assert served.slack.person().click(stale, "nomads_retry").ok  # as it still stood on somebody's screen
    assert told(served) == f"Job {job.id} was tried again already, as job {first}."
    assert served.jobs == 2


def test_retry_with_a_saved_token_needs_no_form_and_keeps_the_history(served: Served) -> None:
    job = finished(served, collection="fails", remember=["yes"])
    assert served.slack.person().click(card(served, job, "nomads_retry"), "nomads_retry").ok
    again = str(until(lambda: now(served, job).retried_as, what="the retry"))
    assert told(served) == f"Tried again as job {again}, attempt 2."
    second = served.nomads.core.queries.find(again)
    assert f"attempt 2, after job `{job.id}`" in text(card(served, second, "nomads_details"))
    until(lambda: f"tried again as job `{again}`" in text(card(served, job)), what="the first card")
    assert "nomads_retry" not in actions(card(served, job))


def test_an_admin_who_retries_types_a_token_and_never_sees_the_owner_s_address(served: Served) -> None:
    job = finished(served, collection="fails", email="hidden@example.org")
    assert served.slack.person(ADMIN).click(card(served, job, "nomads_retry"), "nomads_retry").ok
    form = opened(served, "attempt 2", ADMIN)
    assert "hidden@example.org" not in json.dumps(form)
    ack = served.slack.person(ADMIN).submit(form, {"token": "two words"}, checked=False)
    assert "token" in ack.errors
    assert served.slack.person(ADMIN).submit(form, {"token": "demo-token"}).ok
    again = str(until(lambda: now(served, job).retried_as, what="the retry"))
    assert served.nomads.core.queries.find(again).request.email == "admin@example.org"


def test_a_token_that_boss_refuses_is_an_error_in_the_retry_form_and_spends_nothing(served: Served) -> None:
    job = finished(served, collection="fails")
    served.slack.person().click(card(served, job, "nomads_retry"), "nomads_retry")
    form = opened(served, "attempt 2")
    ack = served.slack.person().submit(form, {"token": "nobody-s-token"})
    assert ack.errors == {
        "token": "BOSS refuses this token. Copy it again from BOSS's token page, or make a new one there."
    }
    assert now(served, job).retried_as is None
    assert served.jobs == 1
    assert served.slack.person().submit(form, {"token": "demo-token"}).ok
    assert now(served, job).retried_as


def test_a_retry_while_boss_is_silent_is_accepted_and_checked_later(served: Served) -> None:
    job = finished(served, collection="fails")
    served.slack.person().click(card(served, job, "nomads_retry"), "nomads_retry")
    form = opened(served, "attempt 2")
    with served.boss.hanging():
        ack = served.slack.person().submit(form, {"token": "another-token"})
    assert ack.ok
    assert ack.seconds < 2.5
    assert now(served, job).retried_as


def test_a_retry_that_cannot_help_is_asked_about_and_takes_another_token(served: Served) -> None:
    job = finished(served, collection="refused", remember=["yes"])
    until(lambda: now(served, job).log_tail, what="its log")
    assert "nomads_retry" not in actions(card(served, job))
    assert said(served, f"retry {job.id}")["text"] == ""
    form = opened(served, "would fail again")
    shown = text(form)
    assert "would fail again with nothing changed: BOSS refused the token." in shown
    assert "Edit and rerun" in shown
    assert form["submit"]["text"] == "Retry all the same"
    (token,) = [block for block in form["blocks"] if block["type"] == "input"]
    assert (token["block_id"], token["optional"]) == ("token", True)
    assert now(served, job).retried_as is None
    ack = served.slack.person().submit(form, {"token": "nobody-s-token"})
    assert "BOSS refuses this token" in ack.errors["token"]
    assert served.slack.person().submit(form, {"token": ""}).ok
    assert now(served, job).retried_as


def test_a_form_without_fields_tells_in_its_place_why_there_is_no_retry(served: Served) -> None:
    job = running(served, remember=["yes"])
    served.nomads.core.steering.cancel(job.id, actor=OWNER)
    reaches(served, job, JobState.CANCELLED)
    with served.nomads.core.ledger.change(job.id) as change:
        change.set(state="FAILED", cause="memory")
    other = running(served)
    assert said(served, f"retry {job.id}")["text"] == ""
    form = opened(served, "ask whoever runs NOMADS to give the pipeline more memory")
    assert not [block for block in form["blocks"] if block["type"] == "input"]
    assert served.slack.person().submit(form, {}).ok
    assert opened(served, f"Job {other.id} does the same now.")
    assert now(served, job).retried_as is None


SLOW = "Slack was slow; try again."


def test_slack_was_slow_is_told_whatever_should_have_opened(served: Served) -> None:
    failed, done = finished(served, collection="fails"), finished(served)
    buttons = [("nomads_results", done), *((f"nomads_{name}", failed) for name in ("details", "logs", "edit", "retry"))]
    for code in ("expired_trigger_id", "trigger_expired", "exchanged_trigger_id", "ratelimited"):
        for action, job in buttons:
            served.slack.fail("views.open", code)
            before = len(served.slack.ephemerals(OWNER))
            assert served.slack.person().click(card(served, job, action), action).ok
            assert [m["text"] for m in served.slack.ephemerals(OWNER)[before:]] == [SLOW]
        for words in ("submit", "token", f"logs {failed.id}", f"retry {failed.id}"):
            served.slack.fail("views.open", code)
            assert said(served, words)["text"] == SLOW
    assert served.slack.view_of(OWNER) is None


def test_slack_was_slow_is_told_in_a_direct_message_where_there_is_no_other_place(served: Served) -> None:
    job = finished(served, collection="fails")
    person = served.slack.person()
    person.open_home()
    tab = home(served, job.id)
    for action in ("nomads_new", "nomads_list", "nomads_token"):
        served.slack.fail("views.open", "expired_trigger_id")
        person.click(tab, action)
    served.slack.fail("views.open", "expired_trigger_id")
    person.shortcut("nomads_submit")
    assert [message["text"] for message in served.slack.messages(f"D{OWNER[1:]}")] == [SLOW] * 4


def test_results_are_links_made_for_the_click(served: Served) -> None:
    job = finished(served)
    assert served.slack.person(OTHER).click(card(served, job, "nomads_results"), "nomads_results").ok
    shown = text(opened(served, "Starts", OTHER))
    assert "7 synapses" in shown
    link = shown.partition("<http")[2].partition("|")[0]
    assert httpx.get(f"http{link}").text == "started\n"


def test_details_tell_the_request_every_transition_the_attempts_and_the_compute_id(served: Served) -> None:
    job = finished(served, collection="fails", email="mine@example.org")
    served.slack.person().click(card(served, job, "nomads_details"), "nomads_details")
    shown = opened(served, "What happened")
    for part in ("fails/cortex", "x 0, 512", "ACCEPTED", "RUNNING", "FAILED", now(served, job).compute_id, "|thread>"):
        assert str(part) in text(shown)
    assert text(shown).count("<!date^") >= 4
    assert "mine@example.org" in text(shown)
    assert {"nomads_retry", "nomads_edit", "nomads_logs"} <= set(actions(shown))
    served.slack.person(OTHER).click(card(served, job, "nomads_details"), "nomads_details")
    others = opened(served, "What happened", OTHER)
    assert "mine@example.org" not in json.dumps(others)
    assert not {"nomads_retry", "nomads_cancel"} & set(actions(others)), "only what this person may use"
    served.slack.person().click(shown, "nomads_retry")
    assert opened(served, "attempt 2"), "a window over the first one"


def test_a_window_of_details_changes_after_cancel(served: Served) -> None:
    job = running(served)
    served.slack.person().click(card(served, job, "nomads_cancel"), "nomads_details")
    shown = opened(served, "What happened")
    assert "nomads_cancel" in actions(shown)
    served.slack.person().click(shown, "nomads_cancel")
    changed = opened(served, "ancelled")
    assert changed["id"] == shown["id"], "no window over the first one"
    assert "nomads_cancel" not in actions(changed)


def test_a_window_of_details_that_is_too_late_to_cancel_says_so_and_changes(served: Served) -> None:
    job = running(served)
    served.slack.person().click(card(served, job, "nomads_cancel"), "nomads_details")
    shown = opened(served, "What happened")
    go(served, job)
    reaches(served, job, JobState.SUCCEEDED)
    served.slack.person().click(shown, "nomads_cancel")
    over = opened(served, "has ended already")
    served.slack.person().close(over)
    assert "nomads_cancel" not in actions(opened(served, "Finished"))


def test_a_command_takes_the_first_word_as_the_job(served: Served) -> None:
    job = finished(served, collection="fails")
    assert f"`{job.id}`" in text(said(served, f"status {job.id} please"))
    assert said(served, f"cancel {job.id} please")["text"].startswith(f"Job {job.id} has ended already")
    assert said(served, f"logs {job.id} thank you")["text"] == ""
    assert opened(served, "BOSS refused")
    assert said(served, f"retry {job.id} now")["text"] == ""
    assert opened(served, "attempt 2")


def test_the_help_has_an_example_of_a_pipeline_that_is_there(served: Served) -> None:
    assert "`/nomads submit quick demo/cortex x=0,512" in text(said(served, "help"))
    assert "nomads-unsupervised" not in text(said(served, "help"))


def test_without_pipelines_the_form_says_that_there_are_none_and_the_help_names_none(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "pipelines").mkdir()
    with serve(tmp_path / "data", pipelines=str(tmp_path / "pipelines")) as served:
        assert "No pipelines are set up" in said(served, "submit")["text"]
        told = text(said(served, "help"))
        assert "none yet" in told
        assert "demo/cortex" not in told


def test_edit_and_rerun_opens_the_form_as_it_was(served: Served) -> None:
    job = finished(served, x="0,128")
    served.slack.person().click(card(served, job, "nomads_edit"), "nomads_edit")
    view = served.slack.view_of(OWNER)
    assert view
    (x,) = [block for block in view["blocks"] if block["block_id"] == "x"]
    assert x["element"]["initial_value"] == "0, 128"


# Logs


def test_a_log_grows_while_the_job_runs_and_ends_with_it(served: Served) -> None:
    job = running(served)
    served.slack.person().click(card(served, job, "nomads_logs"), "nomads_logs")
    opened(served, "progress 0.50 reading")
    log = served.nomads.core.settings.data / "runs" / job.name / "log"
    with log.open("a") as file:
        file.write("\x1b[31mred\x1b[0m <!channel> 🧠 ```code``` demo-token\n")
    shown = text(opened(served, "🧠"))
    assert "red &lt;!channel&gt; 🧠 '''code''' •••" in shown
    assert "demo-token" not in shown
    assert "It grows while the job runs" in shown
    go(served, job)
    assert "It grows" not in text(opened(served, "Finished"))


def test_a_log_that_was_closed_is_not_looked_after_any_more(served: Served) -> None:
    job = running(served)
    served.slack.person().click(card(served, job, "nomads_logs"), "nomads_logs")
    view = opened(served, "progress 0.50 reading")
    logs = served.nomads.logs
    until(lambda: logs.followed == 1, what="the window to be followed")
    served.slack.person().close(view)
    until(lambda: logs.followed == 0, what="its end")
    go(served, job)


def test_the_whole_log_is_a_link_without_the_token(served: Served) -> None:
    job = running(served)
    log = served.nomads.core.settings.data / "runs" / job.name / "log"
    until(lambda: log.read_text().endswith("reading\n"), what="the program's first words")
    with log.open("a") as file:
        file.write("".join(f"line {n} demo-token\n" for n in range(50_000)))
    served.slack.person().click(card(served, job, "nomads_logs"), "nomads_logs")
    view = opened(served, "line 49999")
    assert "line 49000" not in text(view)
    served.slack.person().click(view, "nomads_whole_log")
    until(lambda: "<http" in text(opened(served, "The whole log")), what="the link")
    link = text(opened(served, "The whole log")).partition("<http")[2].partition("|")[0]
    whole = httpx.get(f"http{link}")
    assert whole.headers["content-type"].startswith("text/plain")
    assert whole.text.splitlines()[1:] == [f"line {n} •••" for n in range(50_000)]
    go(served, job)


def test_the_link_to_the_whole_log_stays_while_the_log_grows(served: Served) -> None:
    job = running(served)
    log = served.nomads.core.settings.data / "runs" / job.name / "log"
    person = served.slack.person()
    person.open_home()
    person.click(home(served, job.id), "nomads_list")
    person.click(opened(served, job.id), "nomads_details")
    person.click(opened(served, "What happened"), "nomads_logs")
    person.click(opened(served, "progress 0.50"), "nomads_whole_log")
    until(lambda: "<http" in text(opened(served, "progress 0.50")), what="the link")
    with log.open("a") as file:
        file.write("a long line: " + "x" * 500 + " its end\n")
    assert "<http" in text(opened(served, "its end"))
    go(served, job)
    assert "<http" in text(opened(served, "Finished"))


def test_a_window_that_slack_refused_to_update_is_brought_up_to_date_later(served: Served) -> None:
    job = running(served)
    served.slack.person().click(card(served, job, "nomads_logs"), "nomads_logs")
    opened(served, "progress 0.50")
    served.slack.fail("views.update", "internal_error")
    go(served, job)
    assert "It grows" not in text(opened(served, "Finished"))
    until(lambda: served.nomads.logs.followed == 0, what="its end")


def test_a_log_is_followed_for_half_an_hour_also_when_it_cannot_be_read(served: Served) -> None:
    job = running(served)
    logs, now_ = served.nomads.logs, time.monotonic()
    served.slack.person().click(card(served, job, "nomads_logs"), "nomads_logs")
    opened(served, "progress 0.50")
    until(lambda: logs.followed == 1, what="the window to be followed")
    logs._clock = lambda: now_ + 1799
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served.nomads.core.output, "tail", refusing)
        logs._clock = lambda: now_ + 1900
        until(lambda: logs.followed == 0, what="its end")
    go(served, job)


def refusing(*_: object, **__: object) -> None:
    raise Unavailable("CloudWatch is away")


def test_a_log_that_is_open_for_too_long_says_that_it_is_not_followed_any_more(served: Served) -> None:
    job = running(served)
    served.slack.person().click(card(served, job, "nomads_logs"), "nomads_logs")
    opened(served, "It grows")
    logs, now_ = served.nomads.logs, time.monotonic()
    until(lambda: logs.followed == 1, what="the window to be followed")
    logs._clock = lambda: now_ + 1900
    opened(served, "It is not followed any more")
    until(lambda: logs.followed == 0, what="its end")
    go(served, job)


def test_the_log_of_a_program_that_printed_its_token_shows_it_to_nobody(served: Served) -> None:
    job = finished(served, collection="prints")
    assert "demo-token" not in text(card(served, job))
    said(served, f"logs {job.id}")
    shown = text(opened(served, "token "))
    assert "demo-token" not in shown
    served.slack.person().click(served.slack.view_of(OWNER) or {}, "nomads_whole_log")
    until(lambda: "<http" in text(opened(served, "The whole log")), what="the link")
    link = text(opened(served, "The whole log")).partition("<http")[2].partition("|")[0]
    assert "demo-token" not in httpx.get(f"http{link}").text


# Commands


def test_every_command_of_the_help_does_what_it_says(served: Served) -> None:
    job = finished(served, collection="fails")
    help_text = said(served, "help")["text"]
    for word in ("submit", "status", "list", "logs", "cancel", "go", "retry", "pipelines", "token", "help"):
        assert f"`/nomads {word}" in help_text
    assert f"`{job.id}`" in text(said(served, f"status {job.id}"))
    assert f"`{job.id}`" in text(said(served, "status"))
    assert f"`{job.id}`" in text(said(served, "list"))
    assert f"`{job.id}`" in text(said(served, "list failed"))
    assert "There are none." in text(said(served, "list running"))
    assert "mine, all, running" in said(served, "list everything")["text"]
    assert "`quick`" in text(said(served, "pipelines"))
    assert said(served, f"cancel {job.id}")["text"] == (
        f"Job {job.id} has ended already: failed. Nothing was cancelled."
    )
    assert "Name a job" in said(served, "cancel")["text"]
    wrong = job.id[:-1]
    assert said(served, f"status {wrong}")["text"] == f"There is no job “{wrong}”; did you mean {job.id}?"
    assert said(served, f"retry {job.id}")["text"] == ""
    assert opened(served, "attempt 2")
    for message in served.slack.messages("#synapses"):
        assert "did you mean" not in json.dumps(message), "answers are for one person"


def test_status_shows_the_buttons_this_person_may_use(served: Served) -> None:
    job = running(served)
    assert "nomads_cancel" in actions(said(served, f"status {job.id}"))
    assert "nomads_cancel" not in actions(said(served, f"status {job.id}", OTHER))
    assert f"Job {job.id} is being cancelled." in said(served, f"cancel {job.id}")["text"]
    reaches(served, job, JobState.CANCELLED)


def test_a_long_list_has_pages(served: Served) -> None:
    made = [submitted(served, x=f"0,{n + 100}") for n in range(12)]
    for job in made:
        reaches(served, job, JobState.SUCCEEDED)
    newest = [job.id for job in jobs(served)]
    first = said(served, "list all")
    shown = [name for name in newest if f"`{name}`" in text(first)]
    assert shown == newest[:10]
    served.slack.person().click(first, "nomads_list_older")
    until(lambda: f"`{newest[10]}`" in text(served.slack.ephemerals(OWNER)[-1]), what="the second page")
    second = served.slack.ephemerals(OWNER)[-1]
    assert [name for name in newest if f"`{name}`" in text(second)] == newest[10:]
    assert "nomads_list_older" not in actions(second)
    served.slack.person().click(second, "nomads_list_newer")
    until(lambda: f"`{newest[0]}`" in text(served.slack.ephemerals(OWNER)[-1]), what="the first page again")


def test_a_job_that_waits_for_a_place_says_why_in_its_thread(served: Served) -> None:
    taken = [running(served, x=f"0,{n + 1}") for n in range(2)]
    job = submitted(served, x="0,300")
    reply = until(
        lambda: [m for m in served.slack.messages("#synapses") if "Waiting to run for" in json.dumps(m)],
        what="the reason",
    )
    assert "NOMADS_LOCAL_SLOTS" in text(reply[0])
    assert f"Who can help: <@{ADMIN}>" in text(reply[0])
    for one in taken:
        go(served, one)
    reaches(served, job, JobState.SUCCEEDED)


# The home tab


def home(served: Served, having: str, person: str = OWNER) -> dict[str, Any]:
    """That person's home tab, once it shows this."""

    until(lambda: having in text(served.slack.home_of(person) or {"blocks": []}), what=f"a home tab with {having}")
    view = served.slack.home_of(person)
    assert view
    return view


def test_the_home_tab_shows_my_jobs_and_keeps_up_with_them(served: Served) -> None:
    assert served.slack.person().open_home().ok
    home(served, "Nothing of yours is running.")
    job = running(served)
    until(lambda: "nomads_logs" in actions(home(served, job.id)), what="its buttons")
    shown = home(served, job.id)
    assert {"nomads_cancel", "nomads_logs", "nomads_details"} <= set(actions(shown))
    assert served.slack.person().click(shown, "nomads_cancel", block_id=f"job-{job.id}").ok
    home(served, "Cancelled by")
    assert served.slack.home_of(OTHER) is None
    assert served.slack.person(OTHER).open_home().ok
    assert job.id not in text(home(served, "Nothing has ended yet", OTHER))


def test_the_saved_token_and_the_preferences_are_changed_in_the_home_tab(served: Served) -> None:
    person = served.slack.person()
    person.open_home()
    home(served, "No token is saved for you.")
    person.click(home(served, "No token"), "nomads_token")
    view = served.slack.view_of(OWNER)
    assert view
    assert person.submit(view, {"token": "demo-token"}).ok
    home(served, "Your saved token, saved since")
    assert person.click(home(served, "Besides"), "nomads_steps", "failures").ok
    assert person.click(home(served, "Besides"), "nomads_hear", ["mention"]).ok
    wishes = served.rows.person(OWNER).preferences
    assert (wishes.steps, wishes.mention, wishes.mail) == ("failures", True, False)
    job = finished(served, collection="fails")
    replies = served.slack.thread("#synapses", card(served, job)["ts"])
    assert len(replies) == 1
    assert text(replies[0]).count(f"<@{OWNER}>") == 1


def test_a_home_tab_that_slack_had_no_time_for_is_shown_after_all(served: Served) -> None:
    served.slack.rate_limit("views.publish", retry_after=1)
    served.slack.person().open_home()
    assert home(served, "Nothing of yours is running.")


def test_a_job_that_ends_while_the_home_tab_is_on_its_way_is_shown_as_it_ended(served: Served) -> None:
    job = running(served)
    served.slack.delay("views.publish", 1.0)
    served.slack.person().open_home()
    go(served, job)
    until(lambda: now(served, job).ended, what="the end")
    until(lambda: "✅ Finished" in text(home(served, job.id)), what="the job's end in the tab")


def test_who_clicks_while_the_database_is_locked_is_told_so_wherever_they_are(served: Served) -> None:
    person = served.slack.person()
    person.open_home()
    shown = home(served, "Besides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served.nomads.core.database, "write", refusing)
        assert person.click(shown, "nomads_steps", "failures").ok
    assert opened(served, "CloudWatch is away"), "what was wrong"


def test_all_my_jobs_open_from_the_home_tab_with_details_over_them(served: Served) -> None:
    job = finished(served)
    person = served.slack.person()
    person.open_home()
    person.click(home(served, job.id), "nomads_list")
    person.click(opened(served, job.id), "nomads_details")
    person.click(opened(served, "What happened"), "nomads_logs")
    opened(served, "progress 0.50 reading")
    person.click(home(served, job.id), "nomads_new")
    view = served.slack.view_of(OWNER)
    assert view
    assert view["callback_id"] == "nomads_submit_view"


# Bad days


@pytest.mark.parametrize("what", ["archive", "remove"])
def test_a_channel_that_is_archived_or_closed_to_the_bot_loses_nothing(served: Served, what: str) -> None:
    job = running(served)
    before = card(served, job, "nomads_cancel")
    getattr(served.slack, what)("#synapses")
    served.slack.person().click(before, "nomads_details")
    assert job.id in text(opened(served, "What happened"))
    go(served, job)
    until(lambda: now(served, job).ended and not served.rows.open_effects(job.id), what="the end")
    assert now(served, job).state is JobState.SUCCEEDED
    assert f"`{job.id}`" in text(said(served, f"status {job.id}"))


def test_a_card_that_was_deleted_loses_nothing(served: Served) -> None:
    job = running(served)
    shown = card(served, job)
    with served.slack.workspace.change():
        del served.slack.workspace.channel("#synapses").messages[shown["ts"]]
    go(served, job)
    until(lambda: now(served, job).ended and not served.rows.open_effects(job.id), what="the end")
    assert now(served, job).state is JobState.SUCCEEDED
