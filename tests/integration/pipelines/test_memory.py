"""How much memory a detector takes, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.unsupervised.detector import METHODS, Method

ROOT = Path(__file__).parents[3]
MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from pipelines.unsupervised.detector import scan
shape, dtype, method = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
def read(start, stop, top, bottom):
    random = np.random.default_rng(start)
    return tuple(random.integers(0, 250, (stop - start, bottom - top, shape[2]), dtype) for _ in range(2))
scan(read, tuple(shape), method=method)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""
"""A process of its own: memory that another test needed would count otherwise."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("shape", "dtype"), [((40, 1024, 1024), "uint8"), ((1, 4096, 4096), "uint8"), ((4, 1024, 4096), "uint64")]
)
def test_memory_is_8_bytes_a_voxel_and_200_mb_at_most(method: Method, shape: tuple[int, int, int], dtype: str) -> None:
    """100 MB less than a whole run may take, which reads from BOSS as well."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(shape), dtype, method],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert int(done.stdout) * 1024 <= 8 * int(np.prod(shape)) + 200 * 10**6
