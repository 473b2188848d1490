"""Every Compute keeps these promises: in memory, subprocesses of this machine, AWS Batch, Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.domain.errors import Refused, Unavailable
from bot.domain.states import WAITING, WATCHED, JobState
from bot.domain.work import Progress
from tests.contract.aws_rigs import AwsComputeRig
from tests.contract.rigs import TOKEN, ComputeRig, LocalComputeRig, MemoryComputeRig, texts
from tests.contract.slurm_rigs import SlurmComputeRig
from tests.support.aws import World


@pytest.fixture(params=["memory", "local", "aws", pytest.param("slurm", marks=pytest.mark.slurm)])
def rig(request: pytest.FixtureRequest, tmp_path: Path, world: World) -> Iterator[ComputeRig]:
    match request.param:
        case "memory":
            yield MemoryComputeRig()
        case "local":
            local = LocalComputeRig(tmp_path)
            yield local
            local.close()
        case "aws":
            yield AwsComputeRig(world)
        case "slurm":
            slurm = SlurmComputeRig(tmp_path, request.getfixturevalue("slurm"))
            yield slurm
            slurm.close()


@pytest.fixture
def name(unique: str) -> str:
    """A job's name."""
    return f"nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512-{unique}"


def state(rig: ComputeRig, compute_id: str) -> JobState:
    return rig.compute.observe([compute_id])[compute_id].state


def test_a_program_of_the_catalogue_can_run(rig: ComputeRig) -> None:
    assert rig.compute.refuses(image="registry.example.org/x:1", command=("python3", "-m", "x")) == ""


def test_a_submitted_program_is_watched(rig: ComputeRig, name: str) -> None:
    assert state(rig, rig.compute.submit(rig.work(name))) in WATCHED


def test_a_submission_takes_its_turn_and_is_not_made_where_there_is_none(rig: ComputeRig, name: str) -> None:
    def never() -> None:
        raise Unavailable("The database does not answer.")

    with pytest.raises(Unavailable, match="database"):
        rig.compute.submit(rig.work(name), turn=never)
    assert rig.compute.find(name) is None

    turns: list[str | None] = []
    compute_id = rig.compute.submit(rig.work(name), turn=lambda: turns.append(rig.compute.find(name)))
    assert turns == [None]
    assert rig.compute.find(name) == compute_id


def test_submitted_work_is_found_by_its_name(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))

    assert rig.compute.find(name) == compute_id


def test_finished_work_is_found_by_its_name(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=1)

    assert rig.compute.find(name) == compute_id


def test_a_name_that_was_not_submitted_is_not_found(rig: ComputeRig, name: str) -> None:
    rig.compute.submit(rig.work(name))

    assert rig.compute.find(name + "x") is None
    assert rig.compute.find(name[:-1]) is None
    assert rig.compute.find(name.upper()) is None
    assert rig.compute.find("never-seen") is None


def test_a_running_program_is_seen_running_since_some_moment(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)

    seen = rig.compute.observe([compute_id])[compute_id]

    assert seen.state is JobState.RUNNING
    assert seen.started_at is not None
    assert seen.started_at.tzinfo is not None
    assert seen.stopped_at is None


def test_a_program_that_ends_well_has_succeeded(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=0)

    seen = rig.compute.observe([compute_id])[compute_id]

    assert seen.state is JobState.SUCCEEDED
    assert seen.started_at is not None
    assert seen.stopped_at is not None
    assert seen.started_at <= seen.stopped_at


@pytest.mark.parametrize("code", [1, 2, 3])
def test_a_program_that_ends_badly_has_failed_with_code_and_reason(rig: ComputeRig, name: str, code: int) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=code)

    seen = rig.compute.observe([compute_id])[compute_id]

    assert seen.state is JobState.FAILED
    assert seen.exit_code == code
    assert seen.reason


def test_an_unknown_id_is_absent_from_what_is_observed(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))

    assert list(rig.compute.observe(["unknown", compute_id])) == [compute_id]
    assert rig.compute.observe([]) == {}


def test_any_number_of_ids_is_observed_at_once(rig: ComputeRig, name: str) -> None:
    ids = [rig.compute.submit(rig.work(f"{name}-{number}")) for number in range(3)]

    seen = rig.compute.observe([*ids[:2], *(f"unknown-{number}" for number in range(250)), ids[2]])

    assert set(seen) == set(ids)


