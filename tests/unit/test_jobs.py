"""The domain: ranges, boxes, requests, names, states."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.errors import InvalidRequest
from bot.domain.job import Expected, Job, compute_name
from bot.domain.request import JobRequest
from bot.domain.states import FINAL, JobState
from bot.domain.volume import Box, Range
from bot.domain.work import Observation, Progress
from contract.ranges import MAX_COORDINATE
from tests.support.stories import a_job
from tests.support.world import a_request

coordinates = st.integers(0, MAX_COORDINATE - 1)
ranges = st.builds(lambda start, n: Range(start, min(start + n, MAX_COORDINATE)), coordinates, st.integers(1, 5000))


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (["progress 0.10 starting", "progress 0.42 writing to BOSS", "Traceback"], Progress(0.42, "writing to BOSS")),
        (["progress 1 done"], Progress(1, "done")),
        (["progress 9.9 much"], Progress(1, "much")),
        (["progress 0.5 demo-token"], None),
        (["progress 0.5 " + "a" * 40], None),
        (["progress half reading", "no progress 0.5 reading", ""], None),
        ([], None),
    ],
)
def test_progress_is_the_last_line_that_says_it(lines: list[str], read: Progress | None) -> None:
    assert Progress.read(lines) == read


def test_the_results_key_is_2018_s() -> None:
    request = JobRequest(
        pipeline="nomads-unsupervised",
        collection="collman",
        experiment="M247514_Rorb_1_light",
        x=Range(6500, 7000),
        y=Range(6500, 7000),
        z=Range(40, 45),
        email="a@example.org",
        channel="C01",
    )
    assert request.results_key == "nomads-unsupervised_collman_M247514_Rorb_1_light_z_40_45_y_6500_7000_x_6500_7000"


@pytest.mark.parametrize(
    "text",
    [
        *("0,512", "0, 512", "0:512", " 0 ,\t512 ", "0 : 512"),
        *("0-512", "0 - 512", "0–512", "0..512", "0 .. 512", "0…512", "0 512", "0 \t 512", "0; 512"),
        *("０，５１２", "０、５１２", "０：５１２", "０－５１２", "0，512", "０\u3000５１２", "０．．５１２"),
        *("0−512", "0‥512", "0~512", "0〜512", "0～512", "０ー５１２", "0―512"),
    ],
)
def test_a_range_is_read_as_people_write_it(text: str) -> None:
    assert Range.parse(text) == Range(start=0, stop=512)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "^Write start, stop with a comma, such as 0, 512.$"),
        ("five, six", "two whole numbers"),
        ("1.5, 2", "two whole numbers"),
        ("1_0, 20", "two whole numbers"),
        ("5", "two whole numbers.* with a comma, such as 0, 512"),
        ("1,000, 2,000", "thousands separator.* without them, such as 0, 1024"),
        ("1 000 2 000", "thousands separator"),
        ("1,024", "^“1,024” may have a thousands separator"),
        ("1 024", "^“1 024” may have a thousands separator"),
        ("１，０２４", "thousands separator"),
        ("0-1,024", "thousands separator"),
        ("0, 0512", "zeros in front of a number"),
        ("0.512", "two whole numbers.* with a comma"),
        ("0--5", "two whole numbers.* with a comma"),
        ("0 … ", "with a comma"),
        ("0, -5", "negative"),
        ("−1, 4", "negative"),
        ("-1-4", "negative"),
        ("９－３", "smaller than stop"),
        ("٣, ٤", "two whole numbers"),
        ("-1, 4", "negative"),
        ("5, 5", "smaller than stop"),
        ("9, 3", "smaller than stop"),
        ("0, 12345678901234567890", "beyond any volume"),
        ("0, 2147483648", "beyond any volume"),
    ],
)
def test_what_is_no_range_is_said_to_be_none_and_why(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Range.parse(text)


@given(ranges)
def test_a_range_reads_back_as_it_is_written(r: Range) -> None:
    assert Range.parse(str(r)) == r


@given(ranges, ranges, ranges, st.integers(1, 10**9))
def test_the_largest_box_within_fits_and_starts_at_the_same_corner(z: Range, y: Range, x: Range, voxels: int) -> None:
    box = Box(z, y, x)
    cut = box.largest_within(voxels)
    assert cut.voxels <= voxels
    assert [r.start for r in (cut.z, cut.y, cut.x)] == [r.start for r in (z, y, x)]
    assert all(small <= whole for small, whole in zip(cut.shape, box.shape, strict=True))
    if box.voxels <= voxels:
        assert cut == box


@given(ranges, ranges, ranges, st.integers(1, 10**9))
def test_the_largest_box_within_cannot_grow(z: Range, y: Range, x: Range, voxels: int) -> None:
    whole = Box(z, y, x)
    cut = whole.largest_within(voxels)
    for axis in range(3):
        longer = [side + (n == axis) for n, side in enumerate(cut.shape)]
        assert longer[axis] > whole.shape[axis] or math.prod(longer) > voxels


def test_the_largest_box_cuts_the_longest_sides_first() -> None:
    box = Box(Range(0, 16), Range(0, 4096), Range(100, 4196))
    assert box.largest_within(10**6).shape == (16, 250, 250)


@given(st.text(max_size=60))
def test_whatever_text_is_typed_is_an_error_in_a_few_words(text: str) -> None:
    fields = ("pipeline", "collection", "experiment", "x", "y", "z", "email")
    with pytest.raises(InvalidRequest) as caught:  # no text is right for a name, a range and an address at once
        JobRequest.parse(dict.fromkeys(fields, text))
    assert set(caught.value.errors) <= set(fields)
    assert all(0 < len(words) < 300 for words in caught.value.errors.values())


@given(st.from_regex(r"[A-Za-z0-9_-]{1,300}", fullmatch=True))
def test_a_compute_name_is_unique_and_in_batch_s_alphabet(key: str) -> None:
    name = compute_name(key, "abcd1234")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", name)
    assert name.endswith("-abcd1234")


def test_long_results_keys_that_differ_only_at_their_end_have_names_that_differ() -> None:
    one, other = (compute_name("k" * 200 + end, "abcd1234") for end in "ab")
    assert one != other


def test_the_longest_names_make_a_folder_that_file_systems_take() -> None:
    job = a_job(request=a_request(collection="c" * 255, experiment="e" * 255))
    folder, _, run = job.folder.partition("/")
    assert len(folder) <= 240
    assert run == job.id


def test_a_job_kept_by_an_earlier_release_is_read() -> None:
    """What a run is expected to take once said how many runs it was learned from."""
    kept = a_job().model_dump() | {"expected": {"seconds": 4.0, "longest": 9.0, "learned": 7, "price": 0.5}}

    assert Job.model_validate(kept).expected == Expected(seconds=4, longest=9, price=0.5)


def test_a_state_never_moves_backwards_and_an_end_is_an_end() -> None:
    order = list(JobState)
    for old, new in product(order, order):
        assert new.follows(old) == (old not in FINAL and order.index(new) > order.index(old))


@pytest.mark.parametrize(
    ("children", "state"),
    [
        ({"SUBMITTED": 2}, "SUBMITTED"),
        ({"RUNNABLE": 2, "STARTING": 1}, "STARTING"),
        ({"RUNNABLE": 2, "RUNNING": 1}, "RUNNING"),
        ({"RUNNABLE": 2, "SUCCEEDED": 1}, "RUNNING"),
        ({"RUNNING": 1, "FAILED": 2}, "RUNNING"),
        ({"SUCCEEDED": 2, "RUNNING": 0}, "SUCCEEDED"),
        ({"SUCCEEDED": 2, "FAILED": 1}, "FAILED"),
    ],
)
def test_an_array_is_in_the_furthest_state_of_its_programs_until_all_have_ended(
    children: dict[str, int], state: str
) -> None:
    seen = Observation.of_array({JobState(one): number for one, number in children.items()})

    assert seen.state is JobState(state)
    assert seen.children == {JobState(one): number for one, number in children.items() if number}


def test_an_array_goes_back_to_no_earlier_state_where_a_machine_is_taken_back() -> None:
    again = Observation.of_array({JobState.RUNNABLE: 3})
    ended = Observation.of_array({JobState.SUCCEEDED: 3})

    assert not again.follows(JobState.RUNNING, attempt=1)
    assert ended.follows(JobState.RUNNING, attempt=1)


@pytest.mark.parametrize("name", ["a b", "a/b", "..", "näme", "a\n", "$(x)", "a" * 256, ""])
def test_a_name_outside_boss_s_alphabet_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        a_request(collection=name)
    assert list(caught.value.errors) == ["collection"]


@pytest.mark.parametrize(
    "address", ["nobody", "a@b@c", "a@b.org, c@d.org", "a@b.org\r\nBcc: x@y.org", "a@", "@b", "a@b..c", ".a.@b.org"]
)
def test_what_is_not_one_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        a_request(email=address)
    assert list(caught.value.errors) == ["email"]


@pytest.mark.parametrize(
    ("ran", "part", "expected", "left"),
    [
        (30, 0.0, 100, 70),  # nothing is said yet: as expected
        (30, 0.5, None, 30),  # nothing was expected: as it goes
        (60, 0.5, 100, 50),  # half and half
        (99, 0.99, 1000, 10),  # late: mostly as it goes
        (150, 0.0, 100, None),  # overdue
        (150, 0.5, 100, 75),
        (30, 0.0, None, None),
    ],
)
def test_the_time_left_goes_from_what_was_expected_to_what_the_program_says(
    ran: float, part: float, expected: float | None, left: float | None
) -> None:
    job = a_job(
        JobState.RUNNING,
        progress=Progress(part, "reading") if part else None,
        expected=Expected(expected, expected) if expected else None,
    )
    assert job.started_at
    said = job.left(job.started_at + timedelta(seconds=ran))
    assert (said and round(said.total_seconds())) == left
    assert job.model_copy(update={"state": JobState.SUCCEEDED}).left(job.started_at) is None
