"""What goes wrong in a microscope or on the way, on drawn volumes: whole channels, single sections. Axes z, y, x."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.unsupervised.found import Synapses
from tests.support import puncta
from tests.support.tissue import found

Array = NDArray[Any]
Change = Callable[[Array], Array]
HARMED = 6
"""The section that something happens to."""


@cache
def volume() -> puncta.Puncta:
    """Twelve sections with 860 synapses, long enough for the chance share."""
    return puncta.puncta(1, shape=(12, 320, 320))


@cache
def unharmed() -> Synapses:
    """What there is in the volume as it is."""
    return found(volume().psd, volume().synapsin)


def nine_in_ten_zero(channel: Array) -> Array:
    """The channel without its dimmest nine voxels in ten."""
    kept: Array = channel.copy()
    kept[channel <= np.quantile(channel, 0.9)] = 0
    return kept


def saturated(channel: Array) -> Array:
    """The channel, twelve times as bright: 9 % of its voxels have the largest value."""
    return np.asarray(np.minimum(channel.astype(int) * 12, 255), np.uint8)


@pytest.mark.parametrize("change", [nine_in_ten_zero, saturated])
def test_channels_that_lost_much_at_one_end_show_nearly_as_much(change: Change) -> None:
    seen = volume()

    here = found(change(seen.psd), change(seen.synapsin))

    precision, recall = puncta.match(here.centres, seen.truth)
    assert precision > 0.9
    assert recall > 0.88
    assert here.chance
    assert here.chance.share <= 0.25


def test_a_channel_that_is_upside_down_shows_nothing_beyond_chance() -> None:
    here = found(volume().psd, volume().synapsin[:, ::-1])

    assert len(here) == 0
    assert here.threshold == np.inf
    assert not any(warp.sure for warp in here.across)


@pytest.mark.parametrize(
    ("harm", "most"),
    [
        pytest.param(np.zeros_like, 0.0, id="blank"),
        pytest.param(lambda section: np.full_like(section, 255), 0.0, id="saturated"),
        pytest.param(lambda section: section[::-1], 0.5, id="upside down"),
    ],
)
def test_a_section_that_is_spoilt_finds_little_and_spoils_no_other(harm: Change, most: float) -> None:
    psd, synapsin = volume().psd, volume().synapsin.copy()
    synapsin[HARMED] = harm(synapsin[HARMED])

    here = found(psd, synapsin)

    assert in_section(here) <= most * in_section(unharmed())
    assert len(here) - in_section(here) > 0.95 * (len(unharmed()) - in_section(unharmed()))
    assert not here.across[HARMED].sure
    assert here.chance
    assert here.chance.share <= 0.25


def test_a_section_that_is_there_twice_adds_few() -> None:
    psd, synapsin = volume().psd.copy(), volume().synapsin.copy()
    psd[HARMED], synapsin[HARMED] = psd[HARMED - 1], synapsin[HARMED - 1]

    assert len(found(psd, synapsin)) < 1.05 * len(unharmed())


def in_section(here: Synapses) -> int:
    """How many have their centres in the section that something happens to."""
    return int(np.count_nonzero(np.rint(here.centres[:, 0]) == HARMED))
