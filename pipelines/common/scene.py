"""Where a viewer of the results begins, and how bright it shows the channels: the field `view` of results.json."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common import preview
from pipelines.common.channels import Channel
from pipelines.common.precomputed import Frame

NEAR_NM = 2000
"""Side of the cells in which synapses are counted."""


def view(centres: NDArray[np.float64], channels: Mapping[str, Channel], frame: Frame) -> dict[str, Any]:
    """The field: `at` is the densest synapse, in the experiment's voxels; without synapses, the box's middle.

    `centres` is (n, 3): z, y, x in voxels from the box's corner. `voxel_nm`, `start` and `shape` are z, y, x too.
    `ranges` has for each role what is shown as black and as full, as in the preview.
    """
    at = centres[densest(centres, frame.voxel_nm)] if len(centres) else (np.array(frame.shape) - 1) / 2
    return {
        "voxel_nm": list(frame.voxel_nm),
        "start": list(frame.start),
        "shape": list(frame.shape),
        "at": [round(float(place), 2) for place in at + np.array(frame.start)],
        "ranges": {role: list(preview.shown_range(channel.projection)) for role, channel in channels.items()},
    }


def densest(centres: NDArray[np.float64], voxel_nm: tuple[float, float, float]) -> int:
    """The row of the synapse in the middle of where most are: in a cell of NEAR_NM whose surroundings have most.

    `centres` is (n, 3), n at least 1: z, y, x in voxels.
    """
    numbers, step, beyond = np.zeros(len(centres), np.int64), np.ones(3, np.int64), 1
    for axis in (2, 1, 0):  # one at a time, which takes less memory
        cells = np.floor(centres[:, axis] * voxel_nm[axis] / NEAR_NM).astype(np.int64)
        cells -= cells.min() - 1  # so that a cell's neighbours have numbers of their own
        step[axis], beyond = beyond, beyond * (int(cells.max()) + 2)
        numbers += cells * step[axis]
    found, counts = np.unique(numbers, return_counts=True)
    around = np.zeros(len(found), np.int64)
    for offset in itertools.product((-1, 0, 1), repeat=3):
        wanted = found + np.array(offset) @ step
        place = np.minimum(np.searchsorted(found, wanted), len(found) - 1)
        around += np.where(found[place] == wanted, counts[place], 0)
    rows = np.flatnonzero(numbers == found[around.argmax()])
    apart = (centres[rows] - centres[rows].mean(axis=0)) * np.array(voxel_nm)
    return int(rows[(apart**2).sum(axis=1).argmin()])
