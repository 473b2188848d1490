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
    """(n, 3): z, y, x in the volume of labels."""
    parts: NDArray[np.intp]
    """(n,): the part that each voxel was given to."""
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
        painted = _painted(scratch[:, : end - low], (first, low, corner[2]), grid, mine)
        if len(painted.parts):
            at = painted.at + np.array([first - corner[0], low - corner[1], 0])
            yield some, painted, labels.packed(at, mine.labels[painted.parts].astype(np.int64))


def _painted(scratch: Array, corner: Triple, grid: Grid, parts: Parts) -> Painted:
    """Give the voxels of the extent of `scratch`, the first of which is the voxel `corner`, to parts of objects.

    Where objects meet, the one that is better there has the voxel; each has its own centre. What `scratch` holds does
    not count, and is lost. The result does not depend on how the parts are spread over calls, as long as no section is.
    """
    which, bit = pixels_of(parts.regions, grid)
    pixels = parts.places[which].astype(np.intp).T.copy()  # by axis: arithmetic on rows of three is slow
    pixels[1:] += grid.offsets(REGION_NM)[bit].T
    first = [axis * side - low for axis, side, low in zip(pixels, grid.bins, corner, strict=True)]
    scores = parts.scores[which].astype(np.float64)
    scores[(bit == 0) & parts.centres[which]] = np.inf
    won = np.zeros(len(which), np.bool_)
    given, given_at = [], []
    for step in np.ndindex(*grid.bins):
        at = [axis + more if more else axis for axis, more in zip(first, step, strict=True)]
        mine = _best(scratch, at, scores)
        won[mine] = True
        given.append(which[mine])
        given_at.append(np.stack([axis[mine] for axis in at]))
    return Painted(np.concatenate(given_at, axis=1).T, np.concatenate(given), which, won)


def _best(scratch: Array, at: Sequence[Array], scores: Array) -> NDArray[np.intp]:
    """Of places z, y and x (n,) those that `scratch` has, and of several that are one voxel that of the best score."""
    there = [(axis >= 0) & (axis < side) for axis, side in zip(at, scratch.shape, strict=True)]
    inside = np.flatnonzero(there[0] & there[1] & there[2])
    z, y, x = (axis[inside] for axis in at)
    where = (z * scratch.shape[1] + y) * scratch.shape[2] + x
    flat, scores = scratch.reshape(-1), scores[inside]
    turns = np.arange(len(where), dtype=np.uint32)
    flat[where] = turns  # the last one stays; the order is that of memory, which is fast
    flat[where[flat[where] != turns]] = len(turns)
    several = np.flatnonzero(flat[where] == len(turns))
    several = several[np.argsort(scores[several], kind="stable")]
    flat[where[several]] = several
    return np.asarray(inside[flat[where] == turns])
