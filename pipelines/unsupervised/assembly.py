"""Puts together what was found in the blocks of a volume: objects, their numbers, voxels and brightness.

Blocks are added by slabs of sections. What is held meanwhile are the candidates of two slabs; for each object its
place, score, size and brightness; and `labels`, which may lie in a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box
from pipelines.unsupervised.blocks import Found
from pipelines.unsupervised.merging import Merging, Settled
from pipelines.unsupervised.painting import Parts, paint, pixels_of
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import Warp
from pipelines.unsupervised.search import frames_of, in_nm

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects inside, numbered in the order of their places: row i is label i + 1."""

    centres: NDArray[np.float64]
    """(n, 3): z, y, x in voxels from the corner of the box that was asked for."""
    voxels: NDArray[np.int64]
    scores: NDArray[np.float64]
    sums: NDArray[np.float64]
    """(n, channels): the sum of each object's voxels in each channel."""


@dataclass(slots=True)
class _Waiting:
    """Candidates that are not painted yet, in order."""

    places: NDArray[np.int32]
    scores: NDArray[np.float32]
    regions: NDArray[np.uint64]
    sums: NDArray[np.uint32]
    """(m, channels), as `Found.sums`."""
    to: NDArray[np.int64]
    """The number of the candidate that each counts to, of those that are settled."""


class Assembly:
    """Puts the blocks of a volume together, and paints `labels`: an array of the extent of `inside`, all 0.

    `along` are `Known.along` where channels are moved back, and empty where they are not.
    """

    def __init__(self, grid: Grid, along: Sequence[Warp], *, inside: Box, labels: Array, channels: int) -> None:
        self._grid, self._inside, self._labels = grid, inside, labels
        self._frames = frames_of(along) if along else None
        self._merging = Merging(self._in_nm, deep_nm=grid.pixel_nm[0])
        self._waiting = _Waiting(
            np.zeros((0, 3), np.int32),
            np.zeros(0, np.float32),
            np.zeros(0, np.uint64),
            np.zeros((0, channels), np.uint32),
            np.zeros(0, np.int64),
        )
        self._numbers = np.zeros(0, np.uint32)
        """Of each settled candidate the label of the object whose centre it is; 0 where it is none."""
        self._centres: list[NDArray[np.float64]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._voxels = np.zeros(1, np.int64)
        self._sums = np.zeros((1, channels))

    def add(self, blocks: Iterable[Found], *, upto: int | None) -> None:
        """Add all blocks of a slab, whose sections of pixels end at `upto`; None: it is the last slab."""
        slab = _together(list(blocks))
        waiting = self._waiting
        if slab:
            waiting.places = np.concatenate([waiting.places, slab.places])
            waiting.scores = np.concatenate([waiting.scores, slab.scores])
            waiting.regions = np.concatenate([waiting.regions, slab.regions])
            waiting.sums = np.concatenate([waiting.sums, slab.sums])
        places, scores = (slab.places, slab.scores) if slab else (waiting.places[:0], waiting.scores[:0])
        settled = self._merging.add(places, scores, upto=upto)
        waiting.to = np.concatenate([waiting.to, settled.to])
        self._number(settled)
        painted = len(waiting.to)
        if settled.below is not None:  # a part may count to a centre some sections on
            painted = int(np.searchsorted(waiting.places[:painted, 0], settled.below - self._merging.reach))
        self._paint(painted)

    def objects(self) -> Objects:
        """What was found, once the last slab was added."""
        empty = [np.zeros((0, 3))], [np.zeros(0, np.float32)]
        centres, scores = np.concatenate(self._centres or empty[0]), np.concatenate(self._scores or empty[1])
        return Objects(centres, self._voxels[1:], scores.astype(np.float64), self._sums[1:])

    def _in_nm(self, places: NDArray[np.int32]) -> NDArray[np.float64]:
        if self._frames is None:
            return np.asarray(places.astype(np.float64) * self._grid.pixel_nm)
        return in_nm(places, self._frames, self._grid)

    def _number(self, settled: Settled) -> None:
        """Number the objects inside among those that are settled."""
        corner, end = (np.array(side) for side in zip(*self._inside, strict=True))
        middles = (settled.places + 0.5) * self._grid.bins
        mine = settled.kept & np.all((middles >= corner) & (middles < end), axis=1)
        first, many = len(self._voxels), int(np.count_nonzero(mine))
        numbers = np.zeros(len(mine), np.uint32)
        numbers[mine] = np.arange(first, first + many)
        self._numbers = np.concatenate([self._numbers, numbers])
        self._centres.append(middles[mine] - 0.5 - corner)
        self._scores.append(settled.scores[mine])
        self._voxels = np.concatenate([self._voxels, np.zeros(many, np.int64)])
        self._sums = np.concatenate([self._sums, np.zeros((many, self._sums.shape[1]))])

    def _paint(self, many: int) -> None:
        """Paint so many of the candidates that wait, whole sections of them, and forget them."""
        waiting, first = self._waiting, len(self._numbers) - len(self._waiting.to)
        ends = np.concatenate([[0], np.cumsum(np.bitwise_count(waiting.regions[:many]), dtype=np.int64)])
        sections = np.unique(waiting.places[:many, 0], return_index=True)[1]
        corner = (self._inside[0][0], self._inside[1][0], self._inside[2][0])
        for low, high in itertools.pairwise([*sections, many]):
            rows = slice(low, high)
            labels = self._numbers[waiting.to[rows]]
            some = np.flatnonzero(labels)
            parts = Parts(
                waiting.places[rows][some],
                waiting.regions[rows][some],
                waiting.scores[rows][some],
                labels[some],
                waiting.to[rows][some] == first + low + some,
            )
            counted, won = paint(self._labels, corner, self._grid, parts)
            if not len(counted):
                continue
            least = int(labels[some].min())
            here = np.bincount(counted - least)
            self._voxels[least : least + len(here)] += here
            which, _ = pixels_of(parts.regions, self._grid)
            mine = waiting.sums[ends[low] : ends[high]][labels.repeat(np.diff(ends[low : high + 1])) > 0][won]
            whose = parts.labels[which[won]] - least
            for channel in range(self._sums.shape[1]):
                more = np.bincount(whose, weights=mine[:, channel])
                self._sums[least : least + len(more), channel] += more
        waiting.places, waiting.scores = waiting.places[many:], waiting.scores[many:]
        waiting.regions, waiting.to = waiting.regions[many:], waiting.to[many:]
        waiting.sums = waiting.sums[ends[-1] :]


def _together(blocks: Sequence[Found]) -> Found | None:
    """What was found in blocks, in the order of places, whatever the order of the blocks."""
    if not blocks:
        return None
    places, scores, regions, sums = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("places", "scores", "regions", "sums")
    )
    z, y, x = places.T
    order = np.lexsort((regions, x, y, z))
    many = np.bitwise_count(regions).astype(np.int64)
    before = np.cumsum(many) - many
    starts = np.cumsum(many[order]) - many[order]
    rows = np.repeat(before[order] - starts, many[order]) + np.arange(many.sum())
    return Found(places[order], scores[order], regions[order], sums[rows])
