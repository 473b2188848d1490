"""The default method: both markers stand out from their own surroundings at one place.

1. A matched filter: voxels are summed with triangular weights over 3 x 5 x 5 voxels, about the size of a punctum.
2. The square root of the sums: it makes shot noise the same everywhere (Anscombe 1948, doi 10.1093/biomet/35.3-4.246)
   and cuts the long tail off the noise of dim data, which would otherwise pass for puncta.
3. The background: parabolas fitted to the means of squares of 8 x 8 pixels of the same section, those within 4 squares,
   near ones counting for more (local regression, Cleveland 1979, doi 10.1080/01621459.1979.10481038), so that neither
   a slope nor a curve of the background is taken for light.
4. The noise: the spread of what is darker than the background, where no puncta are, over some 64 x 64 pixels; and what
   the background misses nearby, as at sharp edges. What is left says how much a voxel stands out, in standard
   deviations of its surroundings' noise.
5. A voxel is a synapse's if the weaker marker stands out by WEAKER and both on average by TOGETHER, and if it is in the
   core of its punctum: above CORE of the highest average nearby. That parts synapses that touch, and refuses the noise
   beside a bright punctum of one marker alone.

Pixels much finer than light resolves are first put together. A voxel's surroundings are all that matters to it, so that
a volume worked on in parts gives what it gives in one piece. Channels are to be counted from their lowest value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.unsupervised.sections import along, three, windows

Array = NDArray[Any]
Plane = NDArray[np.float32]
Triple = tuple[int, int, int]

WEAKER, TOGETHER = 2.6, 3.3
"""In standard deviations; the lowest pair that keeps the noise rule with room to spare (docs/detection.md)."""
CORE = 0.45
"""It also says how much weaker than the other a marker may be: 0.29 of it."""
SMALLEST = 6
"""An object of fewer pixels, a quarter of 3 x 3 x 3, is a coincidence of noise."""
PIXEL_NM = 67.0
"""A third of the smallest punctum, 200 nm (Simhal et al. 2017): finer voxels are put together to about this size."""
BLOCK, TILE = 8, 64
"""Sides, in pixels, of the squares that background and noise are measured in."""
REACH, AT_BORDER = 4, 7
"""Squares on either side that a parabola is fitted to, and on one side at a border: with fewer, it follows puncta as
well. Farther ones count for less, so that the background has no jumps, which would be as small as puncta."""
UNSURE, CALM = 3, 0.5
"""How many times the square of what the background misses adds to that of the noise; it has to be above this part of
it, as noise itself (0.2 of it) and faint puncta make squares darker and brighter."""
NODE = 4
"""Pixels between the places where the background is computed; it is linear in between."""
HALO = 2 * TILE
"""Rows, in pixels, beyond which nothing matters; parts of a section start at multiples of TILE."""
SPARSE = 4
"""Every so many rows are looked at for background and noise; smoothed rows in between say nearly the same."""
STEPS = 4
"""Levels a standard deviation."""
_FINE = 4 * STEPS
"""Steps a standard deviation where a voxel is compared with the highest nearby."""
_WEIGHT, _SQUARES = 3 * 9**2, 3 * 19**2
"""Sums of the weights and of their squares."""
_SPREAD = _SQUARES / _WEIGHT
"""How much more than its mean a weighted sum of photons varies."""
_MIRRORED = ((5, 3, 1), (3, 3, 2, 1))
"""The weights, along one axis, of a section's outermost pixel and of the next: 1 2 3 2 1, mirrored."""


def bins_for(voxel_nm: tuple[float, float, float]) -> Triple:
    """How many voxels make a pixel along z, y, x."""
    z, y, x = (max(1, round(PIXEL_NM / size)) for size in voxel_nm)
    return z, y, x


