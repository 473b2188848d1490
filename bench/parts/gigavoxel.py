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
    """Detect once for each question, which may name a `shape` of whole tiles, a `threshold`, and the `voxel_nm`."""
    tile = puncta(1, shape=TILE)
    say(ready=True)
    for asked in questions():
        z, y, x = asked.pop("shape", SHAPE)
        began = time.perf_counter()
        found = scan(
            lambda *place, x=x: (_read(tile.psd, x, *place), _read(tile.synapsin, x, *place)), (z, y, x), **asked
        )
        say(
            seconds=time.perf_counter() - began,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            voxels=z * y * x,
            synapses=len(found),
            expected=len(tile.truth) * (z * y * x // int(np.prod(TILE))),
        )


def _read(tile: Array, wide: int, start: int, stop: int, top: int, bottom: int) -> Array:
    rows = np.arange(top, bottom) % TILE[1]
    return np.tile(tile[start:stop, rows], (1, 1, wide // TILE[2]))


if __name__ == "__main__":
    main()
