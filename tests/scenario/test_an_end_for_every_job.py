"""Every job has an end that a person hears of, whatever its program, compute or NOMADS itself does wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from bot.application.worker.handling import FAULTS, Handler
from bot.application.worker.lanes import LaneRunner
from bot.domain.errors import Refused, Unavailable
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.outbox import Effect, Kind
from bot.domain.results import Link
from bot.domain.states import FINAL, JobState
from bot.domain.summary import NAMED, Summary
from bot.domain.work import Cause, Observation
from bot.slack import cards
from bot.storage.engine import Database
from tests.support.stories import a_job, a_step, a_story
from tests.support.world import TOKEN, World, in_blocks

OWNER = "U01DEMO"
FOUND = b'{"counts": {"synapses": 7}}'


@pytest.fixture
def world(store: Database) -> World:
    return World(store)


def ended_with(world: World, results: bytes | None, *, files: Sequence[str] = (), seconds: float | None = 3) -> Job:
    """A job whose program succeeded and left that in results.json, beside other files."""
    job = world.running()
    for name in files:
        world.results.put(job.folder, name, b"PNG")
    if results is not None:
        world.results.put(job.folder, "results.json", results)
    world.clock.advance(seconds or 0)
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now if seconds else None)
    world.settle()
    return world.job(job)


# What a program left


HOSTILE = {
    "200 kB of opened lists": b"[" * 200_000,
    "deep dictionaries": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep in a field that is read": b'{"counts":' * 900 + b"1" + b"}" * 900,
    "a number that is none": b'{"counts": {"synapses": NaN}}',
    "a number without end": b'{"counts": {"synapses": 1e999}}',
    "a number of many digits": b'{"counts": {"synapses": 1' + b"0" * 400 + b"}}",
    "a number of thousands of digits": b'{"counts": {"synapses": 1' + b"0" * 5000 + b"}}",
    "a number below zero": b'{"counts": {"synapses": -1}}',
    "a name of controls alone": b'{"counts": {"\\u0000\\u202e": 1}}',
    "half a surrogate in a name": b'{"counts": {"\\ud800": 1}}',
    "a NUL in a file's name": b'{"files": [{"name": "a\\u0000b"}]}',
    "a NUL in the viewer's address": b'{"viewer": "https://x.y/\\u0000"}',
    "a list": b"[1, 2]",
    "a word": b'"done"',
    "null": b"null",
    "wrong types": b'{"counts": [1], "files": {}, "notes": "none"}',
    "no UTF-8": b'{"notes": ["\xff\xfe"]}',
    "not JSON": b"done!",
    "nothing": b"",
    "more than is read": b'{"notes": ["' + b"x" * 2**20 + b'"]}',
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_results_that_cannot_be_read_end_the_job_and_are_told_as_such(world: World, hostile: bytes) -> None:
    job = ended_with(world, hostile)
    assert (job.state, job.token_ref, world.rows.tokens) == (JobState.SUCCEEDED, None, 0)
    assert world.rows.open_effects() == 0
    told = world.thread[-1]
    assert told.startswith("The results could not be read: results.json ")
    assert told.endswith("It ran for 3 s.")
    assert "Finished" not in told
    assert told.isprintable()
    assert told.removesuffix(" It ran for 3 s.") in world.mailer.sent[-1].text
    assert [title for title, _ in world.chat.replies[-1].story.links] == ["results.json"]


def test_a_nul_half_a_surrogate_and_a_repeated_key_are_read_as_what_is_left_of_them(world: World) -> None:
    job = ended_with(world, b'{"notes": ["\\udfff"], "counts": {"syn\\u0000apses": 1, "syn apses": 2, "b": 3, "b": 4}}')
    assert job.summary
    assert (job.summary.counts, job.summary.notes) == ({"syn apses": 2, "b": 4}, [])
    assert world.thread[-1] == "2 syn apses; 4 b. Finished after 3 s."


@pytest.mark.parametrize(
    "faked",
    [
        "x\n*Failed*",
        "x\r\nFailed",
        "x\u2028Failed",
        "x\u2029Failed",
        "x\x0bFailed",
        "x\x85Failed",
        "x\x1b[2K\x00Failed",
    ],
)
def test_a_program_cannot_fake_lines_of_a_reply(faked: str) -> None:
    written = {"counts": {faked: 1}, "notes": [faked], "files": [{"name": "a.csv", "title": faked}]}
    summary = Summary.read(json.dumps(written).encode())
    for text in (*summary.counts, *summary.notes, summary.files[0].title):
        assert text.isprintable()
        assert text.replace("*", "") == "x Failed"


def test_a_program_can_neither_turn_letters_round_nor_open_code_nor_mention_anybody() -> None:
    said = "```\u202eevil\u2066 <!channel> @here #general"
    summary = Summary.read(json.dumps({"counts": {said: 1}, "notes": [said]}).encode())
    assert list(summary.counts) == summary.notes == ["''' evil <!channel> @here #general"]
    job = a_job(JobState.SUCCEEDED, summary=summary)
    step = a_step(f"1 {summary.notes[0]}. Finished.", JobState.SUCCEEDED)
    for block in [found.to_dict() for found in cards.reply(a_story(job), [step])]:
        assert "<!channel>" not in block["text"]["text"]
        assert block["text"]["verbatim"] is True, "Slack would make a mention of @here"


def test_a_program_that_left_nothing_is_told_to_have_left_nothing(world: World) -> None:
    job = ended_with(world, None)
    assert job.reason == "The program ended, but left no results.json."
    assert world.thread[-1] == "The program ended, but left no results.json. It ran for 3 s."
    (card,) = world.chat.cards
    facts = str([block.to_dict() for block in cards.card(card.story)])
    assert "Ended without results that can be read" in facts
    assert "left no results.json" in facts
    assert "Finished" not in cards.summary(job) + facts
    mail = world.mailer.sent[-1]
    assert mail.subject == f"NOMADS job {job.id}: ended without results"
    assert "left no results.json" in mail.text
    assert "left no results.json" in cards.row(job)


def links(world: World) -> list[str]:
    """Titles of what the end links."""
    return [title for title, _ in world.chat.replies[-1].story.links]


EMPTY = (b"{}", b'{"counts": {}}', b'{"counts": {}, "files": [], "notes": [], "preview": null}')


@pytest.mark.parametrize("said", EMPTY)
def test_a_program_that_told_nothing_of_what_it_found_is_not_told_to_have_finished(world: World, said: bytes) -> None:
    job = ended_with(world, said, files=["synapses.csv"])
    assert world.thread[-1] == "The program told nothing of what it found. It ran for 3 s."
    assert (job.unread, links(world)) == (True, ["synapses.csv"])
    assert job.stands == "Ended without results that can be read"
    assert "told nothing of what it found" in world.mailer.sent[-1].text
    assert "finished" not in world.mailer.sent[-1].text


@pytest.mark.parametrize("said", EMPTY)
def test_a_program_that_told_nothing_and_left_no_file_is_told_to_have_left_no_results(
    world: World, said: bytes
) -> None:
    ended_with(world, said)
    assert world.thread[-1] == "The program ended, but left no results. It ran for 3 s."
    assert links(world) == []


def test_an_image_of_2018_that_left_an_empty_folder_is_told_to_have_left_no_results(store: Database) -> None:
    known = World(store).catalog.get("nomads-unsupervised")
    assert known
    old = World(store, pipeline=known.model_copy(update={"contract": "2018"}))
    assert ended_with(old, None).unread
    assert old.thread[-1] == "The program ended, but left no results. It ran for 3 s."
    ended_with(old, None, files=["predictions.h5"])
    assert old.thread[-1] == "Finished after 3 s."
    assert links(old) == ["predictions.h5"]


def announcing(*names: str, counts: bool = True, preview: str | None = None) -> bytes:
    """A results.json that announces these files."""
    said = {"files": [{"name": name} for name in names], "preview": preview}
    return json.dumps(said | ({"counts": {"synapses": 7}} if counts else {})).encode()


def test_only_files_that_are_there_are_linked_and_one_note_names_those_that_are_missing(world: World) -> None:
    written = announcing("synapses.csv", "report.html", "a/b.npz", preview="preview.png")
    job = ended_with(world, written, files=["synapses.csv"])
    note = "The program announced files that it did not leave: report.html, a/b.npz, preview.png."
    assert world.thread[-1] == "7 synapses. Finished after 3 s."
    assert links(world) == ["synapses.csv"]
    assert job.summary
    assert (job.summary.notes, job.summary.preview) == ([note], None)
    assert not world.chat.files, "no preview is posted, and none is given up"
    assert world.ledger.replay() == []
    mail = world.mailer.sent[-1].text
    assert mail.count("report.html") == 1
    assert note in mail
    assert not any("report.html" in link.url for _, link in world.output.links(job, Audience.person(OWNER)))


def test_a_program_that_left_none_of_the_files_it_announced_left_no_results(world: World) -> None:
    job = ended_with(world, announcing("synapses.csv", counts=False))
    assert (job.unread, links(world)) == (True, [])
    assert world.thread[-1] == "The program announced files that it did not leave: synapses.csv. It ran for 3 s."
    assert job.summary
    assert job.summary.notes == [], "it is said once"


def test_many_missing_files_with_long_names_are_one_note_beside_ten_of_the_program_s(world: World) -> None:
    written = json.loads(announcing(*(f"{n:02d}{'x' * 200}.csv" for n in range(100))))
    job = ended_with(world, json.dumps(written | {"notes": [f"Note {n}." for n in range(10)]}).encode())
    assert job.summary
    assert len(job.summary.notes) == 11
    assert job.summary.notes[-1].endswith(" and 95 more.")


def test_where_the_folder_may_not_be_listed_what_is_announced_is_believed(world: World) -> None:
    world.results.fail_next(Refused("S3 did not list the results: no (AccessDenied)"), call="list")
    job = ended_with(world, announcing("synapses.csv"))
    assert (job.unread, links(world)) == (False, ["synapses.csv"])


def test_a_duration_that_compute_does_not_know_is_not_told(world: World) -> None:
    job = ended_with(world, FOUND, seconds=None)
    assert world.thread[-1] == "7 synapses. Finished."
    assert job.took is None
    (card,) = world.chat.cards
    assert "Took" not in str([block.to_dict() for block in cards.card(card.story)])


def test_a_machine_that_restarted_is_not_told_to_have_run_all_the_while(world: World) -> None:
    job = world.running()
    world.clock.advance(36_000)
    world.see(job, JobState.FAILED, reason="The program vanished.", cause=Cause.MACHINE)
    world.settle()
    assert world.thread[-1] == "Failed: The program vanished."


def test_links_that_no_page_of_ours_answers_say_until_when_they_work_and_how_to_get_new_ones() -> None:
    end = datetime(2026, 3, 8, 12, tzinfo=UTC)
    job, step = a_job(JobState.SUCCEEDED), a_step("7 synapses. Finished.", JobState.SUCCEEDED)
    signed = a_story(job, links=[("Table", Link("https://s3.test/t", end, at_latest=True))], address="")
    small = str([block.to_dict() for block in cards.reply(signed, [step])])
    assert f"These links work until {cards.moment(end)} at the latest; *Results* on the card gives new ones." in small
    for story in (a_story(job, links=signed.links), a_story(job, links=[("Table", Link("file:///t"))], address="")):
        assert "work until" not in str([block.to_dict() for block in cards.reply(story, [step])])


# What nobody foresaw


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_effect_has_a_last_resort(store: Database, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kind fails in a way that nobody foresaw: its effect ends, and its job does, and the token is gone."""

    world, asked = World(store, admins=["U08ADMIN"]), 0
    if kind is Kind.ADVANCE:
        world = World(store, admins=["U08ADMIN"], pipeline=in_blocks(), block_voxels=10_000)

    def fails(_effect: Effect, _job: Job) -> None:
        nonlocal asked
        asked += 1
        raise RuntimeError("unforeseen")

    monkeypatch.setitem(world.worker.lanes._handlers, kind, _with(world.handlers[kind], fails))
    if kind is Kind.DIRECT:
        world.chat.fail_next(Refused("The channel is archived."), call="post_card")
    if kind is Kind.CHECK:
        world.volumes.fail_next(Unavailable("BOSS is away"), call="describe", times=100)
        job = world.accept(checked=False)
    else:
        job = world.accept()
    world.settle()
    if kind is Kind.CANCEL:
        world.steering.cancel(job.id, actor=OWNER)
        world.settle()
        assert "could not be cancelled: Something that nobody foresaw" in world.thread[-1]
    if kind is Kind.NOTICE:
        world.compute.fail_next(Unavailable("away"), call="observe", times=8)
        for _ in range(8):
            world.worker.watcher.watch_once()
            world.clock.advance(10)
        world.settle()
    if kind is Kind.HOME:
        world.people.opened_home(OWNER)
    world.results.put(job.folder, "results.json", b'{"preview": "p.png"}')
    world.results.put(job.folder, "p.png", b"PNG")
    if world.job(job).state not in FINAL:
        world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()

    ended = world.job(job)
    assert asked == FAULTS * (asked // FAULTS) > 0, "each effect is given up after so many faults"
    assert ended.state in FINAL
    assert (ended.token_ref, world.rows.tokens) == (None, 0)
    assert world.rows.open_effects() == 0
    if kind in (Kind.CHECK, Kind.SUBMIT):
        assert ended.state is JobState.FAILED
        assert world.thread[-1].startswith(
            "Failed: Something that nobody foresaw went wrong inside NOMADS (RuntimeError)"
        )
    elif kind is Kind.COLLECT:
        assert world.thread[-1].startswith("The results could not be read: Something that nobody foresaw")
    heard = (
        world.thread if kind not in (Kind.CARD, Kind.REPLY, Kind.DIRECT) else [mail.text for mail in world.mailer.sent]
    )
    assert heard, "a person hears of the end"


def _with(handler: Handler, perform: object) -> Handler:
    assert callable(perform)
    return Handler(perform=perform, give_up=handler.give_up, attempts=handler.attempts, exhausted=handler.exhausted)


def test_a_kind_without_a_last_resort_is_an_error_at_the_start(world: World) -> None:
    assert set(world.handlers) == set(Kind)
    for kind, handler in world.handlers.items():
        assert handler.faults >= 1, kind
        assert handler.attempts >= 1, kind
    for wrong in ({"attempts": 0}, {"faults": 0}, {"give_up": None}):
        with pytest.raises(ValueError, match="last resort"):
            Handler(**{"perform": lambda *_: None, "give_up": lambda *_: None, **wrong})  # type: ignore[arg-type]
    assert Handler(perform=lambda *_: None, give_up=lambda *_: None, attempts=1, faults=1)

    class Half:
        def handlers(self) -> dict[Kind, Handler]:
            return {Kind.SUBMIT: world.handlers[Kind.SUBMIT]}

    with pytest.raises(ValueError, match=r"No handler is registered for check, advance, cancel, collect\."):
        LaneRunner(database=world.store, effects=[Half()], lease=timedelta(seconds=15))


def test_a_failure_that_passes_in_time_is_no_end(world: World) -> None:
    world.compute.fail_next(RuntimeError("unforeseen"), call="submit", times=FAULTS - 1)
    job = world.accept()
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert len(world.compute.works) == 1


def test_one_fault_after_a_long_silence_is_no_end(world: World) -> None:
    world.compute.fail_next(Unavailable("AWS is away"), call="submit", times=20)
    world.compute.fail_next(RuntimeError("unforeseen"), call="submit")
    job = world.accept()
    world.settle(patience=4 * 3600)
    assert world.compute.calls.count("submit") == 22
    assert world.job(job).state is JobState.SUBMITTED


@pytest.mark.parametrize(
    ("error", "times", "cause"),
    [
        (Refused("The queue takes no jobs."), 1, Cause.SETUP),
        (Unavailable("AWS is away"), 100, Cause.UNKNOWN),
        (RuntimeError("unforeseen"), 100, Cause.UNKNOWN),
    ],
)
def test_a_retry_is_offered_after_a_submission_that_compute_did_not_refuse(
    world: World, error: Exception, times: int, cause: Cause
) -> None:
    world.compute.fail_next(error, call="submit", times=times)
    job = world.accept()
    world.settle(patience=60)
    world.nearly_give_up(job)
    world.settle()
    ended = world.job(job)
    assert (ended.state, ended.cause, ended.retryable) == (JobState.FAILED, cause, cause.passing)


def test_what_compute_has_of_a_submission_that_is_given_up_is_the_job_s(world: World) -> None:
    """The job was taken, and then the answer could not be understood, again and again."""
    world.compute.fail_after(RuntimeError("unforeseen"), call="submit")
    world.compute.fail_next(RuntimeError("unforeseen"), call="find", times=FAULTS - 1)
    job = world.accept()
    world.settle()
    assert (world.job(job).state, world.job(job).compute_id) == (JobState.SUBMITTED, "memory-1")
    assert len(world.compute.works) == 1
    assert world.compute.cancelled == {}
    world.compute.tell(job.name, Observation(JobState.SUCCEEDED, exit_code=0))
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).state is JobState.SUCCEEDED