def levels(
    pairs: Iterable[tuple[Array, Array]], *, photons: tuple[float, float], bins: Triple
) -> Iterator[NDArray[np.uint8]]:
    """For each pair of sections (y, x; unsigned integers), in the order of z: STEPS times the standard deviations by
    which both markers stand out on average, at most 255, where a synapse may be; 0 elsewhere.

    `photons` is how many grey levels one is in each marker. With bins, it is for each layer of pixels.
    """
    voxels = math.prod(bins)
    grey = [max(1.0, photon) for photon in photons]
    smoothed = ((_smoothed(one), _smoothed(other)) for one, other in _put_together(pairs, bins))
    standing_out = (
        (_standing_out(one, photon=grey[0], voxels=voxels), _standing_out(other, photon=grey[1], voxels=voxels))
        for one, other in (zip(*near, strict=True) for near in windows(smoothed, 1))
    )
    yield from _cores(standing_out)


def _put_together(pairs: Iterable[tuple[Array, Array]], bins: Triple) -> Iterator[tuple[Array, Array]]:
    """Pairs of sections as they are, or of layers of pixels: the means over bins of voxels."""

    def pixels(sections: tuple[Array, ...]) -> Plane:
        rows, columns = (np.arange(0, n, side) for n, side in zip(sections[0].shape, bins[1:], strict=True))
        sums = sum(np.add.reduceat(section, rows, axis=0, dtype=np.float64) for section in sections)
        sizes = [np.diff(np.append(starts, n)) for starts, n in zip((rows, columns), sections[0].shape, strict=True)]
        means = np.add.reduceat(sums, columns, axis=1) / (np.outer(*sizes) * len(sections))
        return np.asarray(means, np.float32)

    pairs = iter(pairs)
    while group := list(itertools.islice(pairs, bins[0])):
        one, other = zip(*group, strict=True)
        yield group[0] if bins == (1, 1, 1) else (pixels(one), pixels(other))


def _smoothed(section: Array) -> Array:
    """Sums over a section with the weights 1 2 3 2 1 along y and x, the section being mirrored at its edges."""
    exact = {np.dtype(np.uint8): np.uint16, np.dtype(np.uint16): np.uint32}
    padded = np.pad(section, 2, mode="symmetric").astype(exact.get(section.dtype, np.float32))
    return three(three(three(three(padded, 0), 0), 1), 1)


def _standing_out(near: tuple[Array, ...], *, photon: float, voxels: int) -> Plane:
    """By how many standard deviations of the noise around it each pixel stands out; from three smoothed sections.

    `photon` is how many grey levels of a voxel a photon is, `voxels` how many voxels make a pixel.
    """
    seen = (near[0] + near[1] + near[2]).astype(np.float32)
    seen += np.float32(0.375 * _SPREAD * photon / voxels)  # Anscombe's three eighths
    np.sqrt(seen, out=seen)
    (y, x), tiles = (
        [_squares(n, side, step) for n, step in zip(seen.shape, (SPARSE, 1), strict=True)] for side in (BLOCK, TILE)
    )
    means = _means(seen[::SPARSE], (y, x))
    background = x.fitted(y.fitted(means).T).T
    seen -= _between(background, y.nodes, x.nodes)
    darker = np.minimum(seen[::SPARSE], 0)
    darker *= darker
    level = _between(background, *(axis.centres / NODE for axis in tiles))
    spread = np.maximum(2 * _means(darker, tiles), _least(level, photon, voxels) ** 2)
    spread = _between(spread, tiles[0].among(y.centres), tiles[1].among(x.centres))
    scale = 1 / np.sqrt(spread + UNSURE * np.maximum(0, _missed(means, background, y, x) - CALM * spread))
    scale = np.repeat(scale, x.sizes, axis=1)
    for n, weights in enumerate(_MIRRORED[: min(seen.shape)]):
        steadier = np.float32(np.sqrt(19 / np.sum(np.square(weights))))
        scale[:, [n, -1 - n]] *= steadier
        seen[[n, -1 - n]] *= steadier
    seen *= np.repeat(scale, y.sizes, axis=0)
    return seen


