"""The stages of a job in blocks, for volumes of any size: a first look, the blocks, and their merge.

Each stage is a program of its own, of the same arguments and `--stage`. All files of the stages lie in `blocks/` of the
job's results: `plan.json` and `known.npz`, which the first look leaves, and `ROUND/PROGRAM/BLOCK.npz` of each block. A
block that is there is not worked on again. docs/adding-a-pipeline.md has the arguments.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.program import BLOCK_VOXELS, BLOCKS, FIRST, MAX_MISSING, PLAN, part_uri
from pipelines.common.boxes import Box, intersection, shape, voxels
from pipelines.common.channels import Plane, digest_of
from pipelines.common.copies import CORES
from pipelines.common.gathered import Gathered
from pipelines.common.program import Failure, Progress, Request, Stage, WrongRequest
from pipelines.common.results import CRATE, Results, npz
from pipelines.common.run import Found, Run
from pipelines.common.seen import Seen
from pipelines.common.source import Source
from pipelines.common.sparse import Sparse
from pipelines.common.words import counted
from pipelines.unsupervised import alignment, told
from pipelines.unsupervised.alignment import Alignment
from pipelines.unsupervised.assembly import Assembly, Objects, Slab
from pipelines.unsupervised.blocks import WHOLE, Known, around, cores, first_look, found_in
from pipelines.unsupervised.blocks import Found as Block
from pipelines.unsupervised.chance import Judged
from pipelines.unsupervised.driver import ROLES, Options, chosen, searched
from pipelines.unsupervised.found import Synapses
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.search import Laid

Array = NDArray[Any]
KNOWN = "blocks/known.npz"
FOLDER = "blocks/"
MERGED = "blocks/merged.json"
NOTED = 2
"""Missing blocks that a note names, at most."""
CHANGED = "The volume is not the one that the first look saw: its channels or their metadata have changed since."


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a volume is cut. Boxes are in the experiment's voxels."""

    looked: Box
    """What is searched: the box asked for, and what is around it."""
    sections: Box
    """Where its sections were registered."""
    cores: tuple[Box, ...]
    """In order: blocks of the same sections follow one another."""
    volume: str
    """`Source.digest`."""
    reads: int
    """Voxels of a channel that all blocks read."""
    pilot: Box
    """What was asked for of a block in which about as much is to be found as in most others."""

    def content(self) -> bytes:
        """As PLAN has it; the bot reads `blocks`, `reads` and `pilot`."""
        said = {
            "blocks": len(self.cores),
            "reads": self.reads,
            "pilot": self.pilot,
            "volume": self.volume,
            "looked": self.looked,
            "sections": self.sections,
            "cores": self.cores,
        }
        return (json.dumps(said) + "\n").encode()

    @classmethod
    def read(cls, content: bytes) -> Plan:
        """The plan that `content` holds."""
        said = json.loads(content)
        return cls(
            looked=_box(said["looked"]),
            sections=_box(said["sections"]),
            cores=tuple(_box(core) for core in said["cores"]),
            volume=said["volume"],
            reads=said["reads"],
            pilot=_box(said["pilot"]),
        )


def _box(sides: Any) -> Box:
    z, y, x = ((int(low), int(high)) for low, high in sides)
    return z, y, x


def program(request: Request, stage: Stage, *, entry: Path) -> None:
    """Do one stage. Raises pipelines.common.program.Failure and its subclasses."""
    options = chosen(request)
    if options.method != "paired":
        raise WrongRequest(f"The method {options.method} takes one block; choose paired, or a smaller box.")
    if options.witnesses:
        raise WrongRequest("Witnesses are told of jobs of one block; leave --witness out, or choose a smaller box.")
    if stage.name == FIRST:
        _first(request, stage, options, entry)
    elif stage.name == BLOCKS:
        _blocks(request, stage, entry)
    else:
        _merge(request, stage, options, entry)


def _roles(entry: Path) -> Mapping[str, tuple[str, ...]]:
    roles: Mapping[str, tuple[str, ...]] = tomllib.loads(entry.read_text(encoding="utf-8"))["roles"]
    return roles


# The first look


