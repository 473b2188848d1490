"""The default method over a volume in blocks that are worked on independently, as if in one piece. Axes are z, y, x.

1. `first_look` measures, once and for all blocks, what a block alone cannot know: how channels and sections lie, and
   the threshold that has the false discovery rate asked for.
2. `found_in` finds the candidates of one block's core. What lies around the core is read as well, so that scores are
   those of the whole volume; along z nothing is, since sections are searched one by one.
3. `merging.Merging` merges the candidates of all blocks; `painting.paint` gives them their voxels.

A volume is cut by `cores`. The objects, their order and their scores do not depend on the cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple, grown, placed, shape, voxels
from pipelines.unsupervised import alignment
from pipelines.unsupervised.chance import Chance, judge, looks_for, share_of
from pipelines.unsupervised.found import Read, Size
from pipelines.unsupervised.painting import pixels_of
from pipelines.unsupervised.paired import REGION_NM, Grid, reach_nm
from pipelines.unsupervised.registration import NOWHERE, as_arrays, from_arrays
from pipelines.unsupervised.search import Laid, Register, Search, aligned

Array = NDArray[Any]
Cut = Callable[[Box], tuple[Array, Array]]
"""Gives a box of both markers, in voxels from the volume's first one: unsigned integers of at most 2 bytes."""

