"""Work that copies of a process do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.common.copies import beside, in_copies
from pipelines.unsupervised import search
from tests.support import puncta
from tests.support.tissue import found


@pytest.mark.parametrize("most", [1, 2, 3])
def test_results_come_in_the_order_of_the_parts(most: int) -> None:
    assert list(in_copies(lambda part: part * part, range(7), most=most)) == [n * n for n in range(7)]


def test_copies_are_other_processes_and_leave_none_behind() -> None:
    processes = list(in_copies(lambda _: os.getpid(), iter(range(4)), most=2))
    dealt = list(in_copies(lambda _: os.getpid(), range(4), most=2))

    assert len({*processes, os.getpid()}) == 5
    assert dealt[:2] == dealt[2:]
    assert len({*dealt, os.getpid()}) == 3
    for process in (*processes, *dealt):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def children() -> set[str]:
    """The children of this process, of which some may belong to other tests: those that ended unseen among them."""
    return {child for each in Path("/proc/self/task").glob("*/children") for child in each.read_text().split()}


def test_what_a_copy_raises_is_raised_and_the_others_are_ended() -> None:
    reading, writing = os.pipe()
    before = children()

    def fails(part: int) -> None:
        if part == 0:
            raise ValueError("no such section")
        os.read(reading, 1)  # nothing is ever written

    with pytest.raises(ValueError, match="no such section"):
        list(in_copies(fails, range(3), most=2))

    assert children() == before
    os.close(reading)
    os.close(writing)


def test_what_is_done_beside_a_block_is_another_process_and_leaves_none_behind() -> None:
    before = children()
    with beside(lambda: (os.getpid(), os.nice(0)), copies=2, idle=True) as later:
        process, niceness = later()
    with beside(os.getpid, copies=1) as now:
        assert now() == os.getpid()
    with beside(signal.pause, copies=2), pytest.raises(ProcessLookupError):
        os.kill(process, 0)

    assert process != os.getpid()
    assert niceness == 19
    assert children() == before


def test_what_was_raised_beside_a_block_is_raised_where_it_is_asked_for() -> None:
    def fails() -> None:
        raise ValueError("no such section")

    with beside(fails, copies=2) as later, pytest.raises(ValueError, match="no such section"):
        later()


@pytest.mark.parametrize(("allowed", "dealt"), [(0, 0), (1, 3), (3, 5)])
def test_where_no_further_process_is_allowed_this_one_does_the_work(
    monkeypatch: pytest.MonkeyPatch, allowed: int, dealt: int
) -> None:
    fork, left = os.fork, 0

    def limited() -> int:
        nonlocal left
        left -= 1
        if left >= 0:
            return fork()
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", limited)
    open_before = len(os.listdir("/proc/self/fd"))

    for parts, elsewhere in ((iter(range(5)), allowed), (range(5), dealt)):
        left = allowed
        done = list(in_copies(lambda part: (part, os.getpid()), parts, most=2))

        assert [part for part, _ in done] == [0, 1, 2, 3, 4]
        assert [process != os.getpid() for _, process in done].count(True) == elsewhere
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_copy_that_is_killed_is_told_as_too_little_memory() -> None:
    with pytest.raises(MemoryError, match="was killed"):
        list(in_copies(lambda _: os.kill(os.getpid(), signal.SIGKILL), range(2), most=2))


def test_so_is_one_that_is_killed_while_it_says_its_result() -> None:
    class Large:
        def __reduce__(self) -> tuple[type, tuple[bytes]]:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return bytes, (bytes(2**30),)

    results = in_copies(lambda _: Large(), range(2), most=2)

    with pytest.raises(MemoryError, match="was killed"):
        next(results)


def test_where_there_is_no_pipe_this_process_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)

    for parts in (range(5), iter(range(5))):
        assert list(in_copies(lambda _: os.getpid(), parts, most=2)) == [os.getpid()] * 5


def test_a_part_that_cannot_be_made_ends_the_copies() -> None:
    reading, writing = os.pipe()
    before = children()

    def parts() -> Iterator[int]:
        yield 0
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        list(in_copies(lambda _: os.read(reading, 1), parts(), most=2))

    assert children() == before
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("cores", [1, 3])
def test_copies_find_what_one_process_finds(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections are shared out differently, and the registration goes from section to section all the same."""
    seen = puncta.puncta(3, shape=(9, 512, 512), shifted=True)
    expected = found(seen.psd, seen.synapsin)
    monkeypatch.setattr(search, "CORES", cores)
    monkeypatch.setattr(search, "STRETCH", 2**19)

    here = found(seen.psd, seen.synapsin)

    assert len(expected) > 100
    assert np.array_equal(here.labels, expected.labels)
    assert np.array_equal(here.scores, expected.scores)
    assert [warp.linear.tolist() for warp in here.along] == [warp.linear.tolist() for warp in expected.along]
    assert here.chance == expected.chance
