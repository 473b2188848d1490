"""The detector: what it finds, what it does not, and that 2018's mask is 2018's mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from pipelines.unsupervised.detector import WEAKER, detect, evidence, measure, window_for
from sandbox.volumes import Synthetic, cortex
from tests.unit.pipelines.matching import match

Array = NDArray[Any]
START, STOP = (16, 256, 512), (36, 640, 896)


@pytest.fixture(scope="module")
def volume() -> Synthetic:
    """demo/cortex."""
    return cortex()


@pytest.fixture(scope="module")
def channels(volume: Synthetic) -> tuple[Array, Array]:
    """A part of demo/cortex, PSD95 and Synapsin."""
    return volume.bricks("PSD95").read(START, STOP), volume.bricks("Synapsin").read(START, STOP)


def dimmed(seen: Array, signal: float, *, seed: int) -> Array:
    """The volume with its signal above the background at that part, the noise kept as it is."""
    noise = np.random.default_rng(seed).normal(0, 9 * np.sqrt(1 - signal**2), seen.shape)
    return np.clip(np.rint((seen - 24.0) * signal + 24 + noise), 0, 255).astype(np.uint8)


def of_2018(psd: Array, synapsin: Array) -> NDArray[np.bool_]:
    """The 2018 mask by its definition: z-scores, covariance by convolution, Otsu, objects of more than 30 voxels."""
    scored = [(v.astype(float) - v.mean()) / v.std() for v in (psd, synapsin)]
    box = np.full((3, 3, 3), 1 / 27)
    both, first, second = (ndimage.convolve(v, box) for v in (scored[0] + scored[1], scored[0], scored[1]))
    covariance = both - first + second
    labels, _ = ndimage.label(
        covariance > threshold_otsu(covariance),  # type: ignore[no-untyped-call]
        np.ones((3, 3, 3)),
    )
    large = np.bincount(labels.ravel()) > 30
    large[0] = False
    return np.asarray(large[labels])


def truth_near(volume: Synthetic) -> tuple[Array, Array]:
    """The true synapses in the box, and those that shine into it, in the box's coordinates."""
    (z0, y0, x0), (z1, y1, x1) = START, STOP
    around = volume.truth_within((z0 - 2, y0 - 4, x0 - 4), (z1 + 2, y1 + 4, x1 + 4))
    return volume.truth_within(START, STOP) - START, around - START


@pytest.mark.parametrize(("signal", "precision", "recall"), [(1, 0.97, 0.97), (0.5, 0.97, 0.95), (0.25, 0.95, 0.6)])
def test_the_synapses_of_the_demo_are_found(
    volume: Synthetic, channels: tuple[Array, Array], signal: float, precision: float, recall: float
) -> None:
    psd, synapsin = (dimmed(v, signal, seed=i) if signal < 1 else v for i, v in enumerate(channels))

    found = measure(detect(psd, synapsin), evidence(psd, synapsin))

    within, around = truth_near(volume)
    assert match(found.centres, around)[0] > precision
    assert match(found.centres, within)[1] > recall


def test_the_2018_method_takes_every_presynaptic_punctum_for_a_synapse(
    volume: Synthetic, channels: tuple[Array, Array]
) -> None:
    mask = detect(*channels, method="nomads2018")

    precision, recall = match(measure(mask, mask).centres, truth_near(volume)[0])
    assert 0.4 < precision < 0.7
    assert recall > 0.9


