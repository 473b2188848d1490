"""What is known of a request before it costs anything: bounds, channels, size, time and money."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.domain import words
from bot.domain.catalog import Pipeline
from bot.domain.checks import NAME_THEM, Prices, Sizes, against, bytes_per_voxel, expected
from bot.domain.volume import Channel, Experiment
from tests.support.world import a_request

ROLES = {"postsynaptic": ("psd",), "presynaptic": ("synapsin", "vglut")}


USUAL = {"PSD95": "uint8", "Synapsin": "uint8"}


def a_pipeline(**changes: object) -> Pipeline:
    values = {"name": "p", "title": "P", "description": "", "roles": ROLES, "cpu": 2, "memory": 1024}
    return Pipeline.model_validate(values | changes)


def an_experiment(bounds: object = None, **channels: str) -> Experiment:
    return Experiment(
        collection="demo",
        name="cortex",
        bounds=bounds or ((0, 16), (0, 512), (0, 512)),  # type: ignore[arg-type]
        voxel_nm=(50, 96, 96),
        channels=tuple(Channel(name=name, datatype=kind) for name, kind in (channels or USUAL).items()),
    )


def wrong(experiment: Experiment, **changes: object) -> dict[str, str]:
    return against(a_request(**changes).box.sides, a_pipeline(), experiment, sizes=Sizes(bytes=10**9))


def test_a_box_that_ends_where_the_experiment_does_is_right() -> None:
    assert wrong(an_experiment()) == {}


@pytest.mark.parametrize(
    ("bounds", "field"),
    [
        (((0, 15), (0, 512), (0, 512)), "z"),
        (((0, 16), (1, 512), (0, 512)), "y"),
        (((0, 16), (0, 512), (0, 511)), "x"),
        (((-8, 8), (0, 512), (0, 512)), "z"),
        (((2**62, 2**63 - 1), (0, 512), (0, 512)), "z"),
    ],
)
def test_a_box_beyond_the_bounds_is_told_them(bounds: object, field: str) -> None:
    errors = wrong(an_experiment(bounds))
    assert list(errors) == [field]
    start, stop = bounds["zyx".index(field)]  # type: ignore[index]
    assert f"has {field} {start}, {stop};" in errors[field]


@pytest.mark.parametrize(
    ("bounds", "asked", "fits"),
    [
        (
            ((0, 64), (0, 9000), (0, 9000)),
            {"z": "0, 3814"},
            "The largest box from this corner that fits: x 0, 2795; y 0, 2795; z 0, 64.",
        ),
        (
            ((100, 164), (0, 9000), (0, 9000)),
            {"z": "0, 3814"},
            "A box of this experiment that fits: x 0, 2795; y 0, 2795; z 100, 164.",
        ),
        (
            ((-8, 8), (0, 9000), (0, 9000)),
            {"z": "2, 3814"},
            "The largest box from this corner that fits: x 0, 9000; y 0, 9000; z 2, 8.",
        ),
    ],
)
def test_a_box_too_large_is_told_one_inside_the_experiment_together_with_its_bounds(
    bounds: tuple[tuple[int, int], ...], asked: dict[str, str], fits: str
) -> None:
    errors = wrong(an_experiment(bounds), x="0, 9000", y="0, 9000", **asked)

    start, stop = bounds[0]
    assert errors["z"] == f"This experiment has z {start}, {stop}; choose a range within that."
    assert errors["x"].partition("a job may read 1 GB. ")[2] == fits


def test_a_side_that_is_too_long_and_outside_hears_both() -> None:
    errors = wrong(an_experiment(), x="0, 100000", y="0, 10000", z="0, 16")
    assert errors["x"].startswith("This experiment has x 0, 512; choose a range within that. This box is 32 GB:")
    assert errors["x"].endswith("that fits: x 0, 512; y 0, 512; z 0, 16.")
    assert list(errors) == ["y", "x"]


def test_of_a_box_beyond_sense_the_bounds_alone_are_told() -> None:
    far = 2_000_000_000
    errors = wrong(an_experiment(), x=f"0, {far}", y=f"0, {far}", z="0, 16")
    assert errors["x"] == "This experiment has x 0, 512; choose a range within that."
    assert list(errors) == ["y", "x"]


def test_a_volume_without_a_voxel_from_0_up_suggests_no_box() -> None:
    errors = wrong(an_experiment(((-64, 0), (0, 9000), (0, 9000))), x="0, 9000", y="0, 9000", z="0, 64")
    assert errors["x"].endswith("a job may read 1 GB. Choose a box of 500,000,000 voxels at most.")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (2 * 10**17, "200,000 TB"),
        (2 * 10**12, "2 TB"),
        (9_990_000, "9.99 MB"),
        (250 * 10**6, "250 MB"),
        (8, "8 bytes"),
        (1, "1 byte"),
    ],
)
def test_a_size_is_read_by_people(number: int, said: str) -> None:
    assert words.size(number) == said


def test_one_voxel_is_told_as_one() -> None:
    assert [words.voxels(number) for number in (1, 2, 4096)] == ["1 voxel", "2 voxels", "4,096 voxels"]


def test_negative_bounds_include_the_box_that_counts_from_0() -> None:
    assert wrong(an_experiment(((-8, 16), (-8, 512), (-8, 512)))) == {}


def test_a_missing_role_names_what_there_is() -> None:
    errors = wrong(an_experiment(PSD95="uint8", GABA="uint8"))
    wanted = "p needs a presynaptic channel (with synapsin or vglut in its name)"
    assert errors == {"experiment": f"{wanted}; this experiment has PSD95 and GABA."}


def test_a_volume_by_address_without_the_names_says_how_channels_are_named() -> None:
    errors = wrong(replace(an_experiment(channel_0="uint8", channel_1="uint8"), noun="volume"))
    assert errors["experiment"].endswith("this volume has channel_0 and channel_1. " + NAME_THEM)


def test_of_many_channels_an_error_names_those_that_are_alike() -> None:
    many = {f"marker{n}": "uint8" for n in range(40)}
    errors = wrong(an_experiment(**many, PSD95="uint8", Synpasin_647="uint8", VGlt="uint8"))
    assert errors["experiment"].endswith("this experiment has 43 channels, the most similar: Synpasin_647 and VGlt.")
    errors = wrong(an_experiment(**many, PSD95="uint8"))
    assert errors["experiment"].endswith("this experiment has 41 channels, none of a similar name.")
    errors = wrong(an_experiment(**many, psd_synapsin="uint8"))
    assert "a channel of its own" in errors["experiment"]
    assert errors["experiment"].endswith("this experiment has 41 channels, the most similar: psd_synapsin.")


def test_an_alias_fills_a_role() -> None:
    assert wrong(an_experiment(PSD95="uint8", VGluT1="uint8")) == {}


def test_one_channel_cannot_fill_two_roles() -> None:
    assert "a channel of its own" in wrong(an_experiment(psd_synapsin="uint8"))["experiment"]


def test_a_data_type_that_programs_do_not_read_is_said() -> None:
    assert "The channel Synapsin is uint32;" in wrong(an_experiment(PSD95="uint8", Synapsin="uint32"))["experiment"]


@pytest.mark.parametrize(
    ("channels", "size", "known"),
    [
        ({"PSD95": "uint8", "Synapsin": "uint8"}, 2, True),
        ({"PSD95": "uint16", "Synapsin": "uint64", "GABA": "uint64"}, 10, True),
        ({"PSD95": "", "Synapsin": "uint16"}, 3, False),
    ],
)
def test_the_size_is_that_of_the_channels_that_are_read(channels: dict[str, str], size: int, known: bool) -> None:
    assert bytes_per_voxel(a_pipeline(), an_experiment(None, **channels)) == (size, known)


RUNS = [(10**8, 10.0 + n) for n in range(10)]
"""A tenth of a gigavoxel in 10 to 19 seconds."""


def test_until_there_are_five_runs_the_catalogue_says_what_one_takes() -> None:
    pipeline = a_pipeline(seconds=5, seconds_per_gigavoxel=100)
    found = expected(pipeline, a_request().box, RUNS[:4], Prices())
    assert found is not None
    assert found.longest == found.seconds
    assert found.seconds == pytest.approx(5 + 100 * a_request().box.voxels / 1e9)


def test_with_five_runs_it_is_their_median_and_90th_percentile_per_gigavoxel() -> None:
    found = expected(a_pipeline(), a_request().box, RUNS, Prices())
    gigavoxels = a_request().box.voxels / 1e9
    assert found is not None
    assert found.seconds == pytest.approx(145 * gigavoxels)
    assert found.longest == pytest.approx(181 * gigavoxels)
    assert found.cost is None


def test_nothing_known_is_nothing_said() -> None:
    assert expected(a_pipeline(), a_request().box, [], Prices(1, 1)) is None


def test_the_cost_is_that_of_processors_and_memory() -> None:
    pipeline = a_pipeline(seconds=3600, memory=10**9 / 2**20 * 4 // 1)
    found = expected(pipeline, a_request().box, [], Prices(cpu_hour=0.5, gb_hour=0.25, currency="€"))
    assert found is not None
    assert found.cost == pytest.approx(2 * 0.5 + 4 * 0.25, rel=1e-3)
    assert words.forecast(found) == "1 h 0 min; about €2.00"
    assert found.cost_of(1800) == pytest.approx(1, rel=1e-3)


def test_small_amounts_keep_the_digits_that_count() -> None:
    assert words.money(0.000123, "$") == "$0.00012"
    assert words.money(1234.5, "$") == "$1,234.50"
