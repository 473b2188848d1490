"""The mask the 2018 service produced, bit for bit, for reproducing old results.

The service took both channels' z-scores v1 and v2, called `E[v1 + v2] - E[v1] + E[v2]` (E: the mean over 3 x 3 x 3
voxels) their covariance, split the covariance with Otsu's threshold of a histogram of 256 bins, and kept the objects
(26-connected) of more than 30 voxels. The first two terms leave E[v2], so the formula is 2 E[v2]: the first channel has
no influence but by rounding.

So the threshold is one of whole numbers, the sums over 3 x 3 x 3 voxels of the second channel, with one exception:
where a sum falls on the edge of a bin, or on the threshold, rounding decided. `fill` counts whole numbers and proves
that no rounding could have changed the threshold; where there is no proof (data of few grey levels), `fill` computes
the voxels in question as the libraries of 2018 did, number by number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.unsupervised.sections import bands, three, windows

Array = NDArray[Any]
Grey = NDArray[np.uint8]

SMALLEST = 31
"""Voxels of the smallest object in the mask."""
BINS = 256
"""Bins of the histogram."""
_MOST = 27 * 255
"""The largest sum over 3 x 3 x 3 voxels."""
_HALVES = 2**21
"""Voxels whose squares are added up at a time: numpy itself splits larger arrays in halves."""
_FEW = 2**17
"""Voxels computed at a time in steps that take a hundred bytes a voxel."""


def grey(section: Array) -> Grey:
    """Unsigned integers as grey levels of 2018: values deeper than uint8 are scaled by their type's largest value."""
    if section.dtype == np.uint8:
        return section
    return (section / np.iinfo(section.dtype).max * 255).astype(np.uint8)


def fill(mask: Grey, psd: Grey, synapsin: Grey, *, piece: int) -> None:
    """Set the mask (all zero; z, y, x like the channels) to 1 above the threshold.

    The mask stays zero if a channel is constant, where the 2018 service failed. About `piece` voxels are processed at a
    time.
    """
    if any(channel.min() == channel.max() for channel in (psd, synapsin)):
        return
    sums, counts = _sums(synapsin, piece)
    threshold = _proved(counts)
    if threshold is None:
        _Numbers(psd, synapsin, sums, piece=piece).fill(mask, counts)
    else:
        np.greater(sums, threshold, out=mask.view(np.bool_))


