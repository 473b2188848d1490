"""What the merge of a volume's blocks is said to need before any of them is worked on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.common.boxes import Box
from pipelines.unsupervised.blocks import Known
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.search import Laid
from pipelines.unsupervised.stages.needs import BASE, MIB, SURE, Needs, needs

GRID = Grid.of((70.0, 100.0, 100.0))
NOTHING = Needs(memory=BASE // MIB, seconds=0)


def known(*, threshold: float = 0.6, looked: float = 0.01) -> Known:
    """A first look that found 30,000 synapses from a score of 0.6 on."""
    curve = np.array([[0.9, 10, 1, 0.1], [0.6, 30_000, 7_500, 0.25], [0.5, 90_000, 45_000, 0.5]])
    return Known(Laid([], [], (0, 0), (4096, 4096)), False, threshold, True, None, curve, looked, (0, 0, 0))


def slabs(many: int) -> list[Box]:
    """The cores of slabs of 16 sections."""
    return [((16 * n, 16 * n + 16), (0, 4096), (0, 4096)) for n in range(many)]


def test_a_merge_of_nothing_needs_what_any_merge_needs() -> None:
    assert needs(known(threshold=math.inf), slabs(3), GRID, channels=2) == NOTHING


def test_time_and_memory_grow_with_the_synapses_that_are_expected() -> None:
    few, many = (needs(known(looked=looked), slabs(50), GRID, channels=2) for looked in (0.01, 0.0025))

    assert few.seconds == SURE * 3e6 * 1e-4
    assert many.seconds == 4 * few.seconds
    assert many.memory - NOTHING.memory == pytest.approx(4 * (few.memory - NOTHING.memory), abs=4)
    assert few.memory * MIB > BASE + 3e6 * 130


def test_a_flat_volume_needs_more_since_all_of_it_is_compared_at_a_time() -> None:
    flat, deep = (needs(known(), slabs(many), GRID, channels=2) for many in (1, 50))

    assert flat.memory - NOTHING.memory > 3 * (deep.memory - NOTHING.memory)
    assert flat.seconds == deep.seconds


def test_each_channel_and_each_mark_takes_more() -> None:
    two = needs(known(), slabs(50), GRID, channels=2).memory
    eight, marked = (needs(known(), slabs(50), GRID, channels=n, marks=m).memory for n, m in ((8, 0), (2, 6)))

    assert (eight - two) * MIB >= 3e6 * SURE * 16 * 6
    assert (marked - two) * MIB >= 3e6 * SURE * 16 * 6


def test_fine_voxels_and_deep_ones_take_more_since_pixels_have_large_sums() -> None:
    fine = Grid.of((50.0, 4.0, 4.0))
    usual, fines, deep = (
        needs(known(), slabs(1), grid, channels=2, itemsize=itemsize).memory * MIB - BASE
        for grid, itemsize in ((GRID, 1), (fine, 1), (fine, 2))
    )

    assert fines >= 1.8 * usual, "326 bytes a candidate for 173, as measured"
    assert deep >= fines


def test_where_a_volume_begins_within_a_slab_changes_little() -> None:
    whole = slabs(3)
    cut = [((0, 1), *whole[0][1:]), ((1, 17), *whole[0][1:]), ((17, 33), *whole[0][1:]), ((33, 48), *whole[0][1:])]

    assert needs(known(), cut, GRID, channels=2) == needs(known(), whole, GRID, channels=2)
