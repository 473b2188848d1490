"""A volume that is too large for one program: its stages, one after another, told as one job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.steering import Retried
from bot.domain.blocks import ROUNDS, TRIES, Blocks
from bot.domain.checks import Prices
from bot.domain.errors import InvalidRequest, NotYours, Refused, TooLate
from bot.domain.job import Job
from bot.domain.outbox import Lane
from bot.domain.states import JobState
from bot.domain.summary import Summary
from bot.domain.work import Cause, Observation
from bot.slack import cards
from bot.storage.engine import Database
from tests.support.world import TOKEN, World, in_blocks


@pytest.fixture
def world(store: Database) -> World:
    """Whose blocks are small: any job goes in blocks."""
    return World(store, pipeline=in_blocks(), block_voxels=10_000)


class Staged:
    """A job in blocks, and what compute and the programs do about it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.job = world.accept()
        world.settle()

    @property
    def now(self) -> Job:
        return self.world.job(self.job)

    @property
    def state(self) -> str:
        return self.now.state.value

    def words(self, number: int = -1) -> dict[str, str]:
        """The arguments of a submission, by name."""
        words = self.world.compute.works[number].arguments
        return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}

    def ends(self, seen: Observation) -> None:
        """Let the present program end so."""
        self.world.compute.tell(f"memory-{len(self.world.compute.works)}", seen)
        self.look()

    def done(self) -> None:
        self.ends(Observation(JobState.SUCCEEDED, exit_code=0))

    def looked(self, *, blocks: int = 7, pilot: object = ((0, 2), (0, 8), (4, 9)), **more: object) -> None:
        """Let the first look end with a plan."""
        plan = json.dumps({"blocks": blocks, "reads": 123, "pilot": pilot, **more}).encode()
        self.world.results.put(self.job.folder, "blocks/plan.json", plan)
        self.done()

    def round(self, failing: Mapping[int, Observation] | None = None) -> None:
        """Let all programs of the present round end, of which these fail."""
        compute, failing = self.world.compute, failing or {}
        array = f"memory-{len(compute.works)}"
        for number in range(compute.works[-1].count or 0):
            compute.tell(compute.child(array, number), failing.get(number, Observation(JobState.SUCCEEDED)))
        self.look()

    def look(self) -> None:
        self.world.worker.watcher.watch_once()
        self.world.settle()


@pytest.fixture
def staged(world: World) -> Staged:
    return Staged(world)


RECLAIMED = Observation(JobState.FAILED, "The machine was taken back.", cause=Cause.MACHINE)
FULL = Observation(JobState.FAILED, "The disk was full.", cause=Cause.DISK)
GREEDY = Observation(JobState.FAILED, "Out of memory.", cause=Cause.MEMORY)
WRONG = Observation(JobState.FAILED, "The experiment is gone.", exit_code=2)


def test_the_stages_of_a_job_follow_one_another_and_are_told_as_one(staged: Staged) -> None:
    world = staged.world
    first = world.compute.works[0]
    assert first.count is None
    assert staged.words()["stage"] == "first"
    assert staged.words()["block-voxels"] == "10000"
    assert first.memory == 100 + 10  # of a block, and not of the box

    staged.looked()
    array = world.compute.works[1]
    assert array.count == 7
    assert array.results == staged.words()["results-uri"] == f"{staged.words()['job-uri']}blocks/1/"
    assert (staged.words()["stage"], staged.words()["rounds"]) == ("blocks", "7")
    assert staged.state == JobState.RUNNING

    staged.round()
    assert (staged.words()["stage"], staged.words()["rounds"]) == ("merge", "7")
    assert world.compute.works[2].results == staged.words()["job-uri"]
    assert len({work.name for work in world.compute.works}) == 3

    world.results.put(staged.job.folder, "results.json", json.dumps({"counts": {"synapses": 5}}).encode())
    staged.done()
    assert staged.state == JobState.SUCCEEDED
    assert len(world.chat.cards) == 1
    assert [mail.subject for mail in world.mailer.sent] == [
        f"NOMADS job {staged.job.id}: accepted",
        f"NOMADS job {staged.job.id}: finished",
    ]
    told = list(world.thread)
    assert told[0] == f"Accepted as job {staged.job.id}."
    assert told[1].startswith("Running, after waiting")
    assert "The volume is cut into 7 blocks." in told
    assert told[-1].startswith("5 synapses")


