"""Volumes of ids in which few voxels have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.common import precomputed, sparse
from pipelines.common.boxes import Triple
from pipelines.common.precomputed import Frame, write_segmentation
from pipelines.common.results import Results
from pipelines.common.sparse import Sparse, bands, slabs


@pytest.fixture(autouse=True)
def few_tiles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names for tiles are needed where a sort cannot tell all of them from one another."""
    monkeypatch.setattr(sparse, "_SPAN", 3)


def drawn(extent: Triple, *, seed: int) -> np.ndarray:
    """Ids up to the largest one, in cubes that lie over one another."""
    draw = np.random.default_rng(seed)
    ids = np.zeros(extent, np.uint32)
    for _ in range(ids.size // 2000):
        z, y, x = (int(draw.integers(side)) for side in extent)
        ids[z : z + 3, y : y + 4, x : x + 3] = draw.integers(1, 2**32)
    return ids


def filled(volume: Sparse, ids: np.ndarray, *, seed: int = 0) -> Sparse:
    """With those ids, some voxels at a time, in no order."""
    at = np.random.default_rng(seed).permutation(np.argwhere(ids))
    for part in np.array_split(at, 9):
        volume.add(volume.packed(part, ids[tuple(part.T)].astype(np.int64)))
    return volume


@pytest.mark.parametrize("once", [True, False])
def test_a_sparse_volume_has_the_ids_that_it_was_given(once: bool) -> None:
    ids = drawn((17, 300, 520), seed=1)

    with filled(Sparse((17, 300, 520), once=once), ids) as volume:
        assert np.array_equal(volume.whole(), ids)


def test_of_several_ids_of_a_voxel_the_greatest_one_stays() -> None:
    with Sparse((3, 4, 5)) as volume:
        for ids in ([3, 1], [7, 9], [5, 2]):
            volume.add(volume.packed(np.array([[1, 2, 3], [1, 2, 3]]), np.array(ids)))
        only = volume.whole()

    assert only[1, 2, 3] == 9
    assert np.count_nonzero(only) == 1


def test_a_volume_that_nothing_was_added_to_is_empty() -> None:
    with Sparse((9, 4, 5)) as volume:
        assert not volume.whole().any()
        assert [few.ids.size for _, few in volume.bands()] == [0] * 9


def test_values_are_given_by_id_and_bands_cover_every_voxel_once() -> None:
    ids = drawn((17, 300, 520), seed=3)
    values = (np.arange(2**16) % 251).astype(np.uint8)

    with filled(Sparse((17, 300, 520), once=True), ids) as volume:
        for labels in (ids, volume):
            assert np.array_equal(
                np.concatenate([slab.copy() for slab in slabs(labels, lambda few: values[few >> 16])]),
                values[ids >> 16],
            )
            again, covered = np.zeros_like(ids), np.zeros(ids.shape, np.uint8)
            for corner, few in bands(labels, piece=520 * 70):
                z, y, x = (low + at for low, at in zip(corner, few.zyx, strict=True))
                again[z, y, x] = few.ids
                covered[tuple(slice(low, low + side) for low, side in zip(corner, few.extent, strict=True))] += 1
            assert np.array_equal(again, ids)
            assert covered.min() == covered.max() == 1


@pytest.mark.parametrize(("extent", "start"), [((9, 700, 900), (3, 5, 7)), ((33, 620, 300), (1, 0, 3))])
def test_a_sparse_segmentation_is_written_as_a_whole_array_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extent: Triple, start: Triple
) -> None:
    monkeypatch.setattr(precomputed, "COARSEST", 100)
    ids, frame = drawn(extent, seed=2), Frame(start=start, shape=extent, voxel_nm=(70, 100, 100))

    with filled(Sparse(extent, once=True), ids) as volume:
        for name, labels in (("array", ids), ("sparse", volume)):
            results = Results(f"{tmp_path.as_uri()}/{name}/")
            write_segmentation(results, "s", labels, frame, title="", about="")

    written = sorted(path.relative_to(tmp_path / "array") for path in (tmp_path / "array").rglob("*.*"))
    assert len(written) > 4
    for path in written:
        assert (tmp_path / "sparse" / path).read_bytes() == (tmp_path / "array" / path).read_bytes()
