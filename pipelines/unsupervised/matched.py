"""The default method: both markers stand out from their own surroundings at one place.

1. A matched filter: voxels are summed with triangular weights over 3 x 5 x 5 voxels, about the size of a punctum.
2. The square root of the sums: it makes shot noise the same everywhere (Anscombe 1948, doi 10.1093/biomet/35.3-4.246)
   and cuts the long tail off the noise of dim data, which would otherwise pass for puncta.
3. The background: the mean over some 24 x 24 pixels of the same section.
4. The noise: the spread of what is darker than the background, where no puncta are, over some 64 x 64 pixels.
   What is left says how much a voxel stands out, in standard deviations of its surroundings' noise.
5. A voxel is a synapse's if the weaker marker stands out by WEAKER and both on average by TOGETHER, and if it is in the
   core of its punctum: above CORE of the highest average nearby. That parts synapses that touch, and refuses the noise
   beside a bright punctum of one marker alone.

Pixels much finer than light resolves are first put together. A voxel's surroundings are all that matters to it, so that
a volume worked on in parts gives what it gives in one piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, reduce
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
HALO = 2 * TILE
"""Rows, in pixels, beyond which nothing matters; parts of a section start at multiples of TILE."""
SPARSE = 4
"""Every so many rows are looked at for background and noise; smoothed rows in between say nearly the same."""
STEPS = 4
"""Levels a standard deviation."""
_FINE = 4 * STEPS
"""Steps a standard deviation where a voxel is compared with the highest nearby."""
_SPREAD = 3 * 19**2 / (3 * 9**2)
"""How much more than its mean a weighted sum of photons varies: the sum of the weights' squares by that of the weights.

With one photon a grey level, a quarter of it is the variance of the root. No data is taken to be cleaner, so that a few
stray photons are not signal where nearly everything is 0."""


def bins_for(voxel_nm: tuple[float, float, float]) -> Triple:
    """How many voxels make a pixel along z, y, x."""
    z, y, x = (max(1, round(PIXEL_NM / size)) for size in voxel_nm)
    return z, y, x


def levels(pairs: Iterable[tuple[Array, Array]], *, bins: Triple) -> Iterator[NDArray[np.uint8]]:
    """For each pair of sections (y, x; unsigned integers), in the order of z: STEPS times the standard deviations by
    which both markers stand out on average, at most 255, where a synapse may be; 0 elsewhere.

    With bins, it is for each layer of pixels.
    """
    photon = 1 / float(np.prod(bins))
    smoothed = ((_smoothed(one), _smoothed(other)) for one, other in _put_together(pairs, bins))
    standing_out = (
        (_standing_out(one, photon=photon), _standing_out(other, photon=photon))
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


def _standing_out(near: tuple[Array, ...], *, photon: float) -> Plane:
    """By how many standard deviations of the noise around it each pixel stands out; from three smoothed sections.

    `photon` is what a photon is taken to add to a pixel.
    """
    seen = (near[0] + near[1] + near[2]).astype(np.float32)
    seen += np.float32(0.375 * _SPREAD * photon)  # Anscombe's three eighths
    np.sqrt(seen, out=seen)
    (y, x), tiles = ([_squares(n, side) for n in seen.shape] for side in (BLOCK, TILE))
    around = np.pad(_means(seen[::SPARSE], (y, x)), 1, mode="edge")
    background: Plane = np.asarray(three(three(around, 0), 1) / 9, np.float32)
    darker = seen[::SPARSE] - _between(background, y.pixels[::SPARSE], x.pixels)
    np.minimum(darker, 0, out=darker)
    darker *= darker
    noise = np.maximum(np.sqrt(2 * _means(darker, tiles)), np.float32(0.5 * np.sqrt(_SPREAD * photon)))
    seen -= _between(background, y.pixels, x.pixels)
    scale = _between(np.asarray(1 / noise, np.float32), tiles[0].among(y.centres), tiles[1].among(x.centres))
    seen *= np.repeat(np.repeat(scale, x.sizes, axis=1), y.sizes, axis=0)
    return seen


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
    """An axis cut into equal lengths; the last is longer by what would be less than half of one."""

    def __init__(self, length: int, side: int) -> None:
        starts = np.arange(0, max(1, length - side // 2 + 1), side)
        self.side = side
        self.sizes = np.diff(np.append(starts, length))
        self.centres = starts + (self.sizes - 1) / 2
        self.pixels = self.among(np.arange(length))

    def among(self, places: Array) -> NDArray[np.float64]:
        """Where places are among the centres, counted in squares; what is farther out is at the outermost one."""
        counted = np.interp(places, self.centres, np.arange(len(self.centres)))
        return np.asarray(np.rint(counted * 4096) / 4096)  # the same fractions wherever a part begins


_squares = lru_cache(maxsize=64)(_Squares)


def _means(sparse: Plane, squares: Sequence[_Squares]) -> Plane:
    """Means over squares, from every SPARSEth row."""
    for axis, step in zip(squares, (SPARSE, 1), strict=True):  # along rows, then, on its side, along columns
        head, side = len(axis.sizes) - 1, axis.side // step
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
