"""Detections as Neuroglancer's precomputed annotations; TensorStore reads the sharded indices."""

from __future__ import annotations

import itertools
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from numpy.typing import NDArray

from pipelines.common.annotations import LIMIT, Points, write_annotations
from pipelines.common.precomputed import Frame
from pipelines.common.results import Results

FRAME = Frame(start=(3, 100, 200), shape=(64, 1000, 2000), voxel_nm=(50, 10, 10))
RECORD = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("score", "<f4"), ("size", "<f4"), ("class", "<f4")])
MILLION = 10**6


def points(count: int, box: Frame = FRAME, *, clustered: bool = False) -> Points:
    """Detections somewhere in the box; clustered: most of them in a corner of it."""
    chance = np.random.default_rng(count)
    spread = chance.random((count, 3)) ** (2 if clustered else 1)
    return Points(
        centres=spread * (np.array(box.shape) - 1),
        scores=chance.random(count),
        sizes=chance.random(count),
        kind=chance.integers(0, 2, count),
        kinds=("GABA", "other"),
    )


def written(folder: Path, given: Points, box: Frame = FRAME) -> dict[str, Any]:
    """Write the points; returns the info file."""
    write_annotations(Results(folder.as_uri() + "/"), "annotations", given, box, title="", about="")
    info: dict[str, Any] = json.loads((folder / "annotations" / "info").read_text())
    return info


def index(folder: Path, about: dict[str, Any]) -> Any:
    """The chunks of an index, by number in 8 bytes, the greatest first."""
    base = {"driver": "file", "path": f"{folder / 'annotations' / about['key']}/"}
    spec = {"driver": "neuroglancer_uint64_sharded", "metadata": about["sharding"], "base": base}
    return ts.KvStore.open(spec).result()


def cell_number(cell: tuple[int, ...], grid: list[int]) -> int:
    """The compressed Morton code of a cell, bit by bit, as the format's specification has it."""
    number, out = 0, 0
    for bit in range(32):
        for place, side in zip(cell, grid, strict=True):
            if 1 << bit < side:
                number |= (place >> bit & 1) << out
                out += 1
    return number


def cells(folder: Path, level: dict[str, Any]) -> dict[tuple[int, ...], tuple[NDArray[Any], NDArray[np.uint64]]]:
    """Records and ids of each cell of a level that has any."""
    store, found = index(folder, level), {}
    for cell in itertools.product(*map(range, level["grid_shape"])):
        content = store.read(cell_number(cell, level["grid_shape"]).to_bytes(8, "big")).result().value
        if content:
            count = int.from_bytes(content[:8], "little")
            records = np.frombuffer(content, RECORD, count, offset=8)
            ids = np.frombuffer(content, "<u8", offset=8 + count * RECORD.itemsize)
            assert len(ids) == count
            found[cell] = records, ids
    return found


@pytest.mark.parametrize("clustered", [False, True])
def test_every_point_is_in_one_cell_of_one_level_which_is_where_it_lies(tmp_path: Path, clustered: bool) -> None:
    given = points(30_000, clustered=clustered)

    info = written(tmp_path, given)

    seen: list[NDArray[np.uint64]] = []
    for level in info["spatial"]:
        for cell, (records, ids) in cells(tmp_path, level).items():
            low = np.array(info["lower_bound"]) + np.array(cell) * level["chunk_size"]
            place = np.stack([records[axis] for axis in "xyz"], axis=1)
            assert (place >= low - 1e-2).all()
            assert (place <= low + level["chunk_size"] + 1e-2).all()
            assert len(ids) <= level["limit"]
            rows = ids.astype(np.int64) - 1
            assert np.allclose(place[:, ::-1], given.centres[rows] + FRAME.start + 0.5, atol=1e-2)
            seen.append(ids)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(1, 30_001))


@pytest.mark.parametrize("count", [1, 511, 512, 40_000])
def test_a_point_is_found_by_its_id(tmp_path: Path, count: int) -> None:
    given = points(count)

    info = written(tmp_path, given)

    store = index(tmp_path, info["by_id"])
    for number in {1, count, count // 2 + 1, min(count, 32_768)}:
        [record] = np.frombuffer(store.read(number.to_bytes(8, "big")).result().value, RECORD)
        row = number - 1
        assert np.allclose([record["z"], record["y"], record["x"]], given.centres[row] + FRAME.start + 0.5)
        assert np.allclose(
            [record["score"], record["size"], record["class"]], [given.scores[row], given.sizes[row], given.kind[row]]
        )


def test_points_say_where_they_are_and_what_they_are(tmp_path: Path) -> None:
    info = written(tmp_path, points(5))

    assert info["@type"] == "neuroglancer_annotations_v1"
    assert info["annotation_type"] == "point"
    assert info["dimensions"] == {"x": [1e-8, "m"], "y": [1e-8, "m"], "z": [5e-8, "m"]}
    assert (info["lower_bound"], info["upper_bound"]) == ([200, 100, 3], [2200, 1100, 67])
    assert {entry["id"]: entry["type"] for entry in info["properties"]} == dict.fromkeys(
        ("score", "size", "class"), "float32"
    )
    assert info["properties"][2]["enum_labels"] == ["GABA", "other"]


def test_no_points_are_annotations_too(tmp_path: Path) -> None:
    info = written(tmp_path, points(0))

    [level] = info["spatial"]
    assert (level["grid_shape"], level["limit"]) == ([1, 1, 1], 1)
    assert not cells(tmp_path, level)


@pytest.mark.parametrize("clustered", [False, True])
def test_the_first_picture_of_a_million_takes_forty_requests_and_five_megabytes(
    tmp_path: Path, clustered: bool
) -> None:
    """A viewer takes level after level until its picture is full: all of the box at a point for each 8 by 8 pixels."""
    box = Frame(start=(0, 0, 0), shape=(512, 2048, 2048), voxel_nm=(50, 10, 10))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    info = written(tmp_path, points(MILLION, box, clustered=clustered), box)
    took, grown = time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    shown, requests, size = 0, 1, len(json.dumps(info))
    for level in info["spatial"]:
        if shown >= 1920 * 1080 / 8**2:
            break
        found = cells(tmp_path, level)
        shown += sum(len(ids) for _, ids in found.values())
        files = [path.stat().st_size for path in (tmp_path / "annotations" / level["key"]).iterdir()]
        requests += int(np.prod(level["grid_shape"])) + 2 * len(files)
        size += sum(files)  # no more than all there is
    assert shown >= 1920 * 1080 / 8**2
    assert requests <= 40
    assert size <= 5 * 10**6
    assert len(list((tmp_path / "annotations").rglob("*.shard"))) < 1000
    assert took < 30
    assert grown < 300 * 1024, "KiB"


def test_each_level_shows_as_much_of_every_part(tmp_path: Path) -> None:
    given = points(50_000, clustered=True)

    first = written(tmp_path, given)["spatial"][0]

    [(_, ids)] = cells(tmp_path, first).values()
    shown = given.centres[ids.astype(np.int64) - 1]
    assert 0.9 * LIMIT <= len(ids) <= first["limit"]
    for axis, side in enumerate(FRAME.shape):
        for part in (0.01, 0.1, 0.5):
            of_all, of_shown = ((centres[:, axis] < part * side).mean() for centres in (given.centres, shown))
            assert abs(of_all - of_shown) < 0.03