def _sums(synapsin: Grey, piece: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The sums over 3 x 3 x 3 voxels, with mirrored faces, (z, y, x); and how often each sum occurs."""
    sums = np.empty(synapsin.shape, np.uint16)
    counts = np.zeros(_MOST + 1, np.int64)
    for band in bands(synapsin.shape, piece=piece, halo=1):
        lines = np.clip(np.arange(band.top - 1, band.bottom + 1), 0, synapsin.shape[1] - 1)
        planes = (
            three(three(np.pad(section[lines], ((0, 0), (1, 1)), "symmetric").astype(np.uint16), 0), 1)
            for section in synapsin
        )
        for section, (above, here, below) in zip(sums, windows(planes, 1), strict=True):
            out = section[band.top : band.bottom]
            np.add(above, here, out=out)
            out += below
            counts += np.bincount(out.reshape(-1), minlength=len(counts))
    return sums, counts


def otsu(counts: Array, centres: Array) -> tuple[int, NDArray[np.float64]]:
    """The (first) bin after which a histogram splits best, and the between-class variance of every bin but the last.

    Where values differ by rounding alone, bins at the ends may be empty: the first of these is the best, as in 2018.
    """
    weight = counts.astype(np.float64)
    left, right = np.cumsum(weight), np.cumsum(weight[::-1])[::-1]
    with np.errstate(invalid="ignore"):
        mean_left = np.cumsum(weight * centres) / left
        mean_right = (np.cumsum((weight * centres)[::-1]) / right[::-1])[::-1]
    between = left[:-1] * right[1:] * (mean_left[:-1] - mean_right[1:]) ** 2
    return int(np.argmax(between)), between


def _proved(counts: Array) -> int | None:
    """The largest sum that is not above the threshold; None if rounding could have changed the threshold."""
    sums = np.flatnonzero(counts)
    low, span = sums[0], sums[-1] - sums[0]
    if span == 0:
        return None
    place, beyond = np.divmod((sums - low) * BINS, span)
    centres = low + (np.arange(BINS) + 0.5) * (span / BINS)
    below = np.searchsorted(sums, centres, "right")  # how many sums are not above each possible threshold

    def parted(place: Array) -> tuple[int, NDArray[np.float64]]:
        return otsu(np.bincount(np.minimum(place, BINS - 1), weights=counts[sums], minlength=BINS), centres)

    best, between = parted(place)
    if centres[best] == sums[below[best] - 1]:
        return None
    margin = between[best] - between - 1e-9 * between[best]
    for edge in np.flatnonzero((beyond == 0) & (place > 0) & (place < BINS)):
        moved = place.copy()
        moved[edge] -= 1  # at worst, all of these voxels were rounded down into the bin before
        _, otherwise = parted(moved)
        margin -= np.maximum(0, (otherwise - between) - (otherwise[best] - between[best]))
    rivals = below[:-1] != below[best]
    return int(sums[below[best] - 1]) if (margin[rivals] > 0).all() else None


class _Numbers:
    """The numbers of 2018, computed for the voxels where rounding mattered."""

    def __init__(self, psd: Grey, synapsin: Grey, sums: NDArray[np.uint16], *, piece: int) -> None:
        self._channels = [psd.reshape(-1), synapsin.reshape(-1)]
        self._sums = sums.reshape(-1)
        self._shape = psd.shape
        self._piece = piece
        values = np.arange(256, dtype=np.uint8)
        self._scores = [(values - mean) / deviation for mean, deviation in map(_moments, self._channels)]

    def fill(self, mask: Grey, counts: NDArray[np.int64]) -> None:
        """Set the mask as the module's `fill` does; `counts` says how often each sum occurs."""
        sums = np.flatnonzero(counts)
        least, span = int(sums[0]), int(sums[-1] - sums[0])
        low = min(float(part.min()) for _, part in self._of([least]))
        high = max(float(part.max()) for _, part in self._of([least + span]))
        # the first and the last bin hold what lies on their outer edges, however it was rounded
        place, beyond = np.divmod((sums - least) * BINS, max(1, span))
        edge = (beyond == 0) & (place > 0) & (place < BINS) if span else np.ones(1, np.bool_)
        histogram = np.bincount(np.minimum(place[~edge], BINS - 1), weights=counts[sums[~edge]], minlength=BINS).astype(
            np.int64
        )
        for _, part in self._of(sums[edge]):
            histogram += np.histogram(part, BINS, range=(low, high))[0]
        edges = np.linspace(low, high, BINS + 1)
        centres = (edges[:-1] + edges[1:]) / 2
        threshold = centres[otsu(histogram, centres)[0]]

        step = (high - low) / max(1, span)
        near = low + (np.arange(_MOST + 1) - least) * step - threshold
        above, flat = near > 0, mask.reshape(-1)
        for start in range(0, len(flat), self._piece):
            flat[start : start + self._piece] = above[self._sums[start : start + self._piece]]
        for where, part in self._of(sums[np.abs(near[sums]) <= 1e-6 * step] if span else sums):
            flat[where] = part > threshold

    def _of(self, sums: Any) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
        """The voxels (indices into the flat volume) that have one of the sums, and their `covariance`."""
        wanted = np.zeros(_MOST + 1, np.bool_)
        wanted[sums] = True
        for start in range(0, len(self._sums), self._piece):
            where = np.flatnonzero(wanted[self._sums[start : start + self._piece]]) + start
            for first in range(0, len(where), _FEW):
                few = where[first : first + _FEW]
                yield few, self._covariance(few)

    def _covariance(self, where: NDArray[np.intp]) -> NDArray[np.float64]:
        """Scores and means of 3 x 3 x 3 voxels, multiplied and added in the order scipy.ndimage.convolve takes."""
        near = []
        for place, side, stride in zip(
            np.unravel_index(where, self._shape), self._shape, np.cumprod((1, *self._shape[:0:-1]))[::-1], strict=True
        ):
            near.append([np.clip(place + step, 0, side - 1) * stride for step in (-1, 0, 1)])
        first, second, both = np.zeros((3, len(where)))
        for z, y, x in itertools.product(*near):
            there = z + y + x
            one, two = (score[channel[there]] for score, channel in zip(self._scores, self._channels, strict=True))
            first += one * (1 / 27.0)
            second += two * (1 / 27.0)
            both += (one + two) * (1 / 27.0)
        return np.asarray(both - first + second)


def _moments(values: Grey) -> tuple[float, float]:
    """Mean and standard deviation as numpy rounds them, without eight bytes for each value."""
    mean = values.mean()

    def squares(start: int, stop: int) -> float:
        # numpy adds up halves of halves, and a single piece in the same way
        size = stop - start
        if size <= _HALVES:
            return float(np.add.reduce((values[start:stop] - mean) ** 2))
        half = size // 2
        half -= half % 8
        return squares(start, start + half) + squares(start + half, stop)

    return mean, np.sqrt(squares(0, len(values)) / len(values))
