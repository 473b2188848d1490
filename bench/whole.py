"""Whole volumes: a trillion voxels in a simulation, a merge of ten million synapses, two gigavoxels in 64 blocks."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import merging
from bench.figures import Figure
from bench.parts.gigavoxel import TILE
from bench.processes import ended, part, program
from bot.domain.states import JobState
from bot.storage.engine import Database, connect
from pipelines.common.boxes import Triple
from pipelines.unsupervised.detector import VOXEL_NM
from sandbox import stores
from tests.support.databases import new_sqlite
from tests.support.puncta import puncta
from tests.support.simulation import simulated

BLOCKS = 10_000
SHAPE: Triple = (64, 8192, 4096)
CHUNK: Triple = (2, 512, 512)
"""Thin chunks let blocks be thin and wide: the less do margins add."""
BLOCK = 2 * 4096 * 4096
PROGRAMS = 2
"""Programs at a time, as on this machine."""
OVER, MARGINS = 1.15, 1 / 3
"""Times what the detector alone takes, and the part of the voxels that margins add, at most."""


def measure() -> Iterator[Figure]:
    """The figures of a simulation, of a merge, and of a volume in blocks."""
    yield from _simulated()
    yield from merging.measure()
    with tempfile.TemporaryDirectory(prefix="nomads-bench-") as folder:
        yield from in_blocks(Path(folder), SHAPE, BLOCK)


def _simulated() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="nomads-bench-") as folder:
        database = Database(connect(new_sqlite(Path(folder) / "nomads.db")))
        began = time.perf_counter()
        ended = simulated(database, blocks=BLOCKS)
        seconds = time.perf_counter() - began
        database.close()
    wrong = set(ended.missing) ^ set(ended.broken) if ended.job.state is JobState.SUCCEEDED else range(BLOCKS)
    yield Figure(name="whole, a trillion voxels in 10,000 blocks, simulated", value=seconds, unit="s", at_most=120)
    yield Figure(
        name="whole, blocks that are missing and should not be, or not told", value=len(wrong), unit="", at_most=0
    )
    for call in ("submit", "observe", "children", "find", "cancel"):
        yield Figure(name=f"whole, calls of compute, {call}", value=ended.calls["compute"][call], unit="")
    for port in ("results", "chat", "mail"):
        yield Figure(name=f"whole, calls of {port}", value=ended.calls[port].total(), unit="")


def in_blocks(folder: Path, shape: Triple, block: int) -> Iterator[Figure]:
    """A volume of whole tiles from its files to results by programs in blocks, and the detector alone on its voxels."""
    tile = puncta(1, shape=TILE)
    repeats = [n // size for n, size in zip(shape, TILE, strict=True)]
    channels = {"PSD95": np.tile(tile.psd, repeats), "Synapsin": np.tile(tile.synapsin, repeats)}
    address = stores.precomputed(folder / "volume", channels, voxel_nm=VOXEL_NM, chunk=CHUNK)
    del channels
    job = folder / "job"
    words = ["--volume", address, "--volume-roots", folder.as_uri(), "--job-uri", f"{job.as_uri()}/"]
    for axis, stop in zip("zyx", shape, strict=True):
        words += [f"--{axis}-range", f"0,{stop}"]
    rounds = ["--rounds", str(PROGRAMS)]
    began = time.perf_counter()
    ended([program(folder, [*words, "--stage", "first", "--block-voxels", str(block), *_results(job)])])
    plan = json.loads((job / "blocks" / "plan.json").read_bytes())
    with np.load(job / "blocks" / "known.npz") as known:
        threshold = known["threshold"].item()
    first = time.perf_counter() - began
    place = _results(job / "blocks" / "1")
    stage = [*words, "--stage", "blocks", *rounds, *place]
    ended([program(folder, stage, number) for number in range(PROGRAMS)])
    blocks = time.perf_counter() - began - first
    ended([program(folder, [*words, "--stage", "merge", *rounds, *_results(job)])])
    took = time.perf_counter() - began
    found = json.loads((job / "results.json").read_bytes())["counts"]["synapses"]
    with part("gigavoxel") as process:
        alone = process.ask(shape=shape, threshold=threshold, voxel_nm=VOXEL_NM)
    size = f"{np.prod(shape) / 1e9:.2g} gigavoxels in {plan['blocks']} blocks"
    yield Figure(name=f"whole, {size}", value=took, unit="s", floor=alone["seconds"], ratio_at_most=OVER)
    for name, seconds in (("first look", first), ("blocks", blocks), ("merge", took - first - blocks)):
        yield Figure(name=f"whole, of that the {name}", value=seconds, unit="s")
    more = plan["reads"] / float(np.prod(shape)) - 1
    yield Figure(name="whole, voxels that margins add", value=more, unit="of all", at_most=MARGINS)
    yield Figure(
        name="whole, synapses",
        value=found,
        unit="",
        floor=alone["synapses"],
        ratio_at_least=1,
        ratio_at_most=1,
    )


def _results(folder: Path) -> list[str]:
    return ["--results-uri", f"{folder.as_uri()}/"]
