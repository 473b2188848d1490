"""compose.yaml, as its reader has it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from bot.settings import ROOT


def compose() -> dict[str, Any]:
    """The file, parsed."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return found


def make_secrets(folder: Path) -> None:
    """Do what the service `secrets` does, in that folder."""
    service = compose()["services"]["secrets"]
    [script] = service["command"]
    script = script.replace("$$", "$").replace("/run/nomads", str(folder))
    subprocess.run([*service["entrypoint"], script], check=True)
