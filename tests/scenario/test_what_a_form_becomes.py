"""A submitted form: what is saved of it, which question it becomes, and what stays as it was taken."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from bot.application.forecast import Confirm
from bot.application.places import Places
from bot.application.submission import ANOTHER_RUNS, NO_CHANNEL, Followed, Form, Question
from bot.domain.errors import InvalidRequest, NomadsError, Unavailable
from bot.domain.ids import ID_ALPHABET, ID_LENGTH
from bot.domain.job import Job
from bot.domain.named import NamedVolume
from bot.domain.outbox import Kind
from bot.domain.states import JobState
from bot.domain.work import Observation
from bot.storage.engine import Database
from bot.storage.tables import effects
from tests.support.meanwhile import meanwhile
from tests.support.world import TOKEN, World, a_request, in_blocks, in_one_piece
from volumes.address import Address, parse

OWNER, OTHER, ADMIN, PRIVATE = "U01DEMO", "U02OTHER", "U03ADMIN", "G01PRIVATE"


@pytest.fixture
def world(store: Database) -> World:
    return World(store, admins=[ADMIN])


def submitted(
    world: World, *, actor: str = OWNER, key: str = "view:1", token: str = TOKEN, within: float = 0.5, **more: Any
) -> Job | Question | Followed:
    """What becomes of a form; `typed` are changes of what is typed, and the rest is Form's."""
    values = {**a_request().typed, **more.pop("typed", {})}
    form = Form(values=values, token=SecretStr(token), **more)
    return world.submission.submit(form, actor=actor, key=key, within=within)


