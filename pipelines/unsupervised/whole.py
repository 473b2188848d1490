"""The stages of a job in blocks, for volumes of any size: a first look, the blocks, and their merge.

Each stage is a program of its own, of the same arguments and `--stage`. All files of the stages lie in `blocks/` of the
job's results: `plan.json` and `known.npz`, which the first look leaves, and `ROUND/PROGRAM/BLOCK.npz` of each block. A
block that is there is not worked on again. docs/adding-a-pipeline.md has the arguments.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.program import BLOCK_VOXELS, BLOCKS, FIRST, MAX_MISSING, PLAN, part_uri
from pipelines.common.boxes import Box, grown, intersection, placed, shape, union, voxels
from pipelines.common.channels import Channel, Plane, digest_of
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
from pipelines.unsupervised.blocks import WHOLE, Known, Sample, around, cores, first_look, found_in, rim
from pipelines.unsupervised.blocks import Found as Block
from pipelines.unsupervised.chance import Judged
from pipelines.unsupervised.driver import ROLES, Options, aligned_on, chosen, registered, searched, witnessed
from pipelines.unsupervised.extension import Extension
from pipelines.unsupervised.found import Synapses
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.search import Laid
from pipelines.unsupervised.witness import Witness
from pipelines.unsupervised.witness import counted as counted_at

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
            "cores": self.cores,
        }
        return (json.dumps(said) + "\n").encode()

    @classmethod
    def read(cls, content: bytes) -> Plan:
        """The plan that `content` holds."""
        said = json.loads(content)
        return cls(
            looked=_box(said["looked"]),
            cores=tuple(_box(core) for core in said["cores"]),
            volume=said["volume"],
            reads=said["reads"],
            pilot=_box(said["pilot"]),
        )


@dataclass(frozen=True)
class Measured:
    """What the first look has measured."""

    known: Known
    aligned: Alignment | None
    """How all channels lie; None where that was not to be measured."""
    witnesses: NDArray[np.int64]
    """(witnesses, 4): `witness.counted` of each of them, in the order in which they were asked for."""

    def arrays(self) -> dict[str, Array]:
        """All of it, for `restored`."""
        return self.known.arrays() | (self.aligned.arrays() if self.aligned else {}) | {"witnesses": self.witnesses}

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> Measured:
        """What `arrays` held."""
        aligned = Alignment.restored(arrays) if "aligned" in arrays else None
        return cls(Known.restored(arrays), aligned, arrays["witnesses"])

    def lies(self) -> dict[str, dict[int, Plane]]:
        """How the sections of each role's channel are moved back, of those of which any is."""
        if self.aligned is None or not self.known.moves:
            return {}
        return {role: self.aligned.lies(role) for role in self.aligned.warps}

    @cached_property
    def far(self) -> tuple[int, int]:
        """Voxels along y and x by which a channel is moved, at most."""
        aligned = self.aligned
        if aligned is None or not self.known.moves:
            return 0, 0
        warps = [warp for role in aligned.warps for warp in aligned.moved(role).values()]
        far = math.ceil(max((aligned.farthest(warp, aligned.box) for warp in warps), default=-1)) + 1
        return far, far


def _box(sides: Any) -> Box:
    z, y, x = ((int(low), int(high)) for low, high in sides)
    return z, y, x


def program(request: Request, stage: Stage, *, entry: Path, extension: Extension) -> None:
    """Do one stage. Raises pipelines.common.program.Failure and its subclasses."""
    options = chosen(request)
    if options.method != "paired":
        raise WrongRequest(f"The method {options.method} takes one block; choose paired, or a smaller box.")
    work = {FIRST: _first, BLOCKS: _blocks}.get(stage.name, _merge)
    work(request, stage, options, entry, extension)


def _roles(entry: Path) -> Mapping[str, tuple[str, ...]]:
    roles: Mapping[str, tuple[str, ...]] = tomllib.loads(entry.read_text(encoding="utf-8"))["roles"]
    return roles


