"""A box cut out of a volume shows what the volume shows there, where the surroundings are searched as well."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.common.boxes import Box, placed, shape, voxels
from pipelines.unsupervised.chance import MERGE_NM
from pipelines.unsupervised.detector import scan
from pipelines.unsupervised.found import Size, Synapses
from pipelines.unsupervised.paired import Grid, reach_nm
from pipelines.unsupervised.search import AS_LARGE, MOST, Pace, Register, surroundings
from tests.support import puncta, tissue
from tests.support.puncta import Puncta

Array = NDArray[Any]
COARSE: Size = (70, 200, 200)
DOUBLE: Size = (30, 200, 200)
"""Two sections make one."""
LOW = 0.5
"""A score: candidates below are not looked at."""


@cache
def drawn() -> Puncta:
    """A volume, made once, of which a middle part has all of its surroundings."""
    return puncta.puncta(4, shape=(12, 480, 464))


def searched(
    psd: Array, synapsin: Array, part: Box, box: Box, *, voxel_nm: Size, register: Register = "off"
) -> Synapses:
    """What is found in the box where the part is looked at."""
    psd, synapsin = (channel[tuple(slice(*side) for side in part)] for channel in (psd, synapsin))

    def read(start: int, stop: int, top: int, bottom: int) -> tuple[Array, Array]:
        return psd[start:stop, top:bottom], synapsin[start:stop, top:bottom]

    return scan(
        read, shape(part), voxel_nm=voxel_nm, threshold=LOW, chance=False, register=register, inside=placed(box, part)
    )


def whole(channel: Array) -> Box:
    return (0, channel.shape[0]), (0, channel.shape[1]), (0, channel.shape[2])


@pytest.mark.parametrize("voxel_nm", [COARSE, DOUBLE])
@pytest.mark.parametrize(
    "box",
    [
        ((5, 8), (190, 251), (201, 260)),
        ((3, 4), (0, 100), (201, 290)),
        ((0, 12), (173, 203), (440, 464)),
        ((9, 12), (470, 480), (0, 200)),
    ],
)
def test_a_box_has_the_candidates_of_its_volume_with_the_same_scores(box: Box, voxel_nm: Size) -> None:
    """To the bit, where no registration is measured on what is looked at."""
    psd, synapsin = drawn().psd, drawn().synapsin
    everywhere = whole(psd)
    there = searched(psd, synapsin, everywhere, box, voxel_nm=voxel_nm)

    part = surroundings(box, everywhere, voxel_nm)
    here = searched(psd, synapsin, part, box, voxel_nm=voxel_nm)

    assert voxels(part) < voxels(everywhere)
    assert len(here) > 3
    for field in ("labels", "centres", "voxels", "scores"):
        assert np.array_equal(getattr(here, field), getattr(there, field)), field


@pytest.mark.parametrize("register", ["auto", "off"])
@pytest.mark.parametrize("voxel_nm", [COARSE, (70.0, 50.0, 33.0)])
def test_a_section_that_is_looked_at_by_bands_of_rows_has_the_same_synapses(voxel_nm: Size, register: Register) -> None:
    """To the bit: so a large section keeps to the memory of a run, and needs no smaller margin."""
    psd, synapsin = (np.tile(channel[:3], (1, 4, 2)) for channel in (drawn().psd, drawn().synapsin))
    bands: list[int] = []

    def read(start: int, stop: int, top: int, bottom: int) -> tuple[Array, Array]:
        bands.append(bottom - top)
        return psd[start:stop, top:bottom], synapsin[start:stop, top:bottom]

    at_once, by_bands = (
        scan(read, psd.shape, voxel_nm=voxel_nm, register=register, pace=pace)
        for pace in (Pace(1, math.inf), Pace(1, 1))
    )

    assert max(bands[-9:]) < psd.shape[1]
    assert len(at_once) > 1000
    for field in ("labels", "centres", "voxels", "scores", "rates", "threshold"):
        assert np.array_equal(getattr(at_once, field), getattr(by_bands, field)), field
    for field in ("across", "along"):
        lie, lie_by_bands = ([warp.linear.tolist() for warp in getattr(seen, field)] for seen in (at_once, by_bands))
        assert lie == lie_by_bands


def test_without_its_surroundings_a_box_has_other_scores() -> None:
    box: Box = ((5, 8), (190, 251), (201, 260))
    psd, synapsin = drawn().psd, drawn().synapsin
    there = searched(psd, synapsin, whole(psd), box, voxel_nm=COARSE)

    alone = searched(psd, synapsin, box, box, voxel_nm=COARSE)

    assert alone.scores.tolist() != there.scores.tolist()


def test_surroundings_reach_as_far_as_scores_depend_and_end_with_the_experiment() -> None:
    bounds: Box = ((10, 60), (100, 2000), (-500, 1500))
    box: Box = ((12, 20), (700, 800), (1400, 1500))

    z, y, x = surroundings(box, bounds, (70, 100, 100))

    assert z == (10, 20 + -(-MERGE_NM // 70))
    assert x[1] == 1500
    assert y[0] <= 700 - reach_nm() / 100
    assert x[0] <= 1400 - reach_nm() / 100
    assert y[1] >= 800 + reach_nm() / 100
    step = Grid.of((70, 100, 100)).step
    assert (y[0] - 100) % step[1] == (x[0] + 500) % step[2] == 0


@pytest.mark.parametrize(
    ("box", "voxel_nm"),
    [
        (((5000, 5032), (5000, 5512), (5000, 5512)), (4.0, 4.0, 4.0)),
        (((500, 501), (1000, 9000), (1000, 9000)), (70.0, 100.0, 100.0)),
        (((500, 501), (1000, 1001), (1000, 1001)), (2.0, 2.0, 2.0)),
        (((500, 700), (1000, 1200), (1000, 1200)), (70.0, 100.0, 100.0)),
    ],
)
def test_surroundings_are_bounded_whatever_the_voxels(box: Box, voxel_nm: Size) -> None:
    part = surroundings(box, ((0, 10**5),) * 3, voxel_nm)

    assert all(low <= a and b <= high for (a, b), (low, high) in zip(box, part, strict=True))
    assert voxels(part) <= max(MOST, AS_LARGE * voxels(box))


@pytest.mark.tissue
def test_a_box_cut_out_of_shifted_tissue_has_nearly_the_tissues_scores() -> None:
    """Registration is measured on what is looked at, and objects merge by it. Nine of ten scores are within 0.05."""
    psd, synapsin = (channel[2:6] for channel in tissue.pictures("array_tomography"))
    voxel_nm = tissue.VOXEL_NM["array_tomography"]
    box: Box = ((1, 3), (480, 560), (200, 300))
    there = searched(psd, synapsin, whole(psd), box, voxel_nm=voxel_nm, register="auto")

    part = surroundings(box, whole(psd), voxel_nm)
    here = searched(psd, synapsin, part, box, voxel_nm=voxel_nm, register="auto")

    assert voxels(part) < psd.size
    ours, theirs = (
        {tuple(place): score for place, score in zip(seen.centres, seen.scores, strict=True)} for seen in (here, there)
    )
    off = [abs(ours[place] - theirs[place]) for place in ours.keys() & theirs.keys()]
    assert len(off) >= 0.75 * max(len(here), len(there)) > 10
    assert np.quantile(off, 0.9) <= 0.05
