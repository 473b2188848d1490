"""Detections as points in Neuroglancer's precomputed annotations, with an index by id and one by place.

The index by place has levels: the first shows a few of all points, each further level others, in smaller cells. A
viewer reads as many levels as its picture has room for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.common.copies import hand_back
from pipelines.common.precomputed import Frame, as_json
from pipelines.common.results import Results
from pipelines.common.sharded import Sharding, morton, morton_bits

LIMIT = 15_000
"""Points in a cell, about: 480 kB, or two thirds of that as they lie in the file. Three levels take a million."""
FINEST = 2**15
"""Cells of a level that are enough: it takes all the points that are left, however crowded they are."""
SPLIT = 16
"""Cells in one of the level before, at most. A picture takes all cells that meet in its middle, of each level.

The fewer levels there are, the fewer requests it takes; the smaller the cells are, the more of them lie in it.
"""
PIECE = 2**20
"""Points whose cells are found at once."""
LEVEL = 1
"""Of zlib: floats are hardly smaller at its usual level, in three times the time."""
_RECORD = np.dtype([("place", "<f4", 3), ("score", "<f4"), ("size", "<f4"), ("class", "<f4")])
_BY_ID = {"preshift": 9, "minishard": 6}
"""2**15 points lie in a file of the index by id, and the places of 512 of them are read at once."""
_CELLS = 5
"""2**5 cells lie in a file of the index by place."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """n detections; row i has the id i + 1."""

    centres: NDArray[np.float64]
    """(n, 3): z, y, x in voxels from the box's corner; the first voxel's centre is 0."""
    scores: NDArray[np.float64]
    sizes: NDArray[np.floating]
    """Volumes in µm³."""
    kind: NDArray[np.int64]
    """Each point's class, as an index into `kinds`."""
    kinds: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class _Level:
    grid: list[int]
    """The number of cells along x, y, z."""
    size: NDArray[np.float64]
    """A cell's extent in voxels, x, y, z."""
    rows: NDArray[np.uint32]
    """The points, by cell, in ascending order of the cells' Morton codes, and by row."""
    cells: list[int]
    """The Morton codes of the cells that have points."""
    walls: list[int]
    """Where each of these cells begins in `rows`, and where the last one ends."""


def write_annotations(results: Results, folder: str, points: Points, frame: Frame, *, title: str, about: str) -> None:
    """Write the points, info last. Raises Failure where a file cannot be written."""
    info = f"{folder}/info"
    results.remove(info)
    lower, extent = np.array(frame.start[::-1], float), np.array(frame.shape[::-1], float)
    records = np.zeros(len(points.centres), _RECORD)
    for axis, low in enumerate(lower):  # one at a time, which takes less memory
        # here a voxel's first corner, not its centre, is whole
        records["place"][:, axis] = points.centres[:, 2 - axis] + low + 0.5
    records["score"], records["size"], records["class"] = points.scores, points.sizes, points.kind

    by_id = Sharding.of(max(1, len(records).bit_length()), gzip=False, **_BY_ID)
    if len(records):
        numbers = np.arange(1, len(records) + 1, dtype=np.uint64)
        content = records.view(np.uint8).data
        by_id.write_alike(numbers, _RECORD.itemsize, content, lambda n, c: results.put(f"{folder}/by_id/{n}", c))
    spatial: list[dict[str, object]] = []
    for level in _levels(records["place"], lower, extent, frame.voxel_nm[::-1]):
        key = f"spatial{len(spatial)}"
        sharding = Sharding.of(morton_bits(level.grid), preshift=_CELLS)
        cells, most = _cells(level, records, sharding)
        hand_back()  # what was sorted took more memory than what is written
        sharding.write(cells, lambda n, c, key=key: results.put(f"{folder}/{key}/{n}", c))  # type: ignore[misc]
        spatial.append(
            {
                "key": key,
                "grid_shape": level.grid,
                "chunk_size": level.size.tolist(),
                "limit": most,
                "sharding": sharding.described(),
            }
        )
    described = {
        "@type": "neuroglancer_annotations_v1",
        "dimensions": {
            axis: [round(nm * 1e-9, 15), "m"] for axis, nm in zip("xyz", reversed(frame.voxel_nm), strict=True)
        },
        "lower_bound": lower.tolist(),
        "upper_bound": (lower + extent).tolist(),
        "annotation_type": "point",
        "properties": _properties(points.kinds),
        "relationships": [],
        "by_id": {"key": "by_id", "sharding": by_id.described()},
        "spatial": spatial,
    }
    results.add(info, as_json(described), title=title, about=about, media_type="application/json")