def mistakes(world: World, **more: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as wrong:
        submitted(world, **more)
    return dict(wrong.value.errors)


def spied(call: Callable[..., Any], given: list[float]) -> Callable[..., Any]:
    """The call, which notes the seconds that it is given."""

    def called(*args: Any, within: float, **more: Any) -> Any:
        given.append(within)
        return call(*args, within=within, **more)

    return called


# Mistakes


@pytest.mark.parametrize("channel", ["", None])
def test_a_form_without_a_channel_is_asked_for_one(world: World, channel: str | None) -> None:
    assert mistakes(world, typed={"channel": channel}) == {"channel": NO_CHANNEL}


def test_what_is_wrong_with_address_channel_and_ranges_is_said_at_once(store: Database) -> None:
    world = World(store, mail_domains=["lab.test"])
    wrong = mistakes(world, typed={"channel": "", "email": " a@example.org ", "x": "nonsense"})
    assert set(wrong) == {"channel", "email", "x"}
    assert "lab.test" in wrong["email"]
    assert world.rows.count() == 0


@pytest.mark.parametrize("values", [{"email": ""}, {}])
def test_where_mail_is_off_nobody_asks_for_an_address_of_the_lab(store: Database, values: dict[str, str]) -> None:
    world = World(store, mails=False, mail_domains=["lab.test"])
    typed = {field: said for field, said in a_request().typed.items() if field != "email"}
    form = Form(values=typed | values, token=SecretStr(TOKEN))
    job = world.submission.submit(form, actor=OWNER, key="view:1", within=0.5)
    assert isinstance(job, Job)
    assert job.request.email == ""


def test_mistakes_are_told_although_the_database_does_not_say_whether_the_form_was_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise Unavailable("The database is away.")

    meanwhile(monkeypatch, world.submission, "_by_key", away)
    assert set(mistakes(world, typed={"x": "nonsense"})) == {"x"}


def test_an_address_may_have_spaces_around_it(store: Database) -> None:
    world = World(store, mail_domains=["lab.test"])
    job = submitted(world, typed={"email": " ada@lab.test "})
    assert isinstance(job, Job)
    assert job.request.email == "ada@lab.test"


def test_an_address_that_was_refused_is_told_also_where_nobody_asked_chat(store: Database) -> None:
    world = World(store, mail_domains=["lab.test"])
    reviewed = world.submission.review(a_request(email="ada@lab.test").typed, SecretStr(TOKEN))
    elsewhere = reviewed.request.model_copy(update={"email": "ada@example.org"})
    with pytest.raises(InvalidRequest) as wrong:
        world.submission.ask(replace(reviewed, request=elsewhere), actor=OWNER, within=0.5)
    assert set(wrong.value.errors) == {"email"}


def test_without_a_time_for_it_no_service_is_asked_about_mistakes(world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.submission.review(a_request().typed | {"x": "nonsense"}, SecretStr(TOKEN))
    assert world.volumes.calls == []


ADDRESS = "zarr://https://volumes.test/mouse.zarr"


def by_address(store: Database, *, people: Collection[str] = (), **more: Any) -> World:
    """A world in which a volume is read by its address, for these people alone where some are named."""
    address = parse(ADDRESS)
    assert isinstance(address, Address)
    named = NamedVolume(name="Mouse", address=address, people=frozenset(people))
    pipeline = in_one_piece().model_copy(update={"contract": "2"})
    world = World(store, places=Places(named=[named]), pipeline=pipeline, **more)
    world.volumes.add(ADDRESS, "", channels={"PSD95": "uint8", "Synapsin": "uint8"}, public=True)
    return world


def test_a_token_that_no_service_was_shown_is_not_saved(store: Database) -> None:
    world = by_address(store)
    job = submitted(world, typed={"collection": ADDRESS, "experiment": ""}, remember=True)
    assert isinstance(job, Job)
    assert job.request.volume == ADDRESS
    assert world.rows.person(OWNER).token_ref is None


def test_a_volume_that_is_offered_to_some_is_nobody_else_s_to_ask_for_or_to_retry(store: Database) -> None:
    world = by_address(store, people=[OWNER], admins=[ADMIN])
    typed = {"collection": "volume:Mouse", "experiment": ""}
    assert set(mistakes(world, actor=OTHER, typed=typed)) == {"collection"}
    job = submitted(world, typed=typed)
    assert isinstance(job, Job)
    world.settle()
    world.see(job, JobState.FAILED)
    world.settle()
    with pytest.raises(InvalidRequest):
        world.submission.accept_retry(job, actor=ADMIN, token=SecretStr(TOKEN), email="a@example.org")
    assert world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="a@example.org")


# The token


@pytest.mark.parametrize(
    ("remember", "typed", "away", "saved"),
    [(True, TOKEN, False, True), (False, TOKEN, False, False), (True, TOKEN, True, False), (True, "", False, False)],
)
def test_a_token_is_saved_where_it_was_typed_boss_has_taken_it_and_the_person_wants_it(
    world: World, remember: bool, typed: str, away: bool, saved: bool
) -> None:
    if not typed:
        world.people.save_token(OWNER, SecretStr(TOKEN))
    before = world.rows.person(OWNER).token_ref
    if away:
        world.volumes.fail_next(Unavailable("BOSS is away"), call="describe")
    assert isinstance(submitted(world, token=typed, remember=remember), Job)
    assert (world.rows.person(OWNER).token_ref != before) is saved


def test_a_form_that_does_not_say_so_saves_nothing(world: World) -> None:
    assert isinstance(submitted(world), Job)
    assert world.rows.person(OWNER).token_ref is None


# The same work


def test_a_form_that_comes_again_is_the_job_that_it_became_whatever_is_asked_or_wrong_by_now(world: World) -> None:
    job = submitted(world)
    assert isinstance(job, Job)
    again = submitted(world)
    assert isinstance(again, Job)
    assert again.id == job.id
    world.workspace.trouble = "The channel is archived."
    again = submitted(world)
    assert isinstance(again, Job)
    assert again.id == job.id
    assert world.rows.count() == 1


def test_work_that_has_begun_while_the_form_was_asked_about_is_a_question(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Job] = []
    meanwhile(monkeypatch, world.submission, "decide", lambda: begun.append(world.accept(actor=OTHER)))
    question = submitted(world)
    assert isinstance(question, Question)
    assert question.twin_runs
    assert question.proposal.twin
    assert question.proposal.twin.id == begun[0].id
    assert world.rows.count() == 1


def test_work_that_has_begun_where_one_may_not_see_it_is_told_without_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.workspace.private[PRIVATE] = {OTHER}
    given: list[float] = []
    monkeypatch.setattr(world.access, "judged", spied(world.access.judged, given))
    meanwhile(monkeypatch, world.submission, "decide", lambda: world.accept(actor=OTHER, channel=PRIVATE))
    assert mistakes(world) == {"pipeline": ANOTHER_RUNS}
    assert world.rows.count() == 1
    assert given == [0.2], "the time that the person waits for an answer is over"


def test_who_asks_to_hear_of_the_end_of_a_job_that_ends_at_that_moment_is_told_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.accept(actor=OTHER)
    question = submitted(world)
    assert isinstance(question, Question)

    def end() -> None:
        with world.ledger.change(job.id) as change:
            change.follow(Observation(JobState.CANCELLED))

    meanwhile(monkeypatch, world.submission, "_follow", end)
    wrong = mistakes(world, agreed=question.digest)
    assert wrong == {"pipeline": f"Job {job.id} has ended meanwhile; submit the form again."}
    with world.store.read() as transaction:
        assert transaction.followers.of(job.id) == []


def test_who_agrees_to_another_question_does_not_follow_and_is_asked_again(world: World) -> None:
    job = world.accept(actor=OTHER)
    question = submitted(world, agreed="another")
    assert isinstance(question, Question)
    world.settle()  # it goes on meanwhile
    followed = submitted(world, agreed=question.digest)
    assert isinstance(followed, Followed)
    assert followed.job.id == job.id
    with world.store.read() as transaction:
        assert transaction.followers.of(job.id) == [OWNER]


def test_work_that_was_done_is_done_again_for_whoever_agrees(world: World) -> None:
    job = world.accept(actor=OTHER)
    with world.store.begin() as transaction:
        transaction.jobs.change(job.id, state=JobState.SUCCEEDED.value)
    question = submitted(world)
    assert isinstance(question, Question)
    assert not question.twin_runs
    assert isinstance(submitted(world, agreed=question.digest), Job)


def test_other_work_and_the_same_for_another_box_run_side_by_side(world: World) -> None:
    jobs = [submitted(world, key=box, typed={"x": box}) for box in ("0, 512", "0, 256")]
    assert [isinstance(job, Job) for job in jobs] == [True, True]


def test_a_question_is_another_one_for_other_words_another_job_and_another_state(world: World) -> None:
    digests = set()
    job = world.accept(actor=OTHER)
    for typed in ({}, {"email": "other@example.org"}):
        question = submitted(world, typed=typed)
        assert isinstance(question, Question)
        digests.add(question.digest)
    world.settle()
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    question = submitted(world)
    assert isinstance(question, Question)
    assert not question.twin_runs
    digests.add(question.digest)
    assert len(digests) == 3
    agreed = submitted(world, agreed=question.digest)
    assert isinstance(agreed, Job)


# Accepted


def enqueued(world: World, job: Job) -> set[tuple[str, str]]:
    """Kinds and subjects of the job's effects."""
    query = sa.select(effects.c.kind, effects.c.subject).where(effects.c.job_id == job.id)
    with world.store.read() as transaction:
        return {(kind, subject) for kind, subject in transaction.connection.execute(query)}


def test_what_an_acceptance_enqueues_is_what_its_person_wants(world: World) -> None:
    quiet = world.accept(actor=OTHER, channel=None)
    assert enqueued(world, quiet) == {("submit", ""), ("mail-accepted", "")}
    world.people.opened_home(OWNER)
    world.people.prefer(OWNER, mail=False)
    told = world.accept()
    assert enqueued(world, told) == {("submit", ""), ("card", ""), ("reply", "1"), ("home", "")}
    (step,) = world.rows.transitions(told.id)
    assert (step.text, step.reply, step.at) == (f"Accepted as job {told.id}.", 1, world.clock.now)


def test_a_job_without_an_address_gets_no_mail_and_one_that_boss_was_not_asked_about_is_checked(
    store: Database,
) -> None:
    world = World(store, mails=False)
    job = world.accept(checked=False, email="", channel=None)
    assert enqueued(world, job) == {("check", "")}


@pytest.mark.parametrize(("slack", "boss"), [(True, True), (False, True), (True, False)])
def test_a_job_is_submitted_at_once_where_boss_and_slack_have_said_that_it_may_be(
    world: World, slack: bool, boss: bool
) -> None:
    world.workspace.silent = not slack
    if not boss:
        world.volumes.fail_next(Unavailable("BOSS is away"), call="describe")
    job = submitted(world)
    assert isinstance(job, Job)
    assert job.checked is (slack and boss)
    assert job.size == (2 * 512 * 512 * 16 if boss else None)
    assert world.rows.open_effects(job.id, kind=Kind.SUBMIT) == (slack and boss)


def test_a_job_s_id_is_short_and_of_its_alphabet_and_its_estimate_is_kept(store: Database) -> None:
    pipeline = in_blocks().model_copy(update={"seconds": 10.0})
    world = World(store, pipeline=pipeline, block_voxels=10_000)
    proposal = world.ask()
    assert proposal.expected
    assert proposal.expected.together, "its programs run side by side"
    job = world.submission.accept(proposal, actor=OWNER, key="a")
    assert job == world.rows.job(job.id)
    assert job.checked, "with nobody to ask about its channel"
    assert job.expected == proposal.expected
    assert len(job.id) == ID_LENGTH
    assert set(job.id) <= set(ID_ALPHABET)
    world.settle()
    world.see(job, JobState.FAILED)
    world.settle()
    again = world.submission.accept_retry(world.job(job), actor=OWNER, token=SecretStr(TOKEN), email="a@example.org")
    assert again.expected == proposal.expected


def test_lanes_are_woken_once_a_job_is_accepted_and_not_before_it_is_kept(world: World) -> None:
    heard: list[tuple[int, set[str]]] = []
    world.ledger.on_commit(lambda lanes: heard.append((world.rows.count(), {lane.value for lane in lanes})))
    world.accept()
    assert heard == [(1, {"compute", "chat", "mail"})]


# A new attempt


def failed(world: World) -> Job:
    job = world.running()
    world.see(job, JobState.FAILED, exit_code=3)
    world.settle()
    return job


def test_an_attempt_is_told_after_which_job_and_its_words_fill_its_owner_s_next_form(world: World) -> None:
    job = failed(world)
    again = world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="new@example.org")
    assert (again.attempt, again.retry_of, again.key) == (2, job.id, f"retry:{job.id}")
    assert (again.size, again.checked) == (None, False)
    assert world.people.profile(OWNER).last_request["email"] == "new@example.org"
    assert world.rows.person(OWNER).last_request
    said = world.rows.transitions(again.id)[0].text
    assert said.startswith(f"Accepted as job {again.id}: attempt 2, after job {job.id}.")
    assert world.job(job).retried_as == again.id


