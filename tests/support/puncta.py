"""Synthetic volumes whose synapses are known, and how well detections fit them. The suite detectors are judged by.

Axes are z, y, x; positions and lengths are in voxels, the centre of the first voxel being 0. The same arguments give
the same voxels.
"""

from __future__ import annotations

from collections.abc import Callable
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
Field = Literal[
    "patches",
    "ramp",
    "vignette",
    "far corner",
    "rim",
    "bend",
    "waves",
    "spot",
    "small spot",
    "stripes",
    "fine stripes",
    "tiles",
    "last row",
]

VOXEL_NM = (70.0, 100.0, 100.0)
"""Array tomography: sections of 70 nm, pixels at the resolution of light."""
LEVELS = (2.0, 1.0, 0.5, 0.25, 0.125)
"""The signal in parts of the nominal one; the background and its noise stay as they are."""
SEEDS = (1, 2, 3)
TOLERANCE = (2, 4, 4)
"""How far a detection may be off."""
SYNAPSES, LONELY = 400, 300
"""In SHAPE: paired puncta, and puncta without a partner in each channel."""
SHAPE: Triple = (20, 512, 512)
APART = (4, 8, 8)
"""No two sites are closer than this along all axes at once."""
OFFSET_NM = 150.0
"""Between the centres of the two puncta of a synapse, in any direction."""
BLUR = (1.6, 1.4, 1.4)
"""Standard deviations of a punctum: 112 nm along z, though a section is thinner, against 140 nm."""
BRIGHTNESS = 60.0
"""Grey levels at the centre of a nominal punctum above its background."""
SPREAD = 0.3
"""Of the logarithm of the brightness, from punctum to punctum and channel to channel."""
REACH: Triple = (6, 6, 6)
"""How far a punctum shines; beyond, it is darker than a grey level."""
BACKGROUND = 24.0
"""Grey levels, on average."""
UNEVEN = 0.3
"""How much brighter or darker the background is, at most, as a part of its mean."""
GAIN = 1.5
"""Grey levels a photon."""
READ_NOISE = 6.0
"""Grey levels, on top of the shot noise."""


@dataclass(frozen=True)
class Puncta:
    """Two channels, uint8 or uint16, and the centres of the true synapses, (n, 3): midway between their puncta."""

    psd: Array
    synapsin: Array
    truth: NDArray[np.float64]


def puncta(seed: int, *, level: float = 1.0, shape: Triple = SHAPE, dtype: str = "uint8", frames: int = 1) -> Puncta:
    """A volume of synapses and of puncta that only look like half of one, as dense as in SHAPE.

    With several frames it is their average, which has less noise.
    """
    random = np.random.default_rng(seed)
    density = np.prod(shape) / np.prod(SHAPE)
    paired, lonely = round(SYNAPSES * density), round(LONELY * density)
    sites = _sites(random, shape, paired + 2 * lonely)
    direction = random.standard_normal((len(sites), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    half = direction * (OFFSET_NM / 2) / VOXEL_NM
    there = (slice(0, paired + lonely), np.r_[0:paired, paired + lonely : len(sites)])
    channels = [
        _photographed(random, shape, (sites + side * half)[chosen], level=level, dtype=dtype, frames=frames)
        for side, chosen in zip((1, -1), there, strict=True)
    ]
    return Puncta(channels[0], channels[1], sites[:paired])


def noise(
    seed: int,
    *,
    kind: Kind,
    level: float,
    shape: Triple,
    uneven: float = 0.5,
    field: Field = "patches",
    spread: float = 0.5,
    gain: float = 1,
    offset: float = 0,
    dead: bool = False,
    dtype: str = "uint8",
    part: tuple[slice, ...] = (),
) -> Array:
    """Nothing but noise: about `level` photons, more and fewer by the part `uneven` across the field.

    `poisson` counts photons; `normal` has a standard deviation of `spread` mean levels everywhere. A photon is `gain`
    grey levels above `offset`; if `dead`, the first voxel is 0. The field is bright in patches, towards the right, but
    for its corners, towards its first corner, towards it within a circle whose rim grazes two borders, on one side of a
    slanting line at which it begins to fall, in waves of any direction down to 90 pixels, in one spot of 80 or 30
    pixels (a standard deviation), in stripes 120 or 64 pixels apart, in every other tile of 256 pixels, or in the last
    row. With `part`, only that part of the volume is photographed.
    """
    random = np.random.default_rng(seed)
    mean = np.float32(level) * (1 + np.float32(uneven) * _FIELDS[field](random, shape)[part])
    if kind == "poisson":
        seen: Array = random.poisson(mean)
    else:
        seen = mean + np.float32(level * spread) * random.standard_normal(mean.shape, np.float32)
    noise = np.clip(np.rint(seen * gain + offset), 0, np.iinfo(dtype).max).astype(dtype)
    if dead:
        noise[0, 0, 0] = 0
    return np.asarray(noise)


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
    random: np.random.Generator, shape: Triple, places: Array, *, level: float, dtype: str, frames: int
) -> Array:
    """One channel: blurred puncta on an uneven background, as photons, with the camera's noise."""
    room = [reach + 2 for reach in REACH]  # a punctum may stand a voxel outside
    light = np.zeros([n + 2 * r for n, r in zip(shape, room, strict=True)], np.float32)
    brightness = level * BRIGHTNESS * np.exp(SPREAD * random.standard_normal(len(places)))
    nearest = np.rint(places).astype(np.int64)
    profiles, rows = [], []
    for axis, (sigma, reach) in enumerate(zip(BLUR, REACH, strict=True)):
        at = nearest[:, axis, None] + np.arange(-reach, reach + 1)
        profiles.append(np.exp(-0.5 * ((at - places[:, axis, None]) / sigma) ** 2))
        rows.append(at + room[axis])
    glow = np.einsum("n,nz,ny,nx->nzyx", brightness, *profiles, optimize=True)
    np.add.at(light, (rows[0][:, :, None, None], rows[1][:, None, :, None], rows[2][:, None, None, :]), glow)
    inside = light[tuple(slice(r, -r) for r in room)]
    inside = inside + np.float32(BACKGROUND) * (1 + np.float32(UNEVEN) * _unevenness(random, shape))
    photons = random.poisson(inside / GAIN * frames) / frames
    seen = photons * GAIN + READ_NOISE / frames**0.5 * random.standard_normal(shape, np.float32)
    largest = np.iinfo(dtype).max
    return np.asarray(np.clip(np.rint(seen * (largest / 255)), 0, largest), dtype)


def _unevenness(random: np.random.Generator, shape: Triple) -> NDArray[np.float32]:
    """Between -1 and 1: smooth across the field, and a little different from section to section."""
    coarse = random.uniform(-0.6, 0.6, (4, 4))
    zoom = [n / 4 for n in shape[1:]]
    field = ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)  # overshoots by a third at most
    sections = random.uniform(-0.2, 0.2, (shape[0], 1, 1))
    return np.asarray(field + sections, np.float32)


