"""Reading volumes by address: against tensorstore alone, and from a file to results against the detector alone."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from bench.figures import Figure
from bench.parts.gigavoxel import SHAPE, TILE
from bench.processes import ended, part, program
from pipelines.common.channels import Channel
from pipelines.common.program import Request
from pipelines.common.stores import Store
from pipelines.unsupervised.detector import VOXEL_NM
from sandbox import stores
from tests.support.puncta import puncta
from volumes.address import Address, parse
from volumes.roots import Roots

CHUNK = (64, 128, 128)
"""Extent of the chunks, (z, y, x): 1 MiB each."""
TIMES, RUNS = 5, 3
LEAST = 0.5
"""Of tensorstore's speed, at least."""
MOST = 1.3
"""Times what the detector takes alone, at most."""


def measure() -> Iterator[Figure]:
    """The figures of reading a gigavoxel of a local precomputed volume, and of a whole run on it."""
    with tempfile.TemporaryDirectory(prefix="nomads-bench-") as folder:
        address = _written(Path(folder) / "volume")
        yield from _reading(Path(folder), address)
        yield from _run(Path(folder), address)


def _written(folder: Path) -> str:
    """A gigavoxel of two uint8 channels, as bench.parts.gigavoxel has them."""
    tile = puncta(1, shape=TILE)
    channels = {"PSD95": tile.psd, "Synapsin": tile.synapsin}
    repeats = [n // size for n, size in zip(SHAPE, TILE, strict=True)]
    whole = {name: np.tile(data, repeats) for name, data in channels.items()}
    return stores.precomputed(folder, whole, voxel_nm=VOXEL_NM, chunk=CHUNK)


def _reading(folder: Path, address: str) -> Iterator[Figure]:
    size = float(np.prod(SHAPE))
    _alone(folder)  # the files are in memory from here on
    rounds = [(_took(lambda: _alone(folder)), _took(lambda: _through(folder, address))) for _ in range(TIMES)]
    alone, ours = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    yield Figure(
        name="volumes, a channel of 1 GB read by a program, precomputed in a folder",
        value=size / ours / 1e6,
        unit="MB/s",
        floor=size / alone / 1e6,
        ratio_at_least=LEAST,
    )


def _alone(folder: Path) -> NDArray[Any]:
    """The channel as tensorstore reads it, whole."""
    store = {"driver": "file", "path": f"{folder}/volume/PSD95/"}
    array = ts.open({"driver": "neuroglancer_precomputed", "kvstore": store}).result()
    found: NDArray[Any] = array[..., 0].T.read(order="C").result()
    return found


def _through(folder: Path, address: str) -> None:
    """The channel as a program reads and keeps it."""
    place = parse(address)
    assert isinstance(place, Address)
    z, y, x = ((0, n) for n in SHAPE)
    request = Request(
        host="",
        protocol="",
        token="",
        collection="",
        experiment="",
        z=z,
        y=y,
        x=x,
        results_uri="",
        address=place,
        roots=Roots.parse([folder.as_uri()]),
    )
    store = Store(request, place)
    box = (z, y, x)
    channel = Channel(store, store.channel("PSD95", box), box=box, told=lambda _: None)
    channel.fetch()
    channel.close()


def _took(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _run(folder: Path, address: str) -> Iterator[Figure]:
    """A whole run, as a process, and the detector alone on the same voxels, in turn."""
    argv = ["--volume", address, "--volume-roots", folder.as_uri(), "--results-uri", f"{folder.as_uri()}/results/"]
    for axis, stop in zip("zyx", SHAPE, strict=True):
        argv += [f"--{axis}-range", f"0,{stop}"]
    alone, took = [], []
    for _ in range(RUNS):
        with part("gigavoxel") as process:
            detected = process.ask(voxel_nm=VOXEL_NM)
        alone.append(detected["seconds"])
        took.append(_took(lambda: ended([program(folder, argv)])))
    found = json.loads((folder / "results" / "results.json").read_bytes())["counts"]["synapses"]
    yield Figure(
        name="volumes, a gigavoxel from its files to results",
        value=statistics.median(took),
        unit="s",
        floor=statistics.median(alone),
        ratio_at_most=MOST,
    )
    yield Figure(
        name="volumes, synapses in it",
        value=found,
        unit="",
        floor=detected["synapses"],
        ratio_at_least=1,
        ratio_at_most=1,
    )
