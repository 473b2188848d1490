"""The work on the blocks of a volume. Axes are z, y, x."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.program import part_uri
from pipelines.common.boxes import Box, absolute, grown, intersection, placed, relative, shape
from pipelines.common.channels import Channel, digest_of
from pipelines.common.npz import npz
from pipelines.common.program import Progress, WrongRequest
from pipelines.common.results import Results
from pipelines.common.source import Source
from pipelines.common.words import counted
from pipelines.unsupervised.blocks import found_in
from pipelines.unsupervised.driver import ROLES
from pipelines.unsupervised.stages.plan import CHANGED, Measured, Plan, Task, arrays_of, left_by, near_of, read_plan

Array = NDArray[Any]


def work_on_blocks(task: Task) -> None:
    """Leave what is found in each of the program's blocks. Raises Failure and its subclasses."""
    stage = task.stage
    say = Progress(out=sys.stdout)
    plan, measured = read_plan(task.job)
    there = left_by(task.job, rounds=len(stage.rounds) - 1) if len(stage.rounds) > 1 else {}
    # by its number, since a program of an earlier round that still runs may finish another block meanwhile
    mine = [number for number in range(stage.index, len(plan.cores), stage.rounds[-1]) if number not in there]
    results = Results(part_uri(task.request.results_uri, stage.index), part=True)
    source = task.source()
    for done, number in enumerate(mine):
        say(done / len(mine), "working on blocks")
        name = f"{number:06d}.npz"
        content = results.get(name)
        if content is None or arrays_of(content) is None:
            results.put(name, _block(task, source, plan, measured, plan.cores[number]))
    print(f"{counted(len(mine), 'block')} done", flush=True)


def _block(task: Task, source: Source, plan: Plan, measured: Measured, core: Box) -> bytes:
    """What is found in a block, and what is seen of its channels in the box."""
    extension, lies = task.extension, measured.lies
    near = near_of(source, measured, core, plan.looked, extension)
    z, y, x = task.request.start
    mine = intersection(core, task.box) or ((z, z), (y, y), (x, x))
    seen = grown(core, extension.reach, source.volume.bounds)
    with source.opened(near, box=mine, whole=task.box) as channels:
        if source.digest(channels) != plan.volume:
            raise WrongRequest(CHANGED)
        for channel in channels.values():
            channel.fetch()

        def cut(part: Box) -> tuple[Array, Array]:
            psd, synapsin = (channels[role].cut(absolute(part, plan.looked)) for role in ROLES)
            return psd, synapsin

        def moved(role: str, part: Box) -> Array:
            return channels[role].part(absolute(part, plan.looked), lies.get(role)).read()

        def mark(centres: NDArray[np.float64]) -> NDArray[np.float64]:
            parts = {role: channel.part(seen, lies.get(role)) for role, channel in channels.items()}
            return extension.mark(centres + placed(plan.looked, seen)[0], parts)

        found = found_in(
            cut,
            relative(core, plan.looked),
            shape(plan.looked),
            source.volume.voxel_nm,
            measured.known,
            inside=relative(task.box, plan.looked),
            channels=[partial(moved, role) for role in channels],
            mark=mark,
        )
        arrays: dict[str, Array] = {
            "places": found.places,
            "scores": found.scores,
            "regions": found.regions,
            "sums": found.sums.astype(np.min_scalar_type(found.sums.max(initial=0))),  # most of what a block leaves
            "marks": found.marks,
            "missing": np.array([channel.missing for channel in channels.values()]),
            "digests": np.array([_digests(channel, core, mine) for channel in channels.values()]),
        }
        for n, channel in enumerate(channels.values()):
            arrays |= {f"seen{n}_{name}": array for name, array in channel.arrays().items()}
        return npz(arrays, level=1)  # it is read once, and a higher level takes a fifth of the time of a block


def _digests(channel: Channel, core: Box, mine: Box) -> tuple[str, str]:
    """Of the voxels of a block, and of those in the box."""
    whole = digest_of(channel.part(core))
    return whole, whole if mine == core else digest_of(channel.part(mine))
