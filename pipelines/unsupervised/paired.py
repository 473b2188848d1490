"""The default method: a postsynaptic punctum, and presynaptic light of the same shape at it. One section at a time.

1. `standing_out`, for each channel: the square root, counted from a little below the background, since noise and puncta
   grow with brightness; the difference of Gaussians of PUNCTUM_NM and SURROUND_NM; divided by its own root mean square
   in the surroundings, so that sections and regions of different brightness are alike.
2. `Candidates`: the local maxima of the postsynaptic map. They are sought once.
3. `Candidates.scores`, wherever the presynaptic map is looked up (moved back by the registration, or shifted away to
   see what chance finds): the highest p s / (p + s) of both maps p and s at one place within CLEFT_NM, which asks for
   both markers; times the cosine of the two patches of PATCH_NM, which asks for light of one shape. Objects lie where
   both meet.

All of it is local: a score depends on nothing farther away than `reach_nm`. Only the grid of blocks counts from the
section's first pixel, so a part of a section that begins at a multiple of `Grid.step` voxels has the section's scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[Any]
Plane = NDArray[np.float32]
Map = NDArray[np.int16]
Triple = tuple[int, int, int]
Size = tuple[float, float, float]
Pair = tuple[float, float]

PUNCTUM_NM = 100.0
"""Standard deviation of the matched Gaussian: half of what a punctum of 235 nm is wide."""
SURROUND_NM = 400.0
"""Standard deviation of the Gaussian that is subtracted; it is made of blocks half as large."""
LOCAL_NM = 5000.0
"""Standard deviation of the Gaussian over which brightness and contrast of the surroundings are measured."""
CLEFT_NM = 200.0
"""How far from the postsynaptic maximum both markers may meet."""
PATCH_NM = 200.0
"""Standard deviation of the weights with which two patches are compared; patches end at twice that."""
PIXEL_NM = 67.0
"""Finer voxels are put together to pixels of about this size."""
REGION_NM = 150.0
"""How far from its centre an object's pixels lie: those where both markers are half as strong as there."""
FAINT = 0.5
"""Local scales by which a candidate stands out at least."""
LOW = 0.25
"""Scores below are 0: nothing is found there."""
THRESHOLD = 0.75
"""The lowest score of a synapse where chance cannot be told: the geometric mean of the thresholds at a chance share of
0.25 on cultures and array tomography."""
ROUNDED = 0.04
"""The least local scale: voxels are whole numbers, and varying by less than that is rounding."""
STEPS = 256
"""Levels of a map within one local scale."""
_TILE = 4
"""Blocks in a tile's side; brightness and contrast of the surroundings are measured by tiles."""
_WINDOW = 2.0
"""Standard deviations at which the Gaussian of the surroundings ends."""
_STRIP = 2**16
"""Pixels processed at a time, so that they stay in the processor's cache."""
_FEW = 2**13
"""Candidates scored at a time."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How voxels make pixels (along z, y, x), and pixels blocks (along y, x)."""

    bins: Triple
    """Voxels in a pixel's side."""
    pixel_nm: Size
    block: tuple[int, int]
    """Pixels in a block's side."""

    @classmethod
    def of(cls, voxel_nm: Size) -> Grid:
        """The grid for voxels of that size, (z, y, x) in nanometres."""
        z, y, x = (max(1, round(PIXEL_NM / size)) for size in voxel_nm)
        down, right = voxel_nm[1] * y, voxel_nm[2] * x
        block = tuple(max(1, round(SURROUND_NM / 2 / size)) for size in (down, right))
        return cls((z, y, x), (voxel_nm[0] * z, down, right), (block[0], block[1]))

    @property
    def step(self) -> Triple:
        """Voxels, along z, y, x, after which the grid repeats."""
        return self.bins[0], self.bins[1] * self.block[0] * _TILE, self.bins[2] * self.block[1] * _TILE

    def offsets(self, radius_nm: float) -> NDArray[np.intp]:
        """(n, 2): the steps y, x to all pixels within a radius, the nearest first."""
        down, right = self.pixel_nm[1:]
        y, x = np.mgrid[
            -int(radius_nm / down) : int(radius_nm / down) + 1, -int(radius_nm / right) : int(radius_nm / right) + 1
        ]
        away = np.hypot(y * down, x * right).reshape(-1)
        order = np.argsort(away, kind="stable")[: np.count_nonzero(away <= radius_nm * 1.001)]
        return np.stack([y.reshape(-1), x.reshape(-1)], axis=1)[order]

    @property
    def rim(self) -> tuple[int, int]:
        """Pixels beyond the section's border, so that patches fit."""
        down, right = self.pixel_nm[1:]
        return max(1, int(2 * PATCH_NM * 1.001 / down)), max(1, int(2 * PATCH_NM * 1.001 / right))


