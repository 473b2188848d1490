"""What the merge of a volume's blocks will need, told before any of them is worked on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.common.boxes import Box
from pipelines.unsupervised.blocks import Known
from pipelines.unsupervised.chance import MERGE_NM
from pipelines.unsupervised.paired import Grid

MIB = 2**20
BASE = 350 * MIB
"""Bytes of a merge of nothing: libraries, samples of the channels."""
EACH, OF_A_COLUMN = 150, 16
"""Bytes for each synapse, or each candidate that is compared at a time; and more for each channel and each mark.

Measured by `bench whole`, with some more. A merge holds 40 to 50 bytes for each synapse while it compares
candidates, and some 170 bytes while it writes the results, of two channels.
"""
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


def needs(known: Known, cores: Sequence[Box], grid: Grid, *, columns: int) -> Needs:
    """What the merge of blocks with these cores will need, of so many `columns`: channels, and marks of a synapse.

    `known` tells how many synapses to expect; it takes nothing more to merge none.
    """
    at = known.curve[known.curve[:, 0] >= known.threshold]
    synapses = SURE * float(at[-1, 1]) / known.looked if len(at) else 0.0
    first, last = cores[0][0], cores[-1][0]
    # candidates of two slabs are compared with one another, as far as one reaches from the second into the first
    deep = first[1] - first[0] + (2 * int(MERGE_NM / grid.pixel_nm[0]) + 1) * grid.bins[0]
    compared = CANDIDATES * synapses * min(1.0, deep / (last[1] - first[0]))
    held = max(synapses, compared + synapses / 4)
    memory = BASE + (EACH + OF_A_COLUMN * columns) * held
    return Needs(memory=math.ceil(memory / MIB), seconds=math.ceil(SECONDS * synapses))