def _first(request: Request, stage: Stage, options: Options, entry: Path) -> None:
    say = Progress(out=sys.stdout)
    results = Results(stage.job_uri)
    results.remove(PLAN)
    source = Source(request, roles=_roles(entry))
    box = request.z, request.y, request.x
    looked = searched(request, source.volume, options)
    voxel_nm, extent = source.volume.voxel_nm, shape(looked)
    sections = alignment.registered_in(box, looked, source.volume.bounds, voxel_nm, stacks=False)
    with source.opened(looked, box=box, aside=sections) as channels:
        for channel in channels.values():
            if channel.dtype.itemsize > 2:
                raise WrongRequest(f"{channel.name} has voxels of {channel.dtype.itemsize} bytes; blocks take 1 and 2.")

        whole = voxels(looked) <= WHOLE  # which is read in the blocks in which it is stored, and kept meanwhile
        if whole:
            for channel in channels.values():
                channel.fetch()  # copies of this process search it, and cannot read from the volume

        def cut(part: Box) -> tuple[Array, Array]:
            psd, synapsin = (
                (channels[role].cut if whole else channels[role].once)(_within(part, looked)) for role in ROLES
            )
            return psd, synapsin

        def lie() -> Laid | None:
            """As wide as the experiment has its sections; None where what is looked at is that."""
            if options.register == "off" or (whole and sections == looked):
                return None
            seen = alignment.laid(
                lambda part: [channels[role].once(part) for role in ROLES],
                sections,
                voxel_nm,
                told=lambda part: say(0.5 * part, "registering"),
            )
            return seen.part(Grid.of(voxel_nm).holding(_relative(looked, sections)))

        laid = lie()
        known = first_look(
            cut,
            extent,
            voxel_nm,
            inside=_relative(box, looked),
            false_discovery=options.false_discovery,
            register=options.register,
            laid=laid,
            told=lambda part: say(0.5 + 0.45 * part, "looking"),
        )
        origin, cuboid = next(iter(channels.values())).stored
        digest = source.digest(channels)
    begin = tuple(low - (low - first) % side for (low, _), first, side in zip(looked, origin, cuboid, strict=True))
    before = [low - first for (low, _), first in zip(looked, begin, strict=True)]
    parts = cores(extent, Grid.of(voxel_nm), most=stage.voxels, cuboid=cuboid, before=(before[0], before[1], before[2]))
    typical = next(n for n, core in enumerate(parts) if _holds(core, known.typical))
    plan = Plan(
        looked=looked,
        sections=sections if laid else looked,
        cores=tuple(_within(core, looked) for core in parts),
        volume=digest,
        reads=sum(voxels(around(core, extent, voxel_nm, known)) for core in parts),
        pilot=pilot_of([_within(core, looked) for core in parts], typical, box),
    )
    results.put(KNOWN, npz(known.arrays()))
    results.put(PLAN, plan.content(), "application/json")
    more = plan.reads / voxels(looked) - 1
    print(f"{counted(len(parts), 'block')} of {counted(voxels(parts[0]), 'voxel')}; margins add {more:.0%}", flush=True)


def pilot_of(blocks: Sequence[Box], typical: int, box: Box) -> Box:
    """The part of the box in the block of that number; of one that is beside the box, in the block with most of it."""
    parts = [part for block in [blocks[typical], *blocks] if (part := intersection(block, box))]
    return parts[0] if intersection(blocks[typical], box) else max(parts, key=voxels)


def _holds(box: Box, place: tuple[int, int, int]) -> bool:
    return all(low <= at < high for at, (low, high) in zip(place, box, strict=True))


def _within(part: Box, whole: Box) -> Box:
    """A part of a box, in the experiment's voxels."""
    z, y, x = ((low + first, high + first) for (low, high), (first, _) in zip(part, whole, strict=True))
    return z, y, x


def _relative(part: Box, whole: Box) -> Box:
    """A part of a box, from the box's corner."""
    z, y, x = ((low - first, high - first) for (low, high), (first, _) in zip(part, whole, strict=True))
    return z, y, x


def _read(job: Results) -> tuple[Plan, Known]:
    """What the first look has left. Raises Failure where it is not there."""
    plan, known = job.get(PLAN), job.get(KNOWN)
    if plan is None or known is None:
        raise Failure(
            "The first look at this volume has left no plan, or the program may not read it (on AWS, the job role has "
            "to allow that); the job has to be submitted again."
        )
    try:
        with np.load(io.BytesIO(known)) as arrays:
            return Plan.read(plan), Known.restored(dict(arrays))
    except MemoryError:
        raise
    except Exception:  # JSON, zip, zlib and NumPy have an error each for each kind of damage
        raise Failure("The plan of the first look is damaged; the job has to be submitted again.") from None


