"""What was seen of a channel in a box, whichever parts of it were read together. Axes are z, y, x."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box, intersection, shape, voxels

Array = NDArray[Any]

LARGEST = 2048
"""Pixels of a projection's longer side, at most."""
SAMPLE = 2**18
"""Voxels in the sample of a channel's brightness, about."""


class Seen:
    """Extremes of each section, a projection and a sample of a channel in a box, as far as it was looked at.

    `part` is the part of the box that will be looked at, by default all of it: what was seen of several parts is put
    together by `add`.
    """

    def __init__(self, box: Box, dtype: np.dtype[Any], *, part: Box | None = None) -> None:
        self.box, self.dtype = box, dtype
        self._part = part = part or box
        self._step = max(1, round(math.sqrt(voxels(box) / SAMPLE)))
        self._sample: list[Array] = []
        self._range: Array = np.zeros((2, shape(part)[0]), dtype)
        self._looked = np.zeros(shape(part)[0], np.bool_)
        self._pixel = -(-max(shape(box)[1:]) // LARGEST)
        self._top, self._left = (
            (low - first) // self._pixel for (low, _), (first, _) in zip(part[1:], box[1:], strict=True)
        )
        high, wide = (
            -(-(stop - first) // self._pixel) - start
            for (_, stop), (first, _), start in zip(part[1:], box[1:], (self._top, self._left), strict=True)
        )
        self.projection: Array = np.zeros((high, wide), dtype)
        """Maximum along z of the sections looked at, (y, x); in a large box a pixel covers several voxels."""

    def look(self, data: Array, box: Box) -> None:
        """Look at the voxels of a box, as far as they are the part's."""
        within = intersection(box, self._part)
        if within is None:
            return
        data = data[tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(within, box, strict=True))]
        first = within[0][0] - self._part[0][0]
        here = slice(first, first + len(data))
        brightest = np.zeros(data.shape[1:], self.dtype)
        lows, highs = np.zeros((2, len(data)), self.dtype)
        for z, section in enumerate(data):  # which the processor's cache holds, unlike all of them
            lows[z], highs[z] = section.min(), section.max()
            np.maximum(brightest, section, out=brightest)
        seen = self._looked[here]
        self._range[0, here] = np.where(seen, np.minimum(lows, self._range[0, here]), lows)
        self._range[1, here] = np.where(seen, np.maximum(highs, self._range[1, here]), highs)
        self._looked[here] = True
        places = []
        for axis, (low, _) in enumerate(within[1:]):
            offset = low - self.box[axis + 1][0]
            brightest = _coarser(brightest, offset % self._pixel, self._pixel, axis=axis)
            places.append(offset // self._pixel)
        there = self.projection[places[0] - self._top :, places[1] - self._left :]
        there = there[: brightest.shape[0], : brightest.shape[1]]
        np.maximum(brightest, there, out=there)
        down, right = (
            -(low - first) % self._step for (low, _), (first, _) in zip(within[1:], self.box[1:], strict=True)
        )
        self._sample.append(data[:, down :: self._step, right :: self._step].reshape(-1).copy())

    def add(self, other: Seen) -> None:
        """Add what was seen of a part of this box."""
        first = other._part[0][0] - self._part[0][0]
        here = slice(first, first + len(other._looked))
        for n, put in enumerate((np.minimum, np.maximum)):
            both = np.where(self._looked[here], put(self._range[n, here], other._range[n]), other._range[n])
            self._range[n, here] = np.where(other._looked, both, self._range[n, here])
        self._looked[here] |= other._looked
        there = self.projection[other._top - self._top :, other._left - self._left :]
        there = there[: other.projection.shape[0], : other.projection.shape[1]]
        np.maximum(other.projection, there, out=there)
        self._sample += other._sample

    def arrays(self) -> dict[str, Array]:
        """All that was seen, for `restored`."""
        return {"range": self._range, "looked": self._looked, "projection": self.projection, "sample": self.sample}

    @classmethod
    def restored(cls, box: Box, part: Box, arrays: Mapping[str, Array]) -> Seen:
        """What was seen of a part, from its `arrays`."""
        seen = cls(box, arrays["range"].dtype, part=part)
        seen._range, seen._looked = arrays["range"], arrays["looked"]
        seen.projection, seen._sample = arrays["projection"], [arrays["sample"]]
        return seen

    @property
    def lowest(self) -> int:
        """The least value seen; 0 before anything was."""
        return int(self._range[0, self._looked].min()) if self._looked.any() else 0

    @property
    def highest(self) -> int:
        """The greatest value seen; 0 before anything was."""
        return int(self._range[1].max())

    @property
    def sample(self) -> Array:
        """Voxels of a regular grid through all that was looked at, (n,): a sample of the channel's brightness."""
        return np.concatenate(self._sample) if self._sample else np.zeros(0, self.dtype)

    @property
    def constant(self) -> bool:
        """Whether all voxels seen have one value."""
        return self.lowest == self.highest

    @property
    def blank(self) -> list[int]:
        """The sections looked at in which all voxels have one value, as the experiment counts them."""
        return [self._part[0][0] + int(z) for z in np.flatnonzero((self._range[0] == self._range[1]) & self._looked)]

    def alike(self, other: Seen) -> bool:
        """Whether both may have seen the same voxels, as far as extremes and projection tell."""
        return np.array_equal(self._range, other._range) and np.array_equal(self.projection, other.projection)


def _coarser(plane: Array, first: int, pixel: int, *, axis: int) -> Array:
    """The greatest value of each `pixel` values along an axis, the first of which is number `first` of its pixel."""
    if pixel == 1:
        return plane
    edges = [(0, 0), (0, 0)]
    edges[axis] = first, -(first + plane.shape[axis]) % pixel
    plane = np.moveaxis(np.pad(plane, edges), axis, 0)  # with zeros, below which there is nothing
    found = plane[::pixel].copy()
    for n in range(1, pixel):
        np.maximum(found, plane[n::pixel], out=found)
    return np.moveaxis(found, 0, axis)
