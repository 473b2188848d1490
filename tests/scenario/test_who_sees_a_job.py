"""Who is shown a job in Slack, and where a person may have one told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bot.app import Nomads
from bot.application import queries
from bot.application.access import PATIENCE
from bot.application.queries import Which
from bot.application.steering import Retried
from bot.application.submission import Form
from bot.domain.errors import InDoubt, InvalidRequest, NomadsError, NotYours, TooLate, UnknownJob
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.messages import Story
from bot.domain.people import NO_SUCH_CHANNEL, Privacy, Standing
from bot.domain.states import JobState
from bot.slack import cards
from bot.storage.engine import Database
from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import Member
from tests.support.app import PROGRAMS, RIGHT, Serve, Served
from tests.support.waiting import until
from tests.support.world import TOKEN, World, a_request

OWNER, MEMBER, OUTSIDER, ADMIN = "U01DEMO", "U02MEMBER", "U03OUTSIDER", "U04ADMIN"
GUEST, STRANGER = "U05GUEST", "U06STRANGER"
PRIVATE = "C01PILOT"
WINDOWS = {"nomads_details": "What happened", "nomads_results": "7 synapses", "nomads_logs": "The last lines"}
"""What the window of each button shows of a job."""


@pytest.fixture
def served(serve: Serve, slack: SlackStandIn, tmp_path: Path) -> Iterator[Served]:
    for person, channels in (
        (MEMBER, ("#synapses", "#pilot-data")),
        (OUTSIDER, ("#synapses",)),
        (ADMIN, ("#synapses",)),
    ):
        slack.add_person(Member(person, person.lower(), person, "somebody@example.org"), channels=channels)
    slack.add_person(Member(GUEST, "visitor", "Visitor", guest=True))
    slack.add_person(Member(STRANGER, "partner", "Partner", team="T02PARTNER"))
    settings = {"pipelines": str(PROGRAMS), "admins": [ADMIN], "watch_interval": "0.1"}
    with serve(tmp_path, working=True, adjust=looks_often, **settings) as served:
        yield served


def looks_often(nomads: Nomads) -> None:
    """Let open logs be looked at more often than every three seconds."""
    nomads.logs._every = 0.1


def a_minute_passes(served: Served) -> None:
    """What Slack said is asked again."""
    served.nomads.core.workspace._known.clear()  # type: ignore[attr-defined]


def leaves(served: Served, person: str, channel: str = PRIVATE) -> None:
    with served.slack.workspace.change():
        served.slack.workspace.channel(channel).members.discard(person)


def submitted(served: Served, channel: str, collection: str = "demo") -> Job:
    """A job of the owner's, told in that channel."""
    ack = served.submit(channel=channel, pipeline="quick", collection=collection)
    assert ack.ok, ack
    assert not ack.errors, ack
    return served.rows.jobs()[-1]


def finished(served: Served, channel: str = PRIVATE) -> Job:
    job = submitted(served, channel)
    until(
        lambda: served.nomads.core.queries.find(job.id).ended and not served.rows.open_effects(job.id), what="the end"
    )
    return job


def told(served: Served, person: str, words: str) -> str:
    """The answer to this command."""
    ack = served.slack.person(person).slash("/nomads", words)
    assert ack.ok, ack
    return json.dumps(ack.body, ensure_ascii=False)


def card(served: Served, job: Job, having: str) -> dict[str, Any]:
    """The job's card, once it has this button."""
    channel = job.request.channel
    assert channel

    def look() -> list[dict[str, Any]]:
        found = [m for m in served.slack.messages(channel) if m.get("blocks") and job.id in json.dumps(m["blocks"])]
        return [m for m in found if m["blocks"][0]["type"] == "header" and having in json.dumps(m["blocks"])]

    return until(look, what=f"a card with {having}")[0]


def crafted(served: Served, person: str, channel: str) -> dict[str, str]:
    """The errors by field that this person's submission gets whose channel no form of Slack's would offer them."""
    somebody = served.slack.person(person)
    somebody.slash("/nomads", "submit")
    view = served.slack.view_of(person)
    assert view
    typed = RIGHT | {"pipeline": "quick", "email": "a@example.org", "x": "nonsense"}
    ack = somebody.submit(view, typed, checked=False)
    assert set(ack.errors) == {"x"}
    assert ack.envelope
    payload = deepcopy(ack.envelope.payload)
    values = payload["view"]["state"]["values"]
    values["channel"]["value"]["selected_conversation"] = channel
    values["x"]["value"]["value"] = "0, 512"
    body, headers = served.slack.signed(replace(ack.envelope, payload=payload))
    answer = httpx.post(f"{served.url}/slack/events", content=body, headers=headers)
    errors: dict[str, str] = answer.json()["errors"] if answer.content else {}
    return errors


