"""Puts together what was found in the blocks of a volume: objects, their numbers, voxels and brightness.

Blocks are added by slabs of sections, thin ones together. What is held meanwhile are the candidates of two slabs, or
some TOGETHER; for each object its place, score, size and brightness; and `labels`, which lie in a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple
from pipelines.common.copies import hand_back, in_copies
from pipelines.common.sparse import Packed, Sparse
from pipelines.unsupervised.blocks import Found
from pipelines.unsupervised.merging import Merging, Settled
from pipelines.unsupervised.painting import Parts, paint_section
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.search import Laid, frames_of, in_nm, lengths_of

Array = NDArray[Any]
Slab = tuple[list[Found], int | None]
"""What was found in all blocks of a slab, and where its sections of pixels end; None: it is the last slab."""
TOGETHER = 2**19
"""Candidates that are added together, at least: those of the last sections are compared anew with what is added."""
FEW = 2**18
"""Candidates whose pixels are moved at once."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects inside, numbered in the order of their places: row i is label i + 1."""

    centres: NDArray[np.float64]
    """(n, 3): z, y, x in voxels from the corner of the box that was asked for."""
    voxels: NDArray[np.int64]
    scores: NDArray[np.float64]
    sums: NDArray[np.float64]
    """(n, channels): the sum of each object's voxels in each channel."""
    marks: NDArray[np.float64]
    """(n, columns): `Found.marks` of the candidates that the objects are."""


@dataclass(slots=True)
class _Waiting:
    """Candidates that are not painted yet, in order."""

    places: NDArray[np.int32]
    scores: NDArray[np.float32]
    regions: NDArray[np.uint64]
    pixels: NDArray[np.int64]
    """Where each one's pixels begin in `sums`."""
    sums: Array
    """(m, channels), as `Found.sums`, in no order."""
    to: NDArray[np.int64]
    """The number of the candidate that each counts to, of those that are settled."""

    def rows(self, some: Array) -> NDArray[np.int64]:
        """The rows of `sums` of some candidates' pixels, in order."""
        many = np.bitwise_count(self.regions[some]).astype(np.int64)
        return np.repeat(self.pixels[some] - (np.cumsum(many) - many), many) + np.arange(int(many.sum()))

    def add(self, blocks: Sequence[Found]) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]:
        """Add what was found in the blocks of a slab; returns its places, scores and marks, in order."""
        places, scores, regions = (
            np.concatenate([getattr(block, name) for block in blocks]) for name in ("places", "scores", "regions")
        )
        high, wide = (int(places[:, axis].max(initial=0)) + 1 for axis in (1, 2))
        place = places[:, 0].astype(np.int64)
        for side, axis in ((high, 1), (wide, 2)):
            place *= side
            place += places[:, axis]
        order = np.argsort(place, kind="stable")  # each block is in order already, which is fast
        many = np.bitwise_count(regions).astype(np.int64)
        pixels = (np.cumsum(many) - many + len(self.sums))[order]
        before = len(self.places)
        self.places = np.concatenate([self.places, places[order]])
        self.scores = np.concatenate([self.scores, scores[order]])
        self.regions, self.pixels = (
            np.concatenate([self.regions, regions[order]]),
            np.concatenate([self.pixels, pixels]),
        )
        self.sums = np.concatenate([self.sums, *(block.sums for block in blocks)])
        marks = np.concatenate([block.marks for block in blocks])[order]
        return self.places[before:], self.scores[before:], marks

    def forget(self, many: int) -> None:
        """Forget so many, the first ones."""
        walls = range(many, len(self.places) + FEW, FEW)  # a few at a time, since each pixel takes 24 bytes meanwhile
        left = [np.arange(low, min(high, len(self.places))) for low, high in itertools.pairwise(walls)]
        self.sums = np.concatenate([self.sums[:0], *(self.sums[self.rows(some)] for some in left)])
        self.places, self.scores = self.places[many:].copy(), self.scores[many:].copy()
        self.regions = self.regions[many:].copy()
        counts = np.bitwise_count(self.regions).astype(np.int64)
        self.pixels, self.to = np.cumsum(counts) - counts, self.to[many:]