def test_the_card_tells_how_many_blocks_are_done(staged: Staged) -> None:
    staged.looked(blocks=10, pilot=None)
    compute = staged.world.compute
    for number in range(4):
        compute.tell(compute.child("memory-2", number), Observation(JobState.SUCCEEDED))
    compute.tell(compute.child("memory-2", 5), Observation(JobState.RUNNING))

    staged.look()

    (card,) = staged.world.chat.cards
    text = json.dumps([block.to_dict() for block in cards.card(card.story)], ensure_ascii=False)
    assert "39 % working on blocks" in text
    assert "4 of 10 blocks" in text


def test_programs_whose_machines_were_taken_back_are_tried_again(staged: Staged) -> None:
    staged.looked()

    staged.round({2: RECLAIMED, 5: RECLAIMED})

    again = staged.world.compute.works[-1]
    assert again.count == 2
    assert staged.words()["rounds"] == "7,2"
    assert again.results.endswith("/blocks/2/")
    assert "2 programs failed (The machine was taken back), and are tried again." in staged.world.thread
    staged.round()
    assert staged.words()["rounds"] == "7,2"
    assert staged.words()["stage"] == "merge"
    assert staged.now.blocks
    assert staged.now.blocks.said == "7 of 7 blocks, 2 tried again"


@pytest.mark.parametrize("failed", [RECLAIMED, WRONG], ids=["tried again", "turned down"])
def test_what_a_program_of_a_round_died_of_is_told_without_the_token(staged: Staged, failed: Observation) -> None:
    staged.looked()
    staged.round({2: replace(failed, reason=f"{failed.reason} It was given {TOKEN}.")})

    told = str(staged.world.thread) + staged.now.model_dump_json() + str(staged.world.mailer.sent)
    assert TOKEN not in told
    assert failed.reason in told


@pytest.mark.parametrize("end", ["merged", "unforeseen"])
def test_the_token_is_struck_out_of_the_log_of_a_program_that_was_killed_before_others_did_its_work(
    staged: Staged, end: str
) -> None:
    compute = staged.world.compute
    staged.looked()
    killed = compute.child("memory-2", 2)
    staged.world.logs.print(killed, f"reading with {TOKEN}")
    staged.round({2: RECLAIMED})
    staged.round()
    if end == "unforeseen":
        staged.world.results.fail_next(RuntimeError("unforeseen"), call="read", times=100)

    staged.done()

    assert staged.state == JobState.SUCCEEDED
    assert staged.now.token_ref is None
    [line] = staged.world.logs.tail(killed, log=None, lines=9)
    assert line.text == f"reading with {'*' * len(TOKEN)}"


def test_blocks_that_were_reclaimed_run_again_on_machines_that_last_and_what_was_lost_is_told(store: Database) -> None:
    pipeline = in_blocks().model_copy(update={"seconds_per_gigavoxel": 60})
    staged = Staged(World(store, pipeline=pipeline, block_voxels=10_000, prices=Prices(cpu_hour=1)))
    staged.looked()
    assert not staged.world.compute.works[-1].lasting
    began = staged.world.clock.now
    reclaimed = replace(RECLAIMED, started_at=began, stopped_at=began + timedelta(minutes=90))

    staged.round({2: reclaimed, 5: reclaimed})

    assert staged.world.compute.works[-1].lasting
    assert staged.world.thread[-1].endswith("Lost by that: 3 h 0 min of machine time, $3.00.")


