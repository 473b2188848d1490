"""What the stages of a job in blocks are told, and leave for one another. Axes are z, y, x."""

from __future__ import annotations

import io
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.program import PLAN
from pipelines.common.boxes import Box, absolute, grown, relative, shape, union
from pipelines.common.channels import Plane
from pipelines.common.program import Failure, Request, Stage
from pipelines.common.results import Results
from pipelines.common.source import Source
from pipelines.unsupervised.alignment import Alignment
from pipelines.unsupervised.blocks import Known, around, rim
from pipelines.unsupervised.driver import ROLES, Options
from pipelines.unsupervised.extension import Extension
from pipelines.unsupervised.stages.needs import Needs

Array = NDArray[Any]
KNOWN = "blocks/known.npz"
FOLDER = "blocks/"
CHANGED = "The volume is not the one that the first look saw: its channels or their metadata have changed since."


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stage that a program has to do."""

    request: Request
    stage: Stage
    options: Options
    entry: Path
    """The pipeline's pipeline.toml."""
    extension: Extension

    @property
    def box(self) -> Box:
        """The request's, in the experiment's voxels."""
        return self.request.z, self.request.y, self.request.x

    @cached_property
    def job(self) -> Results:
        """Where the files of all stages lie."""
        return Results(self.stage.job_uri, part=True)

    def source(self) -> Source:
        """The volume. Raises as Source."""
        roles: Mapping[str, tuple[str, ...]] = tomllib.loads(self.entry.read_text(encoding="utf-8"))["roles"]
        return Source(self.request, roles=roles, witnesses=self.options.witnesses)


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
    merge: Needs

    def content(self) -> bytes:
        """As PLAN has it; the bot reads `blocks`, `reads`, `pilot` and `merge`."""
        said = {
            "blocks": len(self.cores),
            "reads": self.reads,
            "pilot": self.pilot,
            "merge": asdict(self.merge),
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
            merge=Needs(**{name: said["merge"][name] for name in ("memory", "seconds")})
            if "merge" in said
            else Needs(),
        )


@dataclass(frozen=True)
class Measured:
    """What the first look has measured."""

    known: Known
    aligned: Alignment | None
    """How all channels lie; None where that was not to be measured."""
    witnesses: NDArray[np.int64]
    """(witnesses, 4): `witness.counted` of each of them, in the order in which they were asked for."""
    missing: NDArray[np.bool_]
    """(channels,): whether a part of what the first look read of each is not stored."""

    def arrays(self) -> dict[str, Array]:
        """All of it, for `restored`."""
        own = {"witnesses": self.witnesses, "missing": self.missing}
        return self.known.arrays() | (self.aligned.arrays() if self.aligned else {}) | own

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> Measured:
        """What `arrays` held."""
        aligned = Alignment.restored(arrays) if "aligned" in arrays else None
        return cls(Known.restored(arrays), aligned, arrays["witnesses"], arrays["missing"])

    @cached_property
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


def near_of(source: Source, measured: Measured, core: Box, looked: Box, extension: Extension) -> dict[str, Box]:
    """Role to what is read of its channel for a block."""
    volume, (z, y, x), (down, right) = source.volume, extension.reach, measured.far
    high, wide = rim(volume.voxel_nm)
    there = grown(core, (z, max(y, high) + down, max(x, wide) + right), volume.bounds)
    searched = around(relative(core, looked), shape(looked), volume.voxel_nm, measured.known)
    return dict.fromkeys(source.names, there) | dict.fromkeys(ROLES, union(there, absolute(searched, looked)))


def read_plan(job: Results) -> tuple[Plan, Measured]:
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


def arrays_of(content: bytes) -> dict[str, Array] | None:
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


def left_by(job: Results, *, rounds: int) -> dict[int, str]:
    """The blocks that so many rounds have left, and the name of each one's file; the last round's, where two have."""
    found: dict[int, tuple[int, str]] = {}
    for name in job.names(FOLDER):
        if part := re.fullmatch(rf"{FOLDER}([0-9]+)/[0-9]+/([0-9]+)\.npz", name):
            number, block = int(part[1]), int(part[2])
            if number <= rounds and number >= found.get(block, (0, ""))[0]:
                found[block] = number, name
    return {block: name for block, (_, name) in found.items()}
