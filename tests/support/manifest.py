"""`python -m tests.support.manifest SCHEMA` holds manifest.yml against Slack's schema of app manifests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from jsonschema import Draft7Validator

from bot.settings import ROOT


def complaints(schema: Path) -> list[str]:
    """Where manifest.yml breaks the schema, and how."""
    manifest = yaml.safe_load((ROOT / "manifest.yml").read_text(encoding="utf-8"))
    found = Draft7Validator(json.loads(schema.read_text(encoding="utf-8"))).iter_errors(manifest)
    return [f"manifest.yml: {'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


if __name__ == "__main__":
    problems = complaints(Path(sys.argv[1]))
    print("\n".join(problems) or "manifest.yml: valid")
    sys.exit(bool(problems))