def test_what_blocks_lost_that_had_more_memory_is_told_at_the_price_of_that_memory(store: Database) -> None:
    pipeline = in_blocks().model_copy(update={"seconds_per_gigavoxel": 60, "memory": 10**9 // 2**20})
    staged = Staged(World(store, pipeline=pipeline, block_voxels=10_000, prices=Prices(gb_hour=1)))
    staged.looked()
    began = staged.world.clock.now
    greedy, reclaimed = (
        replace(end, started_at=began, stopped_at=began + timedelta(hours=1)) for end in (GREEDY, RECLAIMED)
    )

    staged.round({2: greedy})
    first = staged.world.thread[-1]
    staged.round({0: reclaimed})

    assert first.endswith("with 2 times the memory. Lost by that: 1 h 0 min of machine time, $1.01.")
    assert staged.world.thread[-1].endswith("Lost by that: 1 h 0 min of machine time, $2.02.")


@pytest.mark.parametrize(("failure", "memory"), [(GREEDY, 2), (RECLAIMED, 1)])
def test_a_merge_whose_machine_or_memory_failed_is_tried_again(
    staged: Staged, failure: Observation, memory: int
) -> None:
    staged.looked()
    staged.round()
    before = staged.world.compute.works[-1].memory

    staged.ends(failure)

    assert staged.words()["stage"] == "merge"
    assert staged.world.compute.works[-1].memory == memory * before
    assert len({work.name for work in staged.world.compute.works}) == 4
    staged.ends(failure)
    staged.ends(failure)
    assert staged.state == JobState.FAILED
    assert len(staged.world.compute.works) == 5


@pytest.mark.parametrize(("failure", "memory"), [(GREEDY, 2), (RECLAIMED, 1)])
def test_a_first_look_whose_machine_or_memory_failed_is_tried_again_and_its_needs_are_its_own(
    staged: Staged, failure: Observation, memory: int
) -> None:
    first = staged.world.compute.works[0]

    staged.ends(failure)

    again = staged.world.compute.works[1]
    assert (again.memory, again.lasting, again.arguments) == (memory * first.memory, True, first.arguments)
    assert staged.world.thread[-1].startswith("The first look failed, as its m")
    staged.looked()
    array = staged.world.compute.works[2]
    assert (array.count, array.memory, array.lasting) == (7, first.memory, False)
    assert len({work.name for work in staged.world.compute.works}) == 3


def test_a_first_look_that_fails_again_and_again_fails_the_job(staged: Staged) -> None:
    for _ in range(TRIES):
        assert staged.state != JobState.FAILED
        staged.ends(RECLAIMED)

    assert staged.state == JobState.FAILED
    assert len(staged.world.compute.works) == TRIES


def test_a_pilot_whose_machine_was_taken_back_is_tried_again(staged: Staged) -> None:
    staged.looked(blocks=8)
    pilot = staged.world.compute.works[-1]

    staged.ends(RECLAIMED)

    again = staged.world.compute.works[-1]
    assert again == replace(pilot, name=again.name, lasting=True)
    assert pilot.name != again.name
    assert (
        staged.world.thread[-1] == "The pilot failed, as its machine was taken back or broke down, and is tried again."
    )
    staged.done()
    assert staged.now.asked


@pytest.mark.parametrize("failure", [GREEDY, RECLAIMED, FULL], ids=lambda failure: failure.why.value)
def test_a_pilot_that_failed_and_that_nobody_waits_for_is_not_tried_again_and_the_blocks_need_no_more(
    staged: Staged, failure: Observation
) -> None:
    staged.looked(blocks=8)
    pilot = staged.world.compute.works[-1]
    staged.world.steering.go(staged.job.id, actor="U01DEMO")

    staged.ends(failure)

    array = staged.world.compute.works[-1]
    assert (array.count, array.memory, array.lasting) == (8, pilot.memory, False)
    assert staged.world.thread[-1].startswith("The pilot failed, as ")
    assert staged.world.thread[-1].endswith("; the job goes on without it.")
    staged.round()
    assert staged.now.blocks
    assert (staged.now.blocks.label, staged.now.blocks.tries) == ("merge", 1)


def test_a_pilot_that_failed_is_not_told_to_be_tried_again_where_somebody_says_go_at_that_moment(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged.looked(blocks=8)
    advance = staged.world.lifecycle.advanced

    def said_before(*args: Any, **kwargs: Any) -> None:
        staged.world.steering.go(staged.job.id, actor="U01DEMO")
        advance(*args, **kwargs)

    monkeypatch.setattr(staged.world.lifecycle, "advanced", said_before)
    staged.ends(RECLAIMED)

    assert staged.world.thread[-1].endswith("; the job goes on without it.")
    assert not any("tried again" in said for said in staged.world.thread)
    assert staged.world.compute.works[-1].count == 8


def test_a_first_look_whose_machine_had_no_room_left_says_so_and_is_tried_on_another(staged: Staged) -> None:
    staged.ends(FULL)

    assert staged.world.thread[-1] == "The first look failed, as the disk of its machine was full, and is tried again."
    assert staged.world.compute.works[-1].lasting


@pytest.mark.parametrize("moment", ["before it has failed", "before it is tried again", "before it is submitted"])
def test_a_first_look_that_is_cancelled_while_it_is_to_be_tried_again_is_cancelled(staged: Staged, moment: str) -> None:
    world, job = staged.world, staged.job
    if moment == "before it has failed":
        world.steering.cancel(job.id, actor="U01DEMO")
    world.see(job, JobState.FAILED, reason="The machine was taken back.", cause=Cause.MACHINE)
    if moment == "before it is submitted":
        assert world.worker.lanes.turn(Lane.COMPUTE)
    if moment != "before it has failed":
        world.steering.cancel(job.id, actor="U01DEMO")
    world.settle()

    assert world.job(job).state is JobState.CANCELLED
    assert len(world.compute.works) == 1


def test_a_merge_that_an_earlier_release_tries_for_the_second_time_keeps_its_name() -> None:
    stored = Blocks.model_validate({"stage": "merge", "rounds": [7], "all": 7, "merges": 2})

    assert stored.label == "merge2"
    assert Blocks.model_validate(stored.model_dump(mode="json")) == stored


def test_a_merge_that_fails_by_itself_fails_the_job(staged: Staged) -> None:
    staged.looked()
    staged.round()

    staged.ends(Observation(JobState.FAILED, exit_code=1))

    assert staged.state == JobState.FAILED


def test_cancelling_during_the_merge_ends_it(staged: Staged) -> None:
    staged.looked()
    staged.round()

    staged.world.steering.cancel(staged.job.id, actor="U01DEMO")
    staged.world.settle()
    staged.look()

    assert staged.state == JobState.CANCELLED


def test_programs_that_find_the_disk_full_are_tried_again_and_then_missing(staged: Staged) -> None:
    full = Observation(JobState.FAILED, "000003.npz cannot be written: No space left on device.", exit_code=1)
    staged.looked()

    for _ in range(ROUNDS):
        staged.round({0: full})

    assert staged.words()["stage"] == "merge"
    assert any("No space left on device" in said for said in staged.world.thread)


def test_a_queue_that_was_deleted_before_the_blocks_ends_the_job_in_its_words_and_a_retry_begins_anew(
    staged: Staged,
) -> None:
    gone = Refused("AWS Batch did not take the job: Job queue nomads-queue does not exist. (ClientException)")
    staged.world.compute.fail_next(gone, call="submit")

    staged.looked()

    assert staged.state == JobState.FAILED
    assert "Job queue nomads-queue does not exist" in staged.world.thread[-1]
    assert staged.world.rows.tokens == 0
    staged.world.steering.retry(staged.job.id, actor="U01DEMO", token=SecretStr(TOKEN))
    staged.world.settle()
    assert staged.words()["stage"] == "first"


def test_programs_that_were_ended_with_their_queue_are_tried_again_in_the_one_there_is_now(staged: Staged) -> None:
    ended = Observation(JobState.FAILED, "The job queue was deleted.", cause=Cause.UNKNOWN)
    staged.looked()

    staged.round(dict.fromkeys(range(7), ended))

    assert (staged.words()["stage"], staged.words()["rounds"]) == ("blocks", "7,7")


def test_after_out_of_memory_a_round_has_twice_the_memory_once(staged: Staged) -> None:
    staged.looked()
    before = staged.world.compute.works[-1].memory

    staged.round({0: GREEDY})
    assert staged.world.compute.works[-1].memory == 2 * before
    staged.round({0: GREEDY})

    assert staged.words()["stage"] == "merge"
    assert staged.world.compute.works[-1].memory == before


def test_what_fails_again_and_again_does_not_end_the_job(staged: Staged) -> None:
    staged.looked()

    for _ in range(ROUNDS):
        staged.round({0: RECLAIMED})

    assert staged.words()["stage"] == "merge"
    assert staged.words()["rounds"] == "7,1,1"
    assert any("is given up; what they have not done will be missing" in said for said in staged.world.thread)


def test_a_program_that_says_the_request_is_wrong_ends_the_job(staged: Staged) -> None:
    staged.looked()

    staged.round({1: WRONG})

    assert staged.state == JobState.FAILED
    assert staged.now.reason == "The experiment is gone."
    assert len(staged.world.compute.works) == 2


def test_a_merge_has_the_memory_and_the_time_that_the_first_look_says_it_needs(staged: Staged) -> None:
    staged.looked(merge={"memory": 12_000, "seconds": 90_000})
    assert any("; the merge needs 12.6 GB of memory." in said for said in staged.world.thread)
    array = staged.world.compute.works[1]
    assert (array.memory, array.timeout) == (100 + 10, timedelta(hours=1))

    staged.round()
    merge = staged.world.compute.works[2]
    assert (merge.memory, merge.timeout) == (12_000, timedelta(hours=25))

    staged.ends(GREEDY)
    assert staged.world.compute.works[3].memory == 24_000


def test_a_merge_that_needs_less_than_a_block_has_what_a_block_has(staged: Staged) -> None:
    staged.looked(merge={"memory": 50, "seconds": 9})
    staged.round()

    merge = staged.world.compute.works[2]
    assert (merge.memory, merge.timeout) == (100 + 10, timedelta(hours=1))
    assert not any("of memory" in said for said in staged.world.thread)


@pytest.mark.parametrize("merge", [None, 7, [], {}, {"memory": -1}, {"memory": "much", "seconds": 1e99}])
def test_a_plan_that_says_nonsense_of_the_merge_asks_for_no_more_than_a_block(staged: Staged, merge: object) -> None:
    staged.looked(merge=merge)
    staged.round()

    found = staged.world.compute.works[2]
    assert (found.memory, found.timeout) == (100 + 10, timedelta(hours=1))


def test_a_merge_that_no_machine_could_do_is_asked_for_as_much_as_there_may_be(staged: Staged) -> None:
    staged.looked(merge={"memory": 10**30, "seconds": 10**30})
    staged.round()

    merge = staged.world.compute.works[2]
    assert (merge.memory, merge.timeout) == (2**24, timedelta(days=30))
    staged.ends(GREEDY)
    assert staged.world.compute.works[3].memory == 2**24


PLANS = [
    b"",
    b"[]",
    b'{"blocks": 0, "reads": 1}',
    b'{"blocks": "many"}',
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_that_is_none_fails_the_job_in_words(staged: Staged, plan: bytes) -> None:
    staged.world.results.put(staged.job.folder, "blocks/plan.json", plan)

    staged.done()

    assert staged.state == JobState.FAILED
    assert staged.now.reason.startswith("The first look at the volume has left")


def test_a_first_look_that_fails_fails_the_job_with_what_it_said(staged: Staged) -> None:
    staged.world.compute.print("memory-1", "The box is outside the volume.")

    staged.ends(Observation(JobState.FAILED, exit_code=2))

    assert staged.state == JobState.FAILED
    assert staged.now.reason == "The box is outside the volume."


def test_cancelling_ends_all_programs_of_a_round(staged: Staged) -> None:
    staged.looked()

    staged.world.steering.cancel(staged.job.id, actor="U01DEMO")
    staged.world.settle()
    staged.look()

    assert "memory-2" in staged.world.compute.cancelled
    assert staged.state == JobState.CANCELLED
    assert len(staged.world.compute.works) == 2


def test_cancelling_between_two_stages_submits_nothing_more(world: World) -> None:
    staged = Staged(world)
    world.compute.tell("memory-1", Observation(JobState.SUCCEEDED))
    world.results.put(staged.job.folder, "blocks/plan.json", b'{"blocks": 3, "reads": 9}')
    world.worker.watcher.watch_once()

    world.steering.cancel(staged.job.id, actor="U01DEMO")
    world.settle()

    assert staged.state == JobState.CANCELLED
    assert len(world.compute.works) == 1


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stage_whose_submission_was_not_answered_is_not_submitted_twice(world: World, stage: int) -> None:
    if stage == 0:
        world.compute.crash_after_submit()
    staged = Staged(world)
    if stage == 1:
        world.compute.crash_after_submit()
    staged.looked()
    if stage == 2:
        world.compute.crash_after_submit()
    staged.round()

    assert [work.count for work in world.compute.works] == [None, 7, None]
    assert staged.words()["stage"] == "merge"


def test_late_news_of_an_earlier_stage_change_nothing(staged: Staged) -> None:
    staged.looked()
    lifecycle = staged.world.lifecycle

    assert not lifecycle.observe(staged.job.id, Observation(JobState.SUCCEEDED), compute_id="memory-1")
    assert not lifecycle.observe(staged.job.id, Observation(JobState.FAILED), compute_id="memory-1")

    assert staged.state == JobState.RUNNING
    assert len(staged.world.compute.works) == 2


def test_attempts_of_a_stage_are_counted_anew(staged: Staged) -> None:
    staged.ends(Observation(JobState.RUNNABLE, attempt=2, attempts=3, again="The machine was taken back"))
    staged.looked()
    staged.round()
    staged.world.results.put(staged.job.folder, "results.json", b'{"counts": {"synapses": 1}}')

    staged.ends(Observation(JobState.SUCCEEDED, attempt=1, exit_code=0))

    assert staged.state == JobState.SUCCEEDED


def test_a_job_in_blocks_is_agreed_to_first(world: World) -> None:
    proposal = world.ask()

    assert proposal.heavy
    assert world.submission.decide(proposal) is not None


def test_options_that_blocks_do_not_take_leave_the_job_to_one_program(store: Database) -> None:
    world = World(store, block_voxels=10_000)  # whose pipeline knows no stages
    job = world.accept()
    world.settle()

    assert world.job(job).blocks is None
    assert "--stage" not in world.compute.works[0].arguments


def test_a_box_beyond_what_one_program_takes_goes_in_blocks(store: Database) -> None:
    able = in_blocks()
    large = {"x": "0, 1024", "y": "0, 1024", "z": "0, 64", "pipeline": able.name}
    world = World(store, pipeline=able, block_voxels=10_000, max_bytes=1000)
    assert world.submission.review(_values(world, large), SecretStr(TOKEN)).block == 10_000

    once = World(store, pipeline=able.model_copy(update={"blocks": None}), max_bytes=1000)
    with pytest.raises(InvalidRequest) as refused:
        once.submission.review(_values(once, large), SecretStr(TOKEN))
    assert "a job may read 1 kB" in str(refused.value.errors)


def _values(world: World, changed: Mapping[str, str]) -> dict[str, str]:
    base = {"collection": "demo", "experiment": "cortex", "email": "me@example.org", "channel": "C1"}
    return {**base, **changed}


def test_rounds_read_from_boss_with_no_more_programs_than_there_may_be(store: Database) -> None:
    world = World(store, pipeline=in_blocks(), block_voxels=10_000, reads=40)
    counts = []
    for number in range(4):
        job = world.accept(z=f"0, {9 + number}")
        world.settle()
        world.results.put(job.folder, "blocks/plan.json", b'{"blocks": 400, "reads": 9}')
        world.compute.tell(f"memory-{len(world.compute.works)}", Observation(JobState.SUCCEEDED))
        world.worker.watcher.watch_once()
        world.settle()
        counts.append(world.compute.works[-1].count)

    assert counts == [20, 10, 5, 2]


def while_it_is_read(staged: Staged, where: str, act: Callable[[], object]) -> None:
    """Let somebody act while the worker reads what a stage has left in that folder; up to the end of the pilot."""
    read = staged.world.results.read

    def meanwhile(folder: str, name: str, *, limit: int) -> bytes:
        if name.startswith(where):
            act()
        return read(folder, name, limit=limit)

    staged.world.results.read = meanwhile  # type: ignore[method-assign]
    staged.looked(blocks=20)
    if where == "pilot/":
        staged.done()


@pytest.mark.parametrize("folder", ["blocks/", "pilot/"])
def test_who_cancels_while_a_stage_is_read_ends_the_job(staged: Staged, folder: str) -> None:
    while_it_is_read(staged, folder, lambda: staged.world.steering.cancel(staged.job.id, actor="U01DEMO"))

    assert staged.state == JobState.CANCELLED
    assert staged.world.rows.tokens == 0


@pytest.mark.parametrize("folder", ["blocks/", "pilot/"])
def test_who_says_go_while_a_stage_is_read_is_not_asked(staged: Staged, folder: str) -> None:
    while_it_is_read(staged, folder, lambda: staged.world.steering.go(staged.job.id, actor="U01DEMO"))

    assert staged.world.compute.works[-1].count == 20


def test_a_retry_after_a_pilot_that_nobody_wanted_asks_again(staged: Staged) -> None:
    piloted(staged)
    staged.world.steering.cancel(staged.job.id, actor="U01DEMO")
    staged.world.settle()

    again = staged.world.steering.retry(staged.job.id, actor="U01DEMO", token=SecretStr(TOKEN))
    staged.world.settle()

    assert isinstance(again, Retried)
    blocks = staged.world.job(again.job).blocks
    assert blocks
    assert blocks.wanted
    assert staged.words()["stage"] == "first"


@pytest.mark.parametrize("cause", [Cause.IMAGE, Cause.SECRET, Cause.ROLE, Cause.SETUP, Cause.REFUSED])
def test_what_all_programs_would_meet_ends_the_job_at_once(staged: Staged, cause: Cause) -> None:
    staged.looked()

    staged.round({3: Observation(JobState.FAILED, "It cannot start.", cause=cause)})

    assert staged.state == JobState.FAILED
    assert (staged.now.reason, staged.now.cause) == ("It cannot start.", cause)


def test_a_program_that_took_too_long_is_not_tried_again(staged: Staged) -> None:
    staged.looked()

    staged.round({3: Observation(JobState.FAILED, "It took too long.", cause=Cause.TIME_LIMIT)})

    assert staged.words()["stage"] == "merge"


@pytest.mark.parametrize("blocks", [10**15, 10**400, True, "7", 7.0, -1])
def test_a_plan_that_lies_about_its_blocks_is_not_believed(staged: Staged, blocks: object) -> None:
    plan = json.dumps({"blocks": blocks, "reads": 123}).encode()
    staged.world.results.put(staged.job.folder, "blocks/plan.json", plan)

    staged.done()

    assert staged.state == JobState.FAILED
    assert staged.now.reason.startswith("The first look at the volume has left")


def test_go_without_a_pilot_is_told_as_that_and_once(staged: Staged) -> None:
    for _ in range(2):
        staged.world.steering.go(staged.job.id, actor="U01DEMO")
    staged.looked(blocks=20)
    staged.world.steering.go(staged.job.id, actor="U01DEMO")
    staged.world.settle()

    assert [said for said in staged.world.thread if "goes on" in said] == ["It goes on without a pilot, said U01DEMO."]


# Repair


def incomplete(staged: Staged, *, missing: int = 2) -> Job:
    """Let the job end without some of its blocks."""
    staged.looked(merge={"memory": 500, "seconds": 9_000})
    for _ in range(ROUNDS):
        staged.round({0: RECLAIMED})
    said = {"counts": {"synapses": 5}, "blocks": {"all": 7, "missing": missing, "numbers": [0, 1]}}
    staged.world.results.put(staged.job.folder, "results.json", json.dumps(said).encode())
    staged.done()
    return staged.now


def labels(job: Job) -> list[str]:
    return [str(button.text.text) for button in cards.buttons(job) if button.text]


def test_repair_works_on_the_missing_blocks_alone_and_merges_all(staged: Staged) -> None:
    world = staged.world
    job = incomplete(staged)
    assert job.state is JobState.SUCCEEDED
    assert "Repair" in labels(job)

    again = world.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN))
    world.settle()

    assert isinstance(again, Retried)
    round_again = world.compute.works[-1]
    uri = world.results.uri(job.folder)
    assert round_again.count == 2
    assert round_again.results == f"{uri}blocks/4/"
    assert (staged.words()["rounds"], staged.words()["job-uri"]) == ("7,1,1,2", uri)
    staged.round()
    merge = world.compute.works[-1]
    assert (staged.words()["stage"], staged.words()["rounds"], staged.words()["job-uri"]) == ("merge", "7,1,1,2", uri)
    assert merge.results == world.results.uri(again.job.folder)
    assert (merge.memory, merge.timeout) == (500, timedelta(seconds=9_000))
    assert "Repair" not in labels(staged.now)


def test_a_repair_is_tried_again_as_often_as_a_first_round(staged: Staged) -> None:
    staged.world.steering.retry(incomplete(staged).id, actor="U01DEMO", token=SecretStr(TOKEN))
    staged.world.settle()

    for _ in range(ROUNDS):
        assert staged.words()["stage"] == "blocks"
        staged.round({0: RECLAIMED})

    assert staged.words()["rounds"] == "7,1,1,2,1,1"
    assert staged.words()["stage"] == "merge"


def test_a_repair_a_week_later_asks_nothing_of_what_compute_has_forgotten(staged: Staged) -> None:
    job = incomplete(staged)
    for number in range(1, len(staged.world.compute.works) + 1):
        staged.world.compute.lose(f"memory-{number}")
    staged.world.clock.advance(7 * 86_400)

    staged.world.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN))
    staged.world.settle()
    staged.round()

    assert staged.words()["stage"] == "merge"


