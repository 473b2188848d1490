"""Runs tests on broken code: each mutant in a fork of a process that has imported and collected everything.

First all tests run on code with probes, which say of each test to which statements it comes. A mutant is then given to
the tests that come to its statement, until one fails: those that noticed others of its function, a few that come to
much of its module or to little beside it, those that come to what few come to in its function, and those that stand
beside the first. A test that hangs is ended by an alarm, and counts as failed.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.changes import PROBE, Module, Mutant, transplant

PATIENCE = 10.0
"""Seconds that a test may take at least before it counts as hanging; ten times as long as usual on top."""
QUICK = 0.2
"""Seconds that a quick test takes at most."""
SLOW, LAST = 2.0, 12
"""Seconds that a test takes which is given to a mutant after all others, and how many of these are."""
FIRST, NEXT, CLOSE = 12, 24, 60
"""Tests that a mutant is given at first: that come to much of its module, to what few come to in its function, and to
little beside its module."""
MOST = 300
"""Tests that a mutant is given, of those that come to its statement."""
WARM = "tests/scenario/test_the_way_of_a_job.py::test_a_job_is_told_from_acceptance_to_results"
"""A test that comes to most of the code."""


@dataclass(frozen=True)
class Reached:
    """What a test comes to in unbroken code."""

    seconds: float
    lines: frozenset[tuple[str, int]]
    """Modules and lines of statements."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    killer: str
    """The test that failed; empty: none did."""
    tests: int
    """To how many it was given at most."""
    seconds: float


@dataclass
class Campaign:
    """A plugin of pytest that runs the collected tests on mutants, and not on the code as it is."""

    modules: Sequence[Module]
    wanted: Collection[str]
    """Names of mutants."""
    tell: Callable[[Verdict], None]
    keep: Path | None = None
    """A file that keeps what the tests come to, for another campaign with the same tests and code."""
    verdicts: list[Verdict] = field(default_factory=list)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called by pytest once all is collected."""
        with tempfile.TemporaryDirectory(prefix="nomads-mutants-") as folder:
            self._folder, self._tests = Path(folder), {item.nodeid: item for item in session.items}
            self._session = session
            if reached := self._map():
                self._judge(reached)
        return True

    # Which tests come to what

    def _map(self) -> Mapping[str, Reached]:
        """The tests that pass, and come to one of the modules."""
        kept = self.keep or self._folder / "map"
        if not kept.exists() and self._fork(lambda: self._reach(kept)) is None:
            return {}
        found: dict[str, Reached] = pickle.loads(kept.read_bytes())
        return {name: reached for name, reached in found.items() if name in self._tests}

    def _reach(self, kept: Path) -> str:
        reached: set[tuple[str, int]] = set()
        for module in self.modules:

            def probe(line: int, name: str = module.name) -> None:
                reached.add((name, line))

            setattr(module.loaded, PROBE, probe)
            transplant(module.loaded, module.probed())
        found: dict[str, Reached] = {}
        for item, following in _in_turn(list(self._tests.values())):
            reached.clear()
            began = time.perf_counter()
            if not _fails(item, following) and reached:
                found[item.nodeid] = Reached(time.perf_counter() - began, frozenset(reached))
        kept.write_bytes(pickle.dumps(found))
        return "done"

    # What the tests say of mutants

    def _judge(self, reached: Mapping[str, Reached]) -> None:
        self._warm(min(reached, key=lambda name: (not name.startswith(WARM), name)))
        at: dict[tuple[str, int], set[str]] = {}
        for name, test in reached.items():
            for line in test.lines:
                at.setdefault(line, set()).add(name)
        killers: dict[str, list[str]] = {}
        for module in self.modules:
            for mutant in module.mutants():
                if mutant.name not in self.wanted:
                    continue
                tests = set[str]().union(*(at.get(line, ()) for line in _lines(mutant, module, self.modules)))
                known = killers.setdefault(f"{mutant.module} {mutant.function}", [])
                verdict = self._try(mutant, _in_order(mutant, module, tests, known, reached), reached)
                if verdict.killer in reached:
                    known[:] = [verdict.killer, *(name for name in known if name != verdict.killer)]
                self.verdicts.append(verdict)
                self.tell(verdict)

    def _warm(self, test: str) -> None:
        """Let this process have imported and cached what nearly all tests need, before it is forked."""
        runtestprotocol(self._tests[test], log=False, nextitem=None)
        gc.collect()
        gc.freeze()

    def _try(self, mutant: Mutant, tests: Sequence[str], reached: Mapping[str, Reached]) -> Verdict:
        began, running = time.perf_counter(), self._folder / "running"

        def run() -> str:
            try:
                mutant.apply()
            except Exception as error:
                return f"(it cannot be loaded: {type(error).__name__})"
            for item, following in _in_turn([self._tests[name] for name in tests]):
                running.write_text(item.nodeid, encoding="utf-8")
                signal.setitimer(signal.ITIMER_REAL, PATIENCE + 10 * reached[item.nodeid].seconds)
                if _fails(item, following):
                    with suppress(BaseException):  # servers that the test has started end with it
                        self._session._setupstate.teardown_exact(None)
                    return item.nodeid
            return ""

        killer = self._fork(run) if tests else ""
        if killer is None:
            killer = running.read_text(encoding="utf-8") if running.exists() else "(it ended the process)"
        return Verdict(mutant, killer, len(tests), time.perf_counter() - began)

    # Processes

    def _fork(self, work: Callable[[], str]) -> str | None:
        """The work's value, from a process of its own; None where that ended otherwise."""
        answer, scratch = self._folder / "answer", self._folder / "scratch"
        for path in (answer, self._folder / "running"):
            path.unlink(missing_ok=True)
        scratch.mkdir()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            try:
                os.setsid()
                quiet = os.open(os.devnull, os.O_RDWR)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                logging.raiseExceptions = False
                tempfile.tempdir = str(scratch)
                self._session.config._tmp_path_factory._basetemp = scratch  # type: ignore[attr-defined]
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                said = work()
                answer.write_text(said, encoding="utf-8")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)
        return answer.read_text(encoding="utf-8") if answer.exists() else None


