"""How a channel lies on another, and a section on the last: a plane of shifts, and how sure it is.

Channels of array tomography are photographed one after another, so that they are shifted, turned and stretched against
one another: by 15 pixels and 0.7 degrees in the data this was made with, which no shift of a whole section mends. Tiles
of two maps are cross-correlated, and a plane (shift, turn, stretch) is put through what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pipelines.unsupervised.paired import PUNCTUM_NM, STEPS, Grid, Map, standing_out

Array = NDArray[Any]

TILE_NM = 20000.0
"""Side of a tile."""
REACH_NM = 4000.0
"""The farthest shift of a tile that is looked for."""
SLACK_NM = 250.0
"""How far a tile may be off the plane that it agrees with."""
TILES = 6
"""Tiles along each axis, at most: more of them tell no more."""
AGREE = 0.4
"""The part of the tiles that must agree, and one tile more, and four at least."""
STRETCH = 0.05
"""The largest turn (in radians) and stretch."""
SIMPLE = 0.85
"""A shift alone is believed where it explains this part of the tiles that a turn explains as well."""
TURNS = 2
"""Tiles more that must agree with a turn than with a shift alone: it explains two by whatever they say."""
BRIGHT = 3.0
"""Local scales above which a punctum counts no more: else two bright ones that meet by chance make the best shift."""
AROUND_NM = 2000.0
"""What is looked at around a tile that is seen alone."""
SPARSE = 2
"""So many times the pixels of its tiles with what is around them has a section of which no more is looked at.