# The first look


def _first(request: Request, stage: Stage, options: Options, entry: Path, extension: Extension) -> None:
    say = Progress(out=sys.stdout)
    results = Results(stage.job_uri)
    results.remove(PLAN)
    source = Source(request, roles=_roles(entry), witnesses=options.witnesses)
    extension.check(source.names)
    further = [role for role in source.names if role not in ROLES]
    box = request.z, request.y, request.x
    looked = searched(request, source.volume, options)
    voxel_nm, extent = source.volume.voxel_nm, shape(looked)
    where = registered(request, source.volume, options, further=bool(further), reach=extension.reach)
    sections = looked[0], *where[1:]
    with source.opened(dict.fromkeys(source.names, looked), box=box, aside=where) as channels:
        for channel in channels.values():
            if channel.dtype.itemsize > 2:
                raise WrongRequest(f"{channel.name} has voxels of {channel.dtype.itemsize} bytes; blocks take 1 and 2.")

        whole = voxels(looked) <= WHOLE  # which is read in the blocks in which it is stored, and kept meanwhile
        if whole:
            for role in ROLES:
                channels[role].fetch()  # copies of this process search it, and cannot read from the volume

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
                told=lambda part: say(0.4 * part, "registering"),
            )
            return seen.part(Grid.of(voxel_nm).holding(_relative(looked, sections)))

        laid = lie()
        known, samples = first_look(
            cut,
            extent,
            voxel_nm,
            inside=_relative(box, looked),
            false_discovery=options.false_discovery,
            register=options.register,
            laid=laid,
            told=lambda part: say(0.4 + 0.2 * part, "looking"),
        )
        aligned = None
        if options.register != "off":
            aligned = aligned_on(
                channels,
                source.volume,
                looked=looked,
                where=where,
                across=known.laid.across,
                along=known.laid.along,
                further=further,
                told=lambda part: say(0.6 + 0.3 * part, "registering"),
            )
        measured = Measured(known, aligned, np.zeros((0, 4), np.int64))
        witnesses = _witnesses(source, options, channels if whole else None, samples, looked, measured)
        measured = replace(measured, witnesses=witnesses)
        origin, cuboid = next(iter(channels.values())).stored
        digest = source.digest(channels)
    begin = tuple(low - (low - first) % side for (low, _), first, side in zip(looked, origin, cuboid, strict=True))
    before = [low - first for (low, _), first in zip(looked, begin, strict=True)]
    parts = cores(
        extent,
        Grid.of(voxel_nm),
        most=stage.voxels,
        cuboid=cuboid,
        before=(before[0], before[1], before[2]),
        reach=extension.reach[0],
    )
    typical = next(n for n, core in enumerate(parts) if _holds(core, known.typical))
    blocks = [_within(core, looked) for core in parts]
    reads = [sum(map(voxels, _near(source, measured, core, looked, extension).values())) for core in blocks]
    plan = Plan(
        looked=looked,
        cores=tuple(blocks),
        volume=digest,
        reads=sum(reads) // len(source.names),
        pilot=pilot_of(blocks, typical, box),
    )
    results.put(KNOWN, npz(measured.arrays()))
    results.put(PLAN, plan.content(), "application/json")
    more = plan.reads / voxels(looked) - 1
    print(f"{counted(len(parts), 'block')} of {counted(voxels(parts[0]), 'voxel')}; margins add {more:.0%}", flush=True)