def _in_turn(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Each with the one that follows, whose fixtures may stay."""
    return zip(items, [*items[1:], None], strict=True)


def _fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _lines(mutant: Mutant, module: Module, modules: Sequence[Module]) -> Sequence[tuple[str, int]]:
    """The statements at which a mutant shows: its own, or those that use what it has changed."""
    if mutant.function:
        return [(module.name, mutant.line)]
    if mutant.bound in module.first_lines:
        return [(module.name, module.first_lines[mutant.bound])]
    names = {mutant.bound}
    while more := {name for name, mentioned in module.mentions.items() if mentioned & names} - names:
        names |= more
    found = {(one.name, line) for one in modules for name in names for line in one.readers.get(name, ())}
    found |= {(module.name, line) for name, line in module.first_lines.items() if name.split(".")[0] in names}
    return sorted(found) or [(module.name, line) for line in module.first_lines.values()]


def _in_order(
    mutant: Mutant, module: Module, tests: Collection[str], known: Sequence[str], reached: Mapping[str, Reached]
) -> Sequence[str]:
    """The tests as a mutant is given them."""

    def cost(test: str) -> tuple[float, str]:
        seconds = reached[test].seconds  # of slow tests those of a module stay together: it starts things once for all
        return (seconds, test) if seconds < QUICK else (QUICK, test)

    rest = sorted(tests, key=cost)
    quick = [test for test in rest if reached[test].seconds < QUICK]
    first, last = module.first_lines.get(mutant.function, 0), module.last_lines.get(mutant.function, 0)
    often = Counter(line for test in tests for line in reached[test].lines)

    def inside(test: str) -> list[tuple[str, int]]:
        return [line for line in reached[test].lines if line[0] == module.name]

    def share(test: str) -> float:
        return len(inside(test)) / len(reached[test].lines)

    def seldom(test: str) -> float:
        """How much the test has to do with the function: it comes to what few come to, and to little else."""
        return share(test) * sum(1 / often[line] for line in inside(test) if not first or first <= line[1] <= last)

    able = [test for test in rest if reached[test].seconds < SLOW]
    apt = sorted(able, key=lambda test: -seldom(test))[:NEXT]
    close = sorted(able, key=lambda test: -share(test))[:CLOSE]
    chosen = dict.fromkeys(test for test in known if test in tests)
    chosen |= dict.fromkeys(sorted([*_broad(quick, reached, module.name, FIRST), *apt, *close], key=cost))
    others = [test for test in able if test not in chosen]
    slow = [test for test in rest if test not in chosen and reached[test].seconds >= SLOW][:LAST]
    subject = {test.partition("::")[0] for test in known}  # tests of a subject stand together
    others.sort(key=lambda test: test.partition("::")[0] not in subject)
    return [*[*chosen, *others][:MOST], *slow]  # of the rest the quickest, which do least beside what they are about


def _broad(tests: Sequence[str], reached: Mapping[str, Reached], module: str, most: int) -> Sequence[str]:
    """So many of these tests that together come to as much of the module as they can."""
    if len(tests) <= most:
        return tests
    inside = {name: {line for line in reached[name].lines if line[0] == module} for name in tests}
    rest, chosen = list(tests), list[str]()
    while len(chosen) < most:
        missing = set[tuple[str, int]]().union(*(inside[name] for name in rest))
        while missing and len(chosen) < most:
            best = max(rest, key=lambda name: len(inside[name] & missing))
            rest.remove(best)
            chosen.append(best)
            missing -= inside[best]
    return chosen
