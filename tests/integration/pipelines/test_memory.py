"""How much memory a detector takes, in a process of its own with all the copies that it makes of itself."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.unsupervised.detector import METHODS, Method
from sandbox import stores
from tests.support.puncta import VOXEL_NM, puncta

ROOT = Path(__file__).parents[3]
MEASURE = """
import json, os, sys
from pathlib import Path
from typing import Any
from threading import Event, Thread
def of(process, file, name):
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
def all_processes():
    found = [os.getpid()]
    for task in Path("/proc/self/task").iterdir():
        found += (task / "children").read_text().split()
    return found
together, done = 0, Event()
def look():
    global together
    last = 0
    while not done.wait(0.01):
        try:
            now = sum(of(process, "smaps_rollup", "Pss:") for process in all_processes())
        except OSError:  # one has ended
            continue
        # where a copy begins between two looks of one sum, what it shares counts twice there, and not in the next one
        together, last = max(together, min(last, now)), now
def work():
{work}
looking = Thread(target=look)
looking.start()
try:
    work()
finally:
    done.set()
    looking.join()
print("kB", max(together, of("self", "status", "VmHWM:")))
"""
"""A process of its own: memory that another test needed would count otherwise. What it shares with its copies counts
once, and is looked at all the time."""
SCAN = """
import numpy as np
from pipelines.unsupervised.detector import scan
shape, dtype, method = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
def read(start, stop, top, bottom):
    random = np.random.default_rng(start)
    return tuple(random.integers(0, 250, (stop - start, bottom - top, shape[2]), dtype) for _ in range(2))
scan(read, tuple(shape), method=method)
"""
RUN = """
from pipelines.common.program import run
from pipelines.unsupervised.driver import program
assert run(program, argv=sys.argv[1:], environ={}, err=sys.stderr) == 0
"""


def bytes_of(work: str, *words: str) -> int:
    """The most bytes that a process and its copies take at once to do that."""
    script = MEASURE.replace("{work}", textwrap.indent(work, "    "))
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout.split("kB ")[-1]) * 1024


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
    assert bytes_of(SCAN, json.dumps(shape), dtype, method) <= 8 * int(np.prod(shape)) + 200 * 10**6


@pytest.mark.parametrize(
    ("side", "z", "across", "dtype"),
    [
        (1950, (2, 6), (300, 400), "uint16"),
        (2300, (2, 6), (300, 400), "uint16"),
        (2300, (2, 6), (300, 400), "uint64"),
        (2300, (2, 3), (150, 2150), "uint16"),
        (5000, (2, 3), (200, 4800), "uint16"),
    ],
)
def test_a_thin_or_small_box_of_large_sections_takes_8_bytes_a_voxel_and_300_mb_at_most(
    side: int, z: tuple[int, int], across: tuple[int, int], dtype: str, tmp_path: Path
) -> None:
    """Its sections are registered whole, or by tiles, searched whole, or by bands, and stored in blocks of eight."""
    drawn = puncta(1, shape=(2, 512, 512))

    def repeated(channel: NDArray[np.uint8]) -> NDArray[Any]:
        return np.tile(channel, (6, side // 512 + 1, side // 512 + 1))[:, :side, :side].astype(dtype)

    channels = {"PSD95": repeated(drawn.psd), "Synapsin": repeated(drawn.synapsin)}
    address = stores.precomputed(tmp_path / "volume", channels, voxel_nm=VOXEL_NM, chunk=(8, 256, 256))
    words = ["--volume", address, "--volume-roots", tmp_path.as_uri(), "--results-uri", f"{tmp_path.as_uri()}/found/"]

    for axis, (start, stop) in {"z": z, "y": across, "x": across}.items():
        words += [f"--{axis}-range", f"{start},{stop}"]

    taken = bytes_of(RUN, *words)

    assert taken <= 8 * (z[1] - z[0]) * (across[1] - across[0]) ** 2 + 300 * 10**6
