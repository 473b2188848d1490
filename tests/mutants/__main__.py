"""`python -m tests.mutants`: breaks the rules in one place after the other, and tells which changes no test notices."""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.campaign import Campaign, Verdict
from tests.mutants.changes import Module, Mutant

RULES = tuple(f"bot.application.{name}" for name in ("submission", "lifecycle", "steering", "ledger"))
LANES = ("bot.application.worker.lanes", "bot.application.worker.handling")
STORAGE = tuple(
    f"bot.storage.{name}"
    for name in (
        *("outbox", "jobs", "story", "transaction", "people", "sealed", "leader", "rate_limits", "outages"),
        *("followers", "refusals", "vault", "keys", "engine"),
    )
)
TESTS = (
    *(f"tests/unit/test_{name}.py" for name in ("access", "jobs", "letters", "output", "settings", "vault")),
    *(f"tests/integration/test_{name}.py" for name in ("migrations", "store", "tables", "web")),
    "tests/scenario",
)
LEFT_OUT = {"test_simulation.py", "test_ten_thousand_blocks.py", "test_histories_of_events.py"}
"""Tests that take minutes, or processes of their own."""
SURVIVORS = Path(__file__).with_name("survivors.toml")


@dataclass
class Selection:
    """A plugin of pytest that leaves out what is not for mutants."""

    database: str

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests on one kind of database."""
        items[:] = [item for item in items if item.path.name not in LEFT_OUT and self._is_on(item) == self.database]

    def _is_on(self, item: pytest.Item) -> object:
        callspec = getattr(item, "callspec", None)
        return callspec.params.get("database", self.database) if callspec else self.database


@dataclass(frozen=True)
class Spared:
    """Why a mutant may survive."""

    why: str
    equivalent: bool
    """Whether it changes nothing that NOMADS does."""


def listed() -> dict[str, Spared]:
    """The mutants that may survive."""
    found = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))
    return {
        name: Spared(why, kind == "equivalent")
        for kind, reasons in found.items()
        for why, names in reasons.items()
        for name in names
    }


def _summary(mutants: Sequence[Mutant], verdicts: Sequence[Verdict], may: Mapping[str, Spared]) -> None:
    """Print the table: the score is the part that is killed of the mutants that are not equivalent."""
    all_, killed = Counter(mutant.module for mutant in mutants), Counter(v.mutant.module for v in verdicts if v.killer)
    spared = Counter(mutant.module for mutant in mutants if mutant.name in may)
    equal = Counter(m.module for m in mutants if m.name in may and may[m.name].equivalent)
    print(f"\n{'module':34}{'mutants':>8}{'killed':>8}{'listed':>8}{'equivalent':>12}{'score':>8}")
    for name in [*all_, ""]:
        count, dead, kept, same = (sum(c.values()) if not name else c[name] for c in (all_, killed, spared, equal))
        print(f"{name or 'all':34}{count:8}{dead:8}{kept:8}{same:12}{100 * dead / max(1, count - same):7.1f}%")


def main(arguments: Sequence[str]) -> int:
    """Returns 1 where a mutant survives that is not listed, or where the list names one that there is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose names begin so; several beginnings, by commas")
    parser.add_argument("--on", default="sqlite", choices=["sqlite", "postgresql"], help="kind of database")
    parser.add_argument("--map", type=Path, help="a file that keeps which test comes to which statement")
    parser.add_argument("--listed", action="store_true", help="try those that are listed, and no others")
    asked = parser.parse_args(arguments)
    may, modules = listed(), [Module(name) for name in (*RULES, *LANES, *STORAGE)]
    every = [mutant for module in modules for mutant in module.mutants()]
    mutants = [mutant for mutant in every if mutant.name.startswith(tuple(asked.only.split(",")))]

    def tell(verdict: Verdict) -> None:
        fate = f"killed by {verdict.killer}" if verdict.killer else f"SURVIVED {verdict.tests} tests"
        print(f"{verdict.seconds:6.1f} s  {verdict.mutant.name} (line {verdict.mutant.line}): {fate}", flush=True)

    wanted = {mutant.name for mutant in mutants if (mutant.name in may) == asked.listed}
    campaign = Campaign(modules, wanted, tell, keep=asked.map)
    began = time.monotonic()
    plain = [part for name in ("randomly", "xdist", "cacheprovider", "faulthandler") for part in ("-p", f"no:{name}")]
    options = ["-q", "-s", "--tb=no", "--no-header", "--no-summary", "--hypothesis-seed=0", *plain]
    pytest.main([*TESTS, *options], plugins=[campaign, Selection(asked.on)])
    if len(campaign.verdicts) != len(wanted):
        print("The tests cannot be collected, or fail on the code as it is.", file=sys.stderr)
        return 1
    _summary(mutants, campaign.verdicts, may)
    print(f"{(time.monotonic() - began) / 60:.0f} min")
    survived = [verdict.mutant.name for verdict in campaign.verdicts if not verdict.killer and not asked.listed]
    gone = sorted(may.keys() - {mutant.name for mutant in every})
    for title, names in (("No test notices", survived), ("Listed, and there is no such mutant", gone)):
        for name in names:
            print(f"{title}: {name}")
    return 1 if survived or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