# Blocks


def _blocks(request: Request, stage: Stage, entry: Path) -> None:
    say = Progress(out=sys.stdout)
    job = Results(stage.job_uri, part=True)
    plan, known = _read(job)
    there = _found(job, rounds=len(stage.rounds) - 1) if len(stage.rounds) > 1 else {}
    # by its number, since a program of an earlier round that still runs may finish another block meanwhile
    mine = [number for number in range(stage.index, len(plan.cores), stage.rounds[-1]) if number not in there]
    results = Results(part_uri(request.results_uri, stage.index), part=True)
    source = Source(request, roles=_roles(entry))
    for done, number in enumerate(mine):
        say(done / len(mine), "working on blocks")
        name = f"{number:06d}.npz"
        content = results.get(name)
        if content is None or _whole(content) is None:
            results.put(name, _block(request, source, plan, known, number))
    print(f"{counted(len(mine), 'block')} done", flush=True)


def _block(request: Request, source: Source, plan: Plan, known: Known, number: int) -> bytes:
    """What is found in a block, and what is seen of its channels in the box."""
    core, voxel_nm, extent = plan.cores[number], source.volume.voxel_nm, shape(plan.looked)
    box, (z, y, x) = (request.z, request.y, request.x), request.start
    read = _within(around(_relative(core, plan.looked), extent, voxel_nm, known), plan.looked)
    mine = intersection(core, box) or ((z, z), (y, y), (x, x))
    lies = _lies(plan, known, voxel_nm)
    with source.opened(read, box=mine, whole=box) as channels:
        if source.digest(channels) != plan.volume:
            raise WrongRequest(CHANGED)
        for channel in channels.values():
            channel.fetch()

        def cut(part: Box) -> tuple[Array, Array]:
            psd, synapsin = (channels[role].cut(_within(part, plan.looked)) for role in ROLES)
            return psd, synapsin

        def moved(role: str, part: Box) -> Array:
            return channels[role].part(_within(part, plan.looked), lies.get(role)).read()

        found = found_in(
            cut,
            _relative(core, plan.looked),
            extent,
            voxel_nm,
            known,
            inside=_relative(box, plan.looked),
            channels=[partial(moved, role) for role in channels],
        )
        arrays: dict[str, Array] = {
            "places": found.places,
            "scores": found.scores,
            "regions": found.regions,
            "sums": found.sums.astype(np.min_scalar_type(found.sums.max(initial=0))),  # most of what a block leaves
            "missing": np.array([channel.missing for channel in channels.values()]),
            "digests": np.array([digest_of(channel.part(core)) for channel in channels.values()]),
        }
        for n, channel in enumerate(channels.values()):
            arrays |= {f"seen{n}_{name}": array for name, array in channel.arrays().items()}
        return npz(arrays, level=1)  # it is read once, and a higher level takes a fifth of the time of a block


def _lies(plan: Plan, known: Known, voxel_nm: tuple[float, float, float]) -> dict[str, dict[int, Plane]]:
    """How the sections of each role's channel are moved back."""
    aligned = _aligned(plan, known, voxel_nm)
    return {"presynaptic": aligned.lies("presynaptic")} if known.moves else {}


def _aligned(plan: Plan, known: Known, voxel_nm: tuple[float, float, float]) -> Alignment:
    return Alignment(
        box=plan.sections,
        voxel_nm=voxel_nm,
        warps={"presynaptic": dict(enumerate(known.laid.across))},
        along=dict(enumerate(known.laid.along, start=1)),
        together={},
    )


def _whole(content: bytes) -> dict[str, Array] | None:
    """The arrays of a block; None where the file is damaged. Raises MemoryError: that is no damage."""
    try:
        with np.load(io.BytesIO(content)) as arrays:
            found = dict(arrays)
        places, scores, regions, sums = (found[name] for name in ("places", "scores", "regions", "sums"))
        pixels = int(np.bitwise_count(regions).sum())
        whole = places.shape == (len(scores), 3) and len(regions) == len(scores) and len(sums) == pixels
        return found if whole and {"missing", "digests", "seen0_range"} <= found.keys() else None
    except MemoryError:
        raise
    except Exception:  # zip, zlib and NumPy have an error each for each kind of damage
        return None


