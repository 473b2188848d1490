"""What a detector gives: the objects, how sure they are, and how the channels lay. Axes are z, y, x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.sparse import Sparse
from pipelines.unsupervised.chance import Chance
from pipelines.unsupervised.registration import Warp

Array = NDArray[Any]
Size = tuple[float, float, float]
Read = Callable[[int, int, int, int], tuple[Array, Array]]
"""Gives the rows `[top, bottom)` of the sections `[start, stop)` of both markers, by start, stop, top, bottom."""


@dataclass(frozen=True, slots=True)
class Synapses:
    """The objects found, one row each in the order of their labels (row 0 is label 1).

    `labelled` has the shape of what is inside: an object's label in its voxels, 0 elsewhere. It is sparse where the
    default method found them in more than `BLOCK_VOXELS`. `centres` is (n, 3): z, y, x in voxels from its
    corner, in the coordinates of the postsynaptic channel; `voxels`, `scores` and `rates` are (n,). A score is how
    strongly both markers meet and how alike their light is (paired), the mean probability over the object's voxels
    (probabilistic), or 1 (nomads2018, which has none).
    """

    labelled: NDArray[np.uint32] | Sparse
    centres: NDArray[np.float64]
    voxels: NDArray[np.int64]
    scores: NDArray[np.float64]
    rates: NDArray[np.float64]
    """The lowest false discovery rate at which each object would still be found; nan where chance cannot be told."""
    threshold: float = 0.0
    """The lowest score of an object; infinite where no threshold has the rate, or nothing is beyond chance."""
    tells: bool = True
    """Whether chance can be told, and was asked for."""
    chance: Chance | None = None
    """How many of the objects are there by chance; None where that cannot be told, or there are none."""
    curve: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """As `chance.Judged.curve`, of what is inside, beyond the threshold that was taken; empty where nothing tells.

    Its rates are those of all that was looked at, which decide what a run finds.
    """
    reached: int = 0
    """Of the default method: how many objects have the score of a volume in which chance cannot be told."""
    across: Sequence[Warp] = ()
    """How the presynaptic channel lies on the postsynaptic one, for each section of pixels, as far as measured."""
    along: Sequence[Warp] = ()
    """How each section but the first lies on the last one, as the postsynaptic channel says."""

    @property
    def labels(self) -> NDArray[np.uint32]:
        """`labelled` as an array, made anew where it is sparse."""
        return self.labelled.whole() if isinstance(self.labelled, Sparse) else self.labelled

    def __len__(self) -> int:
        return len(self.voxels)