def _witnesses(
    source: Source,
    options: Options,
    there: Mapping[str, Channel] | None,
    samples: Sequence[Sample],
    looked: Box,
    measured: Measured,
) -> Array:
    """(witnesses, 4): `witness.counted` of each of them, in the parts of what was `looked` at in which synapses are.

    Where all of it is looked at, its channels are `there`.
    """
    counts = np.zeros((len(options.witnesses), 4), np.int64)
    lies = measured.lies()
    for sample in samples if options.witnesses else ():
        box = _within(sample.box, looked)
        near = grown(box, (0, *measured.far), source.volume.bounds)
        with nullcontext(there) if there else source.opened(dict.fromkeys(source.names, near), box=box) as channels:
            for n, (role, _) in enumerate(witnessed(source.names, options)):
                read = channels[role].part(box, lies.get(role)).read
                counts[n] += counted_at(read, shape(box), sample.centres, voxel_nm=source.volume.voxel_nm)
    return counts


def _near(source: Source, measured: Measured, core: Box, looked: Box, extension: Extension) -> dict[str, Box]:
    """Role to what is read of its channel for a block."""
    volume, (z, y, x), (down, right) = source.volume, extension.reach, measured.far
    high, wide = rim(volume.voxel_nm)
    there = grown(core, (z, max(y, high) + down, max(x, wide) + right), volume.bounds)
    searched = around(_relative(core, looked), shape(looked), volume.voxel_nm, measured.known)
    return dict.fromkeys(source.names, there) | dict.fromkeys(ROLES, union(there, _within(searched, looked)))


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


def _read(job: Results) -> tuple[Plan, Measured]:
    """What the first look has left. Raises Failure where it is not there."""
    plan, known = job.get(PLAN), job.get(KNOWN)
    if plan is None or known is None:
        raise Failure(
            "The first look at this volume has left no plan, or the program may not read it (on AWS, the job role has "
            "to allow that); the job has to be submitted again."
        )
    try:
        with np.load(io.BytesIO(known)) as arrays:
            return Plan.read(plan), Measured.restored(dict(arrays))
    except MemoryError:
        raise
    except Exception:  # JSON, zip, zlib and NumPy have an error each for each kind of damage
        raise Failure("The plan of the first look is damaged; the job has to be submitted again.") from None


# Blocks


def _blocks(request: Request, stage: Stage, options: Options, entry: Path, extension: Extension) -> None:
    say = Progress(out=sys.stdout)
    job = Results(stage.job_uri, part=True)
    plan, measured = _read(job)
    there = _found(job, rounds=len(stage.rounds) - 1) if len(stage.rounds) > 1 else {}
    # by its number, since a program of an earlier round that still runs may finish another block meanwhile
    mine = [number for number in range(stage.index, len(plan.cores), stage.rounds[-1]) if number not in there]
    results = Results(part_uri(request.results_uri, stage.index), part=True)
    source = Source(request, roles=_roles(entry), witnesses=options.witnesses)
    for done, number in enumerate(mine):
        say(done / len(mine), "working on blocks")
        name = f"{number:06d}.npz"
        content = results.get(name)
        if content is None or _whole(content) is None:
            results.put(name, _block(request, source, plan, measured, number, extension))
    print(f"{counted(len(mine), 'block')} done", flush=True)


def _block(
    request: Request, source: Source, plan: Plan, measured: Measured, number: int, extension: Extension
) -> bytes:
    """What is found in a block, and what is seen of its channels in the box."""
    core, voxel_nm, extent = plan.cores[number], source.volume.voxel_nm, shape(plan.looked)
    box, (z, y, x) = (request.z, request.y, request.x), request.start
    near = _near(source, measured, core, plan.looked, extension)
    mine = intersection(core, box) or ((z, z), (y, y), (x, x))
    lies, seen = measured.lies(), grown(core, extension.reach, source.volume.bounds)
    with source.opened(near, box=mine, whole=box) as channels:
        if source.digest(channels) != plan.volume:
            raise WrongRequest(CHANGED)
        for channel in channels.values():
            channel.fetch()

        def cut(part: Box) -> tuple[Array, Array]:
            psd, synapsin = (channels[role].cut(_within(part, plan.looked)) for role in ROLES)
            return psd, synapsin

        def moved(role: str, part: Box) -> Array:
            return channels[role].part(_within(part, plan.looked), lies.get(role)).read()

        def mark(centres: NDArray[np.float64]) -> NDArray[np.float64]:
            parts = {role: channel.part(seen, lies.get(role)) for role, channel in channels.items()}
            return extension.mark(centres + placed(plan.looked, seen)[0], parts, shape=shape(seen))

        found = found_in(
            cut,
            _relative(core, plan.looked),
            extent,
            voxel_nm,
            measured.known,
            inside=_relative(box, plan.looked),
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
            "digests": np.array([digest_of(channel.part(core)) for channel in channels.values()]),
        }
        for n, channel in enumerate(channels.values()):
            arrays |= {f"seen{n}_{name}": array for name, array in channel.arrays().items()}
        return npz(arrays, level=1)  # it is read once, and a higher level takes a fifth of the time of a block


