"""What is told of chance: the rate of each object, and why nothing was found."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from bot.domain.summary import Summary
from contract.program import MAX_NOTE
from pipelines.common import report
from pipelines.common.boxes import Box
from pipelines.common.run import Run
from pipelines.unsupervised import told
from pipelines.unsupervised.alignment import Alignment
from pipelines.unsupervised.chance import judge, share_of
from pipelines.unsupervised.detector import Method
from pipelines.unsupervised.driver import Options
from pipelines.unsupervised.found import Size, Synapses
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
        "Nothing here has the score of 0.75 that is used in so small a volume, of less than 12 µm along y and x, where "
        "chance cannot be told."
    )


def test_objects_that_are_not_beyond_chance_in_a_small_box_are_told_as_such() -> None:
    here = in_small()
    none = replace(here, labelled=np.zeros_like(here.labels), voxels=here.voxels[:0], threshold=math.inf)

    assert told.nothing(none, options(), reached=10) == (
        "10 objects have the score of 0.75 that is used in so small a volume, of less than 12 µm along y and x, but "
        "too few more than where the channels are shifted by 1 µm or more, which shows chance: nothing here is beyond "
        "chance."
    )
    assert told.nothing(none, options(), reached=1).startswith("1 object has the score of 0.75")
    assert told.facts(none, options(), reached=10)["Threshold"] == (
        "none: what reaches a score of 0.75 is not beyond chance"
    )
    assert told.facts(none, options())["Threshold"] == "a score of 0.75"


def test_a_threshold_that_is_there_is_told_with_what_the_box_has_at_best() -> None:
    none = replace(at(0.05), threshold=0.899)
    curve = np.array([[0.62, 1, 0.3, 0.3312], [0.49, 2, 1.2, 0.6]])
    begins = "Round the box there are synapses at a false discovery rate of 25 %, from a score of 0.899 on. "

    assert told.nothing(replace(none, curve=curve), options()) == (
        f"{begins}Nothing in the box has it; the best has 0.62: 1 synapse would be found at 34 %. Ask for 34 % or more."
    )
    curve[:, 3] = 0.981
    assert told.nothing(replace(none, curve=curve), options()).endswith(
        "the best has 0.62: 2 synapses would be found at 99 %."
    )
    curve[:, 3] = 1
    assert told.nothing(replace(none, curve=curve), options()).endswith("Nothing in the box has it; the best has 0.62.")
    assert told.nothing(replace(none, curve=curve[:0]), options()) == (
        f"{begins}Nothing in the box has it: there is no candidate."
    )


def run() -> Run:
    """A run, as far as notes and report ask it."""
    request = SimpleNamespace(z=(0, 8))
    names = {"postsynaptic": "PSD95", "presynaptic": "Synapsin", "gaba": "GABA", "gad": "GAD", "glun": "GluN1"}
    names["vglut"] = "VGluT1"
    return cast(
        "Run",
        SimpleNamespace(volume=SimpleNamespace(voxel_nm=puncta.VOXEL_NM), request=request, names=names, box=LOOKED),
    )


LOOKED: Box = ((0, 8), (0, 100), (0, 100))


def notes(
    synapses: Synapses,
    options: Options,
    warps: Mapping[str, Mapping[int, Warp]] | None = None,
    voxel_nm: Size = puncta.VOXEL_NM,
) -> list[str]:
    """All notes of a run in which channels lie so."""
    said = told.notes(run(), synapses, options, aligned(warps or {}, voxel_nm), witnesses={}, beyond=0)
    return [note.text for note in said]


def aligned(warps: Mapping[str, Mapping[int, Warp]], voxel_nm: Size = puncta.VOXEL_NM) -> Alignment:
    """Channels that lie so in a run."""
    return Alignment(box=LOOKED, voxel_nm=voxel_nm, warps=warps, along={1: warp(0, 0)}, together={})


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


def test_that_all_of_the_2018_method_is_chance_is_said_of_it_whether_chance_is_measured_or_not() -> None:
    asked = options(method="nomads2018")
    large = found(volume().psd, volume().synapsin, method="nomads2018")

    for here, measured in ((in_small("nomads2018"), False), (large, True)):
        assert len(here) > 0
        assert (here.chance is not None) == measured
        assert told.fields(here, asked) == {"chance": {"count": len(here), "share": 1, "low": 1, "high": 1}}
        assert told.numbers(here, asked) == [("By chance", "all of them")]
        assert notes(here, asked) == [told.OF_2018]
        assert ("Found in shifted channels" in told.facts(here, asked)) == measured
    assert told.fields(replace(large, voxels=large.voxels[:0]), asked)["chance"] != {}


def test_report_and_thread_say_chance_in_the_same_words() -> None:
    chance = share_of(143, [6, 8])
    here = replace(at(0.25), chance=chance, voxels=np.ones(143, np.int64))
    few = replace(at(0.25), chance=share_of(2, [0, 1]), voxels=np.ones(2, np.int64))

    assert told.numbers(here, options()) == [("By chance", "about 7 (4.9 %, 0.1 to 9.6)")]
    assert told.numbers(few, options()) == [("By chance", "fewer than one (25 %, 0 to 100)")]
    for some in (here, few):
        said = Summary.model_validate({"counts": {"synapses": len(some)}, **told.fields(some, options())}).found
        ((_, value),) = told.numbers(some, options())
        assert said.replace(" of them by chance", "").replace(" by chance", "").endswith(f"; {value}")


def test_a_box_in_which_as_much_is_found_by_chance_says_so_whatever_its_surroundings_have() -> None:
    here = replace(at(0.25), chance=share_of(11, [12, 14]))

    assert notes(here, options()) == [
        "Nothing in this box is beyond chance: as much is found in it where the channels are shifted."
    ]
    assert notes(at(0.25), options()) == []


def test_a_method_without_a_rate_says_that_nothing_is_beyond_chance_where_that_is_so() -> None:
    here = found(volume().psd, volume().synapsin, method="probabilistic")
    some = replace(here, rates=np.ones(len(here)))
    asked = options(method="probabilistic")

    assert notes(some, asked) == [
        "Nothing beyond chance was found: at no score is clearly more found than where the channels are shifted."
    ]
    some.rates[:2] = 0.2, 0.3141
    assert notes(some, asked) == [
        "What was found is, all in all, not beyond chance: the 2 best ones are, at a false discovery rate of 31.4 %."
    ]
    assert notes(replace(here, rates=np.full(len(here), 0.5)), asked) == []
    assert notes(replace(here, rates=np.full(len(here), np.nan)), asked) == []
    upside_down = found(volume().psd, volume().synapsin[:, ::-1], method="probabilistic")
    assert upside_down.chance
    assert len(upside_down) > 0
    assert notes(upside_down, asked)[0].startswith("Nothing beyond chance was found: ")


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
    assert table.rows[1][1] == "0.0, 0.0; 0.00°; sure (100 %)"


def test_shifts_are_told_in_sections_and_pixels_of_the_experiment_whatever_was_put_together() -> None:
    """Three pixels of 25 nm make one of the search along y and x, and two sections of 30 nm one along z."""
    warps = {"presynaptic": {0: warp(0, -8), 2: warp(0, -8)}}
    voxel_nm = (30, 25, 25)

    assert notes(in_small(), options(), warps, voxel_nm)[1] == (
        "In sections 0, 1, 4 and 5 PSD95 lies up to 24 pixels off Synapsin; it was moved back."
    )
    table, chart, *_ = told.sections(run(), in_small(), options(), aligned(warps, voxel_nm))[-1].parts
    assert isinstance(table, report.Table)
    assert isinstance(chart, report.Chart)
    assert [row[:2] for row in table.rows] == [
        ("0 to 1", "0.0, -24.0; 0.00°; sure (100 %)"),
        ("4 to 5", "0.0, -24.0; 0.00°; sure (100 %)"),
    ]
    assert chart.series[0].values.tolist() == [24, 24]


def test_a_box_is_told_how_far_it_lies_off_itself_not_the_corners_of_its_sections() -> None:
    """Sections of 1000 x 1000 pixels, turned round a corner; the box begins at the middle of one side."""
    turn = Warp(np.array([[0.0, 0.0], [0.0, 0.01], [-0.01, 0.0]]), agree=1.0, sure=True)
    lies = Alignment(
        box=((0, 8), (0, 1000), (0, 1000)),
        voxel_nm=puncta.VOXEL_NM,
        warps={"presynaptic": {2: turn, 3: turn}},
        along={},
        together={},
    )

    def line(*box: tuple[int, int]) -> list[str]:
        asked = run()
        vars(asked).update(box=box, request=SimpleNamespace(z=box[0]))
        return [
            note.text
            for note in told.notes(asked, in_small(), options(), lies, witnesses={}, beyond=0)
            if "lies" in note.text
        ]

    assert line((0, 8), (300, 400), (0, 30)) == [
        "In sections 2 and 3 PSD95 lies, turned by 0.6 degrees, up to 4 pixels off Synapsin; it was moved back."
    ]
    assert line((3, 4), (0, 1000), (0, 1000)) == [
        "In section 3 PSD95 lies, turned by 0.6 degrees, up to 14 pixels off Synapsin; it was moved back."
    ]
    assert line((0, 8), (0, 70), (0, 70)) == []


@pytest.mark.parametrize("voxel_nm", [(70.0, 100.0, 100.0), (70.0, 100.0, 200.0), (70.0, 100.0, 400.0)])
def test_a_turn_is_told_as_large_as_it_is_whatever_the_voxels(voxel_nm: Size) -> None:
    slope = math.tan(math.radians(0.7))
    ratio = voxel_nm[2] / voxel_nm[1]
    turn = Warp(np.array([[5, 5], [0, slope / ratio], [-slope * ratio, 0]]), agree=1.0, sure=True)

    assert ", turned by 0.7 degrees, " in notes(in_small(), options(), {"presynaptic": {0: turn}}, voxel_nm)[1]


def test_a_line_of_many_channels_names_as_many_as_a_note_holds() -> None:
    many = {f"witness {n}": {n % 5: warp(3 + n, 0)} for n in range(11)}
    names = {role: f"channel_of_a_long_name_{role.replace(' ', '_')}_" + 60 * "x" for role in many}
    asked = run()
    asked.names |= names
    (_, line) = told.notes(asked, in_small(), options(), aligned(many), witnesses={}, beyond=0)

    assert all(name in line.text for name in names.values())
    assert len(line.text) > MAX_NOTE >= len(line.short)
    assert re.search(r"; \d further channels\. They were moved back\.$", line.short)


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
