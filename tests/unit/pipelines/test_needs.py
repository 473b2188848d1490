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
    assert needs(known(threshold=math.inf), slabs(3), GRID, columns=2) == NOTHING


def test_time_and_memory_grow_with_the_synapses_that_are_expected() -> None:
    few, many = (needs(known(looked=looked), slabs(50), GRID, columns=2) for looked in (0.01, 0.0025))

    assert few.seconds == SURE * 3e6 * 1e-4
    assert many.seconds == 4 * few.seconds
    assert many.memory - NOTHING.memory == pytest.approx(4 * (few.memory - NOTHING.memory), abs=4)
    assert few.memory * MIB > BASE + 3e6 * 130


def test_a_flat_volume_needs_more_since_all_of_it_is_compared_at_a_time() -> None:
    flat, deep = (needs(known(), slabs(many), GRID, columns=2) for many in (1, 50))

    assert flat.memory - NOTHING.memory > 3 * (deep.memory - NOTHING.memory)
    assert flat.seconds == deep.seconds


def test_each_channel_and_each_mark_takes_more() -> None:
    two, ten = (needs(known(), slabs(50), GRID, columns=columns).memory for columns in (2, 10))

    assert (ten - two) * MIB >= 3e6 * SURE * 16 * 8