def test_an_attempt_at_somebody_else_s_job_fills_nobody_s_next_form(world: World) -> None:
    of_another = world.submission.accept_retry(
        failed(world), actor=ADMIN, token=SecretStr(TOKEN), email="b@example.org"
    )
    assert of_another.actor == ADMIN
    assert world.people.profile(ADMIN).last_request == {}
    assert not world.rows.person(ADMIN).last_request


def test_an_attempt_that_was_taken_stays_taken_although_its_words_are_wrong_by_now(world: World) -> None:
    job = failed(world)
    again = world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="a@example.org")
    taken = world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="no address")
    assert taken.id == again.id
    with pytest.raises(InvalidRequest):
        world.submission.accept_retry(failed(world), actor=OWNER, token=SecretStr(TOKEN), email="no address")


def test_an_attempt_is_told_on_the_card_of_the_job_that_it_tries_again(world: World) -> None:
    job = failed(world)
    heard: list[set[str]] = []
    world.ledger.on_commit(lambda lanes: heard.append({lane.value for lane in lanes}))
    world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="a@example.org")
    assert world.rows.open_effects(job.id, kind=Kind.EDIT) == 1
    assert heard == [{"compute", "chat", "mail", "edit"}]


def test_all_that_is_wrong_with_an_attempt_is_told_at_once_where_there_is_time_for_it(world: World) -> None:
    job = failed(world)
    del world.volumes.there["demo"]["cortex"]
    for within, wrong in ((0.5, {"email", "experiment"}), (0, {"email"})):
        with pytest.raises(InvalidRequest) as refused:
            world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="nobody", within=within)
        assert set(refused.value.errors) == wrong