def test_a_submission_that_may_have_gone_through_waits_until_compute_lets_nomads_look_for_it(world: World) -> None:
    world.compute.crash_after_submit()
    world.compute.fail_next(Refused("You may not list jobs."), call="find", times=5)
    job = world.accept()
    world.settle(patience=1)
    assert world.job(job).state is JobState.ACCEPTED
    assert world.job(job).stalled == "Compute does not say whether it has the job. You may not list jobs"
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert len(world.compute.works) == 1


@pytest.mark.parametrize("error", [Refused("No."), RuntimeError("unforeseen")], ids=["refused", "unforeseen"])
def test_who_cancels_a_job_that_cannot_be_submitted_has_cancelled_it(world: World, error: Exception) -> None:
    """The submission has no answer, somebody cancels, and compute cannot be asked; it does not have the job."""
    world.compute.fail_next(Unavailable("AWS is away"), call="submit")
    world.compute.fail_next(error, call="find", times=FAULTS)
    job = world.accept()
    world.worker.lanes.drain()
    world.steering.cancel(job.id, actor=OWNER)
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert world.thread[-1] == f"Cancelled by {OWNER}."
    assert not world.compute.works


def test_who_cancels_a_request_that_boss_turns_down_meanwhile_has_cancelled_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.volumes.hanging("describe"):
        job = world.submission.accept(world.ask(experiment="none"), actor=OWNER, key="wrong")
    describe = world.volumes.describe

    def cancelled(*place: Any, **named: Any) -> Any:
        world.steering.cancel(job.id, actor=OWNER)
        return describe(*place, **named)

    monkeypatch.setattr(world.volumes, "describe", cancelled)
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert world.thread[-1] == f"Cancelled by {OWNER}."


