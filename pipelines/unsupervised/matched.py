"""The default method: both markers stand out from their own surroundings at one place.

1. A matched filter: voxels are summed with triangular weights over 3 x 5 x 5 voxels, about the size of a punctum.
2. The square root of the sums: it makes shot noise the same everywhere (Anscombe 1948, doi 10.1093/biomet/35.3-4.246)
   and cuts the long tail off the noise of dim data, which would otherwise pass for puncta.
3. The background: parabolas fitted to the means of squares of 8 x 8 pixels of the same section, those within 4 squares,
   near ones counting for more (local regression, Cleveland 1979, doi 10.1080/01621459.1979.10481038), so that neither
   a slope nor a curve of the background is taken for light.
4. The noise: the spread of what is darker than the background, where no puncta are, over some 64 x 64 pixels; and what
   the background misses nearby, as at sharp edges: squares that are darker than it, and rows of brighter ones, as
   puncta are never dark and never long. Light that both markers share misleads most: rows of squares that are brighter
   in both count for much more. What is left says how much a voxel stands out, in standard deviations of its
   surroundings' noise.
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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

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
UNSURE, CALM = 3, 0.45
"""How many times the square of what the background misses adds to that of the noise; it has to be above this part of
it, as noise itself (0.2 of it) and faint puncta make squares darker and brighter."""
ROW, NEAR = 5, 3
"""Squares in a row, in any of eight directions, that are all brighter than the background where it misses something:
40 pixels, while a punctum and its halo reach into three. Noise makes one row in 32 such, in both markers one in 1,024,
and puncta hardly ever do. And how many squares from its middle it counts."""
SHARED = 16
"""How many times the square of what the background misses in both markers at once adds to the noise's: one standard
deviation there makes a voxel stand out by a quarter of what it would."""
NODE = 4
"""Pixels between the places where the background is computed; it is linear in between."""
HALO = 3 * TILE
"""Rows, in pixels, beyond which nothing matters: the noise of two tiles, rows of squares, and a core's surroundings
reach 139. Parts of a section start at multiples of TILE."""
SPARSE = 4
"""Every so many rows, and the last, are looked at for background and noise; smoothed rows in between say nearly the
same."""
STEPS = 4
"""Levels a standard deviation."""
_FINE = 4 * STEPS
"""Steps a standard deviation where a voxel is compared with the highest nearby."""
_ROW_STEPS = 32
"""Steps a standard deviation where squares in a row are compared."""
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
    """How far both markers stand out, for each pair of sections (y, x; unsigned integers) in the order of z.

    Where a synapse may be, it is STEPS times the standard deviations by which both stand out on average, at most 255;
    elsewhere 0.

    `photons` is how many grey levels one is in each marker. With bins, it is for each layer of pixels.
    """
    voxels = math.prod(bins)
    smoothed = ((_smoothed(one), _smoothed(other)) for one, other in _put_together(pairs, bins))
    above = (
        [
            _above(marker, photon=max(1.0, photon), voxels=voxels)
            for marker, photon in zip(zip(*near, strict=True), photons, strict=True)
        ]
        for near in windows(smoothed, 1)
    )
    yield from _cores(_standing_out(one, other) for one, other in above)


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


class _Above(NamedTuple):
    """What one marker's section has above its background, in square roots of sums of grey levels."""

    seen: Plane
    """At each pixel."""
    squares: Plane
    """The means over squares; beside a border, over the outer half of one if that is brighter."""
    noise: Plane
    """The square of the noise's standard deviation, at each square."""
    missed: Plane
    """The square of how far the background may be from the truth around each square."""
    y: _Squares
    x: _Squares


