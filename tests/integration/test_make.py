"""What `make` runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_hands_the_names_on() -> None:
    make = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/.installed", "bench", "NAME=modal forms"]
    said = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == ".venv/bin/python -m bench modal forms"