def test_the_last_lines_of_the_output_come_oldest_first(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=0, lines=("one", "two", "three — µ"))
    log = rig.compute.observe([compute_id])[compute_id].log

    assert texts(rig.logs.tail(compute_id, log=log, lines=2)) == ["two", "three — µ"]
    assert texts(rig.logs.tail(compute_id, log=log, lines=20)) == ["one", "two", "three — µ"]
    assert rig.logs.tail(compute_id, log=log, lines=0) == []


def test_every_line_comes_with_the_time_it_was_printed(rig: ComputeRig, name: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)  # clocks of files and of moto are coarse
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.say(compute_id, "one")
    rig.end(compute_id, code=0, lines=("two", "three"))

    lines = rig.logs.tail(compute_id, log=None, lines=20)

    times = [line.at for line in lines if line.at]
    assert len(times) == len(lines) == 3
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= datetime.now(UTC) + timedelta(seconds=1)


def test_the_whole_output_comes_in_order_with_every_line_ended(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=1, lines=("one", "three — µ", "\x1b[31mred\x1b[0m 🧠 <!channel>"))
    log = rig.compute.observe([compute_id])[compute_id].log

    for where in (log, None):
        whole = b"".join(rig.logs.whole(compute_id, log=where))
        assert whole.decode() == "one\nthree — µ\n\x1b[31mred\x1b[0m 🧠 <!channel>\n"


def test_the_output_so_far_of_a_running_program_can_be_read(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.say(compute_id, "reading")

    assert b"".join(rig.logs.whole(compute_id, log=None)) == b"reading\n"


def test_what_has_printed_nothing_or_is_unknown_has_no_output_at_all(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))

    assert list(rig.logs.whole(compute_id, log=None)) == []
    assert list(rig.logs.whole("unknown", log=None)) == []
    assert list(rig.logs.whole("../unknown", log=None)) == []


def test_what_a_running_program_says_can_be_read_while_it_runs(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.say(compute_id, "progress 0.10 reading", "progress 0.42 reading")
    log = rig.compute.observe([compute_id])[compute_id].log

    assert Progress.read(texts(rig.logs.tail(compute_id, log=log, lines=20))) == Progress(0.42, "reading")


def test_unknown_work_has_no_output(rig: ComputeRig) -> None:
    assert rig.logs.tail("unknown", log=None, lines=20) == []


def test_running_work_that_is_cancelled_fails_with_the_reason_given(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)

    rig.compute.cancel(compute_id, reason="cancelled by U1")
    rig.after_cancel(compute_id)

    seen = rig.compute.observe([compute_id])[compute_id]
    assert seen.state is JobState.FAILED
    assert seen.reason == "cancelled by U1"


def test_waiting_work_that_is_cancelled_fails_with_the_reason_given(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))

    rig.compute.cancel(compute_id, reason="cancelled by U1")
    rig.after_cancel(compute_id)

    seen = rig.compute.observe([compute_id])[compute_id]
    assert (seen.state, seen.reason) == (JobState.FAILED, "cancelled by U1")


def test_a_glance_says_what_was_observed_last_of_work_that_has_not_moved_and_nothing_else(
    rig: ComputeRig, name: str
) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    assert rig.compute.glance([compute_id, "unknown"]) == {}
    rig.run(compute_id)
    running = rig.compute.observe([compute_id])

    assert rig.compute.glance([compute_id, "unknown"]) in ({}, running)
    rig.end(compute_id, code=0)
    assert rig.compute.glance([compute_id]) == {}
    assert rig.compute.observe([compute_id])[compute_id].state is JobState.SUCCEEDED
    assert rig.compute.glance([compute_id]) == {}
    assert rig.compute.glance([]) == {}


@pytest.mark.parametrize("code", [0, 1, 143])
def test_finished_work_is_left_as_it_is_by_cancel(rig: ComputeRig, name: str, code: int) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=code)
    before = rig.compute.observe([compute_id])

    rig.compute.cancel(compute_id, reason="too late")

    assert rig.compute.observe([compute_id]) == before


def test_cancelling_unknown_work_does_nothing(rig: ComputeRig) -> None:
    rig.compute.cancel("unknown", reason="nobody has it")

    assert rig.compute.observe(["unknown"]) == {}