def reach_nm() -> float:
    """How far the voxels are, within a section, on which a score depends."""
    tile = _TILE * SURROUND_NM / 2
    return 2 * (_WINDOW * LOCAL_NM + 2 * tile) + 2 * SURROUND_NM + 2 * PATCH_NM + CLEFT_NM


def standing_out(section: Array, grid: Grid) -> Map:
    """By how much each pixel stands out, in STEPS of the local scale, with `Grid.rim` zeros more on each side.

    `section` is (y, x) in pixels: unsigned integers, or float32.
    """
    high, wide = section.shape
    y, x = (
        _Axis.of(n, block, SURROUND_NM / size)
        for n, block, size in zip(section.shape, grid.block, grid.pixel_nm[1:], strict=True)
    )
    origin = _origin(section, y, x, grid)
    weights = [_gaussian(PUNCTUM_NM / size) for size in grid.pixel_nm[1:]]
    plane = np.empty((high, wide), np.float32)
    blocks = np.empty((len(y.sizes), len(x.sizes)), np.float32)
    halo = len(weights[0]) - 1
    for top, bottom in y.strips(wide):
        low, end = max(0, top - halo), min(high, bottom + halo)
        root = section[low:end].astype(np.float32)
        root -= y.fine(origin, low, end)
        np.maximum(root, 0, out=root)
        np.sqrt(root, out=root)
        blocks[y.blocks(top, bottom)] = x.down(y.means(top, bottom) @ root[top - low : bottom - low])
        edges = (halo - (top - low), halo - (end - bottom))
        smooth = _smoothed(root, weights[0], 0, edges)
        plane[top:bottom] = _smoothed(smooth, weights[1], 1, (len(weights[1]) - 1,) * 2)
    surround = y.wide @ np.ascontiguousarray((x.wide @ blocks.T).T)
    squares = np.empty((len(y.tile_sizes), len(x.tile_sizes)), np.float32)
    for top, bottom in y.strips(wide):
        part = plane[top:bottom]
        near = y.near(top, bottom)
        part -= y.lines(top, bottom) @ x.up(surround[near])
        squares[y.tiles(top, bottom)] = x.tiles_down(y.means(top, bottom) @ (part * part), y.tiled(top, bottom))
    local = np.sqrt(_gathered(squares, y, x, grid))
    levels = np.asarray(STEPS / np.maximum(local, ROUNDED), np.float32)
    scale = x.tiles_up(levels) * _steadier(weights[1], wide)
    steadier = _steadier(weights[0], high)[:, None]
    rim = grid.rim
    out = np.zeros((high + 2 * rim[0], wide + 2 * rim[1]), np.int16)
    inside = out[rim[0] : rim[0] + high, rim[1] : rim[1] + wide]
    for top, bottom in y.strips(wide):
        part = plane[top:bottom]
        part *= y.tile_lines(top, bottom) @ scale
        if top < halo or bottom > high - halo:
            part *= steadier[top:bottom]
        np.rint(part, out=part)
        np.clip(part, -32000, 32000, out=part)
        inside[top:bottom] = part
    return out