WHOLE = 2**28
"""Voxels of a volume that is searched as a whole for what is measured first; of a larger one samples are."""
SAMPLE: Triple = (16, 512, 512)
"""Voxels of a sample's core."""
SAMPLES = (8, 64)
"""How many samples there are at least and at most."""
EVERY = 2**33
"""Voxels of a volume for each further sample."""
THICK = 8
"""How many times as deep as what is looked at round them cores are, so that it adds a quarter along z."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the first look has told of a volume."""

    laid: Laid
    """How its channels and sections lie."""
    moves: bool
    """Whether channels are moved back."""
    threshold: float
    """The lowest score of a synapse."""
    tells: bool
    """Whether chance can be told."""
    chance: Chance | None
    """Of what was looked at, how much is there by chance; None where that cannot be told, or nothing was found."""
    curve: NDArray[np.float64]
    """`Judged.curve` of what was looked at."""
    looked: float
    """The part of the volume that the rates were measured on."""
    typical: Triple
    """A voxel in whose surroundings as much is found as in most others, from the volume's corner."""

    def arrays(self) -> dict[str, Array]:
        """All of it, for `restored`."""
        chance = self.chance
        found = {
            "threshold": np.array(self.threshold),
            "flags": np.array([self.moves, self.tells]),
            "chance": np.array([chance.count, chance.share, chance.low, chance.high] if chance else []),
            "curve": self.curve,
            "looked": np.array(self.looked),
            "typical": np.array(self.typical),
            "sections": np.array([self.laid.corner, self.laid.plane]),
        }
        return found | as_arrays("across", self.laid.across) | as_arrays("along", self.laid.along)

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> Known:
        """What `arrays` held."""
        across, along = (from_arrays(name, arrays) for name in ("across", "along"))
        moves, tells = (bool(flag) for flag in arrays["flags"])
        chance = [float(number) for number in arrays["chance"]]
        z, y, x = (int(place) for place in arrays["typical"])
        corner, plane = ((int(down), int(right)) for down, right in arrays["sections"])
        return cls(
            Laid(across, along, corner, plane),
            moves,
            arrays["threshold"].item(),
            tells,
            Chance(count=chance[0], share=chance[1], low=chance[2], high=chance[3]) if chance else None,
            arrays["curve"],
            arrays["looked"].item(),
            (z, y, x),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What the first look has found in a part of the volume."""

    box: Box
    """From the volume's corner."""
    centres: NDArray[np.float64]
    """(n, 3): z, y, x of its synapses, in voxels from the corner of the box."""


def first_look(
    cut: Cut,
    extent: Triple,
    voxel_nm: Size,
    *,
    inside: Box,
    false_discovery: float,
    register: Register,
    laid: Laid | None = None,
    told: Callable[[float], None] = lambda part: None,
) -> tuple[Known, list[Sample]]:
    """Measure what blocks have to know of a volume of that extent, of which the box `inside` is asked for.

    Returns the synapses that were found meanwhile as well. What is `laid` is not measured.
    """
    if math.prod(extent) <= WHOLE:
        return _at_once(cut, extent, voxel_nm, inside, false_discovery=false_discovery, register=register, laid=laid)
    grid = Grid.of(voxel_nm)
    if laid is None and register != "off":
        laid = alignment.laid(cut, _whole(extent), voxel_nm, told=lambda part: told(0.6 * part))
    laid = laid or _unknown(extent, grid)
    found: list[list[NDArray[np.float32]]] = []
    centres: list[NDArray[np.float64]] = []
    boxes = samples(inside, grid)
    reach, bounds = _reach(voxel_nm, laid), _whole(extent)
    for core in boxes:
        read = aligned(grown(core, reach, bounds), bounds, grid)
        inner = _pixels(shape(read), grid)
        search = Search(
            shape(read),
            voxel_nm,
            inside=placed(core, read),
            false_discovery=false_discovery,
            threshold=None,
            register=register,
            looks=looks_for(inner[1], grid.pixel_nm[1:], depth=inner[0]),
            laid=laid.part(grid.holding(read)),
        )
        seen, at = search.scores(_read(*cut(read)))
        found.append(seen)
        centres.append(at)
        told(0.6 + 0.4 * len(found) / len(boxes))
    many = min(len(looks) for looks in found)
    scores, *by_look = (np.concatenate([looks[n] for looks in found]) for n in range(many))
    judged = judge(scores, by_look, false_discovery)
    counts = [int(np.count_nonzero(some >= judged.threshold)) for some in (scores, *by_look)]
    known = Known(
        laid,
        register == "auto",
        judged.threshold,
        True,
        share_of(counts[0], counts[1:]) if counts[0] else None,
        judged.curve,
        sum(map(voxels, boxes)) / voxels(inside),
        _middle(sorted(zip(found, boxes, strict=True), key=lambda one: len(one[0][0]))[len(boxes) // 2][1]),
    )
    return known, [
        Sample(box, at[looks[0] >= judged.threshold]) for box, at, looks in zip(boxes, centres, found, strict=True)
    ]


def _at_once(
    cut: Cut,
    extent: Triple,
    voxel_nm: Size,
    inside: Box,
    *,
    false_discovery: float,
    register: Register,
    laid: Laid | None,
) -> tuple[Known, list[Sample]]:
    whole = _whole(extent)
    search = Search(
        extent,
        voxel_nm,
        inside=placed(inside, whole),
        false_discovery=false_discovery,
        threshold=None,
        register=register,
        looks=None,
        laid=laid,
    )
    seen = search.synapses(_sections(cut, whole), told=lambda part: None)
    along = list(seen.along) or [NOWHERE] * (len(seen.across) - 1)
    known = Known(
        laid or Laid(seen.across, along, (0, 0), _pixels(extent, Grid.of(voxel_nm))[1]),
        register == "auto",
        seen.threshold,
        seen.tells,
        seen.chance,
        seen.curve,
        1.0,
        _amid(seen.centres, inside),
    )
    return known, [Sample(inside, seen.centres)]


def _amid(centres: NDArray[np.float64], inside: Box) -> Triple:
    """The object that is nearest to the median of all of them, from the volume's corner; the middle without any."""
    if not len(centres):
        return _middle(inside)
    nearest = centres[np.argmin(np.abs(centres - np.median(centres, axis=0)).sum(axis=1))]
    z, y, x = (int(at) + low for at, (low, _) in zip(np.rint(nearest), inside, strict=True))
    return z, y, x


def _middle(box: Box) -> Triple:
    z, y, x = ((low + high) // 2 for low, high in box)
    return z, y, x


def samples(inside: Box, grid: Grid) -> list[Box]:
    """Boxes of SAMPLE voxels, spread evenly over a box; the same ones for one box, and the box where it is smaller."""
    many = min(SAMPLES[1], SAMPLES[0] + voxels(inside) // EVERY)
    steps = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)  # an even sequence
    found = []
    for n in range(many):
        sides = []
        for (low, high), side, step, whole in zip(inside, SAMPLE, steps, grid.step, strict=True):
            side = max(side, whole)
            room = max(0, high - low - side)
            start = low + int((n + 1) * step % 1 * room) // whole * whole
            sides.append((start, min(high, start + side)))
        found.append((sides[0], sides[1], sides[2]))
    return list(dict.fromkeys(found))


def cores(
    extent: Triple,
    grid: Grid,
    *,
    most: int,
    cuboid: Triple = (1, 1, 1),
    before: Triple = (0, 0, 0),
    reach: int = 0,
) -> list[Box]:
    """A volume of that extent cut into cores of about `most` voxels, in order; each is worked on as a block.

    Their faces are at the multiples of the grid's step that are nearest to faces of the cuboids in which the volume is
    stored, the first of which begins so many voxels `before` the volume's first one. Cores are as thin as a cuboid, or
    as the step, and wide; where so many sections round them (`reach`) are looked at too, they are THICK times as deep,
    as far as that leaves them no deeper than wide. Where cuboids are so large that blocks would have more than twice as
    many voxels, their faces count for nothing.
    """
    steps = [max(1, min(step, side)) for step, side in zip(grid.step, extent, strict=True)]
    if math.prod(max(a, b) for a, b in zip(cuboid, steps, strict=True)) > 2 * most:
        cuboid, before = (1, 1, 1), (0, 0, 0)
    deep = max(cuboid[0], steps[0])
    deep = min(extent[0], max(deep, _about(min(THICK * reach, most ** (1 / 3)), deep)))
    high = min(extent[1], _about(math.sqrt(most / deep), max(cuboid[1], steps[1])))
    wide = min(extent[2], _about(most / deep / high, max(cuboid[2], steps[2])))
    deep = _about(most / (high * wide), deep)
    walls = [
        _walls(end, long, step, first)
        for end, long, step, first in zip(extent, (deep, high, wide), steps, before, strict=True)
    ]
    return [(z, y, x) for z in walls[0] for y in walls[1] for x in walls[2]]


def _about(length: float, step: int) -> int:
    """The multiple of a step that is nearest to a length; one step at least."""
    return max(1, round(length / step)) * step


def _walls(end: int, long: int, step: int, first: int) -> list[tuple[int, int]]:
    """`[0, end)` cut at multiples of a step, each nearest to a multiple of `long` counted from `first` before 0."""
    if long >= end:
        return [(0, end)]
    places = {round(place / step) * step for place in range(long - first % long, end, long)}
    return list(itertools.pairwise([0, *sorted(place for place in places if 0 < place < end), end]))


def around(core: Box, extent: Triple, voxel_nm: Size, known: Known) -> Box:
    """What is read of a volume of that extent for one core: it decides on the scores there."""
    grid, bounds = Grid.of(voxel_nm), _whole(extent)
    reach = _reach(voxel_nm, known.laid)
    return aligned(grown(core, reach, bounds), bounds, grid)


def rim(voxel_nm: Size) -> tuple[int, int]:
    """Voxels along y and x round a core in which objects whose places are in it have pixels, at most."""
    grid = Grid.of(voxel_nm)
    down, right = (
        int(most + 1) * side
        for most, side in zip(np.abs(grid.offsets(REGION_NM)).max(axis=0), grid.bins[1:], strict=True)
    )
    return down, right


@dataclass(frozen=True, slots=True)
class Found:
    """The candidates of a block's core, n of them, in the order of their places, with m pixels in all."""

    places: NDArray[np.int32]
    """(n, 3): z, y, x in pixels of the volume."""
    scores: NDArray[np.float32]
    regions: NDArray[np.uint64]
    """As `painting.Parts.regions`."""
    sums: NDArray[np.uint32]
    """(m, channels): the sum of each channel's voxels in each pixel of each region, in the order of `pixels_of`."""
    marks: NDArray[np.float64]
    """(n, columns): what a pipeline says of each by itself."""


def found_in(
    cut: Cut,
    core: Box,
    extent: Triple,
    voxel_nm: Size,
    known: Known,
    *,
    inside: Box,
    channels: Sequence[Callable[[Box], Array]] = (),
    mark: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda centres: np.zeros((len(centres), 0)),
) -> Found:
    """The candidates whose places lie in a block's core, of at least the threshold's score.

    `mark` gives the marks (n, columns) of candidates by their centres (n, 3), in voxels from the volume's corner.
    `channels` give the voxels of a box of the channels whose brightness is measured, of at most 2 bytes, each moved
    back; of these, those are summed that lie `inside`.
    """
    grid = Grid.of(voxel_nm)
    box = around(core, extent, voxel_nm, known)
    corner = [low // side for (low, _), side in zip(box, grid.bins, strict=True)]
    search = Search(
        shape(box),
        voxel_nm,
        inside=placed(core, box),
        false_discovery=0.5,
        threshold=known.threshold,
        register="auto" if known.moves else "off",
        looks=[],
        laid=known.laid.part(grid.holding(box)),
    )
    places, scores, regions = search.candidates(_sections(cut, box))
    places += np.array(corner, np.int32)
    pixels = grid.holding(core)
    mine = scores >= known.threshold
    for axis, (low, high) in enumerate(pixels):
        mine &= (places[:, axis] >= low) & (places[:, axis] < high)
    places, scores, regions = places[mine], scores[mine], regions[mine]
    sums = _summed(places, regions, channels, pixels, extent, inside, grid)
    return Found(places, scores, regions, sums, mark(grid.middles(places, extent) - 0.5))


def _summed(
    places: NDArray[np.int32],
    regions: NDArray[np.uint64],
    channels: Sequence[Callable[[Box], Array]],
    core: Sequence[tuple[int, int]],
    extent: Triple,
    inside: Box,
    grid: Grid,
) -> NDArray[np.uint32]:
    """`Found.sums`; `core` is the block's, in pixels."""
    which, bit = pixels_of(regions, grid)
    offsets = grid.offsets(REGION_NM)
    at = places[which].astype(np.intp)
    at[:, 1:] += offsets[bit]
    sums = np.zeros((len(at), len(channels)), np.uint32)
    more = np.abs(offsets).max(axis=0)
    bounds = _whole(extent)
    for z in np.unique(at[:, 0]).tolist():
        some = np.flatnonzero(at[:, 0] == z)
        seen = (
            (z, z + 1),
            *((low - far, high + far) for (low, high), far in zip(core[1:], more.tolist(), strict=True)),
        )
        box = tuple(
            (max(first, low * side), min(end, high * side))
            for (low, high), side, (first, end) in zip(seen, grid.bins, bounds, strict=True)
        )
        y, x = (at[some, axis] - box[axis][0] // grid.bins[axis] for axis in (1, 2))
        for number, channel in enumerate(channels):
            pixels = _pixel_sums(channel((box[0], box[1], box[2])), box, inside, grid)
            there = (y >= 0) & (y < pixels.shape[0]) & (x >= 0) & (x < pixels.shape[1])
            sums[some[there], number] = pixels[y[there], x[there]]
    return sums


def _pixel_sums(seen: Array, box: Sequence[tuple[int, int]], inside: Box, grid: Grid) -> Array:
    """The sums of the voxels in each pixel of a section of pixels, of those voxels that lie inside."""
    kept = tuple(
        slice(max(0, low - first), max(0, min(end, high) - first))
        for (first, end), (low, high) in zip(box, inside, strict=True)
    )
    if any(side.start or side.stop < long for side, long in zip(kept, seen.shape, strict=True)):
        whole, seen = seen, np.zeros_like(seen)
        seen[kept] = whole[kept]
    if grid.bins == (1, 1, 1):
        return np.asarray(seen[0])
    sums = seen.sum(axis=0, dtype=np.uint32)
    for axis in (0, 1):
        sums = np.add.reduceat(sums, np.arange(0, sums.shape[axis], grid.bins[axis + 1]), axis=axis)
    return np.asarray(sums)


def _read(psd: Array, synapsin: Array) -> Read:
    """Both markers as `found.Read`."""
    return lambda start, stop, top, bottom: (psd[start:stop, top:bottom], synapsin[start:stop, top:bottom])


def _sections(cut: Cut, box: Box) -> Read:
    """A box as `found.Read`."""
    (z, _), (y, _), x = box
    return lambda start, stop, top, bottom: cut(((z + start, z + stop), (y + top, y + bottom), x))


def _whole(extent: Triple) -> Box:
    return (0, extent[0]), (0, extent[1]), (0, extent[2])


def _pixels(extent: Triple, grid: Grid) -> tuple[int, tuple[int, int]]:
    """A volume's extent in pixels: along z, and its sections' along y and x."""
    depth, high, wide = (-(-side // step) for side, step in zip(extent, grid.bins, strict=True))
    return depth, (high, wide)


def _unknown(extent: Triple, grid: Grid) -> Laid:
    """Of a volume that was not registered."""
    depth, plane = _pixels(extent, grid)
    return Laid([NOWHERE] * depth, [NOWHERE] * (depth - 1), (0, 0), plane)


def _reach(voxel_nm: Size, laid: Laid) -> Triple:
    """Voxels around a core on which its scores depend."""
    grid = Grid.of(voxel_nm)
    down, right = (
        math.ceil(reach_nm() / size + laid.far * side) for size, side in zip(voxel_nm[1:], grid.bins[1:], strict=True)
    )
    return 0, down, right
