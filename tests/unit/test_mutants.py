"""What `make mutants` breaks: the changes themselves, and the list of those that may survive."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mutants.__main__ import LANES, RULES, STORAGE, listed
from tests.mutants.changes import PROBE, Module, transplant

SOURCE = '''
"""A module."""
from dataclasses import dataclass
from functools import cached_property

MOST = 2

@dataclass
class Box:
    """A box."""
    size: int = 1

    @property
    def full(self) -> bool:
        """Whether it is."""
        return self.size >= MOST and not self.size == 7


def told(box: Box, *, word: str = "box") -> list[str]:
    found = []
    if box.full:
        found.append(f"a full {word}")
    return found
'''
Make = Callable[..., Module]
_numbers = itertools.count(1)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the module anew, under a name of its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str = SOURCE) -> Module:
        name = f"broken_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        return Module(name)

    return make


@pytest.mark.parametrize(
    ("change", "size", "said"),
    [
        ("Box.full: self.size >= MOST → self.size > MOST", 2, []),
        ("Box.full: self.size >= MOST and (not self.size == 7) → self.size >= MOST", 7, ["a full box"]),
        ("Box.full: not self.size == 7 → self.size == 7", 2, []),
        ("Box: 1 → 2", None, ["a full box"]),
        ("MOST: 2 → 3", 2, []),
        ("told: without found.append(f'a full {word}')", 2, []),
        ("told: test box.full → not", 2, []),
        ("told: f'a full {word}' → ''", 2, [""]),
        ("told: 'box' → ''", 2, ["a full "]),
        ("told: return found → return None", 2, None),
    ],
)
def test_a_change_reaches_whoever_has_imported_what_it_breaks(
    module: Make, change: str, size: int | None, said: object
) -> None:
    broken = module()
    told, box = broken.loaded.told, broken.loaded.Box
    (mutant,) = (mutant for mutant in broken.mutants() if mutant.name == f"{broken.name} {change}")
    mutant.apply()
    assert told(box() if size is None else box(size)) == said


def test_texts_of_the_log_docstrings_and_types_are_left_as_they_are(module: Make) -> None:
    log = """log = print
def f(x: "int" = 1) -> "str":
    "A docstring."
    log.info("x", 2)
"""
    assert [mutant.name.split(" ", 1)[1] for mutant in module(log).mutants()] == ["f: 1 → 2"]


def test_a_mutant_keeps_its_name_wherever_its_function_stands(module: Make) -> None:
    first, moved = module(), module(SOURCE.replace("MOST = 2\n", "MOST = 2\n\nLEAST = 0\n\n"))

    def names(of: Module) -> list[str]:
        return [mutant.name.split(" ", 1)[1] for mutant in of.mutants()]

    assert [name for name in names(moved) if not name.startswith("LEAST")] == names(first)
    assert len(set(names(first))) == len(names(first))


def test_probes_tell_to_which_statements_a_call_comes(module: Make) -> None:
    probed = module()
    reached: list[int] = []
    setattr(probed.loaded, PROBE, reached.append)
    transplant(probed.loaded, probed.probed())
    assert probed.loaded.told(probed.loaded.Box(1)) == []
    lines = SOURCE.splitlines()
    assert [lines[line - 1].strip() for line in reached] == [
        "found = []",
        "if box.full:",
        "return self.size >= MOST and not self.size == 7",
        "return found",
    ]


def test_every_mutant_that_may_survive_is_one_and_has_a_reason() -> None:
    there = {mutant.name for name in (*RULES, *LANES, *STORAGE) for mutant in Module(name).mutants()}
    assert listed().keys() - there == set()
    assert all(spared.why for spared in listed().values())
    assert {spared.equivalent for spared in listed().values()} == {True, False}
