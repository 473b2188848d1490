"""The first look at a volume that is worked on in blocks. Axes are z, y, x."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.program import PLAN
from pipelines.common.boxes import Box, Triple, absolute, grown, intersection, relative, shape, voxels
from pipelines.common.channels import Channel
from pipelines.common.npz import npz
from pipelines.common.program import Progress, WrongRequest
from pipelines.common.results import Results
from pipelines.common.words import counted
from pipelines.unsupervised.alignment import Alignment
from pipelines.unsupervised.blocks import WHOLE, Known, Sample, cores, first_look
from pipelines.unsupervised.driver import ROLES, aligned_on, laid_on, registered, searched, witnessed
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.search import Laid
from pipelines.unsupervised.stages.needs import needs
from pipelines.unsupervised.stages.plan import KNOWN, Measured, Plan, Task, near_of
from pipelines.unsupervised.witness import counted as counted_at


def first(task: Task) -> None:
    """Measure what blocks have to know, and leave it with the plan of the blocks. Raises Failure and its subclasses."""
    results = Results(task.stage.job_uri)
    results.remove(PLAN)
    look = _Look(task)
    with look.channels() as channels:
        measured = look.measured(channels)
        stored, digest = next(iter(channels.values())).stored, look.source.digest(channels)
        itemsize = max(channel.dtype.itemsize for channel in channels.values())
    plan = look.plan(measured, stored, digest, itemsize=itemsize)
    results.put(KNOWN, npz(measured.arrays()))
    results.put(PLAN, plan.content(), "application/json")
    blocks, more = counted(len(plan.cores), "block"), plan.reads / voxels(plan.looked) - 1
    print(f"{blocks} of {counted(voxels(plan.cores[0]), 'voxel')}; margins add {more:.0%}", flush=True)


class _Look:
    """Construction raises as Source, and WrongRequest where a channel is missing that the pipeline needs."""

    def __init__(self, task: Task) -> None:
        self._task, self._say = task, Progress(out=sys.stdout)
        self.source = source = task.source()
        task.extension.check(source.names)
        self._further = [role for role in source.names if role not in ROLES]
        self._looked = searched(task.request, source.volume, task.options)
        further, reach = bool(self._further), task.extension.reach
        self._where = registered(task.request, source.volume, task.options, further=further, reach=reach)
        self._whole = voxels(self._looked) <= WHOLE
        """Whether all is looked at, which is read in the blocks in which it is stored, and kept meanwhile."""
        self._nm = source.volume.voxel_nm

    def channels(self) -> AbstractContextManager[Mapping[str, Channel]]:
        """The channels, by role, with what is looked at."""
        near = dict.fromkeys(self.source.names, self._looked)
        return self.source.opened(near, box=self._task.box, aside=self._where)

    def measured(self, channels: Mapping[str, Channel]) -> Measured:
        """What blocks have to know. Raises as `Channel.read`, and WrongRequest for voxels of more than 2 bytes."""
        for channel in channels.values():
            if channel.dtype.itemsize > 2:
                raise WrongRequest(f"{channel.name} has voxels of {channel.dtype.itemsize} bytes; blocks take 1 and 2.")
        if self._whole:
            for role in ROLES:
                channels[role].fetch()  # copies of this process search it, and cannot read from the volume
        options = self._task.options

        def cut(part: Box) -> tuple[NDArray[Any], NDArray[Any]]:
            psd, synapsin = (channels[role].once_or_cut(absolute(part, self._looked)) for role in ROLES)
            return psd, synapsin

        known, samples = first_look(
            cut,
            shape(self._looked),
            self._nm,
            inside=relative(self._task.box, self._looked),
            false_discovery=options.false_discovery,
            register=options.register,
            laid=self._laid(channels),
            told=lambda part: self._say(0.4 + 0.2 * part, "looking"),
        )
        aligned = None if options.register == "off" else self._aligned(channels, known)
        measured = Measured(known, aligned, np.zeros((0, 4), np.int64), np.zeros(0, np.bool_))
        witnesses = self._witnesses(channels, samples, measured)
        missing = np.array([channel.missing for channel in channels.values()])
        return replace(measured, witnesses=witnesses, missing=missing)

    def _laid(self, channels: Mapping[str, Channel]) -> Laid | None:
        """How both channels lie, as wide as the experiment has its sections; None where what is looked at is that."""
        sections = self._looked[0], *self._where[1:]
        if self._task.options.register == "off" or (self._whole and sections == self._looked):
            return None
        return laid_on(
            channels,
            self.source.volume,
            looked=self._looked,
            where=self._where,
            told=lambda part: self._say(0.4 * part, "registering"),
        )

    def _aligned(self, channels: Mapping[str, Channel], known: Known) -> Alignment:
        """How all channels lie."""
        return aligned_on(
            channels,
            self.source.volume,
            looked=self._looked,
            where=self._where,
            across=known.laid.across,
            along=known.laid.along,
            further=self._further,
            told=lambda part: self._say(0.6 + 0.3 * part, "registering"),
        )

    def _witnesses(
        self, channels: Mapping[str, Channel], samples: Sequence[Sample], measured: Measured
    ) -> NDArray[np.int64]:
        """`Measured.witnesses`, in the parts of what was looked at in which synapses are."""
        source, lies = self.source, measured.lies
        witnesses = witnessed(source.names, self._task.options)
        counts = np.zeros((len(witnesses), 4), np.int64)
        for done, sample in enumerate(samples if witnesses else ()):
            self._say(0.9 + 0.1 * done / len(samples), "looking")
            box = absolute(sample.box, self._looked)
            near = grown(box, (0, *measured.far), source.volume.bounds)
            opened = source.opened(dict.fromkeys(source.names, near), box=box)
            with nullcontext(channels) if self._whole else opened as there:
                for n, (role, _) in enumerate(witnesses):
                    read = there[role].part(box, lies.get(role)).read
                    counts[n] += counted_at(read, shape(box), sample.centres, voxel_nm=self._nm)
        return counts

    def plan(self, measured: Measured, stored: tuple[Triple, Triple], digest: str, *, itemsize: int) -> Plan:
        """How the volume is cut: its channels are `stored` so, and of so many bytes a voxel; its `digest` is that."""
        looked, extension, (origin, cuboid) = self._looked, self._task.extension, stored
        z, y, x = ((low - first) % side for (low, _), first, side in zip(looked, origin, cuboid, strict=True))
        parts = cores(
            shape(looked),
            Grid.of(self._nm),
            most=self._task.stage.voxels,
            cuboid=cuboid,
            before=(z, y, x),
            reach=extension.reach[0],
        )
        typical = next(n for n, core in enumerate(parts) if _holds(core, measured.known.typical))
        blocks = [absolute(core, looked) for core in parts]
        reads = [sum(map(voxels, near_of(self.source, measured, core, looked, extension).values())) for core in blocks]
        return Plan(
            looked=looked,
            cores=tuple(blocks),
            volume=digest,
            reads=sum(reads) // len(self.source.names),
            pilot=pilot_of(blocks, typical, self._task.box),
            merge=needs(
                measured.known,
                parts,
                Grid.of(self._nm),
                channels=len(self.source.names),
                marks=extension.marks,
                itemsize=itemsize,
            ),
        )


def pilot_of(blocks: Sequence[Box], typical: int, box: Box) -> Box:
    """The part of the box in the block of that number; of one that is beside the box, in the block with most of it."""
    parts = [part for block in [blocks[typical], *blocks] if (part := intersection(block, box))]
    return parts[0] if intersection(blocks[typical], box) else max(parts, key=voxels)


def _holds(box: Box, place: Triple) -> bool:
    return all(low <= at < high for at, (low, high) in zip(place, box, strict=True))
