"""Synthetic volumes whose synapses are known, and how well detections fit them. The suite detectors are judged by.

Axes are z, y, x; positions and lengths are in voxels, the centre of the first voxel being 0. The same arguments give
the same voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from skimage import measure

Array = NDArray[Any]
Triple = tuple[int, int, int]
Kind = Literal["poisson", "normal"]

VOXEL_NM = (70.0, 100.0, 100.0)
"""Array tomography: sections of 70 nm, pixels at the resolution of light."""
LEVELS = (2.0, 1.0, 0.5, 0.25, 0.125)
"""The signal in parts of the nominal one; the background and its noise stay as they are."""
SEEDS = (1, 2, 3)
TOLERANCE = (2, 4, 4)
"""How far a detection may be off."""
SHAPE: Triple = (20, 512, 512)
DENSITY, LONELY = 1.0, 0.5
"""In a cubic micrometre: synapses, as in cortex; and puncta without a partner, in each channel."""
APART = (5, 4, 4)
"""No two sites are closer than this along all axes at once; puncta touch where two sites are as close."""
OFFSET_NM = 150.0
"""Between the centres of the two puncta of a synapse, in any direction."""
BLUR = (1.6, 1.4, 1.4)
"""Standard deviations of a punctum: 112 nm along z, though a section is thinner, against 140 nm."""
BRIGHTNESS = 60.0
"""Grey levels at the centre of a nominal punctum above its background: the median."""
SPREAD = 0.5
"""Of the logarithm of the brightness, from punctum to punctum and channel to channel: one in a hundred is three times
as bright as the median."""
REACH: Triple = (6, 6, 6)
"""How far a punctum shines; beyond, it is darker than a grey level."""
BACKGROUND = 24.0
"""Grey levels, on average; subtracted after the photograph, so that what is darker is 0."""
UNEVEN = 0.3
"""How much brighter or darker the background is, at most, as a part of its mean."""
SHARED, SHARED_NM = 0.3, 1000.0
"""Structure that both channels share, such as cell bodies: its standard deviation as a part of the background's mean,
and that of the Gaussian it is smoothed with."""
GAIN = 1.5
"""Grey levels a photon."""
READ_NOISE = 6.0
"""Grey levels, on top of the shot noise."""
FARTHEST = 15
"""Pixels along y and x by which a shifted section lies off, at most."""
MOVED = 3
"""One in so many sections is shifted."""


@dataclass(frozen=True)
class Puncta:
    """Two channels, uint8 or uint16, and the centres of the true synapses, (n, 3): midway between their puncta."""

    psd: Array
    synapsin: Array
    truth: NDArray[np.float64]


def puncta(
    seed: int,
    *,
    level: float = 1.0,
    shape: Triple = SHAPE,
    dtype: str = "uint8",
    frames: int = 1,
    shifted: bool = False,
) -> Puncta:
    """A volume of synapses and of puncta that only look like half of one, on structure that both channels share.

    With several frames it is their average, which has less noise. With `shifted`, one section in MOVED of the
    presynaptic channel lies up to FARTHEST pixels off, in any direction; the truth is where the postsynaptic one says.
    """
    random = np.random.default_rng(seed)
    pad = FARTHEST if shifted else 0
    canvas = (shape[0], shape[1] + 2 * pad, shape[2] + 2 * pad)
    cubic = float(np.prod(canvas) * np.prod(VOXEL_NM)) / 1e9
    paired, lonely = round(DENSITY * cubic), round(LONELY * cubic)
    sites = _sites(random, canvas, paired + 2 * lonely)
    direction = random.standard_normal((len(sites), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    half = direction * (OFFSET_NM / 2) / VOXEL_NM
    light = 1 + UNEVEN * _unevenness(random, canvas) + SHARED * _structure(random, canvas)
    there = (slice(0, paired + lonely), np.r_[0:paired, paired + lonely : len(sites)])
    psd, synapsin = (
        _photographed(random, light, (sites + side * half)[chosen], level=level, dtype=dtype, frames=frames)
        for side, chosen in zip((1, -1), there, strict=True)
    )
    truth = sites[:paired] - (0, pad, pad)
    if shifted:
        moves = np.zeros((shape[0], 2), np.int64)
        some = moves[1::MOVED]
        some[:] = random.integers(-FARTHEST, FARTHEST + 1, some.shape)
        still = np.s_[:, pad : pad + shape[1], pad : pad + shape[2]]
        psd, synapsin = (
            psd[still],
            np.stack(
                [
                    section[pad - y : pad - y + shape[1], pad - x : pad - x + shape[2]]
                    for section, (y, x) in zip(synapsin, moves, strict=True)
                ]
            ),
        )
    return Puncta(psd, synapsin, truth[np.all((truth >= -0.5) & (truth < np.array(shape) - 0.5), axis=1)])


def noise(
    seed: int,
    *,
    kind: Kind,
    level: float,
    shape: Triple,
    spread: float = 0.5,
    gain: float = 1,
    offset: float = 0,
    dtype: str = "uint8",
) -> Array:
    """Nothing but even noise of about `level` photons.

    `poisson` counts photons; `normal` has a standard deviation of `spread` mean levels. A photon is `gain` grey levels
    above `offset`.
    """
    random = np.random.default_rng(seed)
    if kind == "poisson":
        seen: Array = random.poisson(level, shape)
    else:
        seen = np.float32(level) + np.float32(level * spread) * random.standard_normal(shape, np.float32)
    return np.asarray(np.clip(np.rint(seen * gain + offset), 0, np.iinfo(dtype).max).astype(dtype))


def match(found: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """Precision and recall of a largest one-to-one matching within TOLERANCE of two (n, 3) arrays of places."""
    hits = hit(found, truth)
    return hits / max(1, len(np.asarray(found))), hits / max(1, len(np.asarray(truth)))


def hit(found: ArrayLike, truth: ArrayLike) -> int:
    """How many pairs a largest one-to-one matching within TOLERANCE has."""
    one, other = (np.reshape(places, (-1, 3)) / TOLERANCE for places in (found, truth))
    if not len(one) or not len(other):
        return 0
    near = cKDTree(one).sparse_distance_matrix(cKDTree(other), 1.0, p=np.inf, output_type="coo_matrix")
    pairs = csr_matrix((np.ones(near.nnz, np.int8), (near.row, near.col)), shape=near.shape)
    return int(np.count_nonzero(maximum_bipartite_matching(pairs) >= 0))


def of_2018(psd: NDArray[np.uint8], synapsin: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The mask of the 2018 service by its formulas, step by step: slow, and what `nomads2018` must give.

    Otsu's threshold is written out, in 8-byte numbers as libraries of 2018 had it; today's use 4-byte ones.
    """
    one, two = ((channel - channel.mean()) / channel.std() for channel in (psd, synapsin))
    box = np.ones((3, 3, 3)) / 27
    first, second, both = (ndimage.convolve(v, box) for v in (one, two, one + two))
    covariance = both - first + second
    counts, edges = np.histogram(covariance, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    left, right = np.cumsum(counts.astype(float)), np.cumsum(counts[::-1].astype(float))[::-1]
    with np.errstate(invalid="ignore"):  # bins may be empty at both ends where values differ by rounding alone
        mean_left = np.cumsum(counts * centres) / left
        mean_right = (np.cumsum((counts * centres)[::-1]) / right[::-1])[::-1]
    between = left[:-1] * right[1:] * (mean_left[:-1] - mean_right[1:]) ** 2
    labels = measure.label(covariance > centres[np.argmax(between)])  # type: ignore[no-untyped-call]
    large = [number for number in np.unique(labels) if number and np.sum(labels == number) > 30]
    return np.asarray(np.isin(labels, large))


def _sites(random: np.random.Generator, shape: Triple, count: int) -> NDArray[np.float64]:
    """Places within the volume; of any two that are not APART the later one is dropped."""
    drawn = random.random((3 * count, 3)) * (np.array(shape) - 1)
    close = cKDTree(drawn / APART).query_pairs(1.0, p=np.inf, output_type="ndarray")
    free = np.setdiff1d(np.arange(len(drawn)), close.max(axis=1))
    if len(free) < count:
        raise ValueError(f"{shape} has no room for {count} sites")
    return np.asarray(drawn[free[:count]])


def _photographed(
    random: np.random.Generator, background: Array, places: Array, *, level: float, dtype: str, frames: int
) -> Array:
    """One channel: blurred puncta on a background, as photons, with the camera's noise; less the mean background."""
    shape = background.shape
    room = [reach + 2 for reach in REACH]  # a punctum may stand a voxel outside
    light = np.zeros([n + 2 * r for n, r in zip(shape, room, strict=True)], np.float32)
    brightness = level * BRIGHTNESS * np.exp(SPREAD * random.standard_normal(len(places)))
    nearest = np.rint(places).astype(np.int64)
    profiles = []
    for axis, (sigma, reach) in enumerate(zip(BLUR, REACH, strict=True)):
        at = nearest[:, axis, None] + np.arange(-reach, reach + 1)
        profiles.append(np.exp(-0.5 * ((at - places[:, axis, None]) / sigma) ** 2).astype(np.float32))
    glow = brightness.astype(np.float32)[:, None] * profiles[0]
    for first, column, row, along in zip(nearest + 2, profiles[1], profiles[2], glow, strict=True):
        box = tuple(slice(n, n + 2 * reach + 1) for n, reach in zip(first, REACH, strict=True))
        light[box] += along[:, None, None] * (column[:, None] * row)
    inside = light[tuple(slice(r, -r) for r in room)]
    inside = inside + np.float32(BACKGROUND) * np.maximum(background, 0).astype(np.float32)
    photons = random.poisson(inside / GAIN * frames) / frames
    seen = photons * GAIN - BACKGROUND + READ_NOISE / frames**0.5 * random.standard_normal(shape, np.float32)
    largest = np.iinfo(dtype).max
    return np.asarray(np.clip(np.rint(seen * (largest / 255)), 0, largest), dtype)


def _unevenness(random: np.random.Generator, shape: Triple) -> NDArray[np.float32]:
    """Between -1 and 1: smooth across the field, and a little different from section to section."""
    coarse = random.uniform(-0.6, 0.6, (4, 4))
    zoom = [n / 4 for n in shape[1:]]
    field = ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)  # overshoots by a third at most
    sections = random.uniform(-0.2, 0.2, (shape[0], 1, 1))
    return np.asarray(field + sections, np.float32)


def _structure(random: np.random.Generator, shape: Triple) -> NDArray[np.float32]:
    """Of mean 0 and standard deviation 1: smooth within SHARED_NM along all axes."""
    smooth = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), [SHARED_NM / nm for nm in VOXEL_NM])
    return np.asarray(smooth / smooth.std(), np.float32)