def test_a_job_that_lacks_nothing_is_not_repaired(staged: Staged) -> None:
    job = incomplete(staged, missing=0)

    assert "Repair" not in labels(job)
    with pytest.raises(TooLate):
        staged.world.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN))


@pytest.mark.parametrize("said", [[], {"missing": "two"}, {"missing": -1}, {"missing": True}, {"missing": 10**30}])
def test_a_program_that_lies_about_missing_blocks_is_not_believed(said: object) -> None:
    content = json.dumps({"counts": {"synapses": 5}, "blocks": said}).encode()

    assert Summary.read(content).missing == 0


def test_a_retry_of_a_cancelled_job_goes_on_with_what_is_there(staged: Staged) -> None:
    staged.looked()
    compute = staged.world.compute
    for number in range(5):
        compute.tell(compute.child("memory-2", number), Observation(JobState.SUCCEEDED))
    staged.look()
    staged.world.steering.cancel(staged.job.id, actor="U01DEMO")
    staged.world.settle()
    staged.look()
    assert staged.state == JobState.CANCELLED

    staged.world.steering.retry(staged.job.id, actor="U01DEMO", token=SecretStr(TOKEN))
    staged.world.settle()

    assert compute.works[-1].count == 2
    assert staged.words()["rounds"] == "7,2"