def _found(job: Results, *, rounds: int) -> dict[int, str]:
    """The blocks that so many rounds have left, and the name of each one's file; the last round's, where two have."""
    found: dict[int, tuple[int, str]] = {}
    for name in job.names(FOLDER):
        if part := re.fullmatch(rf"{FOLDER}([0-9]+)/[0-9]+/([0-9]+)\.npz", name):
            number, block = int(part[1]), int(part[2])
            if number <= rounds and number >= found.get(block, (0, ""))[0]:
                found[block] = number, name
    return {block: name for block, (_, name) in found.items()}


# The merge


def _merge(request: Request, stage: Stage, options: Options, entry: Path) -> None:
    job = Results(stage.job_uri, part=True)
    if _is_merged(request, job):
        print("All blocks are merged already.", flush=True)
        return
    plan, known = _read(job)
    there = _found(job, rounds=len(stage.rounds))
    gathered: dict[str, Gathered] = {}

    def channels(source: Source) -> dict[str, Gathered]:
        with source.opened(plan.looked, box=box) as about:
            for role, channel in about.items():
                gathered[role] = Gathered(channel.name, channel.dtype, box=box, near=plan.looked)
        return gathered

    box = request.z, request.y, request.x
    with (
        Run(replace(request, image_bytes=0), entry=entry, gathered=channels) as run,
        Sparse(request.shape, once=True) as labels,
    ):
        missing: list[int] = []
        assembly = Assembly(
            Grid.of(run.volume.voxel_nm),
            known.laid if known.moves else None,
            extent=shape(plan.looked),
            inside=_relative(run.box, plan.looked),
            labels=labels,
            channels=len(run.names),
            copies=CORES if voxels(box) > BLOCK_VOXELS else 1,
        )
        objects = assembly.objects(_slabs(run, plan, job, there, gathered, missing))
        if len(missing) == len(plan.cores):
            raise Failure("None of the blocks of this job has left anything.")
        for channel, sums in zip(gathered.values(), objects.sums.T, strict=True):
            channel.means = sums / np.maximum(objects.voxels, 1)
        _tell(run, plan, known, options, _synapses(objects, known, options), labels, missing)
    if not missing:
        job.put(MERGED, b"{}\n", "application/json")  # so that a merge that is killed from here on is not begun anew
        _tidy(job)


def _is_merged(request: Request, job: Results) -> bool:
    """Whether an earlier merge has written its results, from all blocks, and was ended while it tidied up."""
    if job.get(MERGED) is not None:
        _tidy(job)
        return True
    return job.get(PLAN) is None and Results(request.results_uri, part=True).get(CRATE) is not None


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
            arrays = _whole(content) if content else None
            if arrays is None:
                missing.append(number)
                if content is not None:  # so that the next round works on it again
                    job.remove(there[number])
                continue
            blocks.append(Block(arrays["places"], arrays["scores"], arrays["regions"], arrays["sums"]))
            part = intersection(core, run.box)
            for n, channel in enumerate(gathered.values()):
                own = {name: arrays[f"seen{n}_{name}"] for name in ("range", "looked", "projection", "sample")}
                seen = Seen.restored(run.box, part, own) if part else None
                channel.gather(seen, digest=str(arrays["digests"][n]), missing=bool(arrays["missing"][n]))
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


def _tell(
    run: Run, plan: Plan, known: Known, options: Options, synapses: Synapses, labels: Sparse, missing: list[int]
) -> None:
    aligned = _aligned(plan, known, run.volume.voxel_nm) if options.register != "off" else None
    lies = _lies(plan, known, run.volume.voxel_nm)
    if missing:
        share = sum(voxels(plan.cores[number]) for number in missing) / voxels(plan.looked)
        run.warn(
            f"{len(missing):,} of {counted(len(plan.cores), 'block')} are missing, {share:.2%} of the volume: what "
            "lies in them was not looked at, and counts and densities are lower for it. Repair runs these blocks "
            f"alone. {_where([plan.cores[number] for number in missing])}"
        )
    if known.looked < 1:
        run.note(f"Thresholds and chance were measured on {known.looked:.2%} of the volume, in samples spread over it.")
    for note in told.notes(run, synapses, options, aligned, lies, beyond=0):
        run.note(note)
    run.finish(
        Found(
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
            lies=lies,
            facts={**told.facts(synapses, options), "Blocks": f"{len(plan.cores):,}"},
        )
    )