def _properties(kinds: Sequence[str]) -> list[dict[str, object]]:
    # of floats alone: Neuroglancer draws a point's size wrongly where a shader makes it of an integer
    return [
        {"id": "score", "type": "float32", "description": "how sure the method is"},
        {"id": "size", "type": "float32", "description": "volume in cubic micrometres"},
        {
            "id": "class",
            "type": "float32",
            "description": "class",
            "enum_values": list(range(len(kinds))),
            "enum_labels": list(kinds),
        },
    ]


def _levels(
    places: NDArray[np.float32], lower: NDArray[np.float64], extent: NDArray[np.float64], nm: Sequence[float]
) -> Iterator[_Level]:
    """Levels of at most about LIMIT points a cell, until every point is in one; each shows equally many of all places.

    One level at least. Places lie in the box from `lower` on, all x, y, z in voxels.
    """
    sizes = list(_sizes(extent, nm))
    finest = []
    for axis, (low, side, long) in enumerate(zip(lower, sizes[-1], extent, strict=True)):
        at = places[:, axis] - low
        at //= side
        finest.append(np.clip(at, 0, long / side - 1, out=at).astype(np.uint16))
    del at
    left = np.argsort(_scattered(len(places)), kind="stable").astype(np.uint32)

    def level(size: NDArray[np.float64]) -> tuple[_Level, int]:
        """The level of cells of that size, and how many of the points that are left it takes."""
        grid = [int(side) for side in extent / size]
        halves = [int(side).bit_length() - 1 for side in size / sizes[-1]]
        numbers, counts = np.empty(len(left), np.uint32), np.zeros(1 << morton_bits(grid), np.int64)
        for start in range(0, len(left), PIECE):  # each takes some 30 bytes meanwhile
            some = left[start : start + PIECE]
            cells = np.stack([axis[some] >> half for axis, half in zip(finest, halves, strict=True)], axis=1)
            numbers[start : start + PIECE] = found = morton(cells, grid)
            counts += np.bincount(found, minlength=len(counts))
        crowded = int(counts.max())
        last = crowded <= LIMIT or size is sizes[-1]
        taken = len(left) if last else len(left) * LIMIT // crowded
        # one number to sort by takes a third of the memory, and of the time, that sorting twice by an index takes
        keys = numbers[:taken].astype(np.uint64)
        del numbers
        keys <<= np.uint64(32)
        keys |= left[:taken]
        keys.sort()
        rows = keys.astype(np.uint32)
        keys >>= np.uint64(32)
        first = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        walls = [0, *first.tolist(), taken] if taken else [0]
        return _Level(grid=grid, size=size, rows=rows, cells=keys[walls[:-1]].tolist(), walls=walls), taken

    for size in sizes:
        found, taken = level(size)
        left = left[taken:]
        yield found
        if not len(left):
            return


def _sizes(extent: NDArray[np.float64], nm: Sequence[float]) -> Iterator[NDArray[np.float64]]:
    """The cells' extent in each level, x, y, z in voxels: all of the box, then halved along its longest axes.

    From the third level on they are halved for as long as a cell of the level before has no more than SPLIT of them.
    """
    size, most = extent.copy(), 1
    while True:
        yield size
        if math.prod(extent / size) >= FINEST:
            return
        before, size = size, _halved(size, nm)
        while math.prod(before / (smaller := _halved(size, nm))) <= most:
            size = smaller
        most = SPLIT


def _halved(size: NDArray[np.float64], nm: Sequence[float]) -> NDArray[np.float64]:
    wide = size * nm
    halved: NDArray[np.float64] = np.where(wide > wide.max() / 2, size / 2, size)
    return halved


def _cells(level: _Level, records: NDArray[np.void], sharding: Sharding) -> tuple[Iterator[tuple[int, bytes]], int]:
    """Number and content of each cell that has points, in order; and how many points the fullest has (1 at least)."""

    def contents() -> Iterator[tuple[int, bytes]]:
        for number, (a, b) in zip(level.cells, itertools.pairwise(level.walls), strict=True):
            rows = level.rows[a:b]
            ids = rows.astype("<u8") + 1
            content = len(rows).to_bytes(8, "little") + records[rows].tobytes() + ids.tobytes()
            yield number, sharding.packed(content, LEVEL)

    return contents(), int(np.diff(level.walls).max(initial=1))


def _scattered(count: int) -> NDArray[np.uint32]:
    """A number for each of so many rows, without any order that a row's place could follow; always the same."""
    mixed = np.arange(count, dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    return mixed