def _above(near: tuple[Array, ...], *, photon: float, voxels: int) -> _Above:
    """Of a section, from itself and its neighbours, smoothed.

    `photon` is how many grey levels of a voxel a photon is, `voxels` how many voxels make a pixel.
    """
    seen = (near[0] + near[1] + near[2]).astype(np.float32)
    seen += np.float32(0.375 * _SPREAD * photon / voxels)  # Anscombe's three eighths
    np.sqrt(seen, out=seen)
    (y, x), tiles = (
        [_squares(n, side, step) for n, step in zip(seen.shape, (SPARSE, 1), strict=True)] for side in (BLOCK, TILE)
    )
    means = _means(seen[y.seen], (y, x))
    background = _both(means, y.nodes, x.nodes)
    seen -= _both(background, y.pixels, x.pixels)
    darker = np.minimum(seen[y.seen], 0)
    darker *= darker
    level = _both(background, tiles[0].middles, tiles[1].middles)
    noise = np.maximum(2 * _means(darker, tiles), _least(level, photon, voxels) ** 2)
    noise = _both(noise, *(_between_tiles(n, step) for n, step in zip(seen.shape, (SPARSE, 1), strict=True)))
    squares = means - _both(background, y.middles, x.middles)
    missed = _missed(squares, background, y, x)
    _look_at_borders(squares, seen, y, x)
    return _Above(seen, squares, noise, missed, y, x)


def _standing_out(one: _Above, other: _Above) -> tuple[Plane, Plane]:
    """By how many standard deviations of the noise around it each pixel stands out, in both markers."""
    squares = [marker.squares / np.sqrt(marker.noise) for marker in (one, other)]
    *rows, shared = _rows(np.stack([*squares, np.minimum(*squares)]))

    def standing_out(marker: _Above, row: Plane) -> Plane:
        seen, noise = marker.seen, marker.noise
        missed = UNSURE * np.maximum(0, marker.missed / noise + row - CALM) + SHARED * shared
        scale = 1 / np.sqrt(noise * (1 + missed))
        scale = np.repeat(scale, marker.x.sizes, axis=1)
        for n, weights in enumerate(_MIRRORED[: min(seen.shape)]):
            steadier = np.float32(np.sqrt(19 / np.sum(np.square(weights))))
            scale[:, [n, -1 - n]] *= steadier
            seen[[n, -1 - n]] *= steadier
        seen *= np.repeat(scale, marker.y.sizes, axis=0)
        return seen

    return standing_out(one, rows[0]), standing_out(other, rows[1])


def _missed(squares: Plane, background: Plane, y: _Squares, x: _Squares) -> Plane:
    """The square of how far the background may be from the truth around each square.

    Where it does not fit, as at a sharp edge, squares are darker than it, besides others that are brighter: twice the
    mean of the former says how much, as puncta are never dark. And where light bends, what is linear between nodes
    leaves it, in a pattern as small as puncta.
    """
    dark = np.minimum(squares, 0)
    dark *= dark
    padded = np.pad(dark, 2, mode="symmetric")
    around = three(three(three(three(padded, 0), 0), 1), 1)
    around *= np.float32(2 / 81)
    for grid, along_it, across in ((background, y, x), (background.T, x, y)):
        n = along_it.nearest
        near = grid[:, across.nearest]
        bend = near[n - 1] - 2 * near[n] + near[n + 1]
        bend *= bend / 24  # a curve leaves its chord by an eighth; at a 64th, spots of 30 pixels still showed puncta
        around += bend if grid is background else bend.T
    return np.asarray(around)


