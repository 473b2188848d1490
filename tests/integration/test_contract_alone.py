"""The contract package in processes of its own: without what was installed, and beside a parent that is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_is_imported_without_anything_that_was_installed(tmp_path: Path) -> None:
    """As bot/local/supervise.py does: without site-packages, and with the checkout as the last place to look in."""
    modules = ", ".join(f"contract.{path.stem}" for path in sorted((ROOT / "contract").glob("[a-z]*.py")))
    script = f"import sys; sys.path.append({str(ROOT)!r}); import {modules}"

    subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=tmp_path, check=True)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    orphan = "import os; from contract.program import dies_with; dies_with(os.getppid() + 1)(); os._exit(0)"

    assert subprocess.run([sys.executable, "-c", orphan], cwd=ROOT, check=False).returncode == 1
