"""The published probabilistic method: Simhal et al. 2017, doi 10.1371/journal.pcbi.1005493.

1. Foreground: the probability that a voxel is brighter than its section's background, which is taken to be normal with
   the section's mean and standard deviation.
2. Puncta in a section: the geometric mean of the foreground over a square as large as the smallest punctum, 0.2 µm.
3. Puncta across sections: step 2 times exp(-d²), for the difference d to each neighbouring section that the smallest
   punctum spans.
4. Synapses: the postsynaptic result of step 3 times the highest presynaptic mean among 3 x 3 such squares around the
   voxel, in its section and in the two beside it.
5. A synapse is where the result of step 4 is above THRESHOLD.

The paper gives lengths in micrometres; `span` turns them into voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from pipelines.unsupervised.sections import along, windows

Array = NDArray[Any]
Plane = NDArray[np.float32]
Moments = tuple[float, float]

THRESHOLD = 0.9
PUNCTUM_NM = 200.0
"""The side of the smallest punctum in a section, in nanometres."""
DEPTH_NM = 140.0
"""The smallest punctum's depth: two sections of 70 nm, as in the paper's queries for these two proteins."""
SMALLEST = 1
"""Voxels of the smallest object: the paper drops no detection for its size."""
STEPS = 255
"""Levels between probability 0 and 1."""


def span(voxel_nm: tuple[float, float, float]) -> tuple[int, int, int]:
    """The smallest punctum in voxels, (z, y, x): 1 to 3 sections deep, at least 2 voxels high and wide."""
    z, y, x = voxel_nm
    return min(3, max(1, round(DEPTH_NM / z))), max(2, round(PUNCTUM_NM / y)), max(2, round(PUNCTUM_NM / x))


def halo(size: tuple[int, int, int]) -> int:
    """How many rows beyond a voxel its result depends on, for a smallest punctum of `size` (z, y, x)."""
    return 2 * size[1] + 2


def row_sums(section: Array) -> NDArray[np.float64]:
    """(2, rows): the sum of each row's values, and of their squares, so that a section can be summed in parts."""
    values = section.astype(np.float64)
    return np.stack([values.sum(axis=1), np.einsum("yx,yx->y", values, values)])


def moments(sums: NDArray[np.float64], count: int) -> Moments:
    """Mean and standard deviation of a section of `count` voxels, from its row sums."""
    total, squares = (math.fsum(column) for column in sums)
    mean = total / count
    return mean, math.sqrt(max(0.0, squares / count - mean**2))


def levels(
    pairs: Iterable[tuple[Array, Array]], seen: Sequence[tuple[Moments, ...]], *, size: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """STEPS times the probability of a synapse where it is above THRESHOLD, else 0, for each pair of sections.

    Sections are (y, x), unsigned integers, in the order of z. `seen` holds the moments of both markers' sections.
    """
    puncta = (
        tuple(_puncta(section, about, size[1:]) for section, about in zip(pair, of, strict=True))
        for pair, of in zip(pairs, seen, strict=True)
    )
    across = (tuple(_across(channel, size[0]) for channel in zip(*near, strict=True)) for near in windows(puncta, 1))
    partners = ((post, _best_of_nine(pre, size[1:])) for post, pre in across)
    for near in windows(partners, 1):
        post = near[1][0]
        synapse = post * reduce(np.maximum, [best for _, best in near])
        yield (np.rint(synapse * STEPS) * (synapse > THRESHOLD)).astype(np.uint8)


def _puncta(section: Array, about: Moments, size: tuple[int, int]) -> Plane:
    """Steps 1 and 2; `about` has the section's moments. A section without contrast gives 0."""
    mean, deviation = about
    if deviation <= 1e-6 * mean:  # a smaller deviation may come from rounding
        return np.zeros(section.shape, np.float32)
    if section.dtype.itemsize <= 2:  # by a table, since there are fewer values than voxels
        values = np.arange(np.iinfo(section.dtype).max + 1)
        foreground = log_ndtr((values - mean) / deviation).astype(np.float32)[section]
    else:
        foreground = log_ndtr((section - mean) / deviation).astype(np.float32)
    mean_log = _box_means(foreground, size)
    return np.asarray(np.exp(mean_log, out=mean_log))


def _across(near: tuple[Plane, ...], depth: int) -> Plane:
    """Step 3, for the middle of three sections."""
    if depth == 1:
        return near[1]
    apart = (near[1] - near[2]) ** 2
    if depth == 3:
        apart += (near[1] - near[0]) ** 2
    return np.asarray(near[1] * np.exp(-apart))


def _best_of_nine(puncta: Plane, size: tuple[int, int]) -> Plane:
    """The highest mean among 3 x 3 squares around each voxel, within a section."""
    best = _box_means(puncta, size)
    for axis, side in enumerate(size):
        length = best.shape[axis]
        padded = np.pad(best, [(side, side) if i == axis else (0, 0) for i in range(2)])
        best = reduce(np.maximum, [along(padded, axis, shift, length) for shift in (0, side, 2 * side)])
    return best


def _box_means(plane: Plane, size: tuple[int, int]) -> Plane:
    """Means over a window round each voxel, with mirrored edges; a window of even side reaches further to the front."""
    for axis, side in enumerate(size):
        padded = np.pad(plane, [(side // 2, (side - 1) // 2) if i == axis else (0, 0) for i in range(2)], "symmetric")
        plane = _sums(padded, axis, side)
        plane /= np.float32(side)
    return plane


def _sums(padded: Plane, axis: int, side: int) -> Plane:
    """Sums of `side` neighbours along an axis, from sums of 1, 2, 4 …: the same numbers wherever a part begins."""
    length = padded.shape[axis] - side + 1
    powers, total, at = padded, np.zeros_like(along(padded, axis, 0, length)), 0
    for bit in range(side.bit_length()):
        if side >> bit & 1:
            total += along(powers, axis, at, length)
            at += 1 << bit
        if side >> (bit + 1):
            rest = powers.shape[axis] - (1 << bit)
            powers = along(powers, axis, 0, rest) + along(powers, axis, 1 << bit, rest)
    return total
