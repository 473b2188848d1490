"""Real fluorescence of synapses, which lies beside the project, and how detectors are judged by it.

Nothing of it is copied into the project. Its README says whose it is: Weiler et al. 2014 (marked), Simhal et al. 2017
(array tomography) and Syn_Bot (cultures). Arrays have the axes z, y, x; the cultures' z counts pictures, no sections.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from pipelines.unsupervised.chance import judge, merged
from pipelines.unsupervised.detector import DEFAULT, METHODS, Method, scan, unsigned
from pipelines.unsupervised.found import Size, Synapses
from pipelines.unsupervised.search import Register

Array = NDArray[Any]
Name = Literal["cultures_excitatory", "cultures_inhibitory", "array_tomography"]
Way = Method | Literal["difference of Gaussians"]
PLAIN: Way = "difference of Gaussians"
"""What a method of any use has to beat, here at the threshold of the data's README."""
WAYS: tuple[Way, ...] = (*METHODS, PLAIN)
NARROW, WIDE, HIGH = 1.5, 8.0, 4.0
"""Of the plain difference of Gaussians: their standard deviations in pixels, and the threshold."""

FOLDER = Path(os.environ.get("NOMADS_TISSUE") or Path(__file__).parents[3] / "shared" / "real-tissue")
"""Where the data lie: beside the checkout, unless NOMADS_TISSUE names another folder."""
MARKED = "weiler14_marked"
CHANNELS: dict[Name, tuple[str, str]] = {
    "cultures_excitatory": ("red", "green"),
    "cultures_inhibitory": ("red", "green"),
    "array_tomography": ("psd95", "synapsin"),
}
"""Of each data set: the postsynaptic and the presynaptic channel."""
APART_NM = 1e6
"""How far apart pictures are that are no sections of one volume."""
VOXEL_NM: dict[Name, Size] = {
    "cultures_excitatory": (APART_NM, 100, 100),
    "cultures_inhibitory": (APART_NM, 100, 100),
    "array_tomography": (70, 100, 100),
}
LOOKS = [(60, 75), (-90, 40), (120, -150), (200, 33), (-45, -220)]
"""The shifts (y, x) in pixels that the data's README gives."""
EXCESS: dict[Name, float] = {"cultures_excitatory": 3500, "cultures_inhibitory": 2200, "array_tomography": 600}
"""What must be found beyond chance at a chance share of a quarter."""
SHARE = 0.25
F1 = 0.85
"""The goal on the marked crop."""
TOLERANCE = 5.0
"""Pixels that a detection may be off a mark."""


def there() -> bool:
    """Whether the data are on this machine."""
    return all((FOLDER / f"{name}.npz").is_file() for name in (MARKED, *CHANNELS))


@cache
def pictures(name: Name) -> tuple[Array, Array]:
    """The postsynaptic and the presynaptic channel."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as data:
        psd, synapsin = (np.asarray(data[channel]) for channel in CHANNELS[name])
    return psd, synapsin


@cache
def channel(name: str, of: str) -> Array:
    """Any array of a data set."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as data:
        return np.asarray(data[of])


def found(psd: Array, synapsin: Array, **how: Any) -> Synapses:
    """What `scan` finds in two arrays of unsigned integers."""
    depth, high, wide = psd.shape

    def read(start: int, stop: int, top: int, bottom: int) -> tuple[Array, Array]:
        return psd[start:stop, top:bottom], synapsin[start:stop, top:bottom]

    return scan(read, (depth, high, wide), **how)


@dataclass(frozen=True)
class Judged:
    """What a method finds in a data set."""

    found: int
    """At its default operating point."""
    share: float
    """The chance share there."""
    excess: float
    """Found beyond chance at a chance share of SHARE at most: the most of all thresholds."""
    curve: NDArray[np.float64]
    """As `chance.Judged.curve`."""


