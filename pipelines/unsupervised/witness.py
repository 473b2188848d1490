"""Whether a further channel is at the synapses: one that ought to be there, or ought not. Axes are z, y, x."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple
from pipelines.unsupervised.chance import looks_that_fit
from pipelines.unsupervised.found import Size
from pipelines.unsupervised.paired import STEPS, Grid, standing_out
from pipelines.unsupervised.search import in_pixels

Array = NDArray[Any]
NORMAL = 1.96
"""Standard deviations on either side that hold 95 %."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of so many places, from 0 to 1, and the bounds between which it lies (95 %, Wilson's interval)."""

    part: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: float, places: int) -> Share:
        """So many of so many places, which are not none."""
        part, square = hits / places, NORMAL**2 / places
        middle = (part + square / 2) / (1 + square)
        off = math.sqrt(square * (part * (1 - part) + square / 4)) / (1 + square)
        return cls(part, min(part, max(0.0, middle - off)), max(part, min(1.0, middle + off)))


@dataclass(frozen=True, slots=True)
class Witness:
    """At what part of the synapses a channel stands out, and at what part of the same places shifted away."""

    there: Share
    elsewhere: Share

    @property
    def enrichment(self) -> float:
        """How many times as often it stands out at the synapses; infinite where it never does elsewhere."""
        return self.there.part / self.elsewhere.part if self.elsewhere.part else math.inf

    @property
    def sure(self) -> bool:
        """Whether the two shares differ by more than their bounds."""
        return self.there.low > self.elsewhere.high or self.there.high < self.elsewhere.low

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Witness | None:
        """From sums of what `counted` gives; None where there are no synapses, or no room to shift them."""
        hits, places, elsewhere, others = counts.tolist()
        return cls(Share.of(hits, places), Share.of(elsewhere, others)) if others else None


def counted(
    read: Callable[[int, int], Array],
    shape: Triple,
    centres: NDArray[np.float64],
    *,
    voxel_nm: Size,
) -> NDArray[np.int64]:
    """(4,): at how many synapses a channel stands out, of how many; and at how many shifted places, of how many.

    All are 0 where there is no room to shift synapses. `read(start, stop)` gives sections of the channel as it lies on
    the postsynaptic one: (z, y, x), unsigned integers. `centres` is (n, 3), in voxels from the volume's corner. A
    channel stands out where its difference of Gaussians exceeds the local root mean square.
    """
    grid = Grid.of(voxel_nm)
    high, wide = (-(-n // side) for n, side in zip(shape[1:], grid.bins[1:], strict=True))
    places = np.clip(((centres + 0.5) // grid.bins).astype(np.intp), 0, None)
    looks, _ = looks_that_fit((high, wide), grid.pixel_nm[1:], depth=1)
    if not len(centres) or not looks:
        return np.zeros(4, np.int64)
    counts = np.zeros(len(looks) + 1, np.int64)
    for z in np.unique(places[:, 0]):
        at = places[places[:, 0] == z, 1:]
        section = in_pixels(read(z * grid.bins[0], min(shape[0], (z + 1) * grid.bins[0])), grid)
        seen = standing_out(section, grid)
        for n, look in enumerate([(0, 0), *looks]):
            y, x = ((at - look) % (high, wide) + grid.rim).T
            counts[n] += np.count_nonzero(seen[y, x] > STEPS)
    return np.array([counts[0], len(centres), counts[1:].sum(), len(looks) * len(centres)])
