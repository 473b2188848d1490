"""What a person is told of a job in blocks: in the form's question, on card and map, in lists, mails and windows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bot.application.visits import Visits
from bot.domain.blocks import Blocks
from bot.domain.checks import Prices
from bot.domain.job import Job
from bot.domain.links import Audience, ResultsPage
from bot.domain.messages import Step
from bot.domain.states import JobState
from bot.domain.summary import Summary
from bot.domain.work import Cause, Observation
from bot.slack import cards
from bot.storage.engine import Database
from bot.terminal.screen import how_far
from contract.program import BLOCKS, MERGE
from handlers.look import Look
from handlers.windows import Windows
from tests.scenario.test_a_job_in_blocks import Staged
from tests.support.app import Serve
from tests.support.stories import a_job, a_step, a_story
from tests.support.world import World, in_blocks

RECLAIMED = Observation(JobState.FAILED, "The machine was taken back.", cause=Cause.MACHINE)


@pytest.fixture
def staged(store: Database) -> Staged:
    """A job of 420 blocks of about 10,000 voxels, which take a second each and cost a dollar an hour."""
    pipeline = in_blocks().model_copy(update={"seconds": 60})
    world = World(store, pipeline=pipeline, block_voxels=10_000, prices=Prices(cpu_hour=1))
    return Staged(world)


def states(staged: Staged, *children: tuple[JobState, int]) -> None:
    """Let the first programs of the present round be in these states."""
    compute = staged.world.compute
    array, number = f"memory-{len(compute.works)}", 0
    for state, many in children:
        for _ in range(many):
            compute.tell(compute.child(array, number), Observation(state))
            number += 1
    staged.look()


def card(job: Job) -> str:
    return json.dumps([block.to_dict() for block in cards.card(a_story(job))], ensure_ascii=False)


def drawn(blocks: Blocks, **more: Any) -> list[str]:
    """The lines of the map."""
    shown = cards.block_map(a_job(JobState.RUNNING, blocks=blocks, **more))
    return [line for block in shown for line in block.to_dict()["text"]["text"].split("\n")]


# Before it is accepted


def test_the_question_tells_blocks_voxels_and_that_the_time_is_that_of_all_programs(
    serve: Serve, tmp_path: Path
) -> None:
    with serve(tmp_path, block_voxels=2**20, price_cpu_hour="0.04", price_gb_hour="0.005") as served:
        ack = served.submit(x="", y="", z="0,16")

        assert ack.body["response_action"] == "update"
        said = json.dumps(ack.body["view"]["blocks"], ensure_ascii=False)
        assert "*This is a large run*: 16,777,216 voxels, 33.6 MB, in about 16 blocks of about 1,048,576 voxels" in said
        assert "expected: 1 min 22 s of machine time, all programs together; about $0.00" in said
        assert "The box is x 0, 1024 · y 0, 1024 · z 0, 16." in said
        assert "side by side" in said
        assert served.jobs == 0


# The card


def test_the_card_tells_what_all_programs_take_and_at_the_end_no_cost_that_nobody_knows(staged: Staged) -> None:
    assert "*Expected*\\n7 h 0 min of machine time, all programs together; about $7." in card(staged.now)

    staged.looked(blocks=4, pilot=None)
    staged.round()
    staged.world.results.put(staged.job.folder, "results.json", b'{"counts": {"synapses": 5}}')
    staged.ends(Observation(JobState.SUCCEEDED, exit_code=0, stopped_at=staged.world.clock.now))

    assert staged.now.took is not None
    said = card(staged.now)
    assert "*Took*\\n0 s\\nexpected: 7 h 0 min of machine time, all programs together; about $7." in said
    assert said.count("$") == 1


def test_how_long_it_goes_on_is_told_by_its_progress_alone(staged: Staged) -> None:
    staged.ends(Observation(JobState.RUNNING, started_at=staged.world.clock.now))
    assert staged.now.left(staged.world.clock.now + timedelta(minutes=1)) is None

    staged.looked(blocks=10, pilot=None)
    states(staged, (JobState.SUCCEEDED, 5), (JobState.RUNNING, 1))

    left = staged.now.left(staged.world.clock.now + timedelta(minutes=60))
    assert left is not None
    assert timedelta(minutes=60) < left < timedelta(minutes=80)
    assert "longer than expected" not in how_far(staged.now)


# The map


def test_the_map_shows_the_blocks_by_state_while_they_run(staged: Staged) -> None:
    staged.looked(blocks=10, pilot=None)
    states(staged, (JobState.SUCCEEDED, 4), (JobState.RUNNING, 2), (JobState.FAILED, 1))

    (posted,) = staged.world.chat.cards
    said = json.dumps([block.to_dict() for block in cards.card(posted.story)], ensure_ascii=False)
    assert "🟩🟩🟩🟩🟥🟦🟦⬜⬜⬜\\n🟩 4 done · 🟥 1 failed · 🟦 2 running · ⬜ 3 waiting" in said


def test_it_changes_with_what_runs_though_no_more_is_done(staged: Staged) -> None:
    staged.looked(blocks=10, pilot=None)
    states(staged, (JobState.RUNNING, 1))
    states(staged, (JobState.RUNNING, 3))

    (posted,) = staged.world.chat.cards
    assert "🟦 3 running · ⬜ 7 waiting" in json.dumps(cards.card(posted.story)[2].to_dict(), ensure_ascii=False)


def test_compute_is_not_asked_more_for_it(staged: Staged) -> None:
    staged.looked(blocks=10, pilot=None)
    states(staged, (JobState.RUNNING, 2))
    before = list(staged.world.compute.calls)

    states(staged, (JobState.SUCCEEDED, 2), (JobState.RUNNING, 2))

    assert staged.world.compute.calls[len(before) :] == ["observe"]


def test_blocks_that_are_tried_again_wait(staged: Staged) -> None:
    staged.looked(blocks=4, pilot=None)
    staged.round({0: RECLAIMED, 1: RECLAIMED})

    assert staged.now.blocks
    assert staged.now.blocks.states == {"done": 2, "failed": 0, "running": 0, "waiting": 2}
    states(staged, (JobState.SUCCEEDED, 1), (JobState.RUNNING, 1))
    assert staged.now.blocks.states == {"done": 3, "failed": 0, "running": 1, "waiting": 0}


def test_the_map_of_a_merge_shows_what_is_missing(staged: Staged) -> None:
    staged.looked(blocks=4, pilot=None)
    for _ in range(3):
        staged.round({0: RECLAIMED})

    assert "🟩🟩🟩🟥\\n🟩 3 done · 🟥 1 failed" in card(staged.now)


def test_so_does_that_of_an_end_that_lacks_blocks(staged: Staged) -> None:
    staged.looked(blocks=4, pilot=None)
    for _ in range(3):
        staged.round({0: RECLAIMED})
    found = {"counts": {"synapses": 5}, "blocks": {"all": 4, "missing": 1}}
    staged.world.results.put(staged.job.folder, "results.json", json.dumps(found).encode())
    staged.done()

    assert "🟩🟩🟩🟥\\n🟩 3 done · 🟥 1 missing" in card(staged.now)
    assert "✅ Finished, but 1 of 4 blocks is missing" in card(staged.now)
    assert "✅ Finished, but 1 of 4 blocks is missing" in cards.row(staged.now)


def test_whoever_lets_the_job_go_on_is_mentioned_in_its_thread_and_no_program_mentions_anybody() -> None:
    job = a_job(JobState.RUNNING)
    told = {text: cards.step_text(a_note(text), job) for text in ("It goes on, said U01DEMO.", "Pilot, said U01DEMO.")}

    assert list(told.values()) == ["It goes on, said <@U01DEMO>.", "Pilot, said U01DEMO."]


def a_note(text: str) -> Step:
    return replace(a_step(text, JobState.RUNNING), note=True)


def test_a_job_that_has_ended_whole_has_no_map(staged: Staged) -> None:
    staged.looked(blocks=4, pilot=None)
    staged.round()
    staged.world.results.put(staged.job.folder, "results.json", b'{"counts": {"synapses": 5}}')
    staged.done()

    assert "🟩" not in card(staged.now)


@pytest.mark.parametrize(
    ("every", "numbers", "row"),
    [
        (4, [1], "🟩🟥🟩🟩"),
        (61, [0, 1, 60], "🟥" + "🟩" * 29 + "🟥"),
        (4, [1, 1], "🟩🟩🟥🟥"),
        (4, [1, True], "🟩🟩🟥🟥"),
        (4, "1", "🟩🟩🟩🟥"),
        (5000, list(range(1001)), "🟩" * 48 + "🟥" * 12),
    ],
)
def test_at_the_end_missing_blocks_stand_where_they_lie_if_the_program_names_all_of_them(
    every: int, numbers: Any, row: str
) -> None:
    said = {"counts": {"synapses": 5}, "blocks": {"all": every, "missing": len(numbers), "numbers": numbers}}
    summary = Summary.model_validate_json(Summary.model_validate(said).model_dump_json())
    done = Blocks(stage=MERGE, all=every, done=every - len(numbers))

    shown = cards.block_map(a_job(JobState.SUCCEEDED, blocks=done, summary=summary))

    *rows, _ = shown[0].to_dict()["text"]["text"].split("\n")
    assert "".join(rows) == row


@pytest.mark.parametrize(
    ("blocks", "squares", "scale"),
    [
        ({"all": 60, "done": 60}, {"🟩": 60}, ""),
        ({"all": 61, "done": 1}, {"🟩": 1, "⬜": 30}, "a square stands for 2 blocks"),
        (
            {"all": 10_000, "done": 9_980, "running": 19, "failed": 1},
            {"🟩": 58, "🟥": 1, "🟦": 1},
            "a square stands for 167 blocks",
        ),
        ({"all": 100, "done": 1, "running": 1, "failed": 1}, {"🟩": 1, "🟥": 1, "🟦": 1, "⬜": 47}, "stands for 2"),
        ({"all": 1, "running": 1}, {"🟦": 1}, ""),
    ],
)
def test_a_square_stands_for_as_many_blocks_as_needed_and_every_state_has_one(
    blocks: Mapping[str, int], squares: Mapping[str, int], scale: str
) -> None:
    *rows, legend = drawn(Blocks(stage=BLOCKS, **blocks))

    assert {square: "".join(rows).count(square) for square in squares} == squares
    assert sum(map(len, rows)) == sum(squares.values()) <= cards.SQUARES
    assert max(map(len, rows)) <= cards.SQUARES_A_ROW
    assert scale in legend
    assert bool(scale) == ("stands for" in legend)


@pytest.mark.parametrize("part", range(0, 1001, 37))
def test_a_map_is_never_longer_than_its_squares(part: int) -> None:
    blocks = Blocks(stage=MERGE, all=1000, done=part, running=(1000 - part) // 3, failed=(1000 - part) // 7)

    *rows, _ = drawn(blocks)

    assert sum(map(len, rows)) == 59  # of 17 blocks each, the last one of 14


def test_before_there_are_blocks_there_is_no_map() -> None:
    assert drawn(Blocks()) == []


# Wherever else it is shown


def test_lists_windows_and_terminal_tell_the_blocks_as_the_card_does(staged: Staged) -> None:
    staged.looked(blocks=10, pilot=None)
    states(staged, (JobState.SUCCEEDED, 4), (JobState.RUNNING, 1))

    assert "39 % working on blocks 4 of 10 blocks" in cards.row(staged.now)
    assert "39 %, working on blocks; 4 of 10 blocks" in how_far(staged.now)
    details = json.dumps(window(staged)["blocks"], ensure_ascii=False)
    assert "39 % working on blocks\\n4 of 10 blocks" in details
    assert "🟩🟩🟩🟩🟦⬜⬜⬜⬜⬜" in details
    home = json.dumps(cards.home(staged.world.queries.home("U01DEMO")), ensure_ascii=False)
    assert "4 of 10 blocks" in home


def test_who_looks_while_the_pilot_is_shown_sees_what_is_waited_for_and_no_progress(staged: Staged) -> None:
    staged.looked(blocks=20)
    staged.ends(Observation(JobState.SUCCEEDED, exit_code=0))
    assert staged.now.asked

    assert "░" not in card(staged.now)
    assert how_far(staged.now) == "the pilot was shown; waiting for Go or Cancel in Slack"


def test_the_results_page_shows_pilot_and_blocks_as_a_folder_each(staged: Staged) -> None:
    staged.looked(blocks=4, pilot=None)
    staged.round()
    put = partial(staged.world.results.put, staged.job.folder)
    put("results.json", b'{"counts": {"synapses": 5}}')
    for name in ("pilot/synapses.csv", "pilot/image/info", "blocks/1/0/0.npz", "mine.txt"):
        put(name, b"1234")
    staged.done()

    listed = {file.shown: (file.size, file.about) for file in page(staged).files}

    assert listed["pilot/"] == (8, "The results of the pilot, by itself.")
    assert listed["blocks/"][1].startswith("What was found in each block")
    assert sorted(listed) == ["blocks/", "mine.txt", "pilot/", "results.json"]


def page(staged: Staged) -> ResultsPage:
    """The page of the job's results, for its owner."""
    world = staged.world
    visits = Visits(
        links=world.links,
        queries=world.queries,
        catalog=world.catalog,
        results=world.results,
        output=world.output,
        addresses=world.addresses,
        sees=lambda person, job: True,
    )
    link = world.links.to_results(staged.now, Audience.person("U01DEMO"))
    assert link
    return visits.page(link.url.rstrip("/").rpartition("/")[2])


def window(staged: Staged) -> dict[str, Any]:
    """The details of the job."""
    world = staged.world
    look = Look(
        queries=world.queries,
        steering=world.steering,
        output=world.output,
        catalog=world.catalog,
        workspace=world.workspace,
        windows=Windows(later=ThreadPoolExecutor(1)),
    )
    return look.details_of(staged.job.id, "U01DEMO")


def test_who_cancels_is_told_that_blocks_that_are_done_stay(staged: Staged) -> None:
    assert "Retry goes on with the blocks that are done" in card(staged.now)
    assert "What it has found so far is lost" in card(a_job(JobState.RUNNING))


def test_the_mails_tell_the_whole_box_and_first_what_is_missing(staged: Staged) -> None:
    staged.looked(blocks=4, pilot=None)
    staged.round()
    note = "1 of 4 blocks is missing."
    found = {"counts": {"synapses": 5}, "notes": [note], "blocks": {"all": 4, "missing": 1}}
    staged.world.results.put(staged.job.folder, "results.json", json.dumps(found).encode())
    staged.done()

    accepted, finished = staged.world.mailer.sent
    assert "x 0, 512 · y 0, 512 · z 0, 16" in accepted.text
    assert finished.text.index("5 synapses") < finished.text.index(note)
