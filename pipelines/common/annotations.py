"""Detections as points in Neuroglancer's precomputed annotations, with an index by id and one by place.

The index by place has levels: the first shows a few of all points, each further level others, in smaller cells. A
viewer reads as many levels as its picture has room for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.common.precomputed import Frame, as_json
from pipelines.common.results import Recorded, Results
from pipelines.common.sharded import Sharding, morton, morton_bits

LIMIT = 2**14
"""Points in a cell, about: 512 KiB, or two thirds of that as they lie in the file."""
FINEST = 2**15
"""Cells of a level that are enough: it takes all the points that are left, however crowded they are."""
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
    sizes: NDArray[np.float64]
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
    rows: NDArray[np.int64]
    """The points, by row."""


def write_annotations(
    results: Results | Recorded, folder: str, points: Points, frame: Frame, *, title: str, about: str
) -> None:
    """Write the points, info last. Raises Failure where a file cannot be written."""
    info = f"{folder}/info"
    results.remove(info)
    lower, extent = np.array(frame.start[::-1], float), np.array(frame.shape[::-1], float)
    records = np.zeros(len(points.centres), _RECORD)
    records["place"] = points.centres[:, ::-1] + lower + 0.5  # here a voxel's first corner, not its centre, is whole
    records["score"], records["size"], records["class"] = points.scores, points.sizes, points.kind

    by_id = Sharding.of(max(1, len(records).bit_length()), gzip=False, **_BY_ID)
    if len(records):
        numbers = np.arange(1, len(records) + 1, dtype=np.uint64)
        by_id.write_alike(
            numbers, _RECORD.itemsize, records.tobytes(), lambda n, c: results.put(f"{folder}/by_id/{n}", c)
        )
    inside = records["place"].astype(np.float64) - lower
    spatial: list[dict[str, object]] = []
    for level in _levels(inside, extent, frame.voxel_nm[::-1]):
        key = f"spatial{len(spatial)}"
        sharding = Sharding.of(morton_bits(level.grid), preshift=_CELLS)
        cells, most = _cells(level, inside[level.rows], records[level.rows], sharding)
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
    content = {
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
    results.add(info, as_json(content), title=title, about=about, media_type="application/json")


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


def _levels(inside: NDArray[np.float64], extent: NDArray[np.float64], nm: Sequence[float]) -> Iterator[_Level]:
    """Levels of at most about LIMIT points a cell, until every point is in one; each shows equally many of all places.

    One level at least. `inside` are places from the box's corner, `extent` the box's, both x, y, z.
    """
    left = np.argsort(_scattered(len(inside)), kind="stable")
    size = extent.copy()
    while True:
        grid = [max(1, math.ceil(side)) for side in extent / size]
        numbers = morton(_cell(inside[left], size, grid), grid)
        crowded = int(np.unique(numbers, return_counts=True)[1].max(initial=0))
        last = crowded <= LIMIT or math.prod(grid) >= FINEST
        taken = len(left) if last else len(left) * LIMIT // crowded
        yield _Level(grid=grid, size=size.copy(), rows=np.sort(left[:taken]))
        if last:
            return
        left = left[taken:]
        wide = size * nm
        size[wide > wide.max() / 2] /= 2


def _cells(
    level: _Level, inside: NDArray[np.float64], records: NDArray[np.void], sharding: Sharding
) -> tuple[Iterator[tuple[int, bytes]], int]:
    """Number and content of each cell that has points, in order; and how many points the fullest has (1 at least)."""
    numbers = morton(_cell(inside, level.size, level.grid), level.grid)
    order = np.argsort(numbers, kind="stable")
    found, first = np.unique(numbers[order], return_index=True)
    bounds = [*first.tolist(), len(order)]

    def contents() -> Iterator[tuple[int, bytes]]:
        for number, a, b in zip(found.tolist(), bounds, bounds[1:], strict=False):
            rows = order[a:b]
            ids = (level.rows[rows] + 1).astype("<u8")
            content = len(rows).to_bytes(8, "little") + records[rows].tobytes() + ids.tobytes()
            yield number, sharding.packed(content, LEVEL)

    return contents(), int(np.diff(bounds).max(initial=1))


def _cell(inside: NDArray[np.float64], size: NDArray[np.float64], grid: Sequence[int]) -> NDArray[np.int64]:
    cells: NDArray[np.int64] = np.clip((inside // size).astype(np.int64), 0, np.array(grid) - 1)
    return cells


def _scattered(count: int) -> NDArray[np.uint32]:
    """A number for each of so many rows, without any order that a row's place could follow; always the same."""
    mixed = np.arange(count, dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    return mixed
