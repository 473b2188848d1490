"""Finds synapses where a postsynaptic and a presynaptic marker light up together. Pure: arrays in, arrays out.

Arrays have the axes z, y, x. Sums over windows are taken in integers, so that they are exact and the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Method = Literal["product", "nomads2018"]
Triple = tuple[int, int, int]

WINDOW: Triple = (3, 3, 3)
"""The neighbourhood evidence is summed over, in voxels."""
SIGNIFICANT = 4.5
"""Evidence below this many standard deviations of the background is noise, however many voxels are looked at."""
WEAKER = 3.0
"""The weaker marker must stand out by this much, or a bright punctum would make synapses of the noise beside it."""
CORE = 0.5
"""The part of Otsu's threshold that parts a synapse's core from its halo; measured on synthetic volumes."""
NEIGHBOURHOOD_NM = 200
"""How far apart the two markers of one synapse may lie, in nanometres."""
SMALLEST_2018 = 30
"""The 2018 detector kept objects of more voxels than this."""
_BINS = 256
_SAMPLES = 2**16


@dataclass(frozen=True, slots=True)
class Synapses:
    """The objects of a mask, one row each in the order of their labels (row 0 is label 1).

    `centres` is (n, 3), z, y, x in voxels from the array's corner; `voxels` and `scores` are (n,).
    A score is the mean evidence over the object's voxels.
    """

    labels: Array
    centres: NDArray[np.float64]
    voxels: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.voxels)


def window_for(voxel_nm: tuple[float, float, float]) -> Triple:
    """The window for voxels of that size (z, y, x): odd sides of at most NEIGHBOURHOOD_NM, and at least 3 voxels."""
    z, y, x = (max(3, int(NEIGHBOURHOOD_NM / size) - 1 | 1) for size in voxel_nm)
    return z, y, x


def detect(psd: Array, synapsin: Array, *, method: Method = "product", window: Triple = WINDOW) -> NDArray[np.bool_]:
    """Which voxels belong to a synapse: a mask of the inputs' shape.

    `psd` is the postsynaptic, `synapsin` the presynaptic marker: unsigned integers, of one shape (z, y, x).
    `product` wants both to stand out from their background in a window of odd sides. `nomads2018` gives the mask of the
    2018 service, which looked at the second channel alone, always in 3 x 3 x 3 voxels.
    Raises ValueError where the arrays do not fit one another or the method is unknown.
    """
    _check(psd, synapsin)
    if method == "nomads2018":
        return _nomads2018(synapsin)
    if method != "product":
        raise ValueError(f"unknown method {method!r}")
    return select(evidence(psd, synapsin, window=window), window=window)


def evidence(psd: Array, synapsin: Array, *, window: Triple = WINDOW) -> NDArray[np.float32]:
    """How much both markers stand out from their backgrounds: the geometric mean, in standard deviations.

    0 wherever one of them does so by less than WEAKER.
    """
    _check(psd, synapsin)
    first, second = _stands_out(psd, window), _stands_out(synapsin, window)
    weaker = np.minimum(first, second)
    first *= second
    np.sqrt(first, out=first)
    first[weaker < WEAKER] = 0
    return first


def select(seen: NDArray[np.float32], *, window: Triple = WINDOW) -> NDArray[np.bool_]:
    """The mask of the objects in an array of evidence; noise alone gives none, nor does less than a quarter window."""
    bright = seen[seen > SIGNIFICANT]
    if not bright.size:
        return np.zeros(seen.shape, np.bool_)
    counts, edges = np.histogram(bright, _BINS)
    # Otsu alone would also part pure noise in two
    threshold = max(SIGNIFICANT, CORE * _otsu(counts, (edges[:-1] + edges[1:]) / 2))
    return _without_small(seen > threshold, window[0] * window[1] * window[2] // 4)


def measure(mask: NDArray[np.bool_], seen: Array) -> Synapses:
    """Label the mask's objects (26-connected, in the order of their first voxels) and measure each."""
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    where = np.flatnonzero(mask)
    label = labels.reshape(-1)[where].astype(np.int64)
    voxels = np.bincount(label, minlength=count + 1)[1:]

    def mean(values: Array) -> NDArray[np.float64]:
        return np.bincount(label, weights=values, minlength=count + 1)[1:] / voxels

    centres = np.stack([mean(axis) for axis in np.unravel_index(where, mask.shape)], axis=1)
    return Synapses(labels, centres, voxels.astype(np.int64), mean(seen.reshape(-1)[where]))


