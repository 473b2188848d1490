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
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from pipelines.unsupervised.chance import judge, merged
from pipelines.unsupervised.detector import DEFAULT, Method, scan
from pipelines.unsupervised.found import Size, Synapses
from pipelines.unsupervised.search import Register

Array = NDArray[Any]
Name = Literal["cultures_excitatory", "cultures_inhibitory", "array_tomography"]

FOLDER = Path(os.environ.get("NOMADS_TISSUE") or Path(__file__).parents[3] / "shared" / "real-tissue")
"""Where the data lie: beside the checkout, unless NOMADS_TISSUE names another folder."""
MARKED = "weiler14_marked"
CHANNELS: dict[Name, tuple[str, str]] = {
    "cultures_excitatory": ("red", "green"),
    "cultures_inhibitory": ("red", "green"),
    "array_tomography": ("psd95", "synapsin"),
}
"""Of each data set: the postsynaptic and the presynaptic channel."""
VOXEL_NM: dict[Name, Size] = {
    "cultures_excitatory": (1e6, 100, 100),
    "cultures_inhibitory": (1e6, 100, 100),
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
    """(m, 3): threshold, found, found by chance."""


@cache
def judged(name: Name, method: Method = DEFAULT, register: Register = "auto") -> Judged:
    """By the shift control of the README: other methods are run again on a shifted channel, each by its scores."""
    psd, synapsin = pictures(name)
    how: dict[str, Any] = {"method": method, "voxel_nm": VOXEL_NM[name]}
    if method == DEFAULT:
        seen = found(psd, synapsin, register=register, looks=LOOKS, **how)
        curve = seen.curve
        count, share = len(seen), seen.chance.share if seen.chance else 0.0
    else:
        apart = VOXEL_NM[name]
        scores: list[Array] = []
        for look in [(0, 0), *LOOKS]:
            one = found(psd, np.roll(synapsin, look, (1, 2)), chance=False, **how)
            kept, _ = merged(one.centres * apart, one.scores)
            scores.append(one.scores[kept])
        curve = judge(scores[0], scores[1:], SHARE).curve
        count = len(scores[0])
        share = float(np.mean([len(by_chance) for by_chance in scores[1:]])) / max(1, count)
    good = curve[curve[:, 2] <= SHARE * curve[:, 1]]
    return Judged(count, share, float((good[:, 1] - good[:, 2]).max(initial=0)), curve)


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
