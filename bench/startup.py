"""The start of `python -m bot --help`, which imports nothing heavy."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.figures import Figure
from sandbox.house import ROOT

TIMES = 10


def measure() -> Iterator[Figure]:
    """The median time of some starts, beside that of an interpreter that does nothing."""
    yield Figure(name="help", value=_start("-m", "bot", "--help"), unit="s", floor=_start("-c", ""), at_most=0.4)


def _start(*arguments: str) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