def test_a_submission_that_may_have_gone_through_is_given_up_only_once_compute_answers(world: World) -> None:
    """The job was taken, and the answer lost; then compute refuses to look for it, and the next answer is lost too."""
    world.compute.crash_after_submit()
    world.compute.fail_next(Refused("You may not list jobs."), call="find")
    world.compute.fail_after(Unavailable("AWS is away"), call="find")
    job = world.accept()
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED, "it was found"
    assert len(world.compute.works) == 1
    assert world.compute.cancelled == {}


def test_a_submission_that_may_have_gone_through_ends_although_compute_never_answers(world: World) -> None:
    world.compute.crash_after_submit()
    world.compute.fail_next(Unavailable("AWS is away"), call="find", times=100)
    job = world.accept()
    world.settle(patience=60)
    assert world.job(job).state is JobState.ACCEPTED
    world.nearly_give_up(job)
    world.settle()
    ended = world.job(job)
    assert (ended.state, ended.reason, world.rows.open_effects()) == (JobState.FAILED, "AWS is away", 0)


def test_a_log_whose_token_cannot_be_struck_out_is_shown_to_nobody(world: World) -> None:
    job = world.running()
    world.compute.print(job.name, "the token is canary-token")
    world.compute.fail_next(RuntimeError("unforeseen"), call="redact", times=100)
    world.see(job, JobState.FAILED, reason="The program vanished.")
    world.settle()
    ended = world.job(job)
    assert (ended.state, world.rows.tokens, ended.log_tail) == (JobState.FAILED, 0, ())
    assert world.output.tail(ended, lines=10) == []
    with pytest.raises(Refused):
        world.output.whole_log(ended, Audience.person(OWNER))
    assert world.thread[-1] == "Failed: The program vanished."