def window(served: Served, person: str, having: str) -> str:
    """The window on this person's screen, once it shows this."""
    return until(
        lambda: shown if having in (shown := json.dumps(served.slack.view_of(person), ensure_ascii=False)) else "",
        what=f"a window with {having}",
    )


# In Slack


@pytest.mark.parametrize("words", ["status", "logs", "cancel", "go", "retry"])
def test_the_id_of_a_private_channel_s_job_is_an_unknown_one_to_whoever_is_not_in_it(
    served: Served, words: str
) -> None:
    job = finished(served)
    unknown = told(served, OUTSIDER, f"{words} zzzzzzzz")

    for name in (job.id, job.id.upper(), job.id[:-1], job.id[:4]):
        assert told(served, OUTSIDER, f"{words} {name}") == unknown.replace("zzzzzzzz", name)
    assert "There is no job" in unknown
    assert served.slack.view_of(OUTSIDER) is None


@pytest.mark.parametrize(
    ("person", "channel", "sees"),
    [
        (OUTSIDER, PRIVATE, False),
        (GUEST, PRIVATE, False),
        (STRANGER, PRIVATE, False),
        (MEMBER, PRIVATE, True),
        (ADMIN, PRIVATE, True),
        (OWNER, PRIVATE, True),
        (OUTSIDER, "C01SYNAPSES", True),
        (GUEST, "C01SYNAPSES", False),
        (STRANGER, "C01SYNAPSES", False),
    ],
)
def test_lists_status_and_windows_show_a_job_to_those_who_see_its_channel(
    served: Served, person: str, channel: str, sees: bool
) -> None:
    job = finished(served, channel)

    assert (job.id in told(served, person, "list all")) is sees
    assert ("demo/cortex" in told(served, person, f"status {job.id}")) is sees
    for action, content in WINDOWS.items():
        assert served.slack.person(person).click(card(served, job, action), action).ok
        shown = window(served, person, content if sees else "There is no job of that name.")
        assert any(part in shown for part in WINDOWS.values()) is sees


@pytest.mark.parametrize(
    ("collection", "action"), [("waits", "nomads_cancel"), ("fails", "nomads_retry"), ("demo", "nomads_edit")]
)
def test_the_buttons_of_a_job_one_may_not_see_do_nothing(served: Served, collection: str, action: str) -> None:
    job = submitted(served, PRIVATE, collection)
    shown = card(served, job, action)

    served.slack.person(OUTSIDER).click(shown, action)

    said = until(lambda: served.slack.ephemerals(OUTSIDER), what="an answer")[-1]["text"]
    assert said.startswith("There is no job")
    assert served.slack.view_of(OUTSIDER) is None
    assert served.nomads.core.queries.find(job.id).cancelled_by is None
    assert served.jobs == 1


def test_edit_and_rerun_fills_in_a_channel_only_for_those_who_are_in_it(served: Served) -> None:
    def filled(person: str) -> dict[str, Any]:
        served.slack.person(person).click(card(served, job, "nomads_edit"), "nomads_edit")
        view = served.slack.view_of(person)
        assert view
        return {block["block_id"]: block.get("element") for block in view["blocks"]}

    job = finished(served)
    assert filled(MEMBER)["channel"]["initial_conversation"] == PRIVATE
    assert "initial_conversation" not in filled(ADMIN)["channel"]
    leaves(served, OWNER)
    a_minute_passes(served)
    assert "initial_conversation" not in filled(OWNER)["channel"]


