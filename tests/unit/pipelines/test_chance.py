"""What is told of chance: the rate of each object, and why nothing was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from pipelines.common import report
from pipelines.common.boxes import Box
from pipelines.common.run import Run
from pipelines.unsupervised import told
from pipelines.unsupervised.alignment import Alignment
from pipelines.unsupervised.chance import judge
from pipelines.unsupervised.detector import Method
from pipelines.unsupervised.driver import Options
from pipelines.unsupervised.found import Synapses
from pipelines.unsupervised.registration import Warp
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
    assert told.fields(low, options(0.05)) == {"chance": None}
    assert told.numbers(low, options(0.05)) == []


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


def run() -> Run:
    """A run, as far as notes and report ask it."""
    request = SimpleNamespace(z=(0, 8))
    names = {"postsynaptic": "PSD95", "presynaptic": "Synapsin", "gaba": "GABA", "gad": "GAD", "glun": "GluN1"}
    names["vglut"] = "VGluT1"
    return cast("Run", SimpleNamespace(volume=SimpleNamespace(voxel_nm=puncta.VOXEL_NM), request=request, names=names))


LOOKED: Box = ((0, 8), (0, 100), (0, 100))


def notes(synapses: Synapses, options: Options, warps: Mapping[str, Mapping[int, Warp]] | None = None) -> list[str]:
    """All notes of a run in which channels lie so."""
    return told.notes(run(), synapses, options, aligned(warps or {}), {}, beyond=0)


def aligned(warps: Mapping[str, Mapping[int, Warp]]) -> Alignment:
    """Channels that lie so in a run."""
    return Alignment(box=LOOKED, voxel_nm=puncta.VOXEL_NM, warps=warps, along={1: warp(0, 0)}, together={})


@cache
def in_small(method: Method = "paired") -> Synapses:
    """What is found in a volume of 10 µm."""
    seen = puncta.puncta(1, shape=(8, 100, 100), level=2)
    return found(seen.psd, seen.synapsin, method=method, register="off", false_discovery=0.1)


def test_a_box_that_is_too_small_for_the_rate_tells_the_threshold_that_was_used_instead() -> None:
    here = in_small()

    assert len(here) > 0
    assert notes(here, options(0.1)) == [
        "The false discovery rate was not used, since in so small a volume, of less than 12 µm along y and x, chance "
        "cannot be told; the threshold is a score of 0.75."
    ]
    assert told.facts(here, options(0.1)) == {
        "Method": "paired",
        "False discovery rate": "not used: the volume is too small",
        "Threshold": "a score of 0.75",
        "Registration": "auto",
    }
    assert told.facts(at(0.05), options(0.05))["False discovery rate"] == "0.05"


def test_that_all_of_the_2018_method_is_chance_is_the_one_thing_that_is_said_of_it_where_chance_is_not_measured() -> (
    None
):
    here, asked = in_small("nomads2018"), options(method="nomads2018")

    assert len(here) > 0
    assert told.fields(here, asked) == {}
    assert told.numbers(here, asked) == [("By chance", "all of them")]
    assert notes(here, asked) == [told.OF_2018]


def test_the_curve_says_why_it_ends_below_what_the_published_method_found() -> None:
    here = found(volume().psd, volume().synapsin, method="probabilistic")

    (section,) = told.sections(run(), here, options(method="probabilistic"), None)

    assert len(here.curve) < len(here)
    (chart,) = section.parts
    assert isinstance(chart, report.Chart)
    assert chart.said == (
        f"{len(here)} synapses were found in this run; the curve counts those within 250 nm of one another once, which "
        f"leaves {len(here.curve)}."
    )


def warp(y: float, x: float) -> Warp:
    """A shift of a whole section that is sure."""
    return Warp(np.array([[y, x], [0, 0], [0, 0]]), agree=1.0, sure=True)


def test_one_pixel_is_one_pixel_and_no_shift_is_below_zero_by_nothing() -> None:
    warps = {"presynaptic": {0: warp(1.1, 0), 1: warp(-0.01, -0.04)}}

    assert notes(in_small(), options(), warps)[1] == (
        "In section 0 PSD95 lies up to 1 pixel off Synapsin; it was moved back."
    )
    table, *_ = told.sections(run(), in_small(), options(), aligned(warps))[-1].parts
    assert isinstance(table, report.Table)
    assert table.rows[1][1] == "0.0, 0.0; 0.00°; sure (100%)"


def test_each_channel_that_lies_off_is_named_with_its_sections() -> None:
    alike = {0: warp(6, 8), 1: warp(0, 10)}
    two = {"presynaptic": alike, "gaba": {0: warp(1, 0), 3: warp(3, 4)}, "gad": alike}
    four = {**two, "glun": {2: warp(2, 0)}, "vglut": {5: warp(40, 0)}}
    said = notes(in_small(), options(), two)[1]

    assert said == (
        "Off PSD95 lie Synapsin and GAD up to 10 pixels in sections 0 and 1; GABA up to 5 pixels in section 3. "
        "They were moved back."
    )
    assert (
        "GABA up to 5 pixels in 1 section; GluN1 up to 2 pixels in 1 section;" in notes(in_small(), options(), four)[1]
    )
    left = replace(options(), register="report")
    assert notes(in_small(), left, two)[1].endswith("They were left there.")
    other = notes(in_small(), options(method="probabilistic"), two)[0]
    assert other.endswith("They were moved back. The method probabilistic took them as they lie.")