def test_boss_is_asked_about_an_attempt_before_it_is_taken_only_for_so_many_seconds_as_are_named(world: World) -> None:
    job = failed(world)
    del world.volumes.there["demo"]["cortex"]
    with pytest.raises(InvalidRequest):
        world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="a@example.org", within=0.5)
    assert world.rows.count() == 1
    world.volumes.calls.clear()
    assert world.submission.accept_retry(job, actor=OWNER, token=SecretStr(TOKEN), email="a@example.org")
    assert world.volumes.calls == []


def test_a_retry_into_a_channel_that_is_in_trouble_says_what_to_do_instead(world: World) -> None:
    job = failed(world)
    world.workspace.trouble = "The channel is archived."
    with pytest.raises(NomadsError, match=r"The channel is archived\. “Edit and rerun” lets you choose the channel\."):
        world.steering.retry(job.id, actor=OWNER, token=SecretStr(TOKEN))
    assert world.rows.count() == 1


# Time and size


@pytest.mark.parametrize(("within", "least", "most"), [(5.0, 4.0, 5.0), (0.0, 0.2, 0.2)])
def test_boss_and_slack_have_what_is_left_of_the_time_and_a_fifth_of_a_second_at_least(
    world: World, monkeypatch: pytest.MonkeyPatch, within: float, least: float, most: float
) -> None:
    given: list[float] = []
    review, posting = world.reviewer.review, world.access.posting

    def reviewed(*args: Any, actor: str, within: float) -> Any:
        assert actor == OWNER
        given.append(within)
        return review(*args, actor=actor, within=within)

    def posted(*args: Any) -> Any:
        answer = posting(*args)

        def wait(seconds: float) -> Any:
            given.append(seconds)
            return answer(5)

        return wait

    monkeypatch.setattr(world.reviewer, "review", reviewed)
    monkeypatch.setattr(world.reviewer, "ask", spied(world.reviewer.ask, given))
    monkeypatch.setattr(world.access, "posting", posted)
    assert isinstance(submitted(world, within=within), Job)
    assert len(given) == 3
    assert all(least <= seconds <= most for seconds in given)


def test_who_sees_the_same_work_is_asked_of_slack_in_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    world.accept(actor=OTHER)
    monkeypatch.setattr(world.access, "judged", spied(world.access.judged, given))
    for within in (5.0, 0.0):
        assert isinstance(submitted(world, key=f"view:{within}", within=within), Question)
    long, short = given
    assert 4.0 <= long <= 5.0
    assert short == 0.2


def test_a_run_in_blocks_or_above_a_limit_is_confirmed_and_no_other(store: Database) -> None:
    blocks = World(store, pipeline=in_blocks(), block_voxels=10_000)
    question = submitted(blocks)
    assert isinstance(question, Question)
    assert question.proposal.heavy
    assert not question.twin_runs
    assert blocks.rows.count() == 0
    large = World(store, confirm=Confirm(bytes=1))
    question = submitted(large, agreed="another")
    assert isinstance(question, Question)
    assert question.proposal.heavy
    assert isinstance(submitted(large, agreed=question.digest), Job)
    assert isinstance(submitted(World(store), key="view:2", typed={"x": "0,256"}), Job)