def test_a_log_that_is_open_ends_for_whoever_loses_the_right_to_see_it(served: Served) -> None:
    job = submitted(served, PRIVATE, "waits")
    until(lambda: served.nomads.core.queries.find(job.id).state is JobState.RUNNING, what="its start")
    served.slack.person(MEMBER).click(card(served, job, "nomads_logs"), "nomads_logs")
    window(served, MEMBER, "progress 0.50 reading")
    until(lambda: served.nomads.logs.followed == 1, what="the window to be followed")

    leaves(served, MEMBER)
    a_minute_passes(served)

    assert "progress" not in window(served, MEMBER, "There is no job of that name.")
    until(lambda: served.nomads.logs.followed == 0, what="its end")
    log = served.nomads.core.settings.data / "runs" / job.name / "log"
    with log.open("a") as file:
        file.write("a secret of the channel\n")
    assert "secret" not in json.dumps(served.slack.view_of(MEMBER))


def link_of(served: Served, person: str, job: Job) -> str:
    """The link to all files in the window of the person's Results button."""
    served.slack.person(person).click(card(served, job, "nomads_results"), "nomads_results")
    shown = window(served, person, "All files")
    return str(re.findall(r"<(http[^|>]+)[|]All files>", shown)[0])


def test_a_link_from_a_button_is_the_person_s_and_opens_nothing_once_they_have_left_the_channel(
    served: Served,
) -> None:
    job = finished(served)
    mine, theirs = link_of(served, OWNER, job), link_of(served, MEMBER, job)
    assert mine != theirs
    assert "7 synapses" in httpx.get(theirs).text

    leaves(served, MEMBER)
    a_minute_passes(served)

    assert httpx.get(theirs).status_code == 404
    assert httpx.get(theirs + "results.json").status_code == 404
    assert httpx.get(mine + "results.json").json()["counts"] == {"synapses": 7}


def test_a_link_of_a_person_whom_slack_does_not_know_just_now_asks_for_patience(served: Served) -> None:
    job = finished(served)
    link = link_of(served, MEMBER, job)
    a_minute_passes(served)
    served.slack.fail("users.conversations")

    assert httpx.get(link).status_code == 503
    assert httpx.get(link).status_code == 200


@pytest.mark.parametrize("method", ["users.conversations", "conversations.info"])
def test_where_slack_does_not_answer_nothing_is_shown_and_lists_say_so(served: Served, method: str) -> None:
    job = finished(served)
    a_minute_passes(served)
    served.slack.fail(method, times=2)

    assert told(served, MEMBER, f"status {job.id}") == told(served, MEMBER, "status zzzzzzzz").replace(
        "zzzzzzzz", job.id
    )
    shown = told(served, MEMBER, "list all")
    assert job.id not in shown
    assert "Slack does not tell now" in shown
    assert job.id in told(served, MEMBER, "list all")


@pytest.mark.parametrize(
    ("person", "channel"),
    [
        (OUTSIDER, PRIVATE),
        (OUTSIDER, "C01DRAFTS"),  # where NOMADS is not
        (OUTSIDER, "C404"),
        (OUTSIDER, "D01DEMO"),
        (GUEST, "C01GENERAL"),
        (STRANGER, "C01GENERAL"),
        (STRANGER, PRIVATE),
    ],
)
def test_a_submission_into_a_channel_one_is_not_in_is_refused_like_one_that_is_not_there(
    served: Served, person: str, channel: str
) -> None:
    assert crafted(served, person, channel) == {"channel": NO_SUCH_CHANNEL}
    assert served.jobs == 0


def test_that_a_private_channel_is_archived_is_told_to_those_who_are_in_it(served: Served) -> None:
    served.slack.archive("#pilot-data")
    assert crafted(served, OUTSIDER, PRIVATE) == {"channel": NO_SUCH_CHANNEL}
    assert crafted(served, MEMBER, PRIVATE) == {"channel": "This channel is archived; choose another one."}


def test_a_submission_into_a_private_channel_one_is_in_is_taken(served: Served) -> None:
    assert crafted(served, MEMBER, PRIVATE) == {}
    assert served.jobs == 1


def test_a_guest_may_submit_into_a_channel_they_are_in(served: Served) -> None:
    guest = served.slack.person(GUEST)
    guest.slash("/nomads", "submit")
    view = served.slack.view_of(GUEST)
    assert view
    typed = RIGHT | {"pipeline": "quick", "email": "a@example.org", "channel": "C01SYNAPSES"}
    assert not guest.submit(view, typed, checked=False).errors
    (job,) = served.rows.jobs()
    assert job.id in told(served, GUEST, "list all"), "one's own job is always seen"


