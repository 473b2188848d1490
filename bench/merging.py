"""The merge of a job in blocks, as a process of its own, on files as the blocks of a large volume leave them."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure
from bench.processes import clean_environment
from contract.program import PLAN
from pipelines.common.boxes import Box, Triple, shape
from pipelines.common.npz import npz
from pipelines.common.program import parse
from pipelines.common.seen import Seen
from pipelines.common.source import Source
from pipelines.unsupervised.alignment import Alignment
from pipelines.unsupervised.blocks import Found, Known, first_look, found_in
from pipelines.unsupervised.detector import VOXEL_NM
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import NOWHERE
from pipelines.unsupervised.stages.needs import MIB, Needs, needs
from pipelines.unsupervised.stages.plan import KNOWN, Measured, Plan
from sandbox.house import ROOT
from tests.support.puncta import puncta

Array = NDArray[Any]
TILE: Triple = (16, 512, 512)
BLOCK: Triple = (16, 4096, 4096)
BLOCKS: Triple = (7, 3, 3)
"""Of a volume with some eleven million synapses, at one in a cubic micrometre."""
CHANNELS = ("PSD95", "Synapsin")
LOOK = 0.2
"""Seconds between two looks at the memory."""
SECONDS, BYTES = 60, 2e9
"""That the merge may take."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge took."""

    seconds: float
    memory: int
    """Bytes of resident memory at most, of the process and all below it; what they share counts once."""
    asked: Needs
    """What its plan says that it needs."""
    results: dict[str, Any]


def measure() -> Iterator[Figure]:
    """The figures of a merge of ten million synapses."""
    with tempfile.TemporaryDirectory(prefix="nomads-bench-") as folder:
        words = written(Path(folder), BLOCKS)
        seen = merged(Path(folder), words)
    many = seen.results["counts"]["synapses"]
    yield Figure(name="merge, synapses", value=many, unit="", at_least=10e6)
    yield Figure(name="merge, of all of them", value=seen.seconds, unit="s", at_most=SECONDS)
    yield Figure(name="merge, memory", value=seen.memory / 1e6, unit="MB", at_most=BYTES / 1e6)
    yield Figure(
        name="merge, memory, of what its plan asks for",
        value=seen.memory / 1e6,
        unit="MB",
        floor=seen.asked.memory * MIB / 1e6,
        ratio_at_most=1,
    )


def merged(folder: Path, words: list[str]) -> Merged:
    """Merge the files that `written` left, as compute would."""
    asked = Plan.read((folder / "job" / PLAN).read_bytes()).merge  # the merge removes it
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.unsupervised", *words],
        cwd=ROOT,
        env={**clean_environment(), "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
    )
    memory = 0
    while process.poll() is None:
        memory = max(memory, _held(process.pid))
        time.sleep(LOOK)
    if process.returncode:
        raise RuntimeError(f"the merge ended with {process.returncode}")
    results = json.loads((folder / "job" / "results.json").read_text())
    took = time.perf_counter() - began
    return Merged(seconds=took, memory=memory, asked=asked, results=results)


def _held(process: int) -> int:
    """Bytes of memory of a process and of all below it; what they share counts once."""
    held = 0
    with suppress(OSError):  # one that ends meanwhile
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            held += _held(int(child))
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        held += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return held


def written(folder: Path, blocks: Triple) -> list[str]:
    """Write a volume's metadata, and what its first look and so many blocks leave; returns the merge's arguments.

    Each block is a few tiles; each tile is what is found in one drawn volume, put elsewhere and with other numbers.
    """
    extent: Triple = (blocks[0] * BLOCK[0], blocks[1] * BLOCK[1], blocks[2] * BLOCK[2])
    _metadata(folder / "volume", extent)
    known, tile = _tile()
    job = folder / "job"
    (job / "blocks" / "1").mkdir(parents=True)
    cores = [_core(place) for place in itertools.product(*map(range, blocks))]
    whole: Box = ((0, extent[0]), (0, extent[1]), (0, extent[2]))
    words = ["--volume", f"precomputed://{(folder / 'volume').as_uri()}", "--volume-roots", folder.as_uri()]
    for axis, side in zip("zyx", extent, strict=True):
        words += [f"--{axis}-range", f"0,{side}"]
    words += ["--job-uri", f"{job.as_uri()}/", "--results-uri", f"{job.as_uri()}/"]
    known = _repeated(known, blocks)
    asked = needs(known, cores, Grid.of(VOXEL_NM), channels=len(CHANNELS))
    plan = Plan(looked=whole, cores=tuple(cores), volume=_digest(words), reads=0, pilot=cores[0], merge=asked)
    (job / PLAN).write_bytes(plan.content())
    (job / KNOWN).write_bytes(npz(_measured(known, whole).arrays()))
    for number, core in enumerate(cores):
        path = job / "blocks" / "1" / str(number) / f"{number:06d}.npz"
        path.parent.mkdir()
        path.write_bytes(npz(_block(tile, core, whole, np.random.default_rng(number))))
    return [*words, "--stage", "merge", "--rounds", str(len(cores))]