def _missed(means: Plane, background: Plane, y: _Squares, x: _Squares) -> Plane:
    """The square of how far the background may be from the truth around each square.

    Where it does not fit, as at a sharp edge, squares are darker than it, besides others that are brighter: twice the
    mean of the former says how much, as puncta are never dark. And where light bends, what is linear between nodes
    leaves it, in a pattern as small as puncta.
    """
    dark = np.minimum(means - _between(background, y.centres / NODE, x.centres / NODE), 0)
    dark *= dark
    padded = np.pad(dark, 2, mode="symmetric")
    around = three(three(three(three(padded, 0), 0), 1), 1)
    around *= np.float32(2 / 81)
    for grid, along_it, across in ((background, y, x), (background.T, x, y)):
        n = along_it.middles
        near = grid[:, across.middles]
        bend = near[n - 1] - 2 * near[n] + near[n + 1]
        bend *= bend / 24  # a curve leaves its chord by an eighth; at a 64th, spots of 30 pixels still showed puncta
        around += bend if grid is background else bend.T
    return np.asarray(around)


def _least(level: Plane, photon: float, voxels: int) -> Plane:
    """The least noise that is believed where the square root of the sums is at that level.

    What nearly always is the same number has a noise that cannot be measured. So no voxel is taken to vary by less than
    half a photon, nor, where that is less, than photons do: a few stray ones are no signal where nearly everything is
    0. And 4-byte numbers are rounded.
    """
    photons = 0.5 * np.sqrt(_SPREAD * photon / voxels)
    few = np.minimum(1, 0.5 * np.sqrt(_WEIGHT * photon) / level)
    return np.asarray(np.maximum(photons * few, 2**-20 * level), np.float32)


