"""Whether a further channel is at the synapses: one that ought to be there, or ought not. Axes are z, y, x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.unsupervised.chance import TEST_NM, looks_for
from pipelines.unsupervised.found import Read, Size, Triple
from pipelines.unsupervised.paired import STEPS, Grid, standing_out
from pipelines.unsupervised.registration import Tiles, register
from pipelines.unsupervised.search import pixels

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Witness:
    """At what part of the synapses a channel stands out, and at what part of the same places shifted away."""

    there: float
    elsewhere: float

    @property
    def enrichment(self) -> float:
        """How many times as often it stands out at the synapses."""
        return self.there / self.elsewhere if self.elsewhere else float("inf")


def witness(
    read: Read,
    shape: Triple,
    centres: NDArray[np.float64],
    *,
    voxel_nm: Size,
    moved: bool = True,
    told: Callable[[float], None] = lambda part: None,
) -> Witness | None:
    """How a channel stands out at synapses; None where there are none, or no room to shift them.

    `read` gives the postsynaptic channel and the witness. `centres` is (n, 3), in voxels from the volume's corner. A
    channel stands out where its difference of Gaussians exceeds the local root mean square. With `moved`, it is laid on
    the postsynaptic channel first, where that is sure.
    """
    grid = Grid.of(voxel_nm)
    high, wide = (-(-n // side) for n, side in zip(shape[1:], grid.bins[1:], strict=True))
    places = np.clip(((centres + 0.5) // grid.bins).astype(np.intp), 0, None)
    looks = looks_for((high, wide), grid.pixel_nm[1:], depth=1) or looks_for(
        (high, wide), grid.pixel_nm[1:], depth=1, least_nm=TEST_NM
    )
    if not len(centres) or not looks:
        return None
    counts = np.zeros(len(looks) + 1)
    for z in np.unique(places[:, 0]):
        at = places[places[:, 0] == z, 1:]
        post, other = pixels(*read(z * grid.bins[0], min(shape[0], (z + 1) * grid.bins[0]), 0, shape[1]), grid=grid)
        seen = standing_out(other, grid)
        there = at
        if moved:
            warp = register(Tiles.of(standing_out(post, grid), grid), Tiles.of(seen, grid))
            if warp.moves((high, wide)):
                there = np.clip(at - np.rint(warp.shift(at)).astype(np.intp), 0, (high - 1, wide - 1))
        for n, look in enumerate([(0, 0), *looks]):
            y, x = ((there - look) % (high, wide) + grid.rim).T
            counts[n] += np.count_nonzero(seen[y, x] > STEPS)
        told((z + 1) * grid.bins[0] / shape[0])
    return Witness(counts[0] / len(centres), float(counts[1:].mean()) / len(centres))