@cache
def _steadier(weights: tuple[float, ...], length: int) -> NDArray[np.float32]:
    """(length,): how much less than a border's pixels the others vary, as fewer of them are averaged there."""
    full = np.concatenate([weights[:0:-1], weights])
    reach = len(weights) - 1
    factors = np.ones(length, np.float32)
    for n in range(min(reach, length)):
        mirrored = np.zeros(max(length, 2 * reach + 1))
        at = np.arange(n - reach, n + reach + 1)
        np.add.at(mirrored, np.where(at < 0, -1 - at, at), full)
        factors[[n, -1 - n]] *= np.float32(math.sqrt(np.sum(full**2) / np.sum(mirrored**2)))
    return factors


def _origin(section: Array, y: _Axis, x: _Axis, grid: Grid) -> Plane:
    """Where the square root begins at each tile along y and each pixel along x.

    As far below the lowest values around as the mean is above them: so the root is nearly linear in the noise of the
    background, and a root in the puncta. Every fourth row is looked at.
    """
    rows, starts = y.sampled()
    seen = section[rows]
    columns = np.arange(0, section.shape[1], x.tile)
    sizes = np.diff(np.append(starts, len(seen)))[:, None] * np.diff(np.append(columns, section.shape[1]))
    lowest = np.minimum.reduceat(np.minimum.reduceat(seen, starts, axis=0), columns, axis=1).astype(np.float32)
    mean = np.add.reduceat(np.add.reduceat(seen, starts, axis=0, dtype=np.float32), columns, axis=1) / sizes
    both = [_gathered(part.astype(np.float32), y, x, grid) for part in (lowest, mean)]
    return x.tiles_up(2 * both[0] - both[1])


def _gathered(tiles: Plane, y: _Axis, x: _Axis, grid: Grid) -> Plane:
    down, right = (
        _window(len(axis.tile_sizes), LOCAL_NM / size / axis.tile)
        for axis, size in ((y, grid.pixel_nm[1]), (x, grid.pixel_nm[2]))
    )
    return np.asarray(down @ np.ascontiguousarray((right @ tiles.T).T))