def _of_place(
    value: Callable[[Array, Array], Array],
) -> Callable[[np.random.Generator, Triple], NDArray[np.float32]]:
    """A field that has a value at each place, y and x being counted from the middle."""

    def field(random: np.random.Generator, shape: Triple) -> NDArray[np.float32]:
        y, x = ((np.arange(n) - (n - 1) / 2) for n in shape[1:])
        seen = np.broadcast_to(value(y[:, None], x[None, :]), shape[1:])
        return np.asarray(np.broadcast_to(seen, shape), np.float32)

    return field


def _waves(random: np.random.Generator, shape: Triple) -> NDArray[np.float32]:
    """Between -1 and 1: a sum of waves, up to eight along either axis of a field of 1,024 pixels; one of one seed."""
    random = np.random.default_rng(4)
    y, x = (2 * np.pi * np.arange(n) / 1024 for n in shape[1:])
    field = np.zeros(shape[1:])
    for up in range(-8, 9):
        for right in range(9):
            field += random.standard_normal() * np.sin(up * y[:, None] + right * x + random.uniform(0, 2 * np.pi))
    return np.asarray(np.broadcast_to(field / np.abs(field).max(), shape), np.float32)


_FIELDS: dict[Field, Callable[[np.random.Generator, Triple], NDArray[np.float32]]] = {
    "patches": _unevenness,
    "ramp": _of_place(lambda y, x: x / x.max()),
    "vignette": _of_place(lambda y, x: 1 - ((y / y.max()) ** 2 + (x / x.max()) ** 2)),
    "far corner": _of_place(lambda y, x: 1 - (((y / y.max() + 1) / 2) ** 2 + ((x / x.max() + 1) / 2) ** 2)),
    "rim": _of_place(lambda y, x: 1 - 2 * np.minimum(1, ((y / y.max() + 1) / 2) ** 2 + ((x / x.max() + 1) / 2) ** 2)),
    "bend": _of_place(lambda y, x: 2 / (1 + np.maximum(0, -y - 0.3 * x) / 200) - 1),
    "waves": _waves,
    "spot": _of_place(lambda y, x: 2 * np.exp(-(y**2 + x**2) / (2 * 80**2)) - 1),
    "small spot": _of_place(lambda y, x: 2 * np.exp(-(y**2 + x**2) / (2 * 30**2)) - 1),
    "stripes": _of_place(lambda y, x: np.sin((x + 0.3 * y) * (2 * np.pi / 120))),
    "fine stripes": _of_place(lambda y, x: np.sin((x + 0.3 * y) * (2 * np.pi / 64))),
    "tiles": _of_place(lambda y, x: np.where((y // 256 + x // 256) % 2, 1.0, -1.0)),
    "last row": _of_place(lambda y, x: np.where(y == y.max(), 1.0, 0.0) + 0 * x),
}
