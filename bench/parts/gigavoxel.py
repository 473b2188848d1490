"""Detection in a gigavoxel of two uint8 channels: a volume of the suite, tiled, and read as from a file."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.processes import questions, say
from pipelines.unsupervised.detector import scan
from tests.support.puncta import puncta

Array = NDArray[Any]
SHAPE = (64, 4096, 4096)
TILE = (64, 512, 512)


def main() -> None:
    """Detect once for each question."""
    tile = puncta(1, shape=TILE)
    say(ready=True)
    for _ in questions():
        began = time.perf_counter()
        found = scan(lambda *place: (_read(tile.psd, *place), _read(tile.synapsin, *place)), SHAPE)
        say(
            seconds=time.perf_counter() - began,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            voxels=int(np.prod(SHAPE)),
            synapses=len(found),
            expected=len(tile.truth) * int(np.prod(SHAPE) // np.prod(TILE)),
        )


def _read(tile: Array, start: int, stop: int, top: int, bottom: int) -> Array:
    rows = np.arange(top, bottom) % TILE[1]
    return np.tile(tile[start:stop, rows], (1, 1, SHAPE[2] // TILE[2]))


if __name__ == "__main__":
    main()
