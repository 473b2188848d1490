"""Synthetic array tomography whose synapses are known, for demonstrations and tests.

Voxels are made when they are first read, brick by brick, and depend only on the seed and their place.
Axes are z, y, x; positions are in voxels, with the centre of the first voxel at 0.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]
Array = NDArray[Any]

BRICK: Triple = (16, 256, 256)
"""Extent of the blocks in which voxels are made and stored."""
CELL: Triple = (8, 16, 16)
"""At most one site stands in each cell of this extent, so that two sites are always told apart."""
INSET: Triple = (1, 3, 3)
"""Least distance of a site from the walls of its cell."""
REACH: Triple = (5, 6, 6)
"""How far a punctum is drawn from its centre; beyond, it is darker than one grey level."""


class Bricks:
    """A volume stored in blocks that are made when they are first touched. Safe to use from several threads.

    `fill(index)` gives the first content of a block, of shape BRICK; without it, blocks are zero.
    """

    def __init__(self, dtype: str, *, fill: Callable[[Triple], Array] | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self._fill = fill
        self._bricks: dict[Triple, Array] = {}
        self._lock = threading.Lock()

    def read(self, start: Triple, stop: Triple) -> Array:
        """A copy of the voxels `[start, stop)`, C-ordered."""
        out = np.zeros([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        with self._lock:
            for index, inside, outside in _overlaps(start, stop):
                brick = self._bricks.get(index)
                if brick is None and self._fill is not None:
                    brick = self._bricks[index] = self._fill(index).astype(self.dtype, copy=False)
                if brick is not None:
                    out[outside] = brick[inside]
        return out

    def shifted(self, sections: Mapping[int, tuple[int, int]]) -> Bricks:
        """Such a volume in which some sections are shifted by (y, x) voxels, wrapped round their bricks."""

        def fill(index: Triple) -> Array:
            first = (index[0] * BRICK[0], index[1] * BRICK[1], index[2] * BRICK[2])
            brick = self.read(first, (first[0] + BRICK[0], first[1] + BRICK[1], first[2] + BRICK[2]))
            for z, by in sections.items():
                if 0 <= z - first[0] < BRICK[0]:
                    brick[z - first[0]] = np.roll(brick[z - first[0]], by, (0, 1))
            return brick

        return Bricks(str(self.dtype), fill=fill)

    def write(self, start: Triple, data: Array) -> None:
        """Write the array (z, y, x) at `start`."""
        stop = (start[0] + data.shape[0], start[1] + data.shape[1], start[2] + data.shape[2])
        with self._lock:
            for index, inside, outside in _overlaps(start, stop):
                if index not in self._bricks:
                    made = self._fill(index) if self._fill is not None else np.zeros(BRICK, self.dtype)
                    self._bricks[index] = made.astype(self.dtype)
                self._bricks[index][inside] = data[outside]


def _overlaps(start: Triple, stop: Triple) -> Iterator[tuple[Triple, tuple[slice, ...], tuple[slice, ...]]]:
    """The blocks that a box touches: each block's index, the part within the block, and the part within the box."""
    spans = [range(a // size, -(-b // size)) for a, b, size in zip(start, stop, BRICK, strict=True)]
    for iz, iy, ix in product(*spans):
        inside, outside = [], []
        for i, a, b, size in zip((iz, iy, ix), start, stop, BRICK, strict=True):
            low, high = max(a, i * size), min(b, (i + 1) * size)
            inside.append(slice(low - i * size, high - i * size))
            outside.append(slice(low - a, high - a))
        yield (iz, iy, ix), tuple(inside), tuple(outside)


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A channel: the image of one antibody. Brightness is in grey levels, sizes in voxels (z, y, x)."""

    name: str
    side: int
    """The side of the cleft on which the marker's puncta lie: -1 presynaptic, +1 postsynaptic."""
    brightness: float = 90
    spread: float = 0.25
    """Standard deviation of the logarithm of the brightness, between puncta."""
    size: tuple[float, float, float] = (1.3, 1.4, 1.4)
    """Standard deviations of a punctum, (z, y, x) in voxels."""
    background: float = 24
    noise: float = 9
    chance: float = 1
    """Probability that the marker shows at a site whose kind names it; antibodies miss some sites."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of site, and the markers that light up there."""

    name: str
    share: float
    """Share of the cells that hold such a site."""
    markers: tuple[str, ...]
    synapse: str = ""
    """The class of synapse at such a site; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A recipe for a volume. The same recipe gives the same voxels and the same truth, whatever is read first."""

    shape: Triple
    voxel_nm: tuple[float, float, float]
    markers: Sequence[Marker]
    kinds: Sequence[Kind]
    cleft: float = 1.2
    """Distance between the presynaptic and the postsynaptic centre, in voxels."""
    seed: int = 2018
    _bricks: dict[str, Bricks] = field(default_factory=dict, repr=False, compare=False)

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in order."""
        return [marker.name for marker in self.markers]

    @cached_property
    def sites(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Every site's position, (n, 3) as z, y, x, and the index of its kind, (n,)."""
        random = np.random.Generator(np.random.Philox(self.seed))
        cells = [n // size for n, size in zip(self.shape, CELL, strict=True)]
        corners = np.stack(np.meshgrid(*map(np.arange, cells), indexing="ij"), axis=-1).reshape(-1, 3) * CELL
        inset = np.asarray(INSET)
        positions = corners + inset + random.random(corners.shape) * (np.asarray(CELL) - 1 - 2 * inset)
        drawn = np.searchsorted(np.cumsum([kind.share for kind in self.kinds]), random.random(len(corners)), "right")
        there = drawn < len(self.kinds)
        return positions[there], drawn[there]

    @property
    def truth(self) -> NDArray[np.float64]:
        """Centres of the true synapses, (n, 3) as z, y, x in voxels."""
        positions, kinds = self.sites
        return positions[np.isin(kinds, [i for i, kind in enumerate(self.kinds) if kind.synapse])]

    @property
    def classes(self) -> NDArray[np.str_]:
        """The true synapses' classes, (n,), in the order of `truth`."""
        named: NDArray[np.str_] = np.array([kind.synapse for kind in self.kinds])[self.sites[1]]
        return np.extract(named != "", named)

    def truth_within(self, start: Triple, stop: Triple) -> NDArray[np.float64]:
        """Centres of the true synapses within `[start, stop)`, (n, 3) as z, y, x in voxels."""
        return self.truth[self._within(start, stop)]

    def classes_within(self, start: Triple, stop: Triple) -> NDArray[np.str_]:
        """Classes of the true synapses within `[start, stop)`, (n,), in the order of `truth_within`."""
        return self.classes[self._within(start, stop)]

    def _within(self, start: Triple, stop: Triple) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = np.all((self.truth >= start) & (self.truth < stop), axis=1)
        return inside

    def bricks(self, channel: str) -> Bricks:
        """The channel's voxels, uint8, which may be written to. Raises KeyError for an unknown channel."""
        if channel not in self._bricks:
            number = self.channels.index(channel) if channel in self.channels else -1
            if number < 0:
                raise KeyError(channel)
            self._bricks[channel] = Bricks("uint8", fill=lambda index: self._brick(number, index))
        return self._bricks[channel]

    @cached_property
    def _puncta(self) -> Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The puncta by the marker's number: centres (n, 3) and brightness (n,)."""
        positions, kinds = self.sites
        random = np.random.Generator(np.random.Philox(self.seed + 1))
        axis = random.standard_normal(positions.shape)
        axis *= (self.cleft / 2) / np.linalg.norm(axis, axis=1, keepdims=True)
        found = {}
        for number, marker in enumerate(self.markers):
            brightness = marker.brightness * np.exp(marker.spread * random.standard_normal(len(positions)))
            lit = np.isin(kinds, [i for i, kind in enumerate(self.kinds) if marker.name in kind.markers])
            if marker.chance < 1:
                lit &= random.random(len(positions)) < marker.chance
            found[number] = (positions[lit] + marker.side * axis[lit], brightness[lit])
        return found

    def _brick(self, number: int, index: Triple) -> Array:
        """One block of one channel: background, the block's own noise, and the puncta that reach into it."""
        marker = self.markers[number]
        # the generator counts up in the first word, so blocks and channels never share numbers
        random = np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, *index]))
        low = np.multiply(index, BRICK)
        grey = random.standard_normal(BRICK, dtype=np.float32) * np.float32(marker.noise)
        grey += np.float32(marker.background) + self._illumination(low)

        centres, brightness = self._puncta[number]
        nearest = np.rint(centres).astype(np.int64) - low
        near = np.all((nearest >= np.negative(REACH)) & (nearest < np.add(BRICK, REACH)), axis=1)
        centres, brightness, nearest = centres[near] - low, brightness[near], nearest[near]
        profiles, places = [], []
        for axis in range(3):  # a punctum is the product of one profile along each axis
            steps = np.arange(-REACH[axis], REACH[axis] + 1)
            at = nearest[:, axis, None] + steps
            profiles.append(np.exp(-0.5 * ((at - centres[:, axis, None]) / marker.size[axis]) ** 2))
            places.append(at + REACH[axis] * 2)
        padded = np.zeros([n + 4 * reach for n, reach in zip(BRICK, REACH, strict=True)], np.float32)
        light = brightness[:, None, None, None] * (
            profiles[0][:, :, None, None] * profiles[1][:, None, :, None] * profiles[2][:, None, None, :]
        )
        spots = (places[0][:, :, None, None], places[1][:, None, :, None], places[2][:, None, None, :])
        np.add.at(padded, spots, light.astype(np.float32))
        grey += padded[tuple(slice(2 * reach, -2 * reach) for reach in REACH)]
        made: Array = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        return made

    def _illumination(self, low: Array) -> NDArray[np.float32]:
        """Uneven light across the field of view, as in microscopes: a few grey levels, equal in all sections."""
        y, x = (np.arange(low[i], low[i] + BRICK[i], dtype=np.float32) / np.float32(self.shape[i]) for i in (1, 2))
        uneven: NDArray[np.float32] = np.float32(4) * np.outer(np.sin(np.pi * y), np.sin(np.pi * x)).astype(np.float32)
        return uneven


