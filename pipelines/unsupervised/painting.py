"""The voxels of objects: each one's pixels, where both markers meet, section by section. Axes are z, y, x."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple
from pipelines.common.sparse import TILE, Packed, Sparse
from pipelines.unsupervised.paired import REGION_NM, Grid

Array = NDArray[Any]

BAND = 2**21
"""Voxels that are painted at once, about: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Sections of objects, n of them."""

    places: NDArray[np.int32]
    """(n, 3): z, y, x in pixels."""
    regions: NDArray[np.uint64]
    """Which pixels around the place are the part's: a bit for each of `Grid.offsets(REGION_NM)`."""
    scores: NDArray[np.float32]
    labels: NDArray[np.uint32]
    """Of the objects that the sections are parts of."""
    centres: NDArray[np.bool_]
    """Whether the part is its object's centre, which no other object takes from it."""


@dataclass(frozen=True, slots=True)
class Painted:
    """The voxels that parts were given, n of them, and the pixels of the parts, m of them, in order."""

    at: NDArray[np.intp]
    """(n, 3): z, y, x in `labels`."""
    labels: NDArray[np.uint32]
    which: NDArray[np.intp]
    """(m,): the part that each pixel is of."""
    won: NDArray[np.bool_]
    """(m,): whether the part was given a voxel of the pixel."""


def pixels_of(regions: NDArray[np.uint64], grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(m,): of all pixels of n regions the region and the bit, in order."""
    bits = np.unpackbits(regions.astype("<u8").view(np.uint8), bitorder="little", count=64 * len(regions))
    found = np.flatnonzero(bits.view(np.bool_))
    return found >> 6, found & 63


def paint_section(labels: Sparse, corner: Triple, grid: Grid, parts: Parts) -> Iterator[tuple[slice, Painted, Packed]]:
    """As `paint`, of all parts of a section of pixels, in order of y, a band of rows after another.

    Gives each band's parts, and what is to be added to `labels`. Changes nothing, so that copies of the process may do
    it.
    """
    if not len(parts.places):
        return
    bins, (deep, bottom, wide) = grid.bins, labels.shape
    reach = int(np.abs(grid.offsets(REGION_NM)).max())
    high = max(1, BAND // (wide * bins[0] * bins[1] * TILE[1])) * TILE[1]  # in pixels
    z, y = int(parts.places[0, 0]) * bins[0], parts.places[:, 1]
    first, last = max(corner[0], z), min(corner[0] + deep, z + bins[0])
    if first >= last:
        return
    scratch = np.empty((last - first, high * bins[1], wide), np.uint32)
    for start in range(corner[1] // bins[1], -(-(corner[1] + bottom) // bins[1]), high):
        some = slice(*np.searchsorted(y, (start - reach, start + high + reach)).tolist())
        if some.start == some.stop:
            continue
        mine = Parts(*(getattr(parts, field.name)[some] for field in fields(parts)))
        low, end = max(corner[1], start * bins[1]), min(corner[1] + bottom, (start + high) * bins[1])
        painted = paint(scratch[:, : end - low], (first, low, corner[2]), grid, mine)
        if len(painted.labels):
            at = painted.at + np.array([first - corner[0], low - corner[1], 0])
            yield some, painted, labels.packed(at, painted.labels.astype(np.int64))


def paint(labels: Array, corner: Triple, grid: Grid, parts: Parts) -> Painted:
    """Give voxels of `labels`, whose first one is the voxel `corner`, to objects.

    Where objects meet, the one that is better there has the voxel; each has its own centre. What `labels` held in these
    voxels before does not count. The result does not depend on how the parts are spread over calls, as long as no
    section is.
    """
    which, bit = pixels_of(parts.regions, grid)
    pixels = parts.places[which].astype(np.intp).T.copy()  # by axis: arithmetic on rows of three is slow
    pixels[1:] += grid.offsets(REGION_NM)[bit].T
    first = [axis * side - low for axis, side, low in zip(pixels, grid.bins, corner, strict=True)]
    scores = parts.scores[which].astype(np.float64)
    scores[(bit == 0) & parts.centres[which]] = np.inf
    values, won = parts.labels[which], np.zeros(len(which), np.bool_)
    counted, set_at = [], []
    for step in np.ndindex(*grid.bins):
        at = [axis + more if more else axis for axis, more in zip(first, step, strict=True)]
        mine = _set(labels, at, values, scores)
        won[mine] = True
        counted.append(values[mine])
        set_at.append(np.stack([axis[mine] for axis in at]))
    return Painted(np.concatenate(set_at, axis=1).T, np.concatenate(counted), which, won)


def _set(labels: Array, at: Sequence[Array], values: Array, scores: Array) -> NDArray[np.intp]:
    """Set voxels, z, y and x (n,), to values, those of them that are there; of several for one, that of the best score.

    Returns which values were set.
    """
    there = [(axis >= 0) & (axis < side) for axis, side in zip(at, labels.shape, strict=True)]
    inside = np.flatnonzero(there[0] & there[1] & there[2])
    z, y, x = (axis[inside] for axis in at)
    where = (z * labels.shape[1] + y) * labels.shape[2] + x
    flat, scores = labels.reshape(-1), scores[inside]
    turns = np.arange(len(where), dtype=np.uint32)
    flat[where] = turns  # the last one stays; the order is that of memory, which is fast
    flat[where[flat[where] != turns]] = len(turns)
    several = np.flatnonzero(flat[where] == len(turns))
    several = several[np.argsort(scores[several], kind="stable")]
    flat[where[several]] = several
    stays = np.flatnonzero(flat[where] == turns)
    flat[where[stays]] = values[inside[stays]]
    return np.asarray(inside[stays])