@cache
def _gaussian(sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian from its middle on, to two standard deviations; both sides sum to 1."""
    steps = np.arange(max(1, math.ceil(2 * sigma - 0.01)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    return tuple(float(w) for w in weights / (2 * weights.sum() - weights[0]))


def _smoothed(plane: Plane, weights: Sequence[float], axis: int, edges: tuple[int, int]) -> Plane:
    """The weighted sums along an axis, which is first continued by so many pixels at its ends (mirrored)."""
    if any(edges):
        length = plane.shape[axis]
        if min(length, *edges) < 1 or max(edges) <= length:
            plane = np.pad(plane, [edges if n == axis else (0, 0) for n in range(2)], "symmetric")
        else:
            plane = np.pad(plane, [edges if n == axis else (0, 0) for n in range(2)], "edge")
    reach = len(weights) - 1
    length = plane.shape[axis] - 2 * reach

    def at(start: int) -> Plane:
        return plane[start : start + length] if axis == 0 else plane[:, start : start + length]

    out = at(reach) * np.float32(weights[0])
    both = np.empty_like(out)
    for step, weight in enumerate(weights[1:], start=1):
        np.add(at(reach - step), at(reach + step), out=both)
        both *= np.float32(weight)
        out += both
    return out


class _Axis:
    """An axis in pixels, cut into blocks, and tiles of blocks; what is left over makes a smaller last one."""

    def __init__(self, length: int, block: int, sigma: float) -> None:
        self.length, self.block, self.tile = length, block, block * _TILE
        self.sizes = _sizes(length, block)
        self.tile_sizes = _sizes(length, self.tile)
        # a block's mean, and the straight lines between the blocks' middles, blur as well
        rest = math.sqrt(max(0.01, sigma**2 - (3 * block**2 - 3) / 12)) / block
        self.wide = _window(len(self.sizes), rest)
        self._tiled = _averages(self.sizes, _sizes(len(self.sizes), _TILE))
        self._means, self._lines = _averages(np.ones(length), self.sizes), _straight(length, block)
        self._tile_lines = _straight(length, self.tile)

    @staticmethod
    @lru_cache(32)
    def of(length: int, block: int, sigma: float) -> _Axis:
        """The axis, made once; `sigma` is that of the surround's Gaussian, in pixels."""
        return _Axis(length, block, sigma)

    def strips(self, wide: int) -> Iterator[tuple[int, int]]:
        """The rows in strips `[top, bottom)` of whole tiles, about _STRIP pixels each."""
        rows = max(1, _STRIP // wide // self.tile) * self.tile
        for top in range(0, self.length, rows):
            yield top, min(self.length, top + rows)

    def blocks(self, top: int, bottom: int) -> slice:
        """The blocks of a strip."""
        return slice(top // self.block, -(-bottom // self.block))

    def tiles(self, top: int, bottom: int) -> slice:
        """The tiles of a strip."""
        return slice(top // self.tile, -(-bottom // self.tile))

    def near(self, top: int, bottom: int) -> slice:
        """The blocks of a strip and those beside it."""
        own = self.blocks(top, bottom)
        return slice(max(0, own.start - 1), own.stop + 1)

    @lru_cache(256)  # noqa: B019 - an axis is kept as long
    def means(self, top: int, bottom: int) -> Any:
        """From a strip's rows to means over its blocks."""
        return self._means[self.blocks(top, bottom), top:bottom]

    @lru_cache(256)  # noqa: B019
    def tiled(self, top: int, bottom: int) -> Any:
        """From a strip's blocks to means over its tiles."""
        return self._tiled[self.tiles(top, bottom), self.blocks(top, bottom)]

    @lru_cache(256)  # noqa: B019
    def lines(self, top: int, bottom: int) -> Any:
        """From the blocks near a strip to its rows, linear between the blocks' middles."""
        return self._lines[top:bottom, self.near(top, bottom)]

    @lru_cache(256)  # noqa: B019
    def tile_lines(self, top: int, bottom: int) -> Any:
        """From tiles to a strip's rows."""
        return self._tile_lines[top:bottom]

    def fine(self, tiles: Plane, top: int, bottom: int) -> Plane:
        """Values by tiles at the rows `[top, bottom)`."""
        return np.asarray(self.tile_lines(top, bottom) @ tiles)

    def down(self, rows: Plane) -> Plane:
        """Means over this axis' blocks, the axis being the second one."""
        return np.ascontiguousarray((self._means @ np.ascontiguousarray(rows.T)).T)

    def tiles_down(self, rows: Plane, tiled: Any) -> Plane:
        """Means over tiles, from rows of blocks along the other axis, which `tiled` makes tiles of."""
        blocks = self._means @ np.ascontiguousarray((tiled @ rows).T)
        return np.ascontiguousarray((self._tiled @ blocks).T)

    def up(self, blocks: Plane) -> Plane:
        """From blocks to pixels along this axis, the second one."""
        return np.ascontiguousarray((self._lines @ np.ascontiguousarray(blocks.T)).T)

    def tiles_up(self, tiles: Plane) -> Plane:
        """From tiles to pixels along this axis, the second one."""
        return np.ascontiguousarray((self._tile_lines @ np.ascontiguousarray(tiles.T)).T)

    def sampled(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Every fourth row, counted from each tile's first, and where in them the tiles start."""
        rows = np.arange(0, self.length, min(4, self.block))
        return rows, np.searchsorted(rows, np.arange(0, self.length, self.tile))


def _sizes(length: int, side: int) -> NDArray[np.intp]:
    return np.diff(np.append(np.arange(0, length, side), length))


def _averages(weights: Array, sizes: Array) -> Any:
    """The matrix that takes means over groups of neighbours, each with its weight; groups as `_TILE` or block say."""
    count = len(weights)
    starts = np.append(0, np.cumsum(sizes))
    group = np.repeat(np.arange(len(sizes)), sizes)
    parts = weights / np.bincount(group, weights=weights)[group]
    return csr_array((parts.astype(np.float32), np.arange(count), starts), shape=(len(sizes), count))


@lru_cache(64)
def _window(count: int, sigma: float) -> Any:
    """The matrix of a Gaussian over `count` places, to _WINDOW deviations; what lies beyond the ends does not count."""
    reach = max(1, int(_WINDOW * sigma + 0.5))
    away = np.arange(count)[:, None] - np.arange(count)
    weights = np.where(np.abs(away) <= reach, np.exp(-0.5 * (away / sigma) ** 2), 0)
    return csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def _straight(length: int, side: int) -> Any:
    """The matrix that draws straight lines between the middles of groups of `side`, and levels beyond the last."""
    groups = -(-length // side)
    at = np.clip((np.arange(length) + 0.5) / side - 0.5, 0, groups - 1)
    low = np.minimum(at.astype(np.intp), max(0, groups - 2))
    part = at - low
    weights = np.stack([1 - part, part], axis=1).astype(np.float32).reshape(-1)
    columns = np.stack([low, np.minimum(low + 1, groups - 1)], axis=1).reshape(-1)
    return csr_array((weights, columns, np.arange(0, 2 * length + 1, 2)), shape=(length, groups))


@dataclass(frozen=True, slots=True)
class Scored:
    """What one look gives: the scores of at least LOW, and where both markers meet there."""

    scores: Plane
    places: NDArray[np.int32]
    """(n, 2): y, x in pixels."""
    regions: NDArray[np.uint64]
    """Which pixels around the place are the object's: a bit for each of `Grid.offsets(REGION_NM)`; 0 if shifted."""


class Candidates:
    """The local maxima of a postsynaptic map that stand out by FAINT; `places` is (n, 2): y, x in pixels."""

    def __init__(self, post: Map, grid: Grid) -> None:
        self._post, self._grid = post, grid
        down, right = grid.rim
        self.shape = (post.shape[0] - 2 * down, post.shape[1] - 2 * right)
        self.places = _highest(post, grid.rim)

    def scores(self, pre: Map, moved: NDArray[np.intp] | None, looks: Sequence[tuple[int, int]]) -> list[Scored]:
        """A `Scored` for each look; the presynaptic map has the section's shape.

        A candidate at pixel p is compared with the presynaptic pixel p - moved - look, where `moved` is (n, 2) and a
        look is (y, x), in pixels. Looks other than (0, 0) are wrapped round the section.
        """
        grid, rim = self._grid, np.array(self._grid.rim)
        patch = grid.offsets(2 * PATCH_NM)
        weights = np.exp(-0.5 * ((patch * grid.pixel_nm[1:]) ** 2).sum(axis=1) / PATCH_NM**2)
        at_border = np.any((self.places < rim) | (self.places >= self.shape - rim), axis=1)
        parts: list[list[Scored]] = [[] for _ in looks]
        for border in (False, True):
            group = np.flatnonzero(at_border == border)
            for start in range(0, len(group), _FEW):
                some = group[start : start + _FEW]
                at = self.places[some]
                there = at if moved is None else at - moved[some]
                within = weights[:, None].astype(np.float32)
                if border:  # what lies beyond it counts for nothing
                    places = at + patch[:, None]
                    within = within * np.all((places >= 0) & (places < self.shape), axis=2)
                for part, scored in zip(parts, self._scored(pre, at, there, within, looks), strict=True):
                    part.append(scored)
        return [_joined(part) for part in parts]

    def _scored(
        self, pre: Map, at: Array, there: Array, weights: Plane, looks: Sequence[tuple[int, int]]
    ) -> Iterator[Scored]:
        """A `Scored` for each look, of candidates `at` looked up `there`; weights are (patch, n), or (patch, 1)."""
        grid, last = self._grid, np.array(self.shape) - 1
        row = np.array([self._post.shape[1], 1])
        rim = grid.rim @ row
        near, region = grid.offsets(CLEFT_NM), grid.offsets(REGION_NM)
        steps = grid.offsets(2 * PATCH_NM) @ row
        one, other, here = self._post.reshape(-1), pre.reshape(-1), at @ row + rim
        first = _looked_up(one, here, steps)
        weighted = first * weights
        size = np.sqrt(np.einsum("kn,kn->n", first, weighted))
        for look in looks:
            base = (np.clip(there, 0, last) if look == (0, 0) else (there - look) % self.shape) @ row + rim
            best, where = _meeting(first, other, base, steps[: len(near)])
            kept = np.flatnonzero(best > LOW)
            second = _looked_up(other, base[kept], steps)
            inner = np.einsum("kn,kn->n", weighted[:, kept], second)
            second *= second
            second *= weights if weights.shape[1] == 1 else weights[:, kept]
            score = best[kept] * inner / np.maximum(size[kept] * np.sqrt(second.sum(axis=0)), np.float32(1e-6))
            good = np.flatnonzero(score >= LOW)
            kept = kept[good]
            step = steps[where[kept]]
            places = np.clip(at[kept] + near[where[kept]], 0, last).astype(np.int32)
            regions = np.zeros(len(kept), np.uint64)
            if look == (0, 0):
                regions = _region(one, other, (here[kept] + step, base[kept] + step), region @ row)
            yield Scored(score[good], places, regions)


def _joined(parts: Sequence[Scored]) -> Scored:
    if not parts:
        return Scored(np.zeros(0, np.float32), np.zeros((0, 2), np.int32), np.zeros(0, np.uint64))
    names = ("scores", "places", "regions")
    return Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _region(one: Map, other: Map, places: tuple[Array, Array], steps: Array) -> NDArray[np.uint64]:
    """A bit for each step at which both maps meet at half of their strength at the places, indices into the maps."""
    p, s = (np.maximum(_looked_up(flat, at, steps), 0) for flat, at in zip((one, other), places, strict=True))
    both = p * s / (p + s + np.float32(1e-6))
    bits = np.uint64(1) << np.arange(len(steps), dtype=np.uint64)
    return np.asarray(((2 * both >= both[0]) * bits[:, None]).sum(axis=0, dtype=np.uint64))


def _looked_up(flat: Map, base: Array, steps: Array) -> Plane:
    """(steps, n), in local scales."""
    out = np.empty((len(steps), len(base)), np.float32)
    for row, step in zip(out, steps, strict=True):
        row[:] = flat[base + step]
    out *= np.float32(1 / STEPS)
    return out


def _meeting(first: Plane, flat: Map, base: Array, steps: Array) -> tuple[Plane, NDArray[np.int16]]:
    """The highest p s / (p + s) at one of the steps, and at which."""
    best = np.zeros(len(base), np.float32)
    where = np.zeros(len(base), np.int16)
    for n, step in enumerate(steps):
        p, s = np.maximum(first[n], 0), flat[base + step].astype(np.float32)
        s *= np.float32(1 / STEPS)
        np.maximum(s, 0, out=s)
        both = p * s / (p + s + np.float32(1e-6))
        better = both > best
        where[better] = n
        np.maximum(best, both, out=best)
    return best, where


def _highest(post: Map, rim: tuple[int, int]) -> NDArray[np.intp]:
    """(n, 2): the pixels y, x that none of their eight neighbours exceeds, and that stand out by FAINT."""
    down, right = rim
    high, wide = post.shape[0] - 2 * down, post.shape[1] - 2 * right
    found = []
    rows = max(1, _STRIP // wide)
    for top in range(0, high, rows):
        bottom = min(high, top + rows)
        part = post[down + top - 1 : down + bottom + 1, right - 1 : right + wide + 1]
        three = np.maximum(np.maximum(part[:-2], part[1:-1]), part[2:])
        nine = np.maximum(np.maximum(three[:, :-2], three[:, 1:-1]), three[:, 2:])
        here = part[1:-1, 1:-1]
        flat = np.flatnonzero((here >= nine) & (here >= FAINT * STEPS))
        y, x = np.divmod(flat, wide)
        found.append(np.stack([y + top, x], axis=1))
    return np.concatenate(found)