def test_opening_the_form_asks_slack_nothing_about_channels(served: Served) -> None:
    for words in ("submit", "submit demo/cortex"):
        served.open_form(words)
    assert not {"users.conversations", "conversations.info"} & {call.method for call in served.slack.calls}


# The rules


@pytest.fixture
def world(store: Database) -> World:
    world = World(store, admins=[ADMIN])
    world.workspace.private[PRIVATE] = {OWNER, MEMBER}
    return world


def test_pages_are_full_though_jobs_between_are_left_out(world: World) -> None:
    seen = []
    for number in range(12):
        job = world.accept(x=f"0,{number + 1}", channel="C01GENERAL" if number % 4 == 0 else PRIVATE)
        seen += [job.id] if number % 4 == 0 else []
        world.clock.advance(1)
    newest = seen[::-1]

    first = world.queries.page(Which.ALL, actor=OUTSIDER, most=2)
    assert ([job.id for job in first.jobs], first.more) == (newest[:2], True)
    second = world.queries.page(Which.ALL, actor=OUTSIDER, before=first.last, most=2)
    assert ([job.id for job in second.jobs], second.more) == (newest[2:], False)
    for person in (MEMBER, ADMIN, "cli:somebody"):
        assert len(world.queries.page(Which.ALL, actor=person, most=50).jobs) == 12


def test_a_page_is_read_a_bounded_number_of_times_and_the_next_one_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "CHUNK", 2)
    monkeypatch.setattr(queries, "READS", 2)
    monkeypatch.setattr(queries, "PATIENCE", 60)  # a busy machine is not to leave a job in doubt
    first = world.accept(x="0,500")
    hidden = []
    for number in range(9):
        world.clock.advance(1)
        hidden.append(world.accept(x=f"0,{number + 1}", channel=PRIVATE).id)

    found, places = list[str](), list[str | None]()
    while True:
        page = world.queries.page(Which.ALL, actor=OUTSIDER, before=places[-1] if places else None, most=1)
        found += [job.id for job in page.jobs]
        if not page.more:
            break
        places.append(page.last)
    assert found == [first.id]
    assert len(places) == 2
    assert not [name for name in hidden if name in "".join(map(str, places))], "a button's value names no hidden job"


def test_jobs_that_leave_a_list_between_two_pages_hide_none_of_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "CHUNK", 2)
    monkeypatch.setattr(queries, "READS", 2)
    monkeypatch.setattr(queries, "PATIENCE", 60)  # a busy machine is not to leave a job in doubt
    made = []
    for number, channel in enumerate(["C01GENERAL"] * 3 + [PRIVATE] * 4):
        made.append(world.accept(x=f"0,{number + 1}", channel=channel))
        world.clock.advance(1)
    seen, hidden = made[:3], made[3:]
    world.settle()

    first = world.queries.page(Which.RUNNING, actor=OUTSIDER, most=1)
    assert (first.jobs, first.more) == ([], True), "only hidden jobs were read so far"
    for job in hidden:
        world.see(job, JobState.FAILED)
    found, place = list[str](), first.last
    while place:
        page = world.queries.page(Which.RUNNING, actor=OUTSIDER, before=place, most=1)
        found += [job.id for job in page.jobs]
        place = page.last if page.more else None

    assert found == [job.id for job in seen[::-1]]


@pytest.mark.parametrize("place", ["@", "@x", "@" + "f" * 40, "nosuchjob"])
def test_a_place_that_is_none_begins_with_the_newest(world: World, place: str) -> None:
    job = world.accept()
    assert [one.id for one in world.queries.page(Which.ALL, actor=OWNER, before=place).jobs] == [job.id]


def test_pages_go_on_after_jobs_that_were_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "CHUNK", 2)
    monkeypatch.setattr(queries, "READS", 2)
    monkeypatch.setattr(queries, "PATIENCE", 60)  # a busy machine is not to leave a job in doubt
    seen = []
    for number in range(30):
        job = world.accept(x=f"0,{number + 1}", channel="C01GENERAL" if number % 7 == 0 else PRIVATE)
        seen += [job.id] if number % 7 == 0 else []
        world.clock.advance(1)
    found, place = list[str](), None
    while True:
        page = world.queries.page(Which.ALL, actor=OUTSIDER, before=place, most=2)
        found += [job.id for job in page.jobs]
        assert page.last is None or page.last.startswith("@") or page.last in seen
        if not page.more:
            break
        place = page.last
    assert found == seen[::-1]


