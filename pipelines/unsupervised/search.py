"""The default method over a volume: sections are searched on both cores, then judged together. Axes are z, y, x."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contract.program import BLOCK_VOXELS
from pipelines.common.boxes import Box, Triple, grown, shape, voxels
from pipelines.common.copies import CORES, in_copies
from pipelines.common.sparse import Packed, Sparse
from pipelines.unsupervised.chance import (
    MERGE_NM,
    Chance,
    Judged,
    Lengths,
    best_kept,
    beyond_chance,
    judge,
    looks_that_fit,
    pairs_near,
    share_of,
    unbeaten,
)
from pipelines.unsupervised.found import Read, Size, Synapses
from pipelines.unsupervised.painting import Parts, paint_section
from pipelines.unsupervised.paired import (
    THRESHOLD,
    Candidates,
    Grid,
    Map,
    Scored,
    reach_nm,
    standing_out,
)
from pipelines.unsupervised.registration import NOWHERE, Layout, Tiles, Warp
from pipelines.unsupervised.registration import register as registered
from pipelines.unsupervised.sections import Band, bands

Array = NDArray[Any]
Register = Literal["auto", "off", "report"]
REGISTER: tuple[Register, ...] = get_args(Register)
STRETCH, SHORT = 2**22, 2**20
"""Pixels of small sections that one process searches, and of a volume that is not worth two processes."""
EVERY, FEW = 16, 1000
"""Every so many rows, one is looked at for the lowest of large numbers; one voxel in so many may lie below it."""
COMMON = 2**16
"""Large numbers lose multiples of this that they have in common: what is left is no larger than numbers of 2 bytes."""
MOST, AS_LARGE = 2**27, 4
"""Voxels of a channel that are searched for what lies in a box: so many, or so many boxes."""
ROOM, A_VOXEL = 160e6, 6.25
"""Bytes for a search, and for each voxel of the box, where a run may take 300 MB and 8 a voxel."""
A_PIXEL, SEEN = 7, 8
"""Bytes that a search holds of each pixel of a section; and more, beside its voxels, while the pixel is looked at."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many copies of the process search, and how many pixels of a section each looks at together, at most."""

    copies: int
    pixels: float


@dataclass(frozen=True)
class Laid:
    """How channels and sections of a volume lie, as measured once, for the search of a part of it."""

    across: Sequence[Warp]
    """Of each section of pixels of the part, how the presynaptic channel lies on the postsynaptic one."""
    along: Sequence[Warp]
    """Of each such section but the first, how it lies on the last one."""
    corner: tuple[int, int]
    """The pixel y, x of the volume's sections that is the part's first one."""
    plane: tuple[int, int]
    """The extent in pixels of the volume's sections."""

    @cached_property
    def far(self) -> float:
        """Pixels by which the presynaptic channel is moved, at most, and one more; 0 where it is not."""
        return max((warp.farthest(self.plane) + 1 for warp in self.across if warp.moves(self.plane)), default=0.0)

    def part(self, pixels: Sequence[tuple[int, int]]) -> Laid:
        """Of a part of the part, in pixels (z, y, x)."""
        (first, last), (top, _), (left, _) = pixels
        corner = self.corner[0] + top, self.corner[1] + left
        return Laid(self.across[first:last], self.along[first : last - 1], corner, self.plane)

    def moved(self, number: int, places: Array) -> NDArray[np.intp] | None:
        """(n, 2): the shift at pixels (n, 2) of a section of the part; None where nothing is moved."""
        warp = self.across[number]
        return np.rint(warp.shift(places + np.array(self.corner))).astype(np.intp) if warp.moves(self.plane) else None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What was seen in sections of pixels that follow one another."""

    looks: Sequence[list[Scored]]
    """Of each section, what each look found."""
    across: Sequence[Warp]
    along: Sequence[Warp]
    """How each section but the first lies on the last one."""
    ends: tuple[Tiles | None, Tiles | None]
    """The tiles of the first and the last section."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look found in the whole volume, each object once. `places` are z, y, x in pixels."""

    scores: NDArray[np.float32]
    places: NDArray[np.int32]


