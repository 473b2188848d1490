"""The developers' pages name what is there: the files that a walkthrough touches, the modules, classes and methods."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from bot.settings import ROOT
from tests.integration.test_repository import PAGES, codes, prose
from tests.support.template import template

DOCS = ROOT / "docs"
WALKTHROUGHS = [DOCS / f"adding-a-{what}.md" for what in ("subcommand", "pipeline", "backend")]
ROOMS = ("bot", "handlers", "contract", "pipelines", "sandbox", "tests", "bench")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}


def tables(page: Path) -> list[list[tuple[str, str]]]:
    """Its tables of files: each file, and what is done there."""
    found = re.findall(r"^\| file \| what is done there \|\n\|---\|---\|\n((?:\|.*\n)+)", prose(page), re.MULTILINE)
    return [re.findall(r"^\| `([^`]+)` \| (.*) \|$", rows, re.MULTILINE) for rows in found]


@cache
def defined() -> dict[str, set[str]]:
    """Every class of the project with the names in it, its bases' too; under "" what modules define and import."""
    classes: dict[str, set[str]] = {"": set()}
    bases: dict[str, list[str]] = {}
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes[""].update(name for node in tree.body for name in _names(node))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                classes[""] |= {(alias.asname or alias.name) for alias in node.names}
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).update(name for part in node.body for name in _names(part))
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
    for name, parents in bases.items():
        classes[name] = classes[name].union(*(classes.get(parent, set()) for parent in parents))
    return classes


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _module(path: Path) -> list[str]:
    """What it defines; nothing where it is a package."""
    tree = ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    return [name for node in tree.body for name in _names(node)]


@pytest.mark.parametrize("page", WALKTHROUGHS, ids=lambda page: page.stem)
def test_a_walkthrough_says_how_many_files_it_touches_and_names_each(page: Path) -> None:
    found = tables(page)
    assert found
    said = {NUMBERS[word] for word in re.findall(r"\b(two|three|four|five)\b", prose(page).lower())}
    for files in found:
        assert len(files) in said, page.name
        for name, what in files:
            assert what.startswith("new: ") or (ROOT / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_classes_and_methods_that_a_page_names_are_there(page: Path) -> None:
    known = defined()
    own = {name for code in codes(page) for name in re.findall(r"(?:class|def) (\w+)", code)}
    made = {*template()["Parameters"], *template()["Resources"]}
    missing = []
    for name in re.findall(r"`([A-Z][A-Za-z]*[a-z][A-Za-z]*(?:\.[a-z_]+)?)(?:\(.*?\))?`", prose(page)):
        head, _, attribute = name.partition(".")
        there = head in known[""] | known.keys() | own | made
        if not there or (attribute and head in known and attribute not in known[head]):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", WALKTHROUGHS, ids=lambda page: page.stem)
def test_what_a_walkthrough_s_code_imports_is_there(page: Path) -> None:
    made = {name.removesuffix(".py").replace("/", ".") for files in tables(page) for name, _ in files}
    for line in codes(page):
        found = re.fullmatch(r"from ([\w.]+) import (.+)", line)
        if found and found[1].split(".")[0] in ROOMS and found[1] not in made:
            path = ROOT / found[1].replace(".", "/")
            for name in found[2].split(", "):
                there = name in _module(path.with_suffix(".py")) or (path / f"{name}.py").exists()
                assert there, f"{page.name}: {line}"