def test_similar_ids_are_suggested_of_jobs_that_one_may_see(world: World) -> None:
    job = world.accept(channel=PRIVATE)
    slip = job.id[:-1]
    with pytest.raises(UnknownJob, match=f"did you mean {job.id}"):
        world.queries.named(slip, actor=MEMBER)
    for typed in (slip, job.id, job.id[:3]):
        with pytest.raises(UnknownJob) as unknown:
            world.queries.named(typed, actor=OUTSIDER)
        assert str(unknown.value) == f"There is no job “{typed}”; a job's id stands on its card and in lists."


def test_a_name_is_answered_in_the_time_of_one_question(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = world.accept(channel=PRIVATE)
    now, given = [0.0], list[float]()

    def silent(_person: str, jobs: Sequence[Job], *, within: float) -> list[bool | None]:
        now[0] += within
        given.append(within)
        return [None] * len(jobs)

    monkeypatch.setattr(world.access, "judged", silent)
    monkeypatch.setattr(queries, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with pytest.raises(UnknownJob):
        world.queries.named(job.id, actor=MEMBER)
    assert given == [PATIENCE, 0], "Slack waits three seconds for the answer to a command"


def test_a_job_in_doubt_is_told_as_an_unknown_one(world: World) -> None:
    job = world.accept(channel=PRIVATE)
    world.workspace.silent = True
    with pytest.raises(InDoubt, match="There is no job of that name"):
        world.queries.seen(job.id, actor=MEMBER)
    assert world.queries.seen(job.id, actor=OWNER)
    assert world.queries.seen(job.id, actor="cli:somebody")


def ended(world: World) -> Job:
    job = world.accept(channel=PRIVATE)
    world.settle()
    world.see(job, JobState.FAILED)
    world.settle()
    return job


def test_whoever_may_not_see_a_job_may_not_steer_it_and_is_not_told_why(world: World) -> None:
    job = ended(world)
    for act in (world.steering.cancel, world.steering.retry, world.steering.retryable):
        with pytest.raises(UnknownJob):
            act(job.id, actor=OUTSIDER)
        with pytest.raises(NotYours):
            act(job.id, actor=MEMBER)


def test_attempts_that_one_may_not_see_are_left_out(world: World) -> None:
    job = ended(world)
    again = world.steering.retry(job.id, actor=ADMIN, token=None, email="admin@example.org")
    assert not isinstance(again, Retried), "a token is needed"
    again = retried(world, job, ADMIN)
    assert [one.id for one in world.queries.attempts(world.job(job), actor=MEMBER)] == [job.id, again.job.id]
    world.workspace.private[PRIVATE].discard(OWNER)
    assert [one.id for one in world.queries.attempts(world.job(job), actor=OWNER)] == [job.id]


def test_a_later_attempt_that_one_may_not_see_is_not_named_to_whoever_retries(world: World) -> None:
    job = ended(world)
    again = retried(world, job, ADMIN).job
    world.workspace.private[PRIVATE].discard(OWNER)
    with pytest.raises(TooLate) as told:
        retried(world, job, OWNER)
    assert str(told.value) == (
        f"Job {job.id} was tried again already, by somebody else; “Edit and rerun” runs it again as yours."
    )
    world.workspace.private[PRIVATE].add(OWNER)
    assert retried(world, job, OWNER).job.id == again.id


def test_a_card_names_other_attempts_only_to_a_channel_that_hears_of_them(world: World) -> None:
    first = ended(world)
    second = retried(world, first, ADMIN).job
    world.settle()
    parent, child = world.chat.cards
    assert f"tried again as job `{second.id}`" in on_card(parent.story)
    assert f"attempt 2, after job `{first.id}`" in on_card(child.story)
    with world.ledger.change(second.id) as change:
        change.set(request=second.request.model_copy(update={"channel": "C09ELSEWHERE"}).model_dump(mode="json"))
    told = on_card(world.stories.of(world.job(first), Audience.channel(PRIVATE)))
    assert "tried again" in told
    assert second.id not in told
    told = on_card(world.stories.of(world.job(second), Audience.channel("C09ELSEWHERE")))
    assert "attempt 2" in told
    assert first.id not in told
    assert world.stories.of(world.job(first), Audience.person(OUTSIDER)).after == second.id, "which is in public"
    assert world.stories.of(world.job(second), Audience.person(OUTSIDER)).before == ""


def on_card(story: Story) -> str:
    """The card, as Slack shows it."""
    return str([block.to_dict() for block in cards.card(story)])


def test_of_a_job_that_one_may_not_see_no_more_is_told_than_that_the_same_is_done_now(world: World) -> None:
    """It must not be done twice, so that much cannot be kept secret."""
    world.accept(channel=PRIVATE)
    with pytest.raises(InvalidRequest) as told:
        world.submit(key="k", actor=OUTSIDER)
    assert told.value.errors == {"pipeline": "A job does the same now; nothing was submitted."}
    assert world.rows.count() == 1


def test_a_retry_of_what_a_job_does_that_one_may_not_see_is_told_no_more_either(world: World) -> None:
    job = world.accept(actor=OUTSIDER, again=True)
    world.settle()
    world.see(job, JobState.FAILED)
    world.settle()
    world.accept(channel=PRIVATE)
    with pytest.raises(NomadsError) as told:
        retried(world, job, OUTSIDER)
    assert str(told.value) == "A job does the same now; nothing was submitted."


def retried(world: World, job: Job, actor: str) -> Retried:
    again = world.steering.retry(job.id, actor=actor, token=SecretStr(TOKEN), email="somebody@example.org")
    assert isinstance(again, Retried)
    return again


def test_an_admin_s_retry_is_told_where_the_job_was_and_does_not_fill_the_admin_s_next_form(world: World) -> None:
    again = retried(world, ended(world), ADMIN)
    world.settle()
    assert world.job(again.job).state is JobState.SUBMITTED
    assert not world.people.profile(ADMIN).last_request


def test_whoever_left_the_channel_retries_elsewhere(world: World) -> None:
    job = ended(world)
    world.workspace.private[PRIVATE].discard(OWNER)
    with pytest.raises(NomadsError, match="“Edit and rerun” lets you choose the channel"):
        retried(world, job, OWNER)
    assert world.rows.count() == 1


@pytest.mark.parametrize(("person", "told"), [(MEMBER, True), (OUTSIDER, False)])
def test_without_slack_s_answer_a_job_is_taken_but_told_only_once_slack_has_said_that_one_may(
    world: World, person: str, told: bool
) -> None:
    world.workspace.silent = True
    job = world.submit(key="view:1", actor=person, channel=PRIVATE)
    assert isinstance(job, Job), "no answer is no refusal"
    world.settle(patience=60)
    assert not world.chat.cards
    assert world.job(job).state is JobState.ACCEPTED
    assert "submit" not in world.compute.calls

    world.workspace.silent = False
    world.settle()

    assert len(world.chat.cards) == told
    assert world.job(job).state is (JobState.SUBMITTED if told else JobState.FAILED)
    if not told:
        assert world.job(job).reason == NO_SUCH_CHANNEL
        assert not world.chat.replies
        assert "submit" not in world.compute.calls
    else:
        assert "Slack did not answer in time" in world.thread[0]


@pytest.mark.parametrize("standing", [Standing.GUEST, Standing.STRANGER])
def test_guests_and_strangers_have_jobs_told_only_where_they_are(world: World, standing: Standing) -> None:
    world.workspace.standings[OUTSIDER] = standing
    with pytest.raises(InvalidRequest) as wrong:
        world.submit(key="view:1", actor=OUTSIDER, channel="C01OTHER")
    assert wrong.value.errors == {"channel": NO_SUCH_CHANNEL}
    assert isinstance(world.submit(key="view:2", actor=OUTSIDER, channel="C01GENERAL"), Job)


def test_slack_is_asked_while_boss_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    describe = world.volumes.describe

    def privacy_of(_: str) -> Privacy:
        together.wait(timeout=10)
        return Privacy.PUBLIC

    def describing(*names: str, **more: Any) -> Any:
        together.wait(timeout=10)
        return describe(*names, **more)

    monkeypatch.setattr(world.workspace, "privacy_of", privacy_of)
    monkeypatch.setattr(world.volumes, "describe", describing)
    form = Form(values=a_request().typed, token=SecretStr(TOKEN))
    assert isinstance(world.submission.submit(form, actor=OUTSIDER, key="view:1", within=10), Job)