def _cores(pairs: Iterable[tuple[Plane, Plane]]) -> Iterator[NDArray[np.uint8]]:
    """Step 5, from how much each of the markers stands out."""

    def candidates(pair: tuple[Plane, Plane]) -> tuple[Array, Plane, Array, Array]:
        """Where both markers stand out enough, the weaker one there, the average, the highest average nearby."""
        average = pair[0] + pair[1]
        average *= np.float32(_FINE / 2)
        fine = np.clip(average, 0, 65535, out=average).astype(np.uint16)  # small numbers are compared faster
        where = np.flatnonzero(fine > int(TOGETHER * _FINE))
        weaker = np.minimum(*(marker.reshape(-1)[where] for marker in pair))
        enough = weaker > WEAKER
        highest = _highest_of_seven(_highest_of_seven(np.pad(fine, 3, mode="edge"), 0), 1)
        return where[enough], weaker[enough], fine, highest

    for near in windows(map(candidates, pairs), 2):
        where, weaker, average, _ = near[2]
        highest = reduce(np.maximum, (peak.reshape(-1)[where] for *_, peak in near))
        core = where[weaker > highest * np.float32(CORE / _FINE)]
        level = np.zeros(average.shape, np.uint8)
        level.reshape(-1)[core] = np.minimum(average.reshape(-1)[core] // (_FINE // STEPS), 255)
        yield level


def _highest_of_seven(padded: Array, axis: int) -> Array:
    """The highest of seven neighbours along an axis; the result is shorter by 6."""
    size = padded.shape[axis]
    twos = np.maximum(along(padded, axis, 0, size - 1), along(padded, axis, 1, size - 1))
    fours = np.maximum(along(twos, axis, 0, size - 3), along(twos, axis, 2, size - 3))
    return np.asarray(np.maximum(along(fours, axis, 0, size - 6), along(fours, axis, 3, size - 6)))


class _Squares:
    """An axis cut into equal lengths; the last is longer by what would be less than half of one. Every `step`th place
    is looked at."""

    def __init__(self, length: int, side: int, step: int) -> None:
        starts = np.arange(0, max(1, length - side // 2 + 1), side)
        self.side, self.step = side, step
        self.sizes = np.diff(np.append(starts, length))
        # where the light of a smoothed pixel comes from: at an edge, where it is mirrored, from farther inside
        light = three(three(np.pad(np.arange(length), 2, mode="symmetric"), 0), 0) / 9
        seen, first = light[::step], starts // step
        count = np.diff(np.append(first, len(seen)))
        self.centres = np.add.reduceat(seen, first) / count
        self._spread = np.add.reduceat(seen**2, first) / count - self.centres**2
        self.nodes = _rounded(light / NODE, 2**12)
        """Places, counted in nodes."""

    @cached_property
    def middles(self) -> NDArray[np.intp]:
        """The nodes next to the centres."""
        return np.maximum(np.rint(self.centres / NODE).astype(np.intp), 1)

    @cached_property
    def _fit(self) -> tuple[NDArray[np.intp], Plane]:
        """For each node, the first of the squares it is computed from, and their weights."""
        squares, length = len(self.centres), self.sizes.sum()
        width = min(2 * REACH, squares)
        nodes = np.arange(0, length + 2 * NODE, NODE)[:, None]
        before = np.interp(nodes, self.centres, np.arange(squares)).astype(np.intp)
        near = np.clip(before - REACH + 1, 0, squares - width) + np.arange(width)
        away = (self.centres[near] - nodes) / self.side
        reach = np.maximum(REACH, AT_BORDER - np.minimum(nodes, length - nodes) / self.side)
        weight = np.sqrt(np.maximum(0, 1 - (away / reach) ** 2))
        # the mean of a parabola over a square; and what it loses where it is linear between nodes
        bent = away**2 + (self._spread[near] + NODE**2 / 6) / self.side**2
        terms = [np.ones_like(away), away, bent][: 1 + (squares > 2) + (squares > 4)]
        weights = np.linalg.pinv(np.stack(terms, axis=2) * weight[:, :, None])[:, 0] * weight
        return near[:, 0], _rounded(weights, 2**22).astype(np.float32)

    def fitted(self, means: Plane) -> Plane:
        """The background at the nodes along this axis, from the means over the squares."""
        first, weights = self._fit
        values = weights[:, :1] * means[first]
        for n in range(1, weights.shape[1]):
            values += weights[:, n : n + 1] * means[first + n]
        return values

    def among(self, places: Array) -> NDArray[np.float64]:
        """Where places are among the centres, counted in squares; what is farther out is at the outermost one."""
        return _rounded(np.interp(places, self.centres, np.arange(len(self.centres))), 2**12)


_squares = lru_cache(maxsize=64)(_Squares)


def _rounded(numbers: Array, steps: int) -> NDArray[np.float64]:
    """To so many steps of 1: the same wherever a part of a section begins."""
    return np.asarray(np.rint(numbers * steps) / steps)


def _means(sparse: Plane, squares: Sequence[_Squares]) -> Plane:
    """Means over squares, from the rows and columns that are looked at."""
    for axis in squares:  # along rows, then, on its side, along columns
        head, side = len(axis.sizes) - 1, axis.side // axis.step
        equal = sparse[: head * side].reshape(head, side, sparse.shape[1]).mean(axis=1)  # much faster than reduceat
        last = sparse[head * side :].mean(axis=0, keepdims=True)
        sparse = np.ascontiguousarray(np.concatenate([equal, last]).T)
    return sparse


def _between(grid: Plane, y: Array, x: Array) -> Plane:
    """Values at places counted in squares, linear between their centres."""
    for where in (x, y):  # along columns while the grid is small
        grid = np.ascontiguousarray(grid.T)
        before = where.astype(np.intp)
        values = np.diff(grid, axis=0, append=grid[-1:])[before]
        values *= (where - before).astype(np.float32)[:, None]
        values += grid[before]
        grid = values
    return grid
