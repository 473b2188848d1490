"""`python -m bench [NAME …]`: print a line for each figure, and the missed goals; exit with 1 if a goal is missed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench import (
    accepting,
    batch,
    detection,
    following,
    forms,
    kills,
    modal,
    startup,
    submission,
    volumes,
    watching,
    whole,
)
from bench.figures import Figure, exit_code, summary

Benchmark = Callable[[], Iterator[Figure]]
BENCHMARKS: Mapping[str, Benchmark] = {
    "startup": startup.measure,
    "modal": modal.measure,
    "submission": submission.measure,
    "forms": forms.measure,
    "watching": watching.measure,
    "batch": batch.measure,
    "following": following.measure,
    "accepting": accepting.measure,
    "detection": detection.measure,
    "volumes": volumes.measure,
    "kills": kills.measure,
    "whole": whole.measure,
}


def main(argv: Sequence[str] | None = None, benchmarks: Mapping[str, Benchmark] = BENCHMARKS) -> int:
    """Run the named benchmarks, or all. Returns the exit code: 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what is called fast.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(benchmarks)}; none: all")
    names = parser.parse_args(argv).names
    if unknown := [name for name in names if name not in benchmarks]:
        parser.error(f"there is no {unknown[0]}; there is {', '.join(benchmarks)}")
    print(f"machine: {os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}", flush=True)
    measured: dict[str, list[Figure]] = {}
    for name in dict.fromkeys(names or benchmarks):
        measured[name] = []
        for figure in benchmarks[name]():
            print(figure, flush=True)
            measured[name].append(figure)
    print(f"\n{summary(measured)}", flush=True)
    return exit_code(figure for figures in measured.values() for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
