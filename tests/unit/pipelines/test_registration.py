"""How channels and sections are laid on one another: what is sure, what is moved, and what is left alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import Layout, Tiles, Warp, register
from sandbox.volumes import cortex
from tests.support import puncta
from tests.support.tissue import found

Array = NDArray[Any]
GRID = Grid.of(puncta.VOXEL_NM)
FLIPS = (np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1])


@cache
def dense() -> tuple[Array, Array]:
    """Both channels of a volume of the suite; they lie on one another."""
    drawn = puncta.puncta(1, shape=(8, 450, 450))
    return drawn.psd, drawn.synapsin


@cache
def sparse() -> tuple[Array, Array]:
    """Both channels of a volume with few synapses; they lie on one another."""
    volume = cortex(shape=(8, 450, 450))
    psd, synapsin = (volume.bricks(name).read((0, 0, 0), volume.shape) for name in ("PSD95", "Synapsin"))
    return psd, synapsin


def lies(one: Array, other: Array) -> Warp:
    """How a section (y, x) lies on another."""
    return register(*(tiles(np.ascontiguousarray(each), GRID) for each in (one, other)))


def tiles(section: Array, grid: Grid) -> Tiles | None:
    """The tiles of a section (y, x); None where there are too few."""
    layout = Layout.of(section.shape, grid)
    return layout.of_pixels([section[place] for place in layout.seen], grid) if layout else None


@pytest.mark.parametrize("side", [60, 110, 160, 200, 260, 330, 450])
@pytest.mark.parametrize("volume", [dense, sparse])
def test_channels_that_lie_on_one_another_are_left_where_they_are(volume: Any, side: int) -> None:
    for psd, synapsin in zip(*volume(), strict=True):
        assert not lies(psd[:side, -side:], synapsin[:side, -side:]).moves((side, side))


@pytest.mark.parametrize("side", [60, 110, 200, 260, 330, 450])
@pytest.mark.parametrize("volume", [dense, sparse])
def test_of_what_does_not_fit_nothing_is_sure(volume: Any, side: int) -> None:
    for psd, synapsin in zip(*volume(), strict=True):
        for flip in FLIPS:
            assert not lies(psd[:side, :side], synapsin[flip][:side, :side]).sure


@pytest.mark.parametrize("side", [300, 400])
def test_a_channel_that_is_shifted_is_sure(side: int) -> None:
    for psd, synapsin in zip(*dense(), strict=True):
        warp = lies(psd[20 : 20 + side, 20 : 20 + side], synapsin[13 : 13 + side, 31 : 31 + side])
        assert warp.sure
        assert np.allclose(warp.middle((side, side)), (-7, 11), atol=0.7)


def test_what_is_only_to_be_reported_is_not_moved() -> None:
    drawn = puncta.puncta(1, shape=(10, 300, 300), shifted=True)
    shifts = np.random.default_rng(1).integers(-15, 16, (10, 2))
    psd, synapsin = (
        np.stack([np.roll(section, shift, (0, 1)) for section, shift in zip(channel, shifts, strict=True)])
        for channel in (drawn.psd, drawn.synapsin)
    )

    off, report, auto = (found(psd, synapsin, register=how) for how in ("off", "report", "auto"))

    assert any(warp.moves((300, 300)) for warp in (*report.across, *report.along))
    assert np.array_equal(report.labels, off.labels)
    assert report.chance == off.chance
    assert len(auto) != len(off)


def dots(places_nm: Array, pixel_nm: tuple[float, float], *, side_nm: float) -> Array:
    """A square section (y, x) with a punctum of 150 nm at each place (n, 2)."""
    high, wide = (int(side_nm / size) for size in pixel_nm)
    found = np.zeros((high, wide))
    middles = np.round(places_nm / pixel_nm).astype(int)
    for (y, x), (row, column) in zip(places_nm, middles, strict=True):
        rows = np.arange(max(0, row - 6), min(high, row + 7))
        columns = np.arange(max(0, column - 6), min(wide, column + 7))
        away = ((rows[:, None] * pixel_nm[0] - y) ** 2 + (columns * pixel_nm[1] - x) ** 2) / 150**2
        found[np.ix_(rows, columns)] += 120 * np.exp(-away / 2)
    return np.minimum(found + 5, 255).astype(np.uint8)


@pytest.mark.parametrize("pixel_nm", [(100.0, 100.0), (100.0, 200.0), (200.0, 100.0), (100.0, 400.0)])
@pytest.mark.parametrize("degrees", [0.7, 2.4])
def test_a_turn_is_found_and_told_as_large_as_it_is_whatever_the_pixels(
    pixel_nm: tuple[float, float], degrees: float
) -> None:
    places = np.random.default_rng(1).uniform(0, 64_000, (4000, 2))
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = (places - 32_000) @ np.array([(cosine, sine), (-sine, cosine)]) + 32_000
    grid = Grid.of((70, *pixel_nm))
    one, other = (tiles(dots(some, pixel_nm, side_nm=64_000), grid) for some in (places, turned))

    warp = register(one, other)

    assert warp.sure
    assert abs(warp.degrees(pixel_nm)) == pytest.approx(degrees, abs=0.1)