def test_a_retry_of_a_request_that_was_wrong_looks_first(staged: Staged) -> None:
    staged.looked()
    staged.round({1: WRONG})

    staged.world.steering.retry(staged.job.id, actor="U01DEMO", token=SecretStr(TOKEN), anyway=True)
    staged.world.settle()

    assert staged.words()["stage"] == "first"


# A pilot


def piloted(staged: Staged) -> None:
    """Let the first look and the pilot end."""
    staged.looked(blocks=20)
    began = staged.world.clock.now
    found = {"counts": {"synapses": 9}, "preview": "preview.png", "density_per_um3": 1.25}
    staged.world.results.put(staged.job.folder, "pilot/results.json", json.dumps(found).encode())
    staged.world.results.put(staged.job.folder, "pilot/preview.png", b"PNG")
    staged.world.clock.advance(60)
    staged.ends(Observation(JobState.SUCCEEDED, exit_code=0, started_at=began, stopped_at=staged.world.clock.now))


def test_one_block_is_run_and_shown_before_the_others(staged: Staged) -> None:
    staged.looked(blocks=20)
    work = staged.world.compute.works[-1]
    assert work.count is None
    assert "stage" not in staged.words()
    assert [staged.words()[f"{axis}-range"] for axis in "zyx"] == ["0,2", "0,8", "4,9"]
    assert work.results == f"{staged.world.results.uri(staged.job.folder)}pilot/"
    assert "predictions" not in staged.words()


