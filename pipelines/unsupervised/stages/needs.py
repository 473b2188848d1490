"""What the merge of a volume's blocks will need, told before any of them is worked on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.common.boxes import Box
from pipelines.unsupervised.assembly import TOGETHER
from pipelines.unsupervised.blocks import Known
from pipelines.unsupervised.chance import MERGE_NM
from pipelines.unsupervised.paired import REGION_NM, Grid

MIB = 2**20
BASE = 350 * MIB
"""Bytes of a merge of nothing: libraries, samples of the channels."""
SYNAPSE, COLUMN = 150, 16
"""Bytes for each synapse while the results are written; and more for each channel and each mark."""
KEPT, SUMS = 40, 8
"""Bytes for each synapse while candidates are compared; and more for each channel and each mark."""
CANDIDATE, MARK = 140, 16
"""Bytes for each candidate that is compared at a time, beside its brightness; and more for each mark."""
CANDIDATES = 4
"""Candidates that become one synapse, about: an object is one in each section in which it is seen."""
SURE = 1.25
"""Times more synapses than expected for which there is enough: what is expected was seen in samples."""
SECONDS = 1e-4
"""For a synapse, on any machine: some seven times what they take on two cores."""


@dataclass(frozen=True)
class Needs:
    """What a merge needs at most, as far as it can be told."""

    memory: int = 0
    """MiB."""
    seconds: int = 0


def needs(known: Known, cores: Sequence[Box], grid: Grid, *, channels: int, marks: int = 0, itemsize: int = 1) -> Needs:
    """What the merge of blocks with these cores will need, of channels of so many bytes a voxel.

    `known` tells how many synapses to expect; it takes nothing more to merge none.
    """
    at = known.curve[known.curve[:, 0] >= known.threshold]
    synapses = SURE * float(at[-1, 1]) / known.looked if len(at) else 0.0
    (first, _), (_, last) = cores[0][0], cores[-1][0]
    # candidates wait for those that lie three times as far away as one reaches
    reach = 3 * int(MERGE_NM / grid.pixel_nm[0]) * grid.bins[0]
    deep = max(high - low for (low, high), *_ in cores) + reach
    all_of_them = CANDIDATES * synapses
    compared = min(all_of_them, max(all_of_them * deep / (last - first), 2 * TOGETHER))
    a_pixel = np.min_scalar_type(math.prod(grid.bins) * (256**itemsize - 1)).itemsize
    brightness = 2 * len(grid.offsets(REGION_NM)) * channels * a_pixel
    comparing = (CANDIDATE + brightness + MARK * marks) * compared + (KEPT + SUMS * (channels + marks)) * synapses
    writing = (SYNAPSE + COLUMN * (channels + marks)) * synapses
    return Needs(memory=math.ceil((BASE + max(comparing, writing)) / MIB), seconds=math.ceil(SECONDS * synapses))