@dataclass(frozen=True, slots=True)
class _Painted:
    """Voxels of a section, and what is counted of their objects."""

    packed: list[Packed]
    labels: NDArray[np.int64]
    """In order, each once; of each the voxels, and the sums (n, channels)."""
    voxels: NDArray[np.int64]
    sums: NDArray[np.float64]


class Assembly:
    """Puts the blocks of a volume of that extent together, and paints `labels`, a volume of the extent of `inside`.

    `laid` is `Known.laid` where channels are moved back, and None where they are not. So many `copies` of the process
    paint.
    """

    def __init__(
        self,
        grid: Grid,
        laid: Laid | None,
        *,
        extent: Triple,
        inside: Box,
        labels: Sparse,
        channels: int,
        marks: int = 0,
        copies: int = 1,
    ) -> None:
        self._grid, self._extent, self._inside, self._labels, self._copies = grid, extent, inside, labels, copies
        self._frames = frames_of(laid.along, laid.corner) if laid else None
        lengths = lengths_of(self._frames, grid) if self._frames is not None else None
        placed = partial(_placed, frames=self._frames, grid=grid)
        self._merging = Merging(placed, deep_nm=grid.pixel_nm[0], lengths=lengths, copies=copies)
        self._waiting = _Waiting(
            np.zeros((0, 3), np.int32),
            np.zeros(0, np.float32),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int64),
            np.zeros((0, channels), np.uint8),
            np.zeros(0, np.int64),
        )
        self._numbers, self._base = np.zeros(0, np.uint32), 0
        """Of each settled candidate from `_base` on the label of the object whose centre it is; 0 where it is none."""
        self._settled = 0
        self._places: list[NDArray[np.int32]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._voxels: list[NDArray[np.int64]] = []
        self._sums: list[NDArray[np.float64]] = []
        self._firsts = [1]
        """The first label of each slab, and the one after the last."""
        self._channels = channels
        self._unsettled = np.zeros((0, marks))
        """The marks of the candidates that are not settled yet, in order."""
        self._marks = [self._unsettled]

    def objects(self, slabs: Iterable[Slab]) -> Objects:
        """What was found in all slabs, which come in order; the lists of their blocks are emptied."""
        for sections in self._due(slabs):
            # copies of the process are made for all of these sections: making one takes as long as painting a section
            for painted in in_copies(self._painted, sections, most=self._copies):
                for packed in painted.packed:
                    self._labels.add(packed)
                self._count(painted)
        none = np.zeros((0, 3), np.int32)
        places = np.concatenate([none, *self._places])
        self._places.clear()
        corner = [side[0] for side in self._inside]
        return Objects(
            self._grid.middles(places, self._extent) - 0.5 - corner,
            np.concatenate([np.zeros(0, np.int64), *self._voxels]),
            np.concatenate([np.zeros(0, np.float32), *self._scores]).astype(np.float64),
            np.concatenate([np.zeros((0, self._channels)), *self._sums]),
            np.concatenate(self._marks),
        )

    def _due(self, slabs: Iterable[Slab]) -> Iterator[list[tuple[int, int]]]:
        """The sections that can be painted, as rows of the candidates that wait; some at a time."""
        waiting = self._waiting
        for blocks, upto in _thick(slabs):
            places, scores = waiting.places[:0], waiting.scores[:0]
            if blocks:
                places, scores, marks = waiting.add(blocks)
                self._unsettled = np.concatenate([self._unsettled, marks])
            blocks.clear()  # they have many pixels
            hand_back()
            settled = self._merging.add(places, scores, upto=upto)
            waiting.to = np.concatenate([waiting.to, settled.to])
            self._number(settled)
            many = len(waiting.to)
            if settled.below is not None:  # a part may count to a centre some sections on
                many = int(np.searchsorted(waiting.places[:many, 0], settled.below - self._merging.reach))
            sections = np.unique(waiting.places[:many, 0], return_index=True)[1].tolist()
            del places, scores, settled  # which have a part in what would be forgotten
            hand_back()
            yield list(itertools.pairwise([*sections, many]))
            waiting.forget(many)
            oldest = min(self._merging.oldest, int(waiting.to.min(initial=self._settled)))
            self._numbers, self._base = self._numbers[oldest - self._base :], oldest

    def _number(self, settled: Settled) -> None:
        """Number the objects inside among those that are settled."""
        corner, end = (np.array(side) for side in zip(*self._inside, strict=True))
        mine = np.flatnonzero(settled.kept)
        middles = self._grid.middles(settled.places[mine], self._extent)
        mine = mine[np.all((middles >= corner) & (middles < end), axis=1)]
        first, many, all_of_them = self._firsts[-1], len(mine), len(settled.kept)
        numbers = np.zeros(all_of_them, np.uint32)
        numbers[mine] = np.arange(first, first + many)
        self._numbers = np.concatenate([self._numbers, numbers])
        self._settled += all_of_them
        self._places.append(settled.places[mine])
        self._marks.append(self._unsettled[mine])
        self._unsettled = self._unsettled[all_of_them:]
        self._scores.append(settled.scores[mine])
        self._voxels.append(np.zeros(many, np.int64))
        self._sums.append(np.zeros((many, self._channels)))
        self._firsts.append(first + many)

    def _count(self, painted: _Painted) -> None:
        """Count voxels and sums to objects, of whichever slabs they are."""
        walls = np.searchsorted(painted.labels, self._firsts).tolist()
        for n, (low, high) in enumerate(itertools.pairwise(walls)):
            if low < high:
                here = painted.labels[low:high] - self._firsts[n]
                self._voxels[n][here] += painted.voxels[low:high]
                self._sums[n][here] += painted.sums[low:high]

    def _painted(self, section: tuple[int, int]) -> _Painted:
        """Paint a section's candidates, a band of rows after another. Changes nothing in this object."""
        waiting, rows = self._waiting, np.arange(*section)
        labels = self._numbers[waiting.to[rows] - self._base]
        rows, labels = rows[labels > 0], labels[labels > 0]
        first = self._settled - len(waiting.to)
        parts = Parts(
            waiting.places[rows],
            waiting.regions[rows],
            waiting.scores[rows],
            labels,
            waiting.to[rows] == first + rows,
        )
        packed, voxels, sums = [], np.zeros(len(rows), np.int64), np.zeros((self._channels, len(rows)))
        z, y, x = (low for low, _ in self._inside)
        for some, seen, added in paint_section(self._labels, (z, y, x), self._grid, parts):
            packed.append(added)
            many = some.stop - some.start
            voxels[some] += np.bincount(seen.parts, minlength=many)
            pixels, which = waiting.rows(rows[some])[seen.won], seen.which[seen.won]
            for of_all, column in zip(sums, waiting.sums[pixels].T, strict=True):
                of_all[some] += np.bincount(which, weights=column, minlength=many)
        there, whose = np.unique(labels, return_inverse=True)
        weighed = [np.bincount(whose, weights=counted, minlength=len(there)) for counted in (voxels, *sums)]
        given = np.flatnonzero(weighed[0])
        of_each = [counted[given] for counted in weighed[1:]]
        return _Painted(
            packed,
            there[given].astype(np.int64),
            weighed[0][given].astype(np.int64),
            np.stack(of_each, axis=1) if of_each else np.zeros((len(given), 0)),
        )


def _placed(places: NDArray[np.int32], frames: NDArray[np.float64] | None, grid: Grid) -> NDArray[np.float64]:
    """As `in_nm`; without frames, sections lie as they are."""
    return in_nm(places, frames, grid) if frames is not None else np.asarray(places * np.array(grid.pixel_nm))


def _thick(slabs: Iterable[Slab]) -> Iterator[Slab]:
    """Slabs that follow one another as one, until they have TOGETHER candidates; the given lists are emptied."""
    together: list[Found] = []
    for blocks, upto in slabs:
        together += blocks
        blocks.clear()
        if upto is None or sum(len(block.scores) for block in together) >= TOGETHER:
            yield together, upto
            together = []
