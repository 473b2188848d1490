"""The merge of the blocks of a volume. Axes are z, y, x."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.program import BLOCK_VOXELS, MAX_MISSING, PLAN
from pipelines.common.boxes import Box, intersection, relative, shape, voxels
from pipelines.common.copies import CORES, hand_back
from pipelines.common.gathered import Gathered
from pipelines.common.program import Failure, WrongRequest
from pipelines.common.results import CRATE, Results
from pipelines.common.run import Found, Run
from pipelines.common.seen import Seen
from pipelines.common.source import Source
from pipelines.common.sparse import Sparse
from pipelines.common.words import counted
from pipelines.unsupervised import told
from pipelines.unsupervised.assembly import Assembly, Objects, Slab
from pipelines.unsupervised.blocks import Found as Block
from pipelines.unsupervised.blocks import Known
from pipelines.unsupervised.chance import Judged
from pipelines.unsupervised.driver import ROLES, Options, witnessed
from pipelines.unsupervised.found import Synapses
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.stages.plan import CHANGED, FOLDER, Measured, Plan, Task, arrays_of, left_by, read_plan
from pipelines.unsupervised.witness import Witness

Array = NDArray[Any]


MERGED = "blocks/merged.json"
NOTED = 2
"""Missing blocks that a note names, at most."""


def merge(task: Task) -> None:
    """Write the results of all blocks that are there. Raises Failure and its subclasses."""
    job, extension = task.job, task.extension
    if _is_merged(task):
        print("All blocks are merged already.", flush=True)
        return
    plan, measured = read_plan(job)
    known = measured.known
    there = left_by(job, rounds=len(task.stage.rounds))
    gathered: dict[str, Gathered] = {}

    def channels(source: Source) -> dict[str, Gathered]:
        again = source.channels({}, box=task.box)
        if source.digest(again) != plan.volume:
            for channel in again.values():
                channel.close()
            raise WrongRequest(CHANGED)
        for (role, channel), missing in zip(again.items(), measured.missing, strict=True):
            gathered[role] = Gathered(channel, near=plan.looked, missing=bool(missing))
        return gathered

    with (
        Run(
            task.request,
            entry=task.entry,
            witnesses=task.options.witnesses,
            gathered=channels,
            results=extension.results,
        ) as run,
        Sparse(task.request.shape, once=True) as labels,
    ):
        extension.begin(run)
        missing: list[int] = []
        objects = Assembly(
            Grid.of(run.volume.voxel_nm),
            known.laid if known.moves else None,
            extent=shape(plan.looked),
            inside=relative(run.box, plan.looked),
            labels=labels,
            channels=len(run.names),
            marks=extension.marks,
            copies=CORES if voxels(task.box) > BLOCK_VOXELS else 1,
        ).objects(_slabs(run, plan, job, there, gathered, missing))
        lost = set(missing)
        if all(number in lost for number, core in enumerate(plan.cores) if intersection(core, run.box)):
            raise Failure("None of the blocks of this job has left anything.")
        means = objects.sums.T / np.maximum(objects.voxels, 1)
        for channel, of_it in zip(gathered.values(), means, strict=True):
            channel.means = of_it
        synapses, marks = _synapses(objects, known, task.options), objects.marks
        del objects  # the sums take as much memory as the means
        hand_back()
        found = _told(task, run, plan, measured, synapses, labels, missing)
        extension.finish(run, found, marks)
    if not missing:
        job.put(MERGED, b"{}\n", "application/json")  # so that a merge that is killed from here on is not begun anew
        _tidy(job)


def _is_merged(task: Task) -> bool:
    """Whether an earlier merge has written its results, from all blocks, and was ended while it tidied up."""
    job = task.job
    if job.get(MERGED) is not None:
        _tidy(job)
        return True
    return job.get(PLAN) is None and Results(task.request.results_uri, part=True).get(CRATE) is not None


def _tidy(job: Results) -> None:
    """Remove what the stages have left for one another; what says that all is merged comes last."""
    try:
        for name in sorted(job.names(FOLDER), key=lambda name: (name == MERGED, name)):
            job.remove(name)
    except Failure as failure:  # the results are there
        print(f"Not all of {FOLDER} could be removed. {failure}", file=sys.stderr)


def _slabs(
    run: Run, plan: Plan, job: Results, there: Mapping[int, str], gathered: Mapping[str, Gathered], missing: list[int]
) -> Iterator[Slab]:
    """What was found in the blocks of each slab of sections, and where its sections of pixels end."""
    deep, first = Grid.of(run.volume.voxel_nm).bins[0], plan.looked[0][0]
    end = plan.cores[-1][0][1]
    for slab, some in itertools.groupby(enumerate(plan.cores), key=lambda one: one[1][0]):
        blocks = []
        for number, core in some:
            content = job.get(there[number]) if number in there else None
            arrays = arrays_of(content) if content else None
            if arrays is None:
                missing.append(number)
                if content is not None:  # so that the next round works on it again
                    job.remove(there[number])
                continue
            blocks.append(Block(*(arrays[each.name] for each in fields(Block))))
            part = intersection(core, run.box)
            for n, channel in enumerate(gathered.values()):
                own = {name: arrays[f"seen{n}_{name}"] for name in ("range", "looked", "projection", "sample")}
                seen = Seen.restored(run.box, part, own) if part else None
                digest, inside = map(str, arrays["digests"][n])
                channel.gather(seen, digest=digest, inside=inside, missing=bool(arrays["missing"][n]))
        run.progress(0.6 * (slab[1] - first) / (end - first), "merging")
        yield blocks, None if slab[1] == end else (slab[1] - first) // deep


def _synapses(objects: Objects, known: Known, options: Options) -> Synapses:
    """What was found, without the labels."""
    count = len(objects.voxels)
    judged = Judged(known.threshold, known.curve)
    at = known.curve[known.curve[:, 0] >= known.threshold]
    # what the whole has of what was looked at first
    more = count / at[-1, 1] if len(at) and count else 1 / known.looked
    return Synapses(
        np.zeros((0, 0, 0), np.uint32),
        objects.centres,
        objects.voxels,
        objects.scores,
        judged.rates(objects.scores) if known.tells else np.full(count, np.nan),
        threshold=known.threshold,
        tells=known.tells,
        chance=replace(known.chance, count=known.chance.share * count) if known.chance and count else None,
        curve=known.curve * (1, more, more, 1),
        across=known.laid.across,
        along=known.laid.along if options.register != "off" else [],
    )


def _where(cores: Sequence[Box]) -> str:
    """Where the first ones of some blocks lie, in words."""
    said = [" ".join(f"{axis} {low}:{high}" for axis, (low, high) in zip("zyx", core, strict=True)) for core in cores]
    named = "all of them" if len(said) <= MAX_MISSING else f"the first {MAX_MISSING:,}"
    more = f", and {len(said) - NOTED:,} more; results.json has {named}" if len(said) > NOTED else ""
    return f"Missing: {', '.join(said[:NOTED])}{more}."


def _told(
    task: Task, run: Run, plan: Plan, measured: Measured, synapses: Synapses, labels: Sparse, missing: list[int]
) -> Found:
    """What was found, after all notes on it."""
    options, known, aligned = task.options, measured.known, measured.aligned
    if missing:
        share = sum(voxels(plan.cores[number]) for number in missing) / voxels(plan.looked)
        run.warn(
            f"{len(missing):,} of {counted(len(plan.cores), 'block')} are missing, {share:.2%} of the volume: what "
            "lies in them was not looked at, and counts and densities are lower for it. Repair runs these blocks "
            f"alone. {_where([plan.cores[number] for number in missing])}"
        )
    if known.looked < 1:
        what = "Thresholds, chance and witnesses" if options.witnesses else "Thresholds and chance"
        run.note(f"{what} were measured on {known.looked:.2%} of the volume, in samples spread over it.")
    counts = zip(witnessed(run.names, options), measured.witnesses, strict=True)
    witnesses = {name: Witness.of(some) for (_, name), some in counts}
    for note in told.notes(run, synapses, options, aligned, witnesses=witnesses, beyond=task.extension.reach[0]):
        run.note(note)
    return Found(
        labels=labels,
        centres=synapses.centres,
        voxels=synapses.voxels,
        scores=synapses.scores,
        nothing=told.nothing(synapses, options),
        columns={"false_discovery_rate": synapses.rates},
        numbers=told.numbers(synapses, options),
        sections=told.sections(run, synapses, options, aligned),
        told={
            **told.fields(synapses, options),
            "blocks": {
                "all": len(plan.cores),
                "missing": len(missing),
                "numbers": missing[:MAX_MISSING],
                "boxes": [plan.cores[number] for number in missing[:MAX_MISSING]],
            },
        },
        lies=measured.lies,
        facts={**told.facts(synapses, options, further=len(run.names) > len(ROLES)), "Blocks": f"{len(plan.cores):,}"},
    )