def _check(psd: Array, synapsin: Array) -> None:
    if psd.ndim != 3 or psd.shape != synapsin.shape or 0 in psd.shape:
        raise ValueError(f"two arrays of one shape z, y, x are needed, not {psd.shape} and {synapsin.shape}")
    if psd.dtype.kind not in "ub" or synapsin.dtype.kind not in "ub":
        raise ValueError(f"unsigned integers are needed, not {psd.dtype} and {synapsin.dtype}")


def _box_sums(volume: Array, window: Triple) -> Array:
    """Sums over the window round each voxel, the volume being mirrored at its faces; exact, unsigned."""
    if any(side < 1 or side % 2 == 0 for side in window):
        raise ValueError(f"a window has odd sides, not {window}")
    largest = int(volume.max()) * window[0] * window[1] * window[2]
    sums: Array = volume.astype(next(t for t in (np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(t).max))
    for axis, side in enumerate(window):
        if side == 1:
            continue
        padded = np.pad(sums, [(side // 2,) * 2 if i == axis else (0, 0) for i in range(3)], mode="symmetric")
        length = volume.shape[axis]
        if side <= 7:
            sums = _along(padded, axis, 0, length).copy()
            for shift in range(1, side):
                np.add(sums, _along(padded, axis, shift, length), out=sums)
        else:  # running totals may wrap round; their differences are right all the same
            totals = np.cumsum(padded, axis=axis, dtype=padded.dtype)
            sums = _along(totals, axis, side - 1, length).copy()
            _along(sums, axis, 1, length - 1)[...] -= _along(totals, axis, 0, length - 1)
    return sums


def _along(array: Array, axis: int, start: int, length: int) -> Array:
    return array[(slice(None),) * axis + (slice(start, start + length),)]


def _stands_out(volume: Array, window: Triple) -> NDArray[np.float32]:
    """Local sums above their section's median, in standard deviations of the background; 0 or more.

    Sections differ in brightness, hence the median of each; the deviation is taken from the darker half, which holds no
    synapses, and is one for all.
    """
    sums = _box_sums(volume, window)
    sections, rows, columns = sums.shape
    step = max(1, int(np.sqrt(rows * columns / _SAMPLES)))
    sample = sums[:, ::step, ::step].reshape(sections, -1).astype(np.float64)
    middle = np.median(sample, axis=1)
    below = (middle[:, None] - sample)[sample < middle[:, None]]
    deviation = 1.4826 * float(np.median(below)) if below.size >= 0.1 * sample.size else float(sample.std())
    if deviation == 0:  # a constant volume shows nothing
        return np.zeros(volume.shape, np.float32)
    out = sums.astype(np.float32)
    out -= middle[:, None, None].astype(np.float32)
    out *= np.float32(1 / deviation)
    return np.maximum(out, 0, out=out)


def _otsu(counts: Array, centres: Array) -> float:
    """The centre of the bin that best parts a histogram in two (the first, where several do)."""
    counts = counts.astype(np.float64)
    left, right = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_left = np.cumsum(counts * centres) / left
        mean_right = (np.cumsum((counts * centres)[::-1]) / right[::-1])[::-1]
        between = left[:-1] * right[1:] * (mean_left[:-1] - mean_right[1:]) ** 2
    return float(centres[int(np.argmax(np.nan_to_num(between)))])  # an empty side parts nothing


def _nomads2018(synapsin: Array) -> NDArray[np.bool_]:
    """The 2018 mask. Its covariance E[v1 + v2] - E[v1] + E[v2] is 2 E[v2], and its z-score changes no comparison."""
    if synapsin.dtype != np.uint8:
        synapsin = (synapsin / np.iinfo(synapsin.dtype).max * 255).astype(np.uint8)
    sums = _box_sums(synapsin, (3, 3, 3))
    values = np.bincount(sums.reshape(-1))
    present = np.flatnonzero(values)
    if present.size < 2:
        return np.zeros(sums.shape, np.bool_)
    counts, edges = np.histogram(present, _BINS, weights=values[present])
    threshold = _otsu(counts, (edges[:-1] + edges[1:]) / 2)
    return _without_small(sums > threshold, SMALLEST_2018 + 1)


def _without_small(mask: NDArray[np.bool_], smallest: int) -> NDArray[np.bool_]:
    """The mask without objects (26-connected) of fewer voxels."""
    if smallest <= 1 or not mask.any():
        return mask
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    large = np.bincount(labels.reshape(-1), minlength=count + 1) >= smallest
    large[0] = False
    kept: NDArray[np.bool_] = large[labels]
    return kept