def test_after_the_pilot_nothing_runs_until_somebody_says_so(staged: Staged) -> None:
    piloted(staged)

    (shown,) = staged.world.chat.files
    assert shown.content == b"PNG"
    assert staged.now.asked
    assert labels(staged.now)[:2] == ["Go", "Cancel"]
    said = staged.world.thread[-1]
    assert said.startswith("Pilot: one of 20 blocks, 80 voxels, was run: 9 synapses, 1.2 per µm³.")
    assert "All blocks take 20 min 0 s of machine time." in said
    assert len(staged.world.compute.works) == 2

    staged.world.steering.go(staged.job.id, actor="U01DEMO")
    staged.world.steering.go(staged.job.id, actor="U01DEMO")
    staged.world.settle()

    assert [work.count for work in staged.world.compute.works] == [None, None, 20]
    assert staged.words()["rounds"] == "20"
    assert staged.world.thread[-1] == "It goes on, said U01DEMO."


def test_a_job_whose_pilot_nobody_wants_is_cancelled(staged: Staged) -> None:
    piloted(staged)

    staged.world.steering.cancel(staged.job.id, actor="U01DEMO")
    staged.world.settle()

    assert staged.state == JobState.CANCELLED
    assert staged.world.rows.tokens == 0
    with pytest.raises(TooLate):
        staged.world.steering.go(staged.job.id, actor="U01DEMO")