A box in such a section is registered by these tiles as the volume is; of smaller ones all is read for that.
"""
_CANDIDATES = 300
"""Planes that are tried."""


@dataclass(frozen=True, slots=True)
class Warp:
    """Where a pixel (y, x) of one map is seen in another: at (y, x) - shift(y, x), in pixels."""

    linear: NDArray[np.float64]
    """(3, 2): the shift along y and x (columns) at pixel 0, 0, and its slopes along y and x (rows)."""
    agree: float
    """The part of the tiles that say so."""
    sure: bool

    def shift(self, places: Array) -> NDArray[np.float64]:
        """(n, 2): the shift along y, x at pixels (n, 2)."""
        return np.asarray(self.linear[0] + places @ self.linear[1:])

    def middle(self, shape: tuple[int, int]) -> tuple[float, float]:
        """The shift (y, x) in the middle of a section of that shape."""
        y, x = self.shift(np.array([shape], np.float64) / 2)[0]
        return float(y), float(x)

    def farthest(self, shape: tuple[int, int]) -> float:
        """The longest shift of a corner, in pixels."""
        corners = np.array([(y, x) for y in (0, shape[0]) for x in (0, shape[1])])
        return float(np.hypot(*self.shift(corners).T).max())

    def moves(self, shape: tuple[int, int]) -> bool:
        """Whether it is sure, and moves a corner of a section of that shape by more than a pixel."""
        return self.sure and self.farthest(shape) > 1

    def degrees(self, pixel_nm: tuple[float, float]) -> float:
        """The turn of pixels of that size (y, x)."""
        down, right = pixel_nm
        return math.degrees((self.linear[1, 1] * right / down - self.linear[2, 0] * down / right) / 2)


NOWHERE = Warp(np.zeros((3, 2)), 0.0, False)
"""What is not known."""


def as_arrays(name: str, warps: Sequence[Warp]) -> dict[str, Array]:
    """Warps as arrays whose names begin with `name`, for `from_arrays`."""
    linear = np.stack([warp.linear for warp in warps]) if warps else np.zeros((0, 3, 2))
    return {name: linear, f"{name}_sure": np.array([(warp.agree, warp.sure) for warp in warps]).reshape(-1, 2)}


def from_arrays(name: str, arrays: Mapping[str, Array]) -> list[Warp]:
    """The warps that `as_arrays` has made arrays of."""
    return [
        Warp(linear, float(agree), bool(sure))
        for linear, (agree, sure) in zip(arrays[name], arrays[f"{name}_sure"], strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of a map, transformed. Neighbouring tiles share up to half of their pixels."""

    spectra: NDArray[np.complex64]
    middles: NDArray[np.float64]
    """(n, 2): y, x in coarse pixels."""
    size: tuple[int, int]
    """Coarse pixels of a transformed tile."""
    reach: tuple[int, int]
    step: tuple[int, int]
    """Pixels in a coarse one's side."""
    slack: tuple[float, float]
    """SLACK_NM in coarse pixels."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tiles of a section lie, by its shape; lengths are in coarse pixels."""

    shape: tuple[int, int]
    """The section's, in pixels."""
    step: tuple[int, int]
    """Pixels in a coarse one's side."""
    nm: tuple[float, float]
    """A coarse pixel's size."""
    tile: tuple[int, int]
    reach: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, shape: Sequence[int], grid: Grid) -> Layout | None:
        """The layout of a section of that shape in pixels; None where there are fewer than four tiles."""
        high, wide = shape
        nm = grid.pixel_nm[1:]
        down, right = (max(1, int(2 * PUNCTUM_NM / size)) for size in nm)
        coarse, sizes = (high // down, wide // right), (nm[0] * down, nm[1] * right)
        tile = [min(n, int(TILE_NM / size)) for n, size in zip(coarse, sizes, strict=True)]
        reach = [min(t // 3, int(REACH_NM / size)) for t, size in zip(tile, sizes, strict=True)]
        if min(reach) < 2:
            return None
        tops, lefts = (
            np.unique(np.linspace(0, n - t, min(TILES, 1 + round(2 * (n - t) / t))).astype(int)).tolist()
            for n, t in zip(coarse, tile, strict=True)
        )
        if len(tops) * len(lefts) < 4:
            return None
        corners = tuple((y, x) for y in tops for x in lefts)
        return cls((high, wide), (down, right), sizes, (tile[0], tile[1]), (reach[0], reach[1]), corners)

    @property
    def places(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Each tile's corner and extent."""
        return [(corner, self.tile) for corner in self.corners]

    @property
    def windows(self) -> list[tuple[slice, slice]]:
        """The pixels by which each tile is seen where it is seen `alone`: its own, and AROUND_NM around it."""
        return [(self._side(0, corner[0]), self._side(1, corner[1])) for corner in self.corners]

    def _side(self, axis: int, first: int) -> slice:
        step, more = self.step[axis], self._around(axis)
        low = max(0, first - more) * step
        return slice(low, min(self.shape[axis], (first + self.tile[axis] + more) * step))

    def _around(self, axis: int) -> int:
        return round(AROUND_NM / self.nm[axis])

    @property
    def alone(self) -> bool:
        """Whether tiles are seen one by one, since they are a small part of the section.

        Then no more of it than their windows has to be looked at.
        """
        looked = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in self.windows)
        return bool(math.prod(self.shape) >= SPARSE * looked)

    @property
    def seen(self) -> list[tuple[slice, slice]]:
        """The pixels that have to be looked at: those of the windows, or all."""
        high, wide = self.shape
        return self.windows if self.alone else [(slice(0, high), slice(0, wide))]

    def of_pixels(self, seen: Sequence[Array], grid: Grid) -> Tiles:
        """The tiles, from the pixels of what has to be `seen`."""
        if self.alone:
            return self.tiles(seen, grid)
        return self.of_map(standing_out(seen[0], grid), grid)

    def of_map(self, seen: Map, grid: Grid) -> Tiles:
        """The tiles, from the map of the whole section."""
        coarse = _coarse(seen, grid, self.step)
        return self.transformed(np.stack([coarse[y : y + h, x : x + w] for (y, x), (h, w) in self.places]))

    def tiles(self, windows: Sequence[Array], grid: Grid) -> Tiles:
        """The tiles of sections that are seen alone, from the pixels of their windows."""
        parts = []
        for (y, x), (rows, columns), pixels in zip(self.corners, self.windows, windows, strict=True):
            coarse = _coarse(standing_out(pixels, grid), grid, self.step)
            top, left = y - rows.start // self.step[0], x - columns.start // self.step[1]
            parts.append(coarse[top : top + self.tile[0], left : left + self.tile[1]])
        return self.transformed(np.stack(parts))

    def transformed(self, parts: NDArray[np.float32]) -> Tiles:
        """Tiles of coarse pixels, (n, y, x), as they are correlated."""
        parts = parts - parts.mean(axis=(1, 2), keepdims=True)
        parts *= np.outer(*(np.hanning(t + 2)[1:-1] for t in self.tile)).astype(np.float32)
        norm = np.sqrt(np.einsum("nyx,nyx->n", parts, parts))
        parts /= np.maximum(norm, 1e-6)[:, None, None]
        size = [fft.next_fast_len(t + r, real=True) for t, r in zip(self.tile, self.reach, strict=True)]
        return Tiles(
            fft.rfft2(parts, size),
            np.array(self.corners) + np.array(self.tile) / 2,
            (size[0], size[1]),
            self.reach,
            self.step,
            (SLACK_NM / self.nm[0], SLACK_NM / self.nm[1]),
        )


def _coarse(seen: Map, grid: Grid, step: tuple[int, int]) -> NDArray[np.float32]:
    """Means of so many pixels of a map along y and x, without its rim; what is brighter than BRIGHT counts as that."""
    (top, left), (down, right) = grid.rim, step
    within = np.minimum(seen[top:-top, left:-left], np.int16(BRIGHT * STEPS))
    high, wide = within.shape[0] // down * down, within.shape[1] // right * right
    rows = within[0:high:down].astype(np.float32)
    for n in range(1, down):
        rows += within[n:high:down]
    out = rows[:, 0:wide:right].copy()
    for n in range(1, right):
        out += rows[:, n:wide:right]
    out *= np.float32(1 / (STEPS * down * right))
    return out


def register(one: Tiles | None, other: Tiles | None, *, simple: float = SIMPLE) -> Warp:
    """How the map of `other` lies on that of `one`; both maps are of one shape. None has no tiles to go by.

    `simple` is 1 where a turn is to be believed as soon as it explains more tiles than a shift.
    """
    if one is None or other is None:
        return NOWHERE
    places, shifts = _peaks(one, other)
    count = len(one.middles)
    step = np.array(one.step)
    if len(places) < 4:
        return NOWHERE
    linear, agree, turned = _plane(places, shifts, np.array(one.slack), simple)
    part = int(agree.sum())
    # from coarse pixels to pixels: slopes keep their value but for unequal steps
    linear[0] *= step
    linear[1:] *= step / step[:, None]
    return Warp(linear, part / count, part >= max(4, AGREE * count + 1) + TURNS * turned)


def _peaks(one: Tiles, other: Tiles) -> tuple[Array, Array]:
    """Where tiles have a best shift within reach, (n, 2); and that shift, (n, 2), in parts of a pixel."""
    rows, columns = (np.arange(-r, r + 1) % n for r, n in zip(one.reach, one.size, strict=True))
    fit = fft.ifft(one.spectra * np.conj(other.spectra), axis=1, overwrite_x=True)[:, rows]
    fit = fft.irfft(fit, one.size[1])[:, :, columns]
    flat = fit.reshape(len(fit), -1)
    y, x = np.unravel_index(flat.argmax(axis=1), fit.shape[1:])
    number = np.arange(len(fit))
    top = flat.max(axis=1)
    inside = (y > 0) & (y < fit.shape[1] - 1) & (x > 0) & (x < fit.shape[2] - 1)
    # where one map is the negative of the other, the best shifts are those around what it lacks
    inside &= 2 * top > -flat.min(axis=1)
    number, y, x, top = number[inside], y[inside], x[inside], top[inside]

    def finer(before: Array, after: Array) -> Array:
        bend = before - 2 * top + after
        return np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -1e-12), 0)

    down = y - one.reach[0] + finer(fit[number, y - 1, x], fit[number, y + 1, x])
    right = x - one.reach[1] + finer(fit[number, y, x - 1], fit[number, y, x + 1])
    return one.middles[number], np.stack([down, right], axis=1).astype(np.float64)


def _plane(
    places: Array, shifts: Array, slack: Array, simple: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_], bool]:
    """The plane (3, 2) that most tiles agree with, which do, and whether it turns; of those that three tiles make."""
    centre = places.mean(axis=0)
    basis = np.column_stack([np.ones(len(places)), places - centre])
    three = _threes(len(places))
    three = three[np.abs(np.linalg.det(basis[three])) > 1e-3 * np.abs(basis[:, 1:]).max() ** 2]
    planes = np.linalg.solve(basis[three], shifts[three]) if len(three) else np.zeros((0, 3, 2))
    slopes = planes[:, 1:] * (slack[:, None] / slack)  # in nm a nm; the slack is one length along both axes
    planes = planes[np.abs(slopes).max(axis=(1, 2)) <= STRETCH]
    still = np.zeros((len(shifts), 3, 2))  # one shift for all
    still[:, 0] = shifts
    agree, agree_turned = (
        max(_near(basis, some, shifts, slack), key=np.count_nonzero, default=np.zeros(len(shifts), np.bool_))
        for some in (still, planes)
    )
    few, many = np.count_nonzero(agree), np.count_nonzero(agree_turned)
    turned = bool(few < simple * many and few + TURNS <= many)
    if turned:
        agree = agree_turned
    linear = np.zeros((3, 2))
    # a few tiles in a line say nothing of turns across it, and tiles that one shift explains nothing of turns at all
    ridge = np.diag([0, 1, 1]) * (np.abs(basis[:, 1:]).max() / 4) ** 2 * (1 if turned else 1e6)
    for _ in range(5):
        if np.count_nonzero(agree) < 3:
            break
        linear = np.linalg.solve(basis[agree].T @ basis[agree] + ridge, basis[agree].T @ shifts[agree])
        agree = _near(basis, linear[None], shifts, slack)[0]
    if not turned:
        linear[1:] = 0
    linear[0] -= centre @ linear[1:]
    return linear, agree, turned


@cache
def _threes(count: int) -> NDArray[np.intp]:
    """(_CANDIDATES, 3): three of so many tiles, at random, and always the same ones."""
    random = np.random.default_rng(0)
    return np.stack([random.permutation(count)[:3] for _ in range(_CANDIDATES)])


def _near(basis: Array, planes: Array, shifts: Array, slack: Array) -> NDArray[np.bool_]:
    """(planes, tiles): which tiles are within the slack of which plane."""
    return np.asarray(np.hypot(*np.moveaxis((basis @ planes - shifts) / slack, -1, 0)) <= 1)
