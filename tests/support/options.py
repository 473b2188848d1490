"""A pipeline with an option of each kind."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from bot.domain.catalog import Pipeline

DECLARED = """
[[options]]
name = "method"
title = "Method"
about = "How synapses are found."
kind = "choice"
choices = ["paired", "probabilistic"]
default = "paired"

[[options]]
name = "false-discovery"
title = "False discovery rate"
about = "Share of the detections that may be there by chance."
kind = "number"
default = 0.25
least = 0.01
most = 0.9

[[options]]
name = "sections"
title = "Sections"
about = "How many sections a synapse may reach through."
kind = "whole"
default = 3
least = 0
most = 5000

[[options]]
name = "witness"
title = "Witnesses"
about = "Channels that ought to be there."
kind = "channels"
most = 3

[roles]
postsynaptic = ["psd"]
presynaptic = ["synapsin"]
"""
"""The options and roles as an entry of the catalogue has them."""
PROGRAM = """
import json, sys
from pathlib import Path
given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
folder = Path(given["--results-uri"].removeprefix("file://"))
folder.mkdir(parents=True, exist_ok=True)
(folder / "argv.json").write_text(json.dumps(sys.argv[1:]))
(folder / "results.json").write_text(json.dumps({"counts": {"synapses": 7}}))
"""
"""A program that leaves what it was called with."""


def optional(**changes: object) -> Pipeline:
    """The pipeline, as it is in the catalogue."""
    entry = 'name = "nomads-unsupervised"\ntitle = "Unsupervised"\ndescription = ""\nimage = "i:1"\ncommand = ["run"]\n'
    return Pipeline.model_validate(tomllib.loads(entry + DECLARED) | changes)


def write(pipelines: Path) -> Path:
    """Write the pipeline `optional` with its program, and one of the name `plain` without options; the folder."""
    for name, declared in (("optional", DECLARED), ("plain", DECLARED[DECLARED.index("[roles]") :])):
        folder = pipelines / name
        folder.mkdir(parents=True)
        (folder / "program.py").write_text(PROGRAM)
        command = f'command = ["python3", "{folder / "program.py"}"]'
        entry = f'name = "{name}"\ntitle = "{name.title()}"\ndescription = "For tests."\n{command}\nmemory = 64\n'
        (folder / "pipeline.toml").write_text(entry + declared)
    return pipelines


def argv(folder: Path) -> dict[str, str]:
    """The options with which the program was called whose results lie in that folder."""
    said = json.loads((folder / "argv.json").read_text())
    given = dict(zip(said[::2], said[1::2], strict=True))
    names = ("--method", "--false-discovery", "--sections", "--witness")
    return {name: given[name] for name in names if name in given}