def test_the_2018_mask_is_the_2018_mask_to_the_voxel(channels: tuple[Array, Array]) -> None:
    psd, synapsin = (v[:, :192, :192] for v in channels)
    assert np.array_equal(of_2018(psd, synapsin), detect(psd, synapsin, method="nomads2018"))

    random = np.random.default_rng(5)
    for shape in ((1, 40, 40), (5, 31, 17), (2, 2, 300)):
        one, other = (random.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
        assert np.array_equal(of_2018(one, other), detect(one, other, method="nomads2018"))


@pytest.mark.parametrize("draw", ["normal", "poisson", "uniform", "smooth"])
def test_pure_noise_has_no_synapses(draw: str) -> None:
    random = np.random.default_rng(7)
    shape = (16, 384, 384)

    def noise() -> Array:
        if draw == "poisson":
            return random.poisson(3, shape).astype(np.uint8)
        if draw == "uniform":
            return random.integers(0, 256, shape, dtype=np.uint8)
        grey = random.normal(0, 9, shape)
        if draw == "smooth":  # as light microscopes blur it
            grey = ndimage.gaussian_filter(grey, (0.5, 1, 1)) * 4
        return np.clip(np.rint(grey + 40), 0, 255).astype(np.uint8)

    mask = detect(noise(), noise())

    assert len(measure(mask, mask)) <= 2


def test_one_marker_alone_is_no_synapse(channels: tuple[Array, Array]) -> None:
    noise = np.random.default_rng(3).normal(24, 9, channels[0].shape).clip(0, 255).astype(np.uint8)

    assert len(measure(detect(channels[0], noise), noise)) <= 5
    assert len(measure(detect(noise, channels[1]), noise)) <= 5


@pytest.mark.parametrize("method", ["product", "nomads2018"])
@pytest.mark.parametrize("level", [0, 200, 255])
def test_a_constant_volume_has_none(method: Any, level: int) -> None:
    flat = np.full((3, 8, 8), level, np.uint8)

    assert not detect(flat, flat, method=method).any()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "uint64"]),
    method=st.sampled_from(["product", "nomads2018"]),
    seed=st.integers(0, 2**32),
)
def test_any_shape_and_type_gives_a_mask_of_the_same_shape_and_leaves_its_input(
    shape: tuple[int, int, int], dtype: str, method: Any, seed: int
) -> None:
    random = np.random.default_rng(seed)
    psd, synapsin = (random.integers(0, 2**8 if dtype == "uint8" else 2**16, shape, dtype=dtype) for _ in range(2))
    before = psd.copy(), synapsin.copy()
    psd.flags.writeable = synapsin.flags.writeable = False  # as intern gives them

    mask = detect(psd, synapsin, method=method)

    assert (shape, np.dtype(bool)) == (mask.shape, mask.dtype)
    assert np.array_equal(before, (psd, synapsin))
    assert np.array_equal(mask, detect(psd, synapsin, method=method))


@pytest.mark.parametrize("factor", [1, 100, 257])
def test_brightness_and_depth_do_not_matter(channels: tuple[Array, Array], factor: int) -> None:
    psd, synapsin = (v[:8, :128, :128] for v in channels)

    scaled = detect(psd.astype(np.uint16) * factor, synapsin)

    assert np.array_equal(detect(psd, synapsin), scaled)


@pytest.mark.parametrize("window", [(3, 3, 3), (1, 5, 7), (3, 9, 9), (1, 31, 11)])
def test_evidence_looks_at_the_window_it_is_told(window: tuple[int, int, int]) -> None:
    random = np.random.default_rng(1)
    seen = random.integers(0, 32, (6, 40, 40), dtype=np.uint8)
    seen[2:4, 10:14, 20:25] = 255
    sums = ndimage.correlate(seen.astype(np.int64), np.ones(window, np.int64))
    above = sums - np.median(sums, axis=(1, 2), keepdims=True)

    found = evidence(seen, seen, window=window)

    ratio = found[found > 0] / above[found > 0]
    assert ratio.size
    assert np.allclose(ratio[0], ratio, rtol=1e-4)
    assert np.array_equal(found > 0, above * ratio[0] >= WEAKER)


def test_a_window_follows_the_size_of_the_voxels() -> None:
    assert window_for((50, 96, 96)) == (3, 3, 3)
    assert window_for((70, 2.24, 2.24)) == (3, 89, 89)


def test_objects_are_measured_in_z_y_x() -> None:
    mask = np.zeros((4, 9, 20), np.bool_)
    mask[1:3, 2:5, 10:18] = True
    mask[3, 8, 0] = mask[2, 7, 1] = True  # touching by a corner is touching
    seen = np.where(mask, 2.0, 9.0)
    seen[3, 8, 0] = 4

    found = measure(mask, seen)

    assert found.centres.tolist() == [[1.5, 3, 13.5], [2.5, 7.5, 0.5]]
    assert (found.voxels.tolist(), found.scores.tolist()) == ([48, 2], [2, 3])
    assert found.labels[1, 2, 10] == 1


def test_arrays_that_do_not_fit_are_refused() -> None:
    small, large = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 4), np.uint8)
    for arguments in ((small, large), (small[0], small[0]), (small.astype(float), small), (small[:0], small[:0])):
        with pytest.raises(ValueError, match="needed"):
            detect(*arguments)
    with pytest.raises(ValueError, match="method"):
        detect(small, small, method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd"):
        detect(large, large, window=(2, 3, 3))