@cache
def judged(name: Name, way: Way = DEFAULT, register: Register = "auto") -> Judged:
    """By the shift control of the README: ways other than the default run again on a shifted channel."""
    psd, synapsin = pictures(name)
    if way == DEFAULT:
        seen = found(psd, synapsin, register=register, looks=LOOKS, voxel_nm=VOXEL_NM[name])
        return _judged(len(seen), seen.chance.share if seen.chance else 0.0, seen.curve)
    first, *others = (_once(psd, np.roll(synapsin, look, (1, 2)), way, VOXEL_NM[name]) for look in [(0, 0), *LOOKS])
    lowest = HIGH if way == PLAIN else 0
    count, *by_chance = (int(np.count_nonzero(scores >= lowest)) for scores in (first, *others))
    return _judged(count, float(np.mean(by_chance)) / max(1, count), judge(first, others, SHARE).curve)


def _judged(count: int, share: float, curve: NDArray[np.float64]) -> Judged:
    good = curve[curve[:, 2] <= SHARE * curve[:, 1]]
    return Judged(count, share, float((good[:, 1] - good[:, 2]).max(initial=0)), curve)


def _once(psd: Array, synapsin: Array, way: Way, voxel_nm: Size) -> Array:
    """The scores of what is found, objects that lie close together counting once. Pictures are seen one by one."""
    deep = 1 if voxel_nm[0] == APART_NM else len(psd)
    found_scores = []
    for z in range(0, len(psd), deep):
        centres, scores = _seen(psd[z : z + deep], synapsin[z : z + deep], way, voxel_nm)
        found_scores.append(scores[merged(centres * voxel_nm, scores)[0]])
    return np.concatenate(found_scores)


def _seen(psd: Array, synapsin: Array, way: Way, voxel_nm: Size) -> tuple[Array, Array]:
    """Centres (n, 3) in voxels, and scores."""
    if way != PLAIN:
        seen = found(psd, synapsin, method=way, chance=False, voxel_nm=voxel_nm)
        return seen.centres, seen.scores
    post, pre = (np.maximum(_differences(channel), 0) for channel in (psd, synapsin))
    both = np.sqrt(post * pre)
    places = np.argwhere((both >= 1) & (both == ndimage.maximum_filter(both, (1, 3, 3))))
    return places, both[tuple(places.T)]


def _differences(channel: Array) -> Array:
    """The difference of Gaussians in each section, over its spread there (1.48 times the median deviation)."""
    narrow, wide = (ndimage.gaussian_filter(channel.astype(np.float32), (0, sigma, sigma)) for sigma in (NARROW, WIDE))
    both = narrow - wide
    both -= np.median(both, axis=(1, 2), keepdims=True)
    return np.asarray(both / np.maximum(1.48 * np.median(np.abs(both), axis=(1, 2), keepdims=True), 1e-9))


@cache
def marked() -> tuple[Array, Array, NDArray[np.float64]]:
    """The crop whose synapses a person marked: both channels, (1, y, x) floats, and the marks, (24, 2) y, x."""
    return channel(MARKED, "psd95")[None], channel(MARKED, "synapsin")[None], channel(MARKED, "marked_yx")


def f1(centres: Array, marks: Array) -> float:
    """Of detections (n, 2) against marks (m, 2), both y, x: right within TOLERANCE, one to one."""
    if not len(centres):
        return 0.0
    near = cKDTree(centres).sparse_distance_matrix(cKDTree(marks), TOLERANCE, output_type="coo_matrix")
    pairs = csr_matrix((np.ones(near.nnz, np.int8), (near.row, near.col)), shape=near.shape)
    hits = int(np.count_nonzero(maximum_bipartite_matching(pairs) >= 0))
    return 2 * hits / (len(centres) + len(marks))


@cache
def f1_of_marked(way: Way = DEFAULT) -> float:
    """On the marked crop: of the plain difference of Gaussians at its best threshold, of methods at their default."""
    psd, synapsin, marks = marked()
    if way != PLAIN:
        psd, synapsin = unsigned(psd), unsigned(synapsin)
    centres, scores = _seen(psd, synapsin, way, (70, 100, 100))
    if way != PLAIN:
        return f1(centres[:, 1:], marks)
    return max(f1(centres[scores >= lowest, 1:], marks) for lowest in scores)