class Search:
    """The search of one volume; `detector.scan` says what the arguments mean. `looks=None`: what the volume allows.

    Copies of the process call `read`: whatever it reads has to be there already, as connections do not outlive a fork.
    """

    def __init__(
        self,
        shape: Triple,
        voxel_nm: Size,
        *,
        inside: tuple[Triple, Triple],
        false_discovery: float,
        threshold: float | None,
        register: Register,
        looks: Sequence[tuple[int, int]] | None,
        laid: Laid | None = None,
        pace: Pace | None = None,
    ) -> None:
        """What is `laid` is not measured. Without a `pace` two copies search whole sections."""
        self._shape, self._inside, self._laid, self._pace = shape, inside, laid, pace or Pace(CORES, math.inf)
        self._rate, self._threshold, self._register = false_discovery, threshold, register
        self._grid = grid = Grid.of(voxel_nm)
        self._plane = (-(-shape[1] // grid.bins[1]), -(-shape[2] // grid.bins[2]))
        self._depth = -(-shape[0] // grid.bins[0])
        self._tells = True
        """Whether the looks tell the chance share, or only whether there is anything but chance."""
        if looks is None:
            looks, self._tells = looks_that_fit(self._plane, grid.pixel_nm[1:], depth=self._depth)
        self._looks = [(0, 0), *looks]

    def synapses(self, read: Read, *, told: Callable[[float], None]) -> Synapses:
        """Search all sections, and keep what is beyond chance as far as asked."""
        looks, across, along = self._searched(read, told=lambda part: told(0.8 * part))
        all_looks, kept, to = self._merged(looks, along)
        objects = [_Look(look.scores[k], look.places[k]) for look, k in zip(all_looks, kept, strict=True)]
        told(0.85)
        judged, threshold = self._judged(objects)
        here = [self._within(look.places) & (look.scores >= threshold) for look in objects]
        regions = np.concatenate([section[0].regions for section in looks])
        chosen = np.flatnonzero(kept[0])[here[0]]
        labels, voxels = self._painted(all_looks[0], regions, to, chosen, threshold)
        told(1)
        inside = [look.scores[self._within(look.places)] for look in objects]
        scores = all_looks[0].scores[chosen].astype(np.float64)
        return Synapses(
            labels,
            self._centres(all_looks[0].places[chosen]) - self._inside[0],
            voxels,
            scores,
            judged.rates(scores) if judged else np.full(len(chosen), np.nan),
            threshold=threshold,
            tells=self._tells and len(here) > 1,
            chance=self._chance([int(part.sum()) for part in here]),
            curve=self._curve(judged, inside),
            reached=int(np.count_nonzero(inside[0] >= THRESHOLD)),
            across=across,
            along=along if self._register != "off" else [],
        )

    def _searched(
        self, read: Read, *, told: Callable[[float], None]
    ) -> tuple[list[list[Scored]], list[Warp], list[Warp]]:
        """What was seen in each section, how its channels lie, and how each section but the first lies on the last."""
        looks: list[list[Scored]] = []
        across: list[Warp] = []
        along: list[Warp] = []
        last: Tiles | None = None
        stretches = self._stretches()
        # voxels of more than 2 bytes take so much that one section is held at a time
        large = read(0, 1, 0, 1)[0].itemsize > 2 and self._grid.bins == (1, 1, 1)
        small = self._depth * math.prod(self._plane) < SHORT
        work = partial(self._stretch, read)
        most = 1 if large or small or len(stretches) == 1 else self._pace.copies
        for seen in in_copies(work, stretches, most=most):
            if looks and not self._laid:
                along.append(on_the_last(seen.ends[0], last, self._grid))
            looks += seen.looks
            across += seen.across
            along += seen.along
            last = seen.ends[1]
            told(len(looks) / self._depth)
        return looks, across, list(self._laid.along) if self._laid else along

    def _stretches(self) -> list[tuple[int, int]]:
        """Sections of pixels, first and behind the last, of as many as make STRETCH pixels, and of one at least."""
        count = -(-self._depth // max(1, STRETCH // math.prod(self._plane)))
        count = min(self._depth, -(-count // CORES) * CORES)
        return list(itertools.pairwise(n * self._depth // count for n in range(count + 1)))

    def _stretch(self, read: Read, sections: tuple[int, int]) -> _Stretch:
        """What is seen in those sections."""
        looks, across, tiles = zip(*(self._looked(read, number) for number in range(*sections)), strict=True)
        along = (
            []
            if self._laid
            else [on_the_last(section, last, self._grid) for last, section in itertools.pairwise(tiles)]
        )
        return _Stretch(looks, across, along, (tiles[0], tiles[-1]))

    def _looked(self, read: Read, number: int) -> tuple[list[Scored], Warp, Tiles | None]:
        """What each look finds in a section, how its channels lie, and its tiles."""
        (post, pre), (tiles, others) = self._seen(read, number)
        warp = self._laid.across[number] if self._laid else registered(tiles, others)
        candidates = Candidates(post, self._grid)
        moved = None
        if self._register == "auto" and self._laid:
            moved = self._laid.moved(number, candidates.places)
        elif self._register == "auto" and warp.moves(self._plane):
            moved = np.rint(warp.shift(candidates.places)).astype(np.intp)
        return candidates.scores(pre, moved, self._looks), warp, tiles

    def _seen(self, read: Read, number: int) -> tuple[list[Map], list[Tiles | None]]:
        """Each channel's map of a section, and its tiles where they are to be measured."""
        grid, (high, wide) = self._grid, self._plane
        deep, down, _ = grid.bins

        def rows(top: int, bottom: int) -> tuple[Array, Array]:
            z, y = number * deep, top * down
            stop = min(self._shape[0], z + deep), min(self._shape[1], bottom * down)
            return pixels(*read(z, stop[0], y, stop[1]), grid=grid)

        parts = self._bands
        if len(parts) == 1:
            sections = rows(0, high)
            maps = [standing_out(section, grid) for section in sections]
            return maps, self._tiles(maps, lambda some, columns: [section[some, columns] for section in sections])
        rim = grid.rim
        maps = [np.zeros((high + 2 * rim[0], wide + 2 * rim[1]), np.int16) for _ in range(2)]
        for part in parts:
            for whole, section in zip(maps, rows(part.low, part.high), strict=True):
                whole[rim[0] :][part.top : part.bottom] = standing_out(section, grid)[rim[0] :][part.own]
        return maps, self._tiles(
            maps, lambda some, columns: [section[:, columns] for section in rows(some.start, some.stop)]
        )

    @property
    def _bands(self) -> list[Band]:
        """The rows of pixels of a section that are looked at together."""
        step = self._grid.tile[0]
        halo = -(-math.ceil(reach_nm() / self._grid.pixel_nm[1]) // step) * step
        piece = int(min(self._pace.pixels, math.prod(self._plane)))
        return list(bands((1, *self._plane), piece=piece, halo=halo, step=step))

    def _tiles(self, maps: Sequence[Map], window: Callable[[slice, slice], Sequence[Array]]) -> list[Tiles | None]:
        """Each channel's tiles, by its map, or the pixels that `window` gives of both channels."""
        layout = Layout.of(self._plane, self._grid)
        if self._laid or self._register == "off" or layout is None:
            return [None for _ in maps]
        if not layout.alone:
            return [layout.of_map(each, self._grid) for each in maps]
        windows = [window(*place) for place in layout.windows]
        return [layout.tiles(channel, self._grid) for channel in zip(*windows, strict=True)]

    def _together(self, sections: Sequence[Scored]) -> _Look:
        depths = np.repeat(np.arange(len(sections), dtype=np.int32), [len(section.scores) for section in sections])
        places = np.column_stack([depths, np.concatenate([section.places for section in sections])])
        return _Look(np.concatenate([section.scores for section in sections]), places.astype(np.int32))

    def _merged(
        self, looks: Sequence[Sequence[Scored]], along: Sequence[Warp]
    ) -> tuple[list[_Look], list[NDArray[np.bool_]], NDArray[np.intp]]:
        """All that each look found; which of them are kept; and of the first look, which kept one each counts to."""
        moved = along if self._register == "auto" else [NOWHERE] * len(along)
        frames = frames_of(moved, self._laid.corner if self._laid else (0, 0))
        lengths = lengths_of(frames, self._grid)
        all_looks = [self._together([section[n] for section in looks]) for n in range(len(self._looks))]
        kept, to = [], np.zeros(0, np.intp)
        for look in all_looks:
            at = in_nm(look.places, frames, self._grid)
            pairs = pairs_near(at, look.scores, lengths=lengths, copies=CORES)
            kept.append(unbeaten(pairs, len(at)))
            if len(kept) == 1:
                to = best_kept(pairs, kept[0], look.scores)
        return all_looks, kept, to

    def scores(self, read: Read) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
        """The scores of the objects that each look finds inside, and the centres of those that the first one finds.

        The first look is not shifted. Centres (n, 3) are voxels from the corner of what is inside.
        """
        looks, _, along = self._searched(read, told=lambda part: None)
        all_looks, kept, _ = self._merged(looks, along)
        inside = [k & self._within(look.places) for look, k in zip(all_looks, kept, strict=True)]
        centres = self._centres(all_looks[0].places[inside[0]]) - self._inside[0]
        return [look.scores[mine] for look, mine in zip(all_looks, inside, strict=True)], centres

    def candidates(self, read: Read) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.uint64]]:
        """Places (n, 3) in pixels, scores, and regions of all candidates, before they are merged; in order."""
        looks, _, _ = self._searched(read, told=lambda part: None)
        seen = self._together([section[0] for section in looks])
        return seen.places, seen.scores, np.concatenate([section[0].regions for section in looks])

    def _judged(self, objects: Sequence[_Look]) -> tuple[Judged | None, float]:
        """What the looks say, where they tell the share; and the threshold."""
        found, by_look = objects[0].scores, [look.scores for look in objects[1:]]
        judged = judge(found, by_look, self._rate) if by_look and self._tells else None
        if self._threshold is not None:
            return judged, self._threshold
        if judged:
            return judged, judged.threshold
        if by_look:
            counts = [int(np.count_nonzero(scores >= THRESHOLD)) for scores in (found, *by_look)]
            if not beyond_chance(np.array(counts[0]), np.array(np.mean(counts[1:])), len(by_look)):
                return None, math.inf
        return None, THRESHOLD

    def _chance(self, counts: Sequence[int]) -> Chance | None:
        """From how many objects each look found inside; None where that cannot be told, or there are none."""
        if len(counts) < 2 or not self._tells or not counts[0]:
            return None
        return share_of(counts[0], counts[1:])

    def _curve(self, judged: Judged | None, inside: Sequence[Array]) -> NDArray[np.float64]:
        """`Judged.curve` of the scores that each look found inside, with the rates of all that was looked at."""
        if not judged:
            return np.zeros((0, 4))
        curve = judged.curve.copy() if self._all_inside else judge(inside[0], inside[1:], self._rate).curve
        curve[:, 3] = judged.rates(curve[:, 0])
        return curve

    def _centres(self, places: Array) -> NDArray[np.float64]:
        """Pixels as voxels."""
        return self._grid.middles(places, self._shape) - 0.5

    @property
    def _all_inside(self) -> bool:
        return self._inside == ((0, 0, 0), self._shape)

    def _within(self, places: Array) -> NDArray[np.bool_]:
        if self._all_inside:
            return np.ones(len(places), np.bool_)
        middle = self._centres(places) + 0.5
        return np.asarray(np.all((middle >= self._inside[0]) & (middle < self._inside[1]), axis=1))

    def _painted(
        self, look: _Look, regions: NDArray[np.uint64], to: Array, chosen: Array, threshold: float
    ) -> tuple[NDArray[np.uint32] | Sparse, NDArray[np.int64]]:
        """Labels of what is inside, and how many voxels each has there.

        `chosen` are the objects, by their best sections; the sections that count to them are parts of them.
        """
        (z, y, x), (deep, low, right) = self._inside
        labels = Sparse((deep - z, low - y, right - x), once=True)
        number = np.zeros(len(look.scores), np.uint32)
        number[chosen] = np.arange(1, len(chosen) + 1)
        centres, number = number > 0, number[to]
        part = (number > 0) & (look.scores >= threshold)
        sections = np.searchsorted(look.places[:, 0], np.arange(self._depth + 1))

        def work(section: tuple[int, int]) -> tuple[list[Packed], NDArray[np.uint32], NDArray[np.int64]]:
            """What is to be added, and the voxels that each part has, with its label."""
            some = section[0] + np.flatnonzero(part[slice(*section)])
            parts = Parts(look.places[some], regions[some], look.scores[some], number[some], centres[some])
            packed, counts = [], np.zeros(len(some), np.int64)
            for band, painted, added in paint_section(labels, (z, y, x), self._grid, parts):
                packed.append(added)
                counts[band] += np.bincount(painted.parts, minlength=band.stop - band.start)
            return packed, parts.labels, counts

        voxels = np.zeros(len(chosen) + 1, np.int64)
        most = CORES if labels.size > BLOCK_VOXELS else 1
        for packed, of, counts in in_copies(work, list(itertools.pairwise(sections.tolist())), most=most):
            for added in packed:
                labels.add(added)
            np.add.at(voxels, of, counts)
        labels.settle()
        if labels.size > BLOCK_VOXELS:
            return labels, voxels[1:]
        with labels:
            return labels.whole(), voxels[1:]


def surroundings(box: Box, bounds: Box, voxel_nm: Size) -> Box:
    """The part of a volume to search for what lies in a box, so that scores are those that the whole volume gives.

    It begins where the grid of the whole volume repeats. Where it would hold more than MOST voxels and AS_LARGE boxes,
    it is smaller along y and x, and scores are nearly the same.
    """
    grid = Grid.of(voxel_nm)
    deep, down, right = (nm / size for nm, size in zip((MERGE_NM, reach_nm(), reach_nm()), voxel_nm, strict=True))
    for share in np.linspace(1, 0, 41):
        z, y, x = (math.ceil(far) for far in (deep, share * down, share * right))
        part = aligned(grown(box, (z, y, x), bounds), bounds, grid)
        if voxels(part) <= max(MOST, AS_LARGE * voxels(box)):
            return part
    return box


def pace_for(box: Box, part: Box, voxel_nm: Size, *, itemsize: int) -> Pace:
    """The pace at which a part of a volume is searched for what lies in a box, within the `room` for it.

    Voxels have `itemsize` bytes.
    """
    grid = Grid.of(voxel_nm)
    size = held(part, grid, itemsize=itemsize)
    if size <= room(box):
        return Pace(CORES if CORES * size <= room(box) else 1, math.inf)
    plane = _pixels(part, grid)
    return Pace(1, plane * max(0, room(box) - A_PIXEL * plane) / (size - A_PIXEL * plane))


def room(box: Box) -> float:
    """Bytes that a search for what lies in a box may take."""
    return ROOM + A_VOXEL * voxels(box)


def aligned(part: Box, bounds: Box, grid: Grid) -> Box:
    """The part, begun so much earlier that the grid of the whole volume repeats there."""
    z, y, x = (
        (low - (low - first) % step, high)
        for (low, high), (first, _), step in zip(part, bounds, grid.step, strict=True)
    )
    return z, y, x


def held(part: Box, grid: Grid, *, itemsize: int = 2) -> float:
    """Bytes that the search of a section of pixels takes, about, with the voxels of both channels that make it."""
    # those of more than 2 bytes are floats as well
    each = 2 * (itemsize if itemsize <= 2 else itemsize + 4)
    return _pixels(part, grid) * (A_PIXEL + SEEN + each * math.prod(grid.bins))


def _pixels(part: Box, grid: Grid) -> float:
    """Pixels of a section."""
    _, high, wide = shape(part)
    return high * wide / (grid.bins[1] * grid.bins[2])


def on_the_last(section: Tiles | None, last: Tiles | None, grid: Grid) -> Warp:
    """How a section lies on the last one; not known where they are too far from one another for a synapse in both."""
    # sections are laid down one by one, so that turns are as likely as shifts
    return registered(section, last, simple=1) if grid.pixel_nm[0] <= MERGE_NM else NOWHERE


def in_nm(places: NDArray[np.int32], frames: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """(n, 3): pixels z, y, x in nanometres, in the frame of the first section, as `frames_of` says.

    Places come in the order of their sections.
    """
    at = places.astype(np.float64)
    walls = np.searchsorted(places[:, 0], np.arange(len(frames) + 1)).tolist()
    for (first, last), frame in zip(itertools.pairwise(walls), frames.tolist(), strict=True):
        (y_by_y, y_by_x), (x_by_y, x_by_x), (down, right) = frame
        y, x = at[first:last, 1].copy(), at[first:last, 2].copy()
        at[first:last, 1] = y_by_y * y + y_by_x * x + down
        at[first:last, 2] = x_by_y * y + x_by_x * x + right
    at *= grid.pixel_nm
    return at


def frames_of(along: Sequence[Warp], corner: tuple[int, int]) -> NDArray[np.float64]:
    """(sections, 3, 2): each section's turn and stretch (2 x 2) and shift into the first one's frame.

    Places are counted from the pixel y, x that is the `corner` of a part; warps are of whole sections.
    """
    turn, shift, first = np.eye(2), np.zeros(2), np.array(corner, np.float64)
    frames = [np.vstack([turn, shift + turn @ first])]
    for warp in along:
        if warp.sure:
            shift = shift - turn @ warp.linear[0]
            turn = turn @ (np.eye(2) - warp.linear[1:].T)
        frames.append(np.vstack([turn, shift + turn @ first]))
    return np.stack(frames)


def lengths_of(frames: NDArray[np.float64], grid: Grid) -> Lengths | None:
    """Lengths in such frames."""
    nm = np.array(grid.pixel_nm[1:])
    return Lengths.of(frames[:, :2] * (nm[:, None] / nm), grid.pixel_nm[0])


def pixels(psd: Array, synapsin: Array, *, grid: Grid) -> tuple[Array, Array]:
    """Both markers' sections of pixels. Raises ValueError where they are not unsigned integers."""
    if psd.dtype.kind != "u" or synapsin.dtype.kind != "u":
        raise ValueError(f"unsigned integers are needed, not {psd.dtype} and {synapsin.dtype}")
    psd, synapsin = (np.asarray(section, section.dtype.newbyteorder("=")) for section in (psd, synapsin))
    return in_pixels(psd, grid), in_pixels(synapsin, grid)


def in_pixels(section: Array, grid: Grid) -> Array:
    """A section of pixels (y, x), from the sections of voxels (z, y, x) that make it: unsigned integers, or float32.

    What is left over at the ends makes smaller pixels. Large numbers lose what they have in common,
    which would leave no room for their differences once they are floats.
    """
    if section.itemsize > 2:
        seen = section[:, ::EVERY].reshape(-1)
        # in large steps, so that nearly every part of a section has the numbers that the whole has
        lowest = np.partition(seen, len(seen) // FEW)[len(seen) // FEW] // COMMON * COMMON
        less = np.empty(section.shape, np.float32)
        for top in range(0, section.shape[1], EVERY):  # a few rows at a time, since they have 8 bytes a voxel
            few = np.s_[:, top : top + EVERY]
            less[few] = np.maximum(section[few], lowest) - lowest
        section = less
    if grid.bins == (1, 1, 1):
        return np.asarray(section[0])
    rows, columns = (np.arange(0, n, side) for n, side in zip(section.shape[1:], grid.bins[1:], strict=True))
    sums = np.add.reduceat(section.sum(axis=0, dtype=np.float32), rows, axis=0)
    sums = np.add.reduceat(sums, columns, axis=1)
    sizes = [np.diff(np.append(starts, n)) for starts, n in zip((rows, columns), section.shape[1:], strict=True)]
    return np.asarray(sums / (np.outer(*sizes) * len(section)), np.float32)