def cortex(*, seed: int = 2018, shape: Triple = (64, 1024, 1024)) -> Synthetic:
    """The volume `demo/cortex`: 64 x 1024 x 1024 voxels of 50 x 96 x 96 nm (z, y, x) in eight channels.

    A synapse is where PSD95 and Synapsin show side by side; one without the other is a distractor. About a quarter of
    the synapses are GABAergic: Gephyrin, GAD and GABA show there, at the others GluN1 and VGluT1, though each is missed
    at times. TdTomato marks some cells, whatever their synapses are. PSD95 is as bright at GABAergic synapses as at
    others, which makes detection easier than in tissue. Another seed gives another volume of the same kind.
    """
    return Synthetic(
        shape=shape,
        seed=seed,
        voxel_nm=(50, 96, 96),
        markers=[  # the order counts: each marker's numbers follow those of the markers before it
            Marker(name="PSD95", side=+1),
            Marker(name="Synapsin", side=-1, brightness=80, noise=10),
            Marker(name="GABA", side=-1, brightness=60, size=(1.6, 2, 2), background=40, noise=10, chance=0.9),
            Marker(name="GAD65", side=-1, brightness=70, chance=0.9),
            Marker(name="Gephyrin", side=+1, brightness=60, noise=10, chance=0.9),
            Marker(name="GluN1", side=+1, brightness=50, noise=10, chance=0.8),
            Marker(name="VGluT1", side=-1, brightness=75, chance=0.9),
            Marker(name="TdTomato", side=-1, brightness=70, size=(1.6, 2, 2), background=30, chance=0.3),
        ],
        kinds=[
            Kind(
                name="GABAergic synapse",
                share=0.04,
                markers=("PSD95", "Synapsin", "GABA", "GAD65", "Gephyrin", "TdTomato"),
                synapse="GABA",
            ),
            Kind(
                name="other synapse",
                share=0.11,
                markers=("PSD95", "Synapsin", "GluN1", "VGluT1", "TdTomato"),
                synapse="non-GABA",
            ),
            Kind(name="PSD95 alone", share=0.11, markers=("PSD95", "GluN1")),
            Kind(name="Synapsin alone", share=0.11, markers=("Synapsin", "GAD65", "VGluT1", "TdTomato")),
        ],
    )
