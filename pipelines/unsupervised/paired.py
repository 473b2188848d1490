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

from pipelines.common.boxes import Box, Triple

Array = NDArray[Any]
Plane = NDArray[np.float32]
Map = NDArray[np.int16]
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
_STRIP = 2**17
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
        return self.bins[0], self.bins[1] * self.tile[0], self.bins[2] * self.tile[1]

    def holding(self, box: Box) -> list[tuple[int, int]]:
        """The pixels that hold a box of voxels, half-open, along z, y, x."""
        return [(low // side, -(-high // side)) for (low, high), side in zip(box, self.bins, strict=True)]

    def middles(self, places: Array, extent: Triple) -> NDArray[np.float64]:
        """(n, 3): the middles of pixels (n, 3) of a volume of so many voxels, counted from the first voxel's corner.

        The last pixel along an axis may lack voxels: its middle is that of those that there are.
        """
        found = np.empty(places.shape)
        for axis, (side, most) in enumerate(zip(self.bins, extent, strict=True)):  # which takes less memory
            first = places[:, axis].astype(np.int64) * side
            found[:, axis] = (first + np.minimum(first + side, most)) / 2
        return found

    @lru_cache(64)  # noqa: B019 - there are few grids
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
    def tile(self) -> tuple[int, int]:
        """Pixels in a tile's side."""
        return self.block[0] * _TILE, self.block[1] * _TILE

    @property
    def local(self) -> Pair:
        """Along y and x the standard deviation, in tiles, of the Gaussian of the surroundings."""
        down, right = (LOCAL_NM / size / side for size, side in zip(self.pixel_nm[1:], self.tile, strict=True))
        return down, right

    @property
    def surround(self) -> Pair:
        """The standard deviation, in blocks, that makes SURROUND_NM with what blocks and lines between them blur."""
        down, right = (
            math.sqrt(max(0.01, (SURROUND_NM / size) ** 2 - (3 * side**2 - 3) / 12)) / side
            for size, side in zip(self.pixel_nm[1:], self.block, strict=True)
        )
        return down, right

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
    strips = _strips(high, wide, grid)
    weights = [_gaussian(PUNCTUM_NM / size) for size in grid.pixel_nm[1:]]
    plane, blocks = _rooted(section, grid, weights)
    surround = _around(blocks, grid.surround)
    buffer, squares = np.empty((strips[0].stop, wide), np.float32), []
    for rows in strips:
        part = buffer[: rows.stop - rows.start]
        _weighted(plane[rows.start : rows.stop + 2 * len(weights[0]) - 2, :wide], weights[0], out=part)
        part -= _down(_across(_lines(surround, rows, grid.block[0]), grid.block[1], wide), grid.block[0], len(part))
        plane[rows, :wide] = part  # in the place of rows that no later strip needs
        part *= part
        squares.append(_means(part, grid.tile))
    local = np.sqrt(_around(np.concatenate(squares), grid.local))
    levels = np.asarray(STEPS / np.maximum(local, ROUNDED), np.float32)
    scale = _across(levels, grid.tile[1], wide) * _steadier(weights[1], wide)
    steadier = _steadier(weights[0], high)[:, None]
    rim = grid.rim
    out = np.empty((high + 2 * rim[0], wide + 2 * rim[1]), np.int16)
    inside = out[rim[0] : rim[0] + high, rim[1] : rim[1] + wide]
    out[: rim[0]] = out[rim[0] + high :] = 0
    out[:, : rim[1]] = out[:, rim[1] + wide :] = 0
    for rows in strips:
        part = _down(_lines(scale, rows, grid.tile[0]), grid.tile[0], rows.stop - rows.start)
        part *= plane[rows, :wide]
        if rows.start < len(weights[0]) or rows.stop > high - len(weights[0]):
            part *= steadier[rows]
        np.rint(part, out=part)
        np.clip(part, -32000, 32000, out=part)
        inside[rows] = part
    return out


def _rooted(section: Array, grid: Grid, weights: Sequence[Sequence[float]]) -> tuple[Plane, Plane]:
    """The square root, smoothed along x; and the root's means over blocks.

    The smoothed plane has as many mirrored rows at both ends as smoothing along y needs, and some more columns at the
    right, whose values mean nothing.
    """
    high, wide = section.shape
    strips = _strips(high, wide, grid)
    origin = _across(_origin(section, grid), grid.tile[1], wide)
    down, right = (len(some) - 1 for some in weights)
    plane = np.empty((high + 2 * down, wide + 2 * right), np.float32)
    buffer, blocks = np.empty((strips[0].stop, wide + 2 * right), np.float32), []
    for rows in strips:
        part = buffer[: rows.stop - rows.start]
        root = part[:, right : right + wide]
        np.subtract(section[rows], _down(_lines(origin, rows, grid.tile[0]), grid.tile[0], len(part)), out=root)
        np.clip(root, 0, np.inf, out=root)
        np.sqrt(root, out=root)
        blocks.append(_means(root, grid.block))
        _mirror(part.T, right)
        # as one row: fast, and wrong only where one row meets the next
        smooth = plane[down + rows.start : down + rows.stop].reshape(-1)[: part.size - 2 * right]
        _weighted(part.reshape(-1), weights[1], out=smooth)
    _mirror(plane, down)
    return plane, np.concatenate(blocks)


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


def _origin(section: Array, grid: Grid) -> Plane:
    """Where the square root begins, at each tile.

    As far below the lowest values around as the mean is above them: so the root is nearly linear in the noise of the
    background, and a root in the puncta. Four rows of each tile are looked at.
    """
    down, right = grid.tile
    seen = section[:: down // 4]
    lowest = _grouped(np.minimum, _grouped(np.minimum, seen, 4).T, right).T
    return 2 * _around(lowest.astype(np.float32), grid.local) - _around(_means(seen, (4, right)), grid.local)


def _strips(high: int, wide: int, grid: Grid) -> list[slice]:
    """The rows in strips of whole tiles, about _STRIP pixels each."""
    rows = max(1, _STRIP // wide // grid.tile[0]) * grid.tile[0]
    return [slice(top, min(high, top + rows)) for top in range(0, high, rows)]


@cache
def _gaussian(sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian from its middle on, to two standard deviations; both sides sum to 1."""
    steps = np.arange(max(1, math.ceil(2 * sigma - 0.01)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    return tuple(float(w) for w in weights / (2 * weights.sum() - weights[0]))


def _mirror(plane: Plane, many: int) -> None:
    """Set so many rows at both ends to the mirror image of those inside."""
    inside = len(plane) - 2 * many
    for n in range(many):
        image = n % (2 * inside)
        image = many + min(image, 2 * inside - 1 - image)
        plane[many - 1 - n] = plane[image]
        plane[n - many] = plane[len(plane) - 1 - image]


def _weighted(plane: Plane, weights: Sequence[float], *, out: Plane) -> None:
    """The sums of rows, weighted from the middle one on to both sides; there are fewer of them than rows."""
    reach, count = len(weights) - 1, len(out)
    np.multiply(plane[reach : reach + count], np.float32(weights[0]), out=out)
    both = np.empty_like(out)
    for step, weight in enumerate(weights[1:], start=1):
        np.add(plane[reach - step :][:count], plane[reach + step :][:count], out=both)
        both *= np.float32(weight)
        out += both


@cache
def _bell(sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian from its middle on, to _WINDOW standard deviations."""
    reach = max(1, int(_WINDOW * sigma + 0.5))
    return tuple(math.exp(-0.5 * (n / sigma) ** 2) for n in range(reach + 1))


@lru_cache(64)
def _counted(count: int, sigma: float) -> NDArray[np.float32]:
    """(count,): the sum of the weights of a `_bell` round each place that are not beyond the ends."""
    reach = len(_bell(sigma)) - 1
    ones, out = np.zeros(count + 2 * reach, np.float32), np.empty(count, np.float32)
    ones[reach : reach + count] = 1
    _weighted(ones, _bell(sigma), out=out)
    return out


def _around(values: Plane, sigmas: Pair) -> Plane:
    """Gaussian means along y and x; what lies beyond the ends does not count."""
    high, wide = values.shape
    down, right = (_bell(sigma) for sigma in sigmas)
    y, x = len(down) - 1, len(right) - 1
    rows = max(4 * y, _STRIP // wide)
    out = np.empty_like(values)
    for top in range(0, high, rows):
        bottom = min(high, top + rows)
        low, end = max(0, top - y), min(high, bottom + y)
        seen = np.zeros((end - low, wide + 2 * x), np.float32)
        seen[:, x : x + wide] = values[low:end]
        lines = np.zeros((bottom - top + 2 * y, wide), np.float32)
        _weighted(seen.T, right, out=lines[low - top + y : end - top + y].T)
        _weighted(lines, down, out=out[top:bottom])
    out /= _counted(high, sigmas[0])[:, None] * _counted(wide, sigmas[1])
    return out


def _grouped(put: np.ufunc, values: Array, side: int, dtype: Any = None) -> Array:
    """Groups of `side` rows, the last of which may be smaller, each put together by a ufunc."""
    whole = len(values) // side * side
    out = values[0:whole:side].astype(dtype or values.dtype)
    for n in range(1, side):
        put(out, values[n:whole:side], out=out)
    if whole == len(values):
        return out
    return np.concatenate([out, put.reduce(values[whole:], axis=0, dtype=out.dtype, keepdims=True)])


def _means(values: Array, sides: tuple[int, int]) -> Plane:
    """Means over groups of so many rows and columns, the last of which may be smaller."""
    sums = _grouped(np.add, _grouped(np.add, values, sides[0], np.float32).T, sides[1]).T
    sums *= _shares(values.shape[0], sides[0])[:, None]
    sums *= _shares(values.shape[1], sides[1])
    return np.asarray(sums)


@lru_cache(64)
def _shares(count: int, side: int) -> NDArray[np.float32]:
    """One over how many of `count` there are in each group of `side`."""
    return np.asarray(1 / np.minimum(side, count - np.arange(0, count, side)), np.float32)


@cache
def _fractions(side: int) -> NDArray[np.float32]:
    """(side,): how far the members of a group are from its middle, in groups."""
    return ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)


def _lines(groups: Plane, rows: slice, side: int) -> Plane:
    """The groups of `side` rows that hold `rows`, and one more at each end: the last one again where there is none."""
    first, last = rows.start // side - 1, -(-rows.stop // side) + 1
    if first >= 0 and last <= len(groups):
        return groups[first:last]
    return np.asarray(groups[np.clip(np.arange(first, last), 0, len(groups) - 1)])


def _down(lines: Plane, side: int, count: int) -> Plane:
    """So many rows on the straight lines between the middles of groups of `side` rows; `lines` are as of `_lines`."""
    part, half = _fractions(side)[:, None], side // 2
    steps = (lines[1:] - lines[:-1])[:, None]
    out = np.empty((len(lines) - 2, side, lines.shape[1]), np.float32)
    np.multiply(steps[:-1], part[:half], out=out[:, :half])
    np.multiply(steps[1:], part[half:], out=out[:, half:])
    out += lines[1:-1, None]
    return out.reshape(-1, lines.shape[1])[:count]


def _across(groups: Plane, side: int, count: int) -> Plane:
    """So many columns on the straight lines between the middles of groups of `side` columns, level beyond the last."""
    steps = np.zeros((groups.shape[0], groups.shape[1] + 1), np.float32)
    np.subtract(groups[:, 1:], groups[:, :-1], out=steps[:, 1:-1])
    out = np.empty((groups.shape[0], groups.shape[1], side), np.float32)
    for n, part in enumerate(_fractions(side)):
        np.add(groups, (steps[:, :-1] if n < side // 2 else steps[:, 1:]) * part, out=out[:, :, n])
    return out.reshape(len(groups), -1)[:, :count]


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
        root = np.exp(-0.25 * ((patch * grid.pixel_nm[1:]) ** 2).sum(axis=1) / PATCH_NM**2).astype(np.float32)
        at_border = np.any((self.places < rim) | (self.places >= self.shape - rim), axis=1)
        parts: list[list[Scored]] = [[] for _ in looks]
        for border in (False, True):
            group = np.flatnonzero(at_border == border)
            for start in range(0, len(group), _FEW):
                some = group[start : start + _FEW]
                at = self.places[some]
                there = at if moved is None else at - moved[some]
                weights = root[None]
                if border:  # what lies beyond it counts for nothing
                    places = at[:, None] + patch
                    weights = weights * np.all((places >= 0) & (places < self.shape), axis=2)
                for part, scored in zip(parts, self._scored(pre, at, there, weights, looks), strict=True):
                    part.append(scored)
        return [_ordered(_joined(part)) for part in parts]

    def _scored(
        self, pre: Map, at: Array, there: Array, weights: Plane, looks: Sequence[tuple[int, int]]
    ) -> Iterator[Scored]:
        """A `Scored` for each look, of candidates `at` looked up `there`.

        `weights` are (n, patch), or (1, patch) for all: the square roots of those of the patch.
        """
        grid, last = self._grid, np.array(self.shape) - 1
        row = np.array([self._post.shape[1], 1])
        rim = grid.rim @ row
        near, region = grid.offsets(CLEFT_NM), grid.offsets(REGION_NM)
        steps = grid.offsets(2 * PATCH_NM) @ row
        one, other, here = self._post.reshape(-1), pre.reshape(-1), at @ row + rim
        faint = _faintness(one, here, steps[: len(near)])
        seen = []
        for look in looks:
            base = (np.clip(there, 0, last) if look == (0, 0) else (there - look) % self.shape) @ row + rim
            both = _faintness(other, base, steps[: len(near)])
            both += faint
            seen.append((look, base, both, 1 / both.min(axis=0)))
        # a patch is needed of those alone that some look keeps
        needed = np.flatnonzero(np.max([best for *_, best in seen], axis=0) > LOW)
        place = np.zeros(len(at), np.intp)
        place[needed] = np.arange(len(needed))
        first = one.take(here[needed, None] + steps) * (weights if len(weights) == 1 else weights[needed])
        size = np.sqrt(np.einsum("nk,nk->n", first, first))
        for look, base, both, best in seen:
            kept = np.flatnonzero(best > LOW)
            mine = place[kept]
            second = other.take(base[kept, None] + steps) * (weights if len(weights) == 1 else weights[kept])
            sizes = size[mine] * np.sqrt(np.einsum("nk,nk->n", second, second))
            score = best[kept] * np.einsum("nk,nk->n", first.take(mine, axis=0), second)
            score /= np.maximum(sizes, np.float32(1e-6))
            good = np.flatnonzero(score >= LOW)
            kept = kept[good]
            where = both[:, kept].argmin(axis=0)
            places = np.clip(at[kept] + near[where], 0, last).astype(np.int32)
            regions = np.zeros(len(kept), np.uint64)
            if look == (0, 0):
                regions = _region(one, other, (here[kept] + steps[where], base[kept] + steps[where]), region @ row)
            yield Scored(score[good], places, regions)


def _joined(parts: Sequence[Scored]) -> Scored:
    if not parts:
        return Scored(np.zeros(0, np.float32), np.zeros((0, 2), np.int32), np.zeros(0, np.uint64))
    names = ("scores", "places", "regions")
    return Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _ordered(scored: Scored) -> Scored:
    """In the order of places: it must not tell which candidates lay at the border of what was looked at."""
    y, x = scored.places.astype(np.int64).T
    keys = y * (int(x.max(initial=0)) + 1) + x
    order = np.argsort(keys, kind="stable")  # fast, as they are nearly in order
    same = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(same) and scored.regions.any():
        tied = np.union1d(same, same + 1)
        rows = order[tied]
        order[tied] = rows[np.lexsort((scored.regions[rows], keys[rows]))]
    return Scored(scored.scores[order], scored.places[order], scored.regions[order])


def _region(one: Map, other: Map, places: tuple[Array, Array], steps: Array) -> NDArray[np.uint64]:
    """A bit for each step at which both maps meet at half of their strength at the places, indices into the maps."""
    both = _faintness(one, places[0], steps) + _faintness(other, places[1], steps)
    bits = np.uint64(1) << np.arange(len(steps), dtype=np.uint64)
    return np.asarray(((both <= 2 * both[0]) * bits[:, None]).sum(axis=0, dtype=np.uint64))


def _faintness(flat: Map, base: Array, steps: Array) -> Plane:
    """(steps, n): one over the values at each step from indices into a map, in local scales.

    Those of both markers add up to one over p s / (p + s). What does not stand out counts as the least step.
    """
    return np.asarray(np.float32(STEPS) / np.maximum(flat.take(steps[:, None] + base), 1))


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
        flat = np.flatnonzero((here >= nine) & (here >= int(FAINT * STEPS)))
        y, x = np.divmod(flat, wide)
        found.append(np.stack([y + top, x], axis=1))
    return np.concatenate(found)
