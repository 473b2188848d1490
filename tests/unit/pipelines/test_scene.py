"""Where a viewer of the results begins."""

from __future__ import annotations

import time

import numpy as np

from pipelines.common.scene import densest

CHANCE = np.random.default_rng(7)


def test_the_densest_synapse_lies_among_the_most_in_nanometres() -> None:
    apart = CHANCE.uniform(0, 1, (500, 3)) * (40, 4000, 4000)
    together = np.array([20, 1000, 3000]) + CHANCE.normal(0, 1, (60, 3)) * (2, 10, 10)
    centres = np.concatenate([apart[:100], together, apart[100:]])

    row = densest(centres, (50, 10, 10))

    assert 100 <= row < 160
    assert (np.abs(centres[row] - [20, 1000, 3000]) < (8, 60, 60)).all()


def test_one_synapse_is_the_densest_and_so_is_the_first_of_many_in_one_place() -> None:
    assert densest(np.array([[5.0, 6.0, 7.0]]), (50, 4, 4)) == 0
    assert densest(np.zeros((9, 3)), (50, 4, 4)) == 0


def test_cells_at_the_end_of_a_row_are_no_neighbours_of_those_at_the_beginning_of_the_next() -> None:
    ends = [[0.0, 0.0, 99.0]] * 3 + [[0.0, 2.0, 0.0]] * 3
    middle = [[0.0, 50.0, 50.0]] * 4
    assert densest(np.array(ends + middle), (2000, 2000, 2000)) >= 6


def test_of_a_million_synapses_the_densest_is_found_in_a_second_or_so() -> None:
    centres = CHANCE.uniform(0, 4000, (10**6, 3))
    began = time.perf_counter()
    densest(centres, (50, 10, 10))
    assert time.perf_counter() - began < 5
