"""How much memory a detector takes, in a process of its own with all the copies that it makes of itself."""

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
import json, os, sys
from pathlib import Path
from threading import Event, Thread
import numpy as np
from pipelines.unsupervised.detector import scan
shape, dtype, method = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
def of(process, file, name):
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
def all_processes():
    yield os.getpid()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if of(status.parent.name, "status", "PPid:") == os.getpid():
                yield status.parent.name
        except OSError:  # it has ended
            pass
together, done = 0, Event()
def look():
    global together
    while not done.wait(0.01):
        try:
            together = max(together, sum(of(process, "smaps_rollup", "Pss:") for process in all_processes()))
        except OSError:  # one has ended
            pass
looking = Thread(target=look)
looking.start()
def read(start, stop, top, bottom):
    random = np.random.default_rng(start)
    return tuple(random.integers(0, 250, (stop - start, bottom - top, shape[2]), dtype) for _ in range(2))
try:
    scan(read, tuple(shape), method=method)
finally:
    done.set()
    looking.join()
print(max(together, of("self", "status", "VmHWM:")))
"""
"""A process of its own: memory that another test needed would count otherwise. What it shares with its copies counts
once, and is looked at all the time."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((40, 1024, 1024), "uint8"),
        ((1, 4096, 4096), "uint8"),
        ((2, 2048, 4096), "uint16"),
        ((4, 1024, 4096), "uint64"),
    ],
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
