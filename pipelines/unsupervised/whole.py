"""The stages of a job in blocks, for volumes of any size: a first look, the blocks, and their merge.

Each stage is a program of its own, of the same arguments and `--stage`. All files of the stages lie in `blocks/` of the
job's results: `plan.json` and `known.npz`, which the first look leaves, and `ROUND/PROGRAM/BLOCK.npz` of each block. A
block that is there is not worked on again. docs/adding-a-pipeline.md has the arguments.
"""

from __future__ import annotations

from pathlib import Path

from contract.program import BLOCKS, FIRST
from pipelines.common.program import Request, Stage, WrongRequest
from pipelines.unsupervised.driver import chosen
from pipelines.unsupervised.extension import Extension
from pipelines.unsupervised.stages.block import work_on_blocks
from pipelines.unsupervised.stages.first import first
from pipelines.unsupervised.stages.merge import merge
from pipelines.unsupervised.stages.plan import Task


def program(request: Request, stage: Stage, *, entry: Path, extension: Extension) -> None:
    """Do one stage. Raises pipelines.common.program.Failure and its subclasses."""
    options = chosen(request)
    if options.method != "paired":
        raise WrongRequest(f"The method {options.method} takes one block; choose paired, or a smaller box.")
    task = Task(request=request, stage=stage, options=options, entry=entry, extension=extension)
    {FIRST: first, BLOCKS: work_on_blocks}.get(stage.name, merge)(task)