def test_the_token_is_nowhere_to_be_read(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    while_running = rig.exposed()
    rig.end(compute_id, code=1)

    assert name in while_running
    assert TOKEN not in while_running
    assert TOKEN not in rig.exposed()
    assert TOKEN not in repr(rig.compute.observe([compute_id]))


def test_striking_out_a_secret_leaves_the_rest_and_unknown_work_alone(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)
    rig.end(compute_id, code=1, lines=("reading public data", "done"))
    before = rig.logs.tail(compute_id, log=None, lines=20)

    for secret in (TOKEN, "public", ""):
        rig.logs.redact(compute_id, SecretStr(secret))
        rig.logs.redact("unknown", SecretStr(secret))

    assert rig.logs.tail(compute_id, log=None, lines=20) == before


def test_an_admin_s_page_is_an_address_of_that_work_or_none(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))

    page = rig.compute.console(compute_id)

    assert page == "" or (page.startswith("https://") and page.endswith(compute_id))


def test_work_that_runs_waits_for_nothing(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    rig.run(compute_id)

    assert rig.compute.observe([compute_id])[compute_id].reason == ""


def test_waiting_is_not_running(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))

    seen = rig.compute.observe([compute_id])[compute_id]

    assert (seen.state in WAITING) == (seen.started_at is None)


# Arrays


def array(rig: ComputeRig, name: str, count: int) -> str:
    """The compute id of an array of programs that was submitted."""
    return rig.compute.submit(replace(rig.work(name), count=count))


def finish(rig: ComputeRig, compute_id: str, number: int, *, code: int = 0, lines: tuple[str, ...] = ()) -> None:
    """Let one program of an array run and end."""
    child = rig.compute.child(compute_id, number)
    rig.run(child)
    rig.end(child, code=code, lines=lines)


def test_an_array_that_was_submitted_is_watched_and_counts_its_programs(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 3)

    seen = rig.compute.observe([compute_id])[compute_id]

    assert seen.state in WATCHED
    assert sum(seen.children.values()) == 3
    assert set(seen.children) <= WATCHED


def test_an_array_is_found_by_its_name(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 2)

    assert rig.compute.find(name) == compute_id


def test_an_array_runs_while_a_program_of_it_is_open_and_succeeds_with_all_of_them(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 3)
    finish(rig, compute_id, 0)
    rig.run(rig.compute.child(compute_id, 1))

    meanwhile = rig.compute.observe([compute_id])[compute_id]
    rig.end(rig.compute.child(compute_id, 1), code=0)
    waiting = rig.compute.observe([compute_id])[compute_id]
    finish(rig, compute_id, 2)
    ended = rig.compute.observe([compute_id])[compute_id]

    assert (meanwhile.state, meanwhile.children[JobState.SUCCEEDED]) == (JobState.RUNNING, 1)
    assert (waiting.state, waiting.children[JobState.SUCCEEDED]) == (JobState.RUNNING, 2)
    assert (ended.state, ended.reason, ended.children) == (JobState.SUCCEEDED, "", {JobState.SUCCEEDED: 3})


def test_an_array_fails_when_all_its_programs_have_ended_and_one_has_failed(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 3)
    finish(rig, compute_id, 0, code=3)
    meanwhile = rig.compute.observe([compute_id])[compute_id]
    finish(rig, compute_id, 1)
    finish(rig, compute_id, 2)

    seen = rig.compute.observe([compute_id])[compute_id]

    assert (meanwhile.state, meanwhile.children[JobState.FAILED]) == (JobState.RUNNING, 1)
    assert (seen.state, seen.reason) == (JobState.FAILED, "1 of 3 programs failed.")
    assert seen.children == {JobState.FAILED: 1, JobState.SUCCEEDED: 2}


def test_what_is_seen_of_each_program_comes_by_its_number(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 3)
    finish(rig, compute_id, 0)
    finish(rig, compute_id, 1, code=3)
    rig.run(rig.compute.child(compute_id, 2))

    children = rig.compute.children(compute_id)
    failed = rig.compute.children(compute_id, states={JobState.FAILED})

    assert {number: seen.state for number, seen in children.items()} == {
        0: JobState.SUCCEEDED,
        1: JobState.FAILED,
        2: JobState.RUNNING,
    }
    assert set(failed) == {1}
    assert failed[1] == children[1]
    assert failed[1].exit_code == 3
    assert failed[1].reason
    assert failed[1].children == {}
    assert rig.compute.observe([rig.compute.child(compute_id, 1)]) == {rig.compute.child(compute_id, 1): failed[1]}


