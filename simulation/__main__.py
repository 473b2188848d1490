"""`python -m simulation`: one history by its seed, many that are judged, or every call at which a process may end."""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TypeVar

from simulation import crashes
from simulation.judge import judged
from simulation.places import Emptied, Files
from simulation.run import Plan, run
from simulation.smaller import smaller
from tests.support.databases import postgres

Part = TypeVar("Part")
Result = TypeVar("Result")
TENTH = 10
"""Each seed that it divides runs on PostgreSQL, with three bots."""
AT_ONCE = 50
"""Seeds that a process is given at a time."""
SELDOM = 50_000
"""Objects that are made between two collections of garbage: the usual 700 take a tenth of a run."""


@dataclass(frozen=True)
class Found:
    """A seed, and the promises that its run has broken."""

    seed: int
    broken: Sequence[str]
    points: int
    seconds: float


class Lab:
    """What a process needs for its runs; it ends with the process."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nomads-simulation-"))
        self.files = Files(Path(folder))
        self._emptied: Emptied | None = None

    def plan(self, seed: int, *, sqlite: bool) -> Plan:
        """What a seed runs on."""
        return Plan() if sqlite or seed % TENTH else Plan(bots=3)

    def places(self, seed: int, *, sqlite: bool) -> crashes.Places:
        """The databases on which a seed runs."""
        if sqlite or seed % TENTH:
            return self.files
        if self._emptied is None:
            server = self._stack.enter_context(postgres())
            self._emptied = Emptied(self._stack.enter_context(server.database(migrated=True)))
        return self._emptied

    def close(self) -> None:
        """End the server, and take the files away."""
        self._stack.close()


@cache
def lab() -> Lab:
    """This process's."""
    made = Lab()
    Finalize(None, made.close, exitpriority=1)  # the processes of a pool end without what atexit has
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs, nothing is logged, which would be all that is seen, and garbage is collected seldom."""
    before, often = logging.root.manager.disable, gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(SELDOM)
    try:
        yield
    finally:
        logging.disable(before)
        gc.set_threshold(*often)


@quiet()
def judge(seeds: Sequence[int], *, sqlite: bool) -> list[Found]:
    """Run some seeds, and judge each."""
    found = []
    for seed in seeds:
        began = time.perf_counter()
        with lab().places(seed, sqlite=sqlite)() as urls:
            record = run(seed, urls=urls, plan=lab().plan(seed, sqlite=sqlite))
        found.append(Found(seed, judged(record), len(record.called), time.perf_counter() - began))
    return found


def many(first: int, number: int, *, jobs: int, sqlite: bool) -> int:
    """Run that many seeds from one on; print those whose runs have broken a promise, and of the first one its history.

    Returns how many have broken one.
    """
    began, bad, calls = time.perf_counter(), list[int](), 0
    parts = [range(at, min(at + AT_ONCE, first + number)) for at in range(first, first + number, AT_ONCE)]
    for part in _spread(partial(judge, sqlite=sqlite), parts, jobs=jobs):
        for found in part:
            calls += found.points
            if found.broken:
                bad.append(found.seed)
                print(f"seed {found.seed}: {'; '.join(found.broken)}", flush=True)
    took = time.perf_counter() - began
    print(f"{number:,} seeds, {calls:,} calls, {took:.0f} s: {len(bad)} broke a promise", flush=True)
    if bad:
        one(bad[0], sqlite=sqlite)
    return len(bad)


def _spread(work: Callable[[Part], Result], parts: Sequence[Part], *, jobs: int) -> Iterator[Result]:
    """The results for all parts, in order, from so many processes."""
    if jobs == 1:
        yield from map(work, parts)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, parts)


@quiet()
def one(seed: int, *, sqlite: bool) -> int:
    """Print a seed's history. Where it breaks a promise, print the smallest part of it that does, too."""
    plan, places = lab().plan(seed, sqlite=sqlite), lab().places(seed, sqlite=sqlite)

    def play(tried: Plan):  # type: ignore[no-untyped-def]
        with places() as urls:
            return run(seed, urls=urls, plan=tried)

    record = play(plan)
    print("\n".join(record.history))
    broken = judged(record)
    if not broken:
        print(f"seed {seed}: every promise was kept")
        return 0
    print(f"seed {seed}: {'; '.join(broken)}\n\nmade smaller:")
    _, small = smaller(plan, record, play)
    print("\n".join(small.history))
    print("; ".join(judged(small)))
    return 1


def all_crashes(*, every: bool, jobs: int) -> int:
    """Print the table of every call and commit at which the process was ended, by the ways of a job.

    Returns how many runs have broken a promise, each of which is printed below the row that it belongs to.
    """
    whats, wrong, runs = crashes.OF_A_COMMIT, 0, 0
    print(
        f"| way | call or commit | {' | '.join(what.name.lower() for what in whats)} |\n|---|---|{'---|' * len(whats)}"
    )
    ways = list(crashes.WAYS)
    for way, found in zip(ways, _spread(partial(_crashes, every=every), ways, jobs=jobs), strict=True):
        found = sorted(found, key=lambda one: one.point.name)
        for name, some in itertools.groupby(found, key=lambda one: one.point.name):
            row = list(some)
            of = {what: [not one.broken for one in row if one.what is what] for what in whats}
            cells = [f"{sum(kept)} of {len(kept)}" if kept else "" for kept in of.values()]
            print(f"| {way} | {name} | {' | '.join(cells)} |", flush=True)
            for one in row:
                if one.broken:
                    print(f"call {one.point.number}, {one.what}: {'; '.join(one.broken)}", flush=True)
        runs += len(found)
        wrong += sum(bool(one.broken) for one in found)
    print(f"\n{runs:,} runs: {runs - wrong:,} kept every promise")
    return wrong


@quiet()
def _crashes(way: str, *, every: bool) -> list[crashes.Tried]:
    return crashes.tried(way, lab().files, every=every)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="print the history of this seed")
    what.add_argument("--seeds", type=int, help="run so many seeds, and judge them")
    what.add_argument("--crashes", choices=("first", "every"), help="end the process at each call and commit")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of many seeds (1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument("--sqlite", action="store_true", help="no seed runs on PostgreSQL")
    asked = parser.parse_args(argv)
    try:
        if asked.seed is not None:
            return one(asked.seed, sqlite=asked.sqlite)
        if asked.crashes:
            return 1 if all_crashes(every=asked.crashes == "every", jobs=asked.jobs) else 0
        return 1 if many(asked.first, asked.seeds, jobs=asked.jobs, sqlite=asked.sqlite) else 0
    finally:
        if lab.cache_info().currsize:
            lab().close()  # now, since the server's own library stops it before `Finalize` is heard


if __name__ == "__main__":
    sys.exit(main())
