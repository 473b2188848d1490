"""What is told of chance: the rate of each object, and why nothing was found."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pipelines.unsupervised import told
from pipelines.unsupervised.chance import judge
from pipelines.unsupervised.detector import Method
from pipelines.unsupervised.driver import Options
from pipelines.unsupervised.found import Synapses
from tests.support import puncta
from tests.support.tissue import found


@cache
def volume() -> puncta.Puncta:
    """Twelve sections in which no threshold has a false discovery rate of 5 %."""
    return puncta.puncta(3, shape=(12, 320, 320))


@cache
def at(rate: float) -> Synapses:
    """What is found in the volume at a false discovery rate."""
    return found(volume().psd, volume().synapsin, false_discovery=rate)


def options(rate: float = 0.25, method: Method = "paired") -> Options:
    """What a run was asked for."""
    return Options(method=method, false_discovery=rate, register="auto", witnesses=())


def test_a_run_at_the_rate_of_an_object_finds_it_and_none_of_a_higher_rate() -> None:
    rates = at(0.25).rates

    for rate in np.quantile(rates, (0, 0.1, 0.5, 1), method="nearest"):
        assert len(at(float(rate))) == np.count_nonzero(rates <= rate)


def test_thresholds_that_are_not_beyond_chance_have_no_rate() -> None:
    few = judge(np.array([9.0, 8, 7]), [np.array([1.0]), np.array([1.0])], 0.25)
    many = judge(np.arange(40.0, 0, -1), [np.array([1.0]), np.array([1.0])], 0.25)

    assert (few.threshold, few.rates(np.array([9.0])).tolist()) == (math.inf, [1])
    assert (many.threshold, many.rates(np.array([40.0])).tolist()) == (1, [0])


def test_a_threshold_that_is_beyond_chance_is_taken_though_a_lower_one_of_the_same_rate_is_not() -> None:
    scores = np.concatenate([np.full(30, 2.0), np.full(10, 1.0)])
    by_look = [np.full(30, 1.0), np.full(30, 1.0)]

    judged = judge(scores, by_look, 0.8)

    assert judged.threshold == 2
    assert judged.rates(np.array([2.0, 1.0])).tolist() == [0, 1]


def test_where_the_rate_is_too_low_the_lowest_one_is_told_with_what_it_finds() -> None:
    low, least = at(0.05), at(0.07)

    assert len(low) == 0
    assert len(least) > 0
    assert told.nothing(low, options(0.05)) == (
        "No threshold has a false discovery rate of 5 % or less: the lowest here is 7 %, with "
        f"{len(least)} synapses. Ask for 7 % or more."
    )
    assert told.chance(low) is None
    assert told.numbers(low) == []


@pytest.mark.parametrize("rate", [0.05, 0.9])
def test_nothing_beyond_chance_is_told_where_no_rate_would_find_anything(rate: float) -> None:
    here = found(volume().psd, volume().synapsin[:, ::-1], false_discovery=rate)

    assert len(here) == 0
    assert told.nothing(here, options(rate)) == "Nothing beyond chance was found."


def test_a_lowest_rate_that_cannot_be_asked_for_is_told_without_that_advice() -> None:
    curve = np.array([[1.0, 40_000, 38_000, 0.95]])
    here = replace(at(0.05), curve=curve)

    assert told.nothing(here, options(0.9)) == (
        "No threshold has a false discovery rate of 90 % or less: the lowest here is 95 %, with 40,000 synapses."
    )


def test_a_box_that_is_too_small_to_tell_chance_says_so_where_nothing_is_found() -> None:
    small = puncta.noise(1, shape=(4, 60, 60), kind="poisson", level=3)
    here = found(small, puncta.noise(2, shape=(4, 60, 60), kind="poisson", level=3))

    assert len(here) == 0
    assert told.nothing(here, options()) == (
        "Nothing was found, and in so small a volume, of less than 12 µm along y and x, chance cannot be told."
    )