def test_what_each_program_of_an_array_printed_can_be_read(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 2)
    finish(rig, compute_id, 0, lines=("block 0", "done"))
    finish(rig, compute_id, 1, code=1, lines=("block 1",))
    first, second = (rig.compute.child(compute_id, number) for number in (0, 1))
    log = rig.compute.children(compute_id, states={JobState.FAILED})[1].log

    assert texts(rig.logs.tail(first, log=None, lines=20)) == ["block 0", "done"]
    assert texts(rig.logs.tail(second, log=log, lines=20)) == ["block 1"]
    assert b"".join(rig.logs.whole(first, log=None)) == b"block 0\ndone\n"
    assert rig.logs.tail(compute_id, log=None, lines=20) == []
    for compute in (compute_id, first):
        rig.logs.redact(compute, SecretStr(TOKEN))
    assert texts(rig.logs.tail(first, log=None, lines=20)) == ["block 0", "done"]


def test_an_array_that_is_cancelled_ends_with_all_that_was_open_and_the_reason_given(
    rig: ComputeRig, name: str
) -> None:
    compute_id = array(rig, name, 4)
    finish(rig, compute_id, 0)
    rig.run(rig.compute.child(compute_id, 1))

    rig.compute.cancel(compute_id, reason="cancelled by U1")
    rig.after_cancel(compute_id)

    seen = rig.compute.observe([compute_id])[compute_id]
    children = rig.compute.children(compute_id)
    assert (seen.state, seen.reason) == (JobState.FAILED, "cancelled by U1")
    assert seen.children == {JobState.SUCCEEDED: 1, JobState.FAILED: 3}
    assert children[0].state is JobState.SUCCEEDED
    assert {children[number].state for number in (1, 2, 3)} == {JobState.FAILED}
    assert {children[number].reason for number in (1, 2, 3)} == {"cancelled by U1"}


def test_an_array_that_has_ended_is_left_as_it_is_by_cancel(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 2)
    finish(rig, compute_id, 0)
    finish(rig, compute_id, 1, code=1)

    rig.compute.cancel(compute_id, reason="too late")

    seen = rig.compute.observe([compute_id])[compute_id]
    assert (seen.state, seen.reason) == (JobState.FAILED, "1 of 2 programs failed.")
    assert rig.compute.children(compute_id)[0].state is JobState.SUCCEEDED


@pytest.mark.parametrize("code", [0, 2])
def test_an_array_of_one_is_an_array(rig: ComputeRig, name: str, code: int) -> None:
    compute_id = array(rig, name, 1)
    waiting = rig.compute.observe([compute_id])[compute_id]
    finish(rig, compute_id, 0, code=code, lines=("alone",))

    seen = rig.compute.observe([compute_id])[compute_id]
    children = rig.compute.children(compute_id)

    end = JobState.FAILED if code else JobState.SUCCEEDED
    assert sum(waiting.children.values()) == 1
    assert (seen.state, seen.children) == (end, {end: 1})
    assert {number: (one.state, one.exit_code) for number, one in children.items()} == {0: (end, code)}
    assert rig.compute.children(compute_id, states={JobState.RUNNING}) == {}
    assert texts(rig.logs.tail(rig.compute.child(compute_id, 0), log=None, lines=9)) == ["alone"]


def test_an_array_that_is_too_large_or_empty_is_refused(rig: ComputeRig, name: str) -> None:
    for count in (0, rig.compute.max_count + 1):
        with pytest.raises(Refused, match="An array has 1 to"):
            array(rig, name, count)

    assert rig.compute.find(name) is None


def test_what_is_no_array_has_no_programs(rig: ComputeRig, name: str) -> None:
    compute_id = rig.compute.submit(rig.work(name))
    child = rig.compute.child(compute_id, 0)

    assert rig.compute.children(compute_id) == {}
    assert rig.compute.children("unknown") == {}
    assert rig.compute.observe([child]) == {}
    assert rig.compute.observe([compute_id])[compute_id].children == {}


def test_the_token_of_an_array_is_nowhere_to_be_read(rig: ComputeRig, name: str) -> None:
    compute_id = array(rig, name, 2)
    for number in (0, 1):
        rig.run(rig.compute.child(compute_id, number))
    while_running = rig.exposed()
    for number in (0, 1):
        rig.end(rig.compute.child(compute_id, number), code=1)

    assert name in while_running
    assert TOKEN not in while_running
    assert TOKEN not in rig.exposed()
    assert TOKEN not in repr([rig.compute.observe([compute_id]), rig.compute.children(compute_id)])