def test_a_last_resort_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.results.fail_next(RuntimeError("unforeseen"), call="read", times=100)
    ends = world.tokens.erase
    failures = iter([True] * 3)

    def erase(*arguments: object) -> bool:
        if next(failures, False):
            raise RuntimeError("unforeseen as well")
        return ends(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.tokens, "erase", erase)
    job = ended_with(world, b"{}")
    assert (job.state, job.token_ref, world.rows.open_effects()) == (JobState.SUCCEEDED, None, 0)
    assert world.thread[-1].startswith("The results could not be read:")


# What made it fail, and what helps


def failed(world: World, *lines: str, **seen: object) -> Job:
    job = world.running()
    world.compute.print(job.name, *lines)
    world.see(job, JobState.FAILED, **seen)
    world.settle()
    return world.job(job)


@pytest.mark.parametrize(
    "cause", [Cause.TIME_LIMIT, Cause.MEMORY, Cause.IMAGE, Cause.SECRET, Cause.ROLE, Cause.MACHINE, Cause.UNKNOWN]
)
def test_compute_s_own_words_are_kept_whatever_the_program_printed_last(world: World, cause: Cause) -> None:
    job = failed(world, "progress 0.42 detecting", reason="Compute's own words.", exit_code=137, cause=cause)
    assert (job.reason, job.cause) == ("Compute's own words.", cause)