def _digest(words: list[str]) -> str:
    """What the first look would say of the volume."""
    request = parse(words, {})
    source = Source(request, roles={"postsynaptic": ["psd"], "presynaptic": ["synapsin"]})
    with source.opened({}, box=(request.z, request.y, request.x)) as channels:
        return source.digest(channels)


def _metadata(folder: Path, extent: Triple) -> None:
    scale = {"key": "full", "size": extent[::-1], "voxel_offset": [0, 0, 0], "resolution": VOXEL_NM[::-1]}
    scale |= {"chunk_sizes": [[512, 512, 16]], "encoding": "raw"}
    about = {"@type": "neuroglancer_multiscale_volume", "type": "image", "data_type": "uint8", "num_channels": 1}
    for name in CHANNELS:
        (folder / name).mkdir(parents=True)
        (folder / name / "info").write_text(json.dumps({**about, "scales": [scale]}))


def _tile() -> tuple[Known, Found]:
    """What is found in a drawn volume of TILE voxels."""
    drawn = puncta(1, shape=TILE)
    box: Box = ((0, TILE[0]), (0, TILE[1]), (0, TILE[2]))

    def channel(data: Array, part: Box) -> Array:
        return np.asarray(data[tuple(slice(*side) for side in part)])

    def cut(part: Box) -> tuple[Array, Array]:
        return channel(drawn.psd, part), channel(drawn.synapsin, part)

    known, _ = first_look(cut, TILE, VOXEL_NM, inside=box, false_discovery=0.25, register="auto")
    channels = [lambda part, data=data: channel(data, part) for data in (drawn.psd, drawn.synapsin)]
    return known, found_in(cut, box, TILE, VOXEL_NM, known, inside=box, channels=channels)


def _repeated(known: Known, blocks: Triple) -> Known:
    """What a first look that has seen one tile of so many blocks would tell."""
    times = blocks[0]
    across, along = [*known.laid.across] * times, [*known.laid.along, NOWHERE] * times
    laid = replace(known.laid, across=across, along=along[:-1])
    return replace(known, laid=laid, looked=math.prod(TILE) / math.prod(BLOCK) / math.prod(blocks), typical=(0, 0, 0))


def _measured(known: Known, whole: Box) -> Measured:
    """What a first look leaves of a volume of those sections."""
    aligned = Alignment(
        box=whole,
        voxel_nm=VOXEL_NM,
        warps={"presynaptic": dict(enumerate(known.laid.across))},
        along=dict(enumerate(known.laid.along, start=1)),
        together={},
    )
    return Measured(known, aligned, np.zeros((0, 4), np.int64), np.zeros(len(CHANNELS), np.bool_))


def _core(place: tuple[int, ...]) -> Box:
    z, y, x = ((n * side, (n + 1) * side) for n, side in zip(place, BLOCK, strict=True))
    return z, y, x


def _block(tile: Found, core: Box, whole: Box, draw: np.random.Generator) -> dict[str, Array]:
    """A block's file. Of each tile, what is found is moved round within it, and scores and brightness are drawn."""
    ends = np.concatenate([[0], np.cumsum(np.bitwise_count(tile.regions))])
    places, pixels = [], []
    for y, x in np.ndindex(BLOCK[1] // TILE[1], BLOCK[2] // TILE[2]):
        at = tile.places.copy()
        for axis, n in ((1, y), (2, x)):
            side = TILE[axis]
            at[:, axis] = (at[:, axis] + draw.integers(side)) % side + core[axis][0] + n * side
        at[:, 0] += core[0][0]
        places.append(at)
        pixels.append(np.diff(ends))
    at, many = np.concatenate(places), np.concatenate(pixels)
    order = np.lexsort(at.T[::-1])
    regions = np.tile(tile.regions, len(places))[order]
    scores = np.tile(tile.scores, len(places))[order] + draw.random(len(order), np.float32) / 64
    arrays: dict[str, Array] = {
        "places": at[order],
        "scores": scores.astype(np.float32),
        "regions": regions,
        "sums": np.clip(draw.normal(120, 30, (int(many.sum()), len(CHANNELS))), 0, 255).astype(np.uint8),
        "marks": np.zeros((len(scores), 0)),
        "missing": np.zeros(len(CHANNELS), np.bool_),
        "digests": np.array([2 * [f"{draw.integers(2**62):x}"] for _ in CHANNELS]),
    }
    for n in range(len(CHANNELS)):
        seen = Seen(whole, np.dtype(np.uint8), part=core)
        few: Triple = (BLOCK[0], 64, 64)
        corner: Box = (core[0], (core[1][0], core[1][0] + few[1]), (core[2][0], core[2][0] + few[2]))
        seen.look(draw.integers(0, 255, shape(corner)).astype(np.uint8), corner)
        arrays |= {f"seen{n}_{name}": array for name, array in seen.arrays().items()}
    return arrays