def _whole(content: bytes) -> dict[str, Array] | None:
    """The arrays of a block; None where the file is damaged. Raises MemoryError: that is no damage."""
    try:
        with np.load(io.BytesIO(content)) as arrays:
            found = dict(arrays)
        places, scores, regions, sums, marks = (
            found[name] for name in ("places", "scores", "regions", "sums", "marks")
        )
        pixels = int(np.bitwise_count(regions).sum())
        whole = places.shape == (len(scores), 3) and len(regions) == len(scores) == len(marks) and len(sums) == pixels
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


def _merge(request: Request, stage: Stage, options: Options, entry: Path, extension: Extension) -> None:
    job = Results(stage.job_uri, part=True)
    if _is_merged(request, job):
        print("All blocks are merged already.", flush=True)
        return
    plan, measured = _read(job)
    known = measured.known
    there = _found(job, rounds=len(stage.rounds))
    gathered: dict[str, Gathered] = {}

    def channels(source: Source) -> dict[str, Gathered]:
        again = source.channels({}, box=box)
        if source.digest(again) != plan.volume:
            for channel in again.values():
                channel.close()
            raise WrongRequest(CHANGED)
        gathered.update({role: Gathered(channel, near=plan.looked) for role, channel in again.items()})
        return gathered

    box = request.z, request.y, request.x
    with (
        Run(
            request,
            entry=entry,
            witnesses=options.witnesses,
            gathered=channels,
            results=extension.results,
        ) as run,
        Sparse(request.shape, once=True) as labels,
    ):
        extension.begin(run)
        missing: list[int] = []
        assembly = Assembly(
            Grid.of(run.volume.voxel_nm),
            known.laid if known.moves else None,
            extent=shape(plan.looked),
            inside=_relative(run.box, plan.looked),
            labels=labels,
            channels=len(run.names),
            marks=extension.marks,
            copies=CORES if voxels(box) > BLOCK_VOXELS else 1,
        )
        objects = assembly.objects(_slabs(run, plan, job, there, gathered, missing))
        if len(missing) == len(plan.cores):
            raise Failure("None of the blocks of this job has left anything.")
        for channel, sums in zip(gathered.values(), objects.sums.T, strict=True):
            channel.means = sums / np.maximum(objects.voxels, 1)
        found = _told(run, plan, measured, options, extension, _synapses(objects, known, options), labels, missing)
        extension.finish(run, found, objects.marks)
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
            blocks.append(Block(*(arrays[each.name] for each in fields(Block))))
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


def _told(
    run: Run,
    plan: Plan,
    measured: Measured,
    options: Options,
    extension: Extension,
    synapses: Synapses,
    labels: Sparse,
    missing: list[int],
) -> Found:
    """What was found, after all notes on it."""
    known, aligned = measured.known, measured.aligned
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
    for note in told.notes(run, synapses, options, aligned, witnesses=witnesses, beyond=extension.reach[0]):
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
        lies=measured.lies(),
        facts={**told.facts(synapses, options, further=len(run.names) > len(ROLES)), "Blocks": f"{len(plan.cores):,}"},
    )