def test_the_last_line_of_a_program_that_ended_by_itself_says_why(world: World) -> None:
    job = failed(world, "progress 0.42 reading", "There is no such channel.", reason="Exit code 2.", exit_code=2)
    assert (job.reason, job.cause, job.turned_down) == ("There is no such channel.", Cause.REQUEST, True)


def test_how_far_a_program_was_is_no_reason(world: World) -> None:
    job = failed(world, "progress 0.42 detecting", reason="The program ended with exit code 1.", exit_code=1)
    assert job.reason == "The program ended with exit code 1."


@pytest.mark.parametrize("cause", Cause)
def test_a_retry_is_offered_only_where_it_can_help(cause: Cause) -> None:
    job = a_job(JobState.FAILED, cause=cause, reason="Said.")
    helps = cause in (Cause.MACHINE, Cause.DISK, Cause.VOLUME, Cause.PROGRAM, Cause.UNKNOWN)
    buttons = [button.action_id for button in cards.buttons(job)]
    assert (cards.RETRY in buttons) is helps
    assert cards.EDIT in buttons
    next_step = cards.reply(a_story(job), [a_step("Failed.", JobState.FAILED)])[1].to_dict()["text"]["text"]
    assert next_step.startswith("*What next?* ")
    assert ("Retry it" in next_step) is (helps and cause is not Cause.VOLUME)


