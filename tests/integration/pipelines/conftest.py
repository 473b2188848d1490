"""A BOSS to read from, and the program as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from sandbox.boss import Access, BossStandIn
from sandbox.volumes import BRICK, Bricks, Synthetic, Triple

ROOT = Path(__file__).parents[3]
TOKEN = "canary-token"

CORNER: Triple = (64, 288, 288)
"""A run registers whole sections, whatever its box: most tests ask for nothing that takes large ones."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def _boss() -> Iterator[BossStandIn]:
    tokens = {TOKEN: Access(user="demo", write=frozenset({"*"})), "stranger": Access(user="stranger")}
    with BossStandIn(tokens=tokens) as boss:
        boss.add("lab", "gaba", shape=(4, 32, 32), channels={"GABA": Bricks("uint8"), "PSD95": Bricks("uint8")})
        boss.add("lab", "wide", shape=(4, 32, 32), channels={"PSD95": Bricks("uint32"), "Synapsin": Bricks("uint8")})
        boss.add(
            "lab",
            "empty",
            shape=(4, 32, 32),
            offset=(10, 100, 200),
            channels={"Synapsin": Bricks("uint16"), "psd": Bricks("uint8")},
            time_step_unit=None,
        )
        boss.add("lab", "float", shape=(4, 32, 32), channels={"PSD95": Bricks("float32"), "Synapsin": Bricks("uint8")})
        boss.add("lab", "small", shape=(4, 32, 32), channels={})
        assert boss.cortex is not None
        with_corner(boss)
        for dtype, factor in (("uint16", 257), ("uint64", 2**40)):
            channels = {name: _deeper(boss.cortex, name, dtype, factor) for name in ("PSD95", "Synapsin")}
            boss.add("lab", dtype, shape=CORNER, voxel_nm=boss.cortex.voxel_nm, channels=channels)
        boss.add("lab", "large", shape=boss.cortex.shape, voxel_nm=boss.cortex.voxel_nm, channels=channels)
        copies = {name: _deeper(boss.cortex, "PSD95", "uint8", 1, blank=(3, 5)) for name in ("PSD95", "Synapsin")}
        boss.add("lab", "copies", shape=CORNER, voxel_nm=boss.cortex.voxel_nm, channels=copies)
        yield boss


def with_corner(boss: BossStandIn) -> None:
    """Add demo/corner: the first voxels of demo/cortex, in all its channels."""
    assert boss.cortex is not None
    channels = {name: boss.cortex.bricks(name) for name in boss.cortex.channels}
    boss.add("demo", "corner", shape=CORNER, voxel_nm=boss.cortex.voxel_nm, channels=channels)


def _deeper(volume: Synthetic, channel: str, dtype: str, factor: int, *, blank: Sequence[int] = ()) -> Bricks:
    """A channel of the volume in another data type, every value multiplied, and the blank sections all 0."""

    def fill(index: Triple) -> NDArray[Any]:
        (z, y, x), (dz, dy, dx) = index, BRICK
        start, stop = (z * dz, y * dy, x * dx), ((z + 1) * dz, (y + 1) * dy, (x + 1) * dx)
        voxels: NDArray[Any] = volume.bricks(channel).read(start, stop).astype(dtype) * factor
        voxels[[section - start[0] for section in blank if start[0] <= section < stop[0]]] = 0
        return voxels

    return Bricks(dtype, fill=fill)


@pytest.fixture
def boss(_boss: BossStandIn) -> BossStandIn:
    """demo/cortex, demo/corner, and in the private collection lab: gaba, wide (uint32), float, empty (all zero, with an
    offset), small (no channels), uint16 and uint64, which are demo/corner in deeper voxels, large, which is demo/cortex
    in those of 64 bits, and copies, whose two channels are one of the corner's with two blank sections.
    """
    _boss.requests.clear()
    return _boss


def arguments(boss: BossStandIn, **changed: str) -> list[str]:
    """The program's arguments, without the token; `changed` by name, such as `x_range="0,8"`."""
    values = {
        "host": boss.url,
        "col": "demo",
        "exp": "corner",
        "z_range": "0,8",
        "y_range": "0,128",
        "x_range": "0,128",
    } | changed
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


def start(argv: list[str], **environ: str) -> subprocess.Popen[str]:
    """The program as a process, in an environment of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.unsupervised", *argv],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BOSS_TOKEN": TOKEN, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
