"""What the default method finds in real tissue: the data lie beside the project, and the output says where they do not.

A shifted channel shows what chance finds; the goals are those of docs/detection.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from pipelines.common.boxes import placed, shape
from pipelines.unsupervised.detector import METHODS, detect, unsigned
from pipelines.unsupervised.search import surroundings
from tests.support import tissue
from tests.support.tissue import CHANNELS, EXCESS, LOOKS, Name, found, judged, marked, pictures

Array = Any
pytestmark = pytest.mark.tissue


@pytest.mark.parametrize("name", CHANNELS)
def test_it_finds_enough_beyond_chance(name: Name) -> None:
    assert judged(name).excess >= EXCESS[name]


@pytest.mark.parametrize("name", CHANNELS)
def test_its_default_is_the_rate_that_it_says(name: Name) -> None:
    """Also by shifts of the channel itself, which are searched from the beginning."""
    psd, synapsin = pictures(name)
    how: dict[str, Any] = {"voxel_nm": tissue.VOXEL_NM[name]}
    here = found(psd, synapsin, **how)
    assert here.chance is not None
    assert 0.24 <= here.chance.share <= 0.25
    assert here.chance.low < 0.25 < here.chance.high

    shifted = found(psd, np.roll(synapsin, (150, -110), (1, 2)), threshold=here.threshold, chance=False, **how)

    assert 0.2 <= len(shifted) / len(here) <= 0.3


@pytest.mark.parametrize("name", CHANNELS)
def test_no_other_method_finds_as_much(name: Name) -> None:
    for method in METHODS[1:]:
        assert judged(name, method).excess < judged(name).excess / 2


def test_the_mask_of_2018_is_chance_on_cultures() -> None:
    for name in ("cultures_excitatory", "cultures_inhibitory"):
        assert judged(name, "nomads2018").share > 0.95


def test_it_finds_what_a_person_marked() -> None:
    """At its default, which for a crop of 10 micrometres is the documented threshold."""
    psd, synapsin, marks = marked()

    here = found(unsigned(psd), unsigned(synapsin))

    assert here.chance is None
    assert np.isnan(here.rates).all()
    assert tissue.f1(here.centres[:, 1:], marks) >= tissue.F1
    assert np.count_nonzero(detect(psd, synapsin)) == here.voxels.sum()


def test_channels_that_are_turned_are_told_and_moved_back() -> None:
    here = found(*pictures("array_tomography"), looks=LOOKS)

    assert all(warp.sure for warp in here.across)
    assert all(-0.75 < warp.degrees((100, 100)) < -0.6 for warp in here.across)
    for section, shift in ((1, (2, 14)), (3, (5, 5)), (5, (-11, -11))):
        assert np.allclose(here.across[section].middle((1024, 672)), shift, atol=1.5)
    assert sum(warp.sure for warp in here.along) >= 5
    assert judged("array_tomography", register="off").excess < judged("array_tomography").excess / 10


def test_a_section_that_is_shifted_further_is_moved_back_and_one_that_is_too_far_is_left_alone() -> None:
    psd, synapsin = pictures("array_tomography")
    before = found(psd, synapsin)
    further, too_far = synapsin.copy(), synapsin.copy()
    further[2] = np.roll(synapsin[2], (20, -15), (0, 1))
    too_far[2] = np.roll(synapsin[2], (60, -50), (0, 1))

    near, far = found(psd, further), found(psd, too_far)

    moved = np.subtract(near.across[2].middle((1024, 672)), before.across[2].middle((1024, 672)))
    assert np.allclose(moved, (-20, 15), atol=1)
    assert len(near) > 0.95 * len(before)
    assert not far.across[2].sure
    assert len(far) < 0.95 * len(before)


def test_sections_of_different_brightness_are_alike() -> None:
    psd, synapsin = pictures("array_tomography")
    before = found(psd, synapsin)
    dimmed = [marker.astype(np.uint16) * 256 for marker in (psd, synapsin)]
    for marker in dimmed:
        marker[1::2] //= 2

    assert abs(len(found(*dimmed)) - len(before)) < 0.02 * len(before)


@pytest.mark.parametrize(
    "harm",
    ["clipped", "nine in ten zero", "blank", "doubled", "upside down"],
)
def test_what_goes_wrong_in_a_section_does_not_spoil_the_rest(harm: str) -> None:
    psd, synapsin = (marker.copy() for marker in pictures("array_tomography"))
    before = found(psd, synapsin)
    rest = np.array([z != 4 for z in before.centres[:, 0]])
    if harm == "clipped":
        psd[4], synapsin[4] = np.minimum(psd[4], 60), np.minimum(synapsin[4], 60)
    elif harm == "nine in ten zero":
        for marker in (psd, synapsin):
            marker[4] = np.where(marker[4] > np.quantile(marker[4], 0.9), marker[4], 0)
    elif harm == "blank":
        psd[4] = synapsin[4] = 0
    elif harm == "doubled":
        psd[4], synapsin[4] = psd[3], synapsin[3]
    else:
        synapsin[4] = synapsin[4, ::-1]

    after = found(psd, synapsin)

    assert np.count_nonzero(after.centres[:, 0] != 4) > 0.85 * np.count_nonzero(rest)
    assert after.chance is not None
    assert after.chance.share <= 0.25
    if harm == "upside down":
        assert not after.across[4].sure
    if harm == "blank":
        assert not np.any(after.centres[:, 0] == 4)


@pytest.mark.parametrize("nm", [50.0, 150.0, 200.0])
def test_pixels_of_another_size_show_about_as_much(nm: float) -> None:
    psd, synapsin = (marker[:1] for marker in pictures("cultures_excitatory"))
    before = len(found(psd, synapsin))

    def resampled(marker: Array) -> Array:
        blurred = ndimage.gaussian_filter(marker.astype(float), (0, nm / 250, nm / 250)) if nm > 100 else marker
        return np.rint(ndimage.zoom(blurred.astype(float), (1, 100 / nm, 100 / nm), order=1)).astype(np.uint8)

    after = len(found(resampled(psd), resampled(synapsin), voxel_nm=(70, nm, nm)))

    assert 0.8 * before <= after <= 1.2 * before


def test_a_part_of_a_volume_has_the_scores_of_the_volume_where_its_surroundings_are_seen() -> None:
    psd, synapsin = (marker[:3] for marker in pictures("cultures_excitatory"))
    how: dict[str, Any] = {"threshold": 0.6, "register": "off", "chance": False}
    box = ((0, 3), (304, 624), (256, 608))
    whole = found(psd, synapsin, inside=((0, 304, 256), (3, 624, 608)), **how)

    looked = surroundings(box, ((0, 3), (0, psd.shape[1]), (0, psd.shape[2])), (70, 100, 100))
    part = tuple(slice(*side) for side in looked)
    assert shape(looked) < psd.shape
    cut = found(psd[part], synapsin[part], inside=placed(box, looked), **how)

    assert len(cut) > 100
    assert cut.labels.shape == (3, 320, 352)
    assert np.array_equal(whole.centres, cut.centres)
    assert np.array_equal(whole.scores, cut.scores)
    assert np.array_equal(whole.labels, cut.labels)