def test_a_job_that_boss_turned_down_is_not_told_to_be_retried(world: World) -> None:
    with world.volumes.hanging("describe"):
        job = world.submission.accept(world.ask(), actor=OWNER, key="turned-down")
    del world.volumes.there["demo"]["cortex"]
    world.settle()
    job = world.job(job)
    assert (job.state, job.cause, job.retryable) == (JobState.FAILED, Cause.REQUEST, False)
    assert job.advice == "Correct the request and submit it again."
    assert "Retry" not in world.mailer.sent[-1].text


@pytest.mark.parametrize("by", ["the owner", "an admin"])
def test_a_cancelled_job_names_who_cancelled_it_and_shows_no_log(store: Database, by: str) -> None:
    world = World(store, admins=["U09ADMIN"])
    job = world.running()
    world.compute.print(job.name, *(f"line {n}" for n in range(30)))
    person = OWNER if by == "the owner" else "U09ADMIN"
    world.steering.cancel(job.id, actor=person)
    world.settle()
    world.worker.watcher.watch_once()
    world.settle()
    reply = world.chat.replies[-1]
    blocks = str([block.to_dict() for block in cards.reply(reply.story, reply.steps)])
    assert f"Cancelled by <@{person}>" in blocks
    assert f"Cancelled by <@{person}>" in cards.spoken(reply.story, reply.steps)
    assert "line 29" not in blocks + world.mailer.sent[-1].text
    assert world.output.tail(world.job(job), lines=1)[0].text == "line 29", "who wants the log may still look at it"


