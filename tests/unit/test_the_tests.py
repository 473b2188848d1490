"""The rules of this suite: unit tests are alone in their process, nothing sleeps or is skipped, the index is whole."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULES = list(TESTS.rglob("test_*.py"))
README = (TESTS / "README.md").read_text(encoding="utf-8")


def test_a_unit_test_that_opens_a_socket_fails() -> None:
    with pytest.raises(RuntimeError, match="socket"), pytest.warns(UserWarning, match="socket"):
        socket.create_connection(("127.0.0.1", 9))


def test_a_unit_test_that_starts_a_process_fails_and_says_where_it_belongs() -> None:
    with pytest.raises(RuntimeError, match="tests/integration"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(RuntimeError, match="tests/integration"):
        os.system("true")
    with pytest.raises(RuntimeError, match="tests/integration"):
        os.fork()


def test_every_module_stands_in_the_index_once_and_no_other() -> None:
    """A row whose file is a folder, such as `integration/pipelines/`, stands for the modules there without a row."""
    named = re.findall(r"^\| .+ \| \[(\S+)\]\((\S+)\) \|$", README, re.MULTILINE)
    assert all(text == link for text, link in named)
    links = [link for _, link in named]
    folders = tuple(link for link in links if link.endswith("/"))
    there = {module.relative_to(TESTS).as_posix() for module in MODULES}
    assert len(links) == len(set(links))
    assert all((TESTS / folder).is_dir() for folder in folders)
    assert set(links) - set(folders) <= there
    assert [module for module in there - set(links) if not module.startswith(folders)] == []


def test_no_test_sleeps_is_skipped_or_is_expected_to_fail() -> None:
    forbidden = {"time.sleep", "pytest.skip", "pytest.importorskip", "pytest.xfail"}
    forbidden |= {f"pytest.mark.{mark}" for mark in ("skip", "skipif", "xfail")}
    found = {module.name: used for module in MODULES if (used := forbidden & set(named_in(module)))}
    assert found == {}


def named_in(module: Path) -> Iterator[str]:
    """The dotted names in a module's code; what stands in its strings is another program's."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