def _look_at_borders(squares: Plane, seen: Plane, y: _Squares, x: _Squares) -> None:
    """Raise squares beside a border to the mean of their outer half.

    A background that ends too early leaves the outer half its light, and darker pixels beside it hide that from the
    mean of the whole square.
    """
    for grid, pixels, across in ((squares, seen, x), (squares.T, seen.T, y)):
        starts = np.cumsum(across.sizes) - across.sizes
        for n, outer in ((0, pixels[: BLOCK // 2]), (-1, pixels[-(BLOCK // 2) :])):
            grid[n] = np.maximum(grid[n], np.add.reduceat(outer.mean(axis=0), starts) / across.sizes)


def _rows(squares: Array) -> Array:
    """The square of how bright the faintest of ROW squares in a row is.

    It is that of the brightest such row whose middle is within NEAR squares, so that the ends of a line of light count
    as well.

    Of several planes, in standard deviations of the noise, up to 8. At a sharp edge, squares are brighter than the
    background along it; at a border of the image, where no dark side may be seen, that is all that shows.
    """
    reach = ROW // 2
    _, high, wide = squares.shape
    levels = np.clip(squares * _ROW_STEPS, 0, 255).astype(np.uint8)  # small numbers are compared faster
    padded = np.pad(levels, ((0, 0), (reach, reach), (reach, reach)))
    rows = np.zeros((len(levels), high + 2 * NEAR, wide + 2 * NEAR), np.uint8)
    brightest = rows[:, NEAR : NEAR + high, NEAR : NEAR + wide]
    for dy, dx in ((0, 1), (0.5, 1), (1, 1), (1, 0.5), (1, 0), (1, -0.5), (1, -1), (0.5, -1)):
        steps = ((reach + round(n * dy), reach + round(n * dx)) for n in range(-reach, reach + 1))
        faintest = reduce(np.minimum, (padded[:, top : top + high, left : left + wide] for top, left in steps))
        np.maximum(brightest, faintest, out=brightest)
    for axis, length in ((1, high), (2, wide)):
        rows = reduce(np.maximum, (along(rows, axis, n, length) for n in range(2 * NEAR + 1)))
    return np.square(rows * np.float32(1 / _ROW_STEPS))


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
    """An axis cut into equal lengths; the last is longer by what would be less than half of one.

    Every `step`th place and the last one are looked at: `seen`.
    """

    def __init__(self, length: int, side: int, step: int) -> None:
        starts = np.arange(0, max(1, length - side // 2 + 1), side)
        self.side, self.step = side, step
        self.sizes = np.diff(np.append(starts, length))
        # where the light of a smoothed pixel comes from: at an edge, where it is mirrored, from farther inside
        light = three(three(np.pad(np.arange(length), 2, mode="symmetric"), 0), 0) / 9
        self.seen = np.union1d(np.arange(0, length, step), length - 1)
        seen, first = light[self.seen], starts // step
        count = np.diff(np.append(first, len(seen)))
        self.centres = np.add.reduceat(seen, first) / count
        self._spread = np.add.reduceat(seen**2, first) / count - self.centres**2
        self._light = light / NODE

    @cached_property
    def nearest(self) -> NDArray[np.intp]:
        """The nodes next to the centres."""
        return np.maximum(np.rint(self.centres / NODE).astype(np.intp), 1)

    @cached_property
    def nodes(self) -> csr_array:
        """From the means over the squares to the background at the nodes: from those of the squares near each."""
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
        return _matrix(near, _rounded(weights, 2**22), squares)

    @cached_property
    def pixels(self) -> csr_array:
        """From the nodes to the pixels."""
        return _linear(self._light, self.nodes.shape[0])

    @cached_property
    def middles(self) -> csr_array:
        """From the nodes to the centres."""
        return _linear(self.centres / NODE, self.nodes.shape[0])


_squares = lru_cache(maxsize=64)(_Squares)


@lru_cache(maxsize=64)
def _between_tiles(length: int, step: int) -> csr_array:
    """From tiles to squares of an axis; what is farther out is as at the outermost tile."""
    tiles, squares = (_squares(length, side, step).centres for side in (TILE, BLOCK))
    return _linear(np.interp(squares, tiles, np.arange(len(tiles))), len(tiles))


def _linear(places: Array, count: int) -> csr_array:
    """What takes `count` values to places that are counted in them, linear in between."""
    places = _rounded(places, 2**12)
    before = np.minimum(places.astype(np.intp), max(0, count - 2))[:, None]
    after = places[:, None] - before
    near, weights = (before, 1 - after) if count == 1 else (before + np.arange(2), np.hstack([1 - after, after]))
    return _matrix(near, weights, count)


def _matrix(near: Array, weights: Array, count: int) -> csr_array:
    """What takes `count` values to sums: in each row, which of them, and their weights."""
    rows, terms = near.shape
    starts = np.arange(rows + 1) * terms
    return csr_array((weights.astype(np.float32).reshape(-1), near.reshape(-1), starts), shape=(rows, count))


def _both(grid: Plane, y: csr_array, x: csr_array) -> Plane:
    """A grid that is taken along y and x to other places; along x first, while it is small."""
    return np.asarray(y @ np.ascontiguousarray((x @ np.ascontiguousarray(grid.T)).T))


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