# The token in what a program left


LEAKED = {
    "as it is": TOKEN,
    "backwards": TOKEN[::-1],
    "in capitals": TOKEN.upper(),
    "split by a line end": f"{TOKEN[:6]}\n{TOKEN[6:]}",
    "split by a NUL": f"{TOKEN[:6]}\0{TOKEN[6:]}",
    "percent-encoded": "".join(f"%{ord(letter):02X}" for letter in TOKEN),
    "in hexadecimal": TOKEN.encode().hex(),
}


@pytest.mark.parametrize("leaked", LEAKED.values(), ids=LEAKED.keys())
def test_a_token_in_what_a_program_tells_reaches_neither_people_nor_the_database(world: World, leaked: str) -> None:
    told = {
        "counts": {"synapses": 7, leaked: 2},
        "notes": [f"with {leaked}"],
        "files": [{"name": "a.csv", "title": f"of {leaked}", "about": leaked}],
        "viewer": f"https://viewer.test/#{quote(leaked)}",
        "versions": {"pipeline": leaked},
    }
    job = ended_with(world, json.dumps(told).encode(), files=["a.csv"])
    assert job.summary
    assert (job.summary.counts, job.summary.notes) == ({"synapses": 7, "…": 2}, ["with …"])
    assert [(file.name, file.title, file.about) for file in job.summary.files] == [("a.csv", "of …", "…")]
    assert (job.summary.viewer, job.summary.version) in ((None, "…"), (None, ""))
    assert world.thread[-1].startswith("7 synapses; 2 ….")


def test_a_token_that_is_cut_over_two_notes_is_hidden_in_both(world: World) -> None:
    job = ended_with(world, json.dumps({"notes": [f"so {TOKEN[:5]}", TOKEN[5:], "and more"]}).encode())
    assert job.summary
    assert job.summary.notes == ["so …", "…", "and more"]


def test_a_file_whose_name_holds_the_token_is_not_shown_and_a_note_says_so(world: World) -> None:
    named = f"{TOKEN}.png"
    told = {"counts": {"synapses": 7}, "files": [{"name": named}, {"name": "a.csv"}], "preview": named}
    job = ended_with(world, json.dumps(told).encode(), files=[named, "a.csv", "b.csv"])
    assert job.summary
    assert ([file.name for file in job.summary.files], job.summary.preview) == (["a.csv"], None)
    assert job.summary.notes == [NAMED]
    listed = world.output.listed(job, world.results.list(job.folder))
    assert [file.name for file in listed] == ["a.csv", "results.json"]
    assert TOKEN not in repr([world.chat.replies, world.chat.cards, world.mailer.sent, job])


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_a_file_that_no_program_announced_and_whose_name_holds_the_token_is_not_shown(
    world: World, end: JobState
) -> None:
    job = world.running()
    world.results.put(job.folder, f"{TOKEN}.txt", b"1")
    assert world.output.listed(job, world.results.list(job.folder)) == []
    world.see(job, end)
    world.settle()
    job = world.job(job)
    assert job.token_ref is None
    assert world.output.listed(job, world.results.list(job.folder)) == []
    assert TOKEN not in repr([world.chat.replies, world.mailer.sent, job])
