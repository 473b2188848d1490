"""What a pipeline does with synapses beside finding them, whether a run takes the box in one piece or in blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple
from pipelines.common.channels import Part
from pipelines.common.results import Results
from pipelines.common.run import Found, Run


class Extension:
    """Nothing more; a pipeline that does more overrides some of this."""

    reach: Triple = (0, 0, 0)
    """Voxels (z, y, x) round a synapse that `mark` looks at."""
    marks: int = 0
    """How many numbers `mark` gives a synapse."""

    def check(self, roles: Collection[str]) -> None:
        """Raises WrongRequest where a channel is missing that the pipeline needs."""

    def results(self, uri: str) -> Results:
        """Where the results are written."""
        return Results(uri)

    def begin(self, run: Run) -> None:
        """Add what is to be said first."""

    def mark(
        self,
        centres: NDArray[np.float64],
        parts: Mapping[str, Part],
        *,
        told: Callable[[float], None] = lambda part: None,
    ) -> NDArray[np.float64]:
        """(n, marks): what is said of each synapse by itself.

        `centres` is (n, 3), z, y, x in voxels from the corner of the parts, which lie in one place and hold `reach`
        voxels round each, as far as the experiment goes. `told` is called with the part that is done. Raises as
        `Part.read`.
        """
        return np.zeros((len(centres), 0))

    def finish(self, run: Run, found: Found, marks: NDArray[np.float64]) -> None:
        """Write the results. Raises Failure."""
        run.finish(found)