def test_who_says_go_before_the_pilot_has_ended_is_not_asked(staged: Staged) -> None:
    assert "Go without a pilot" in labels(staged.now)

    staged.world.steering.go(staged.job.id, actor="U01DEMO")
    staged.looked(blocks=20)

    assert staged.world.compute.works[-1].count == 20


def test_who_says_go_while_the_pilot_runs_is_shown_it_and_not_asked(staged: Staged) -> None:
    staged.looked(blocks=20)
    staged.world.steering.go(staged.job.id, actor="U01DEMO")

    staged.done()

    assert staged.world.compute.works[-1].count == 20


def test_a_stranger_lets_nothing_go_on(staged: Staged) -> None:
    piloted(staged)

    with pytest.raises(NotYours):
        staged.world.steering.go(staged.job.id, actor="U09OTHER")

    assert staged.now.asked


@pytest.mark.parametrize("pilot", [((0, 2), (0, 8), (4, 9000)), ((5, 5), (0, 8), (4, 9)), None])
def test_a_pilot_outside_the_box_is_none(staged: Staged, pilot: object) -> None:
    staged.looked(blocks=20, pilot=pilot)

    assert staged.world.compute.works[-1].count == 20


def test_a_pilot_that_fails_fails_the_job(staged: Staged) -> None:
    staged.looked(blocks=20)
    staged.world.compute.print("memory-2", "No memory for it.")

    staged.ends(Observation(JobState.FAILED, exit_code=1))

    assert staged.state == JobState.FAILED
    assert staged.now.reason == "No memory for it."


def test_a_job_that_chat_does_not_hear_of_has_no_pilot(world: World) -> None:
    job = world.accept(channel=None)
    world.settle()

    blocks = world.job(job).blocks
    assert blocks
    assert not blocks.wanted
