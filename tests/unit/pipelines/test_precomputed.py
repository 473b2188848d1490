"""Segmentations and images in Neuroglancer's precomputed format, as TensorStore reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from numpy.typing import NDArray

from pipelines.common import precomputed
from pipelines.common.boxes import Triple
from pipelines.common.precomputed import Frame, write_image, write_segmentation
from pipelines.common.results import Results

FRAME = Frame(start=(3, 101, 50), shape=(21, 300, 530), voxel_nm=(70, 4, 4))


def stored(folder: Path, scale: int = 0) -> NDArray[Any]:
    """One resolution of a volume, z, y, x, from the box's corner."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "scale_index": scale,
    }
    values: NDArray[Any] = ts.open(spec, read=True).result().read().result()
    return values[..., 0].transpose(2, 1, 0)


def segmentation(folder: Path, labels: NDArray[Any], box: Frame = FRAME) -> Path:
    write_segmentation(Results(folder.as_uri() + "/"), "segmentation", labels, box, title="", about="")
    return folder / "segmentation"


def image(folder: Path, values: NDArray[Any], box: Frame = FRAME) -> Path:
    def read(start: int, stop: int, top: int, bottom: int) -> NDArray[Any]:
        return values[start:stop, top:bottom]

    write_image(Results(folder.as_uri() + "/"), "image", read, values.dtype, box, title="", about="")
    return folder / "image"


def crowded(kinds: int, shape: Triple) -> NDArray[np.uint32]:
    """Ids in which a block of the encoding holds up to so many."""
    return np.random.default_rng(kinds).integers(0, kinds, shape, np.uint32)


@pytest.mark.parametrize("kinds", [1, 2, 3, 16, 17, 256, 600, 2**32 - 1], ids="{} kinds".format)
@pytest.mark.parametrize("shape", [(21, 300, 530), (1, 7, 9), (8, 256, 256)], ids=str)
def test_ids_are_read_as_they_were_written(tmp_path: Path, kinds: int, shape: Triple) -> None:
    labels = crowded(kinds, shape)
    box = Frame(start=(3, 101, 50), shape=shape, voxel_nm=(70, 4, 4))

    assert np.array_equal(stored(segmentation(tmp_path, labels, box)), labels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64"])
def test_a_channels_values_are_read_as_they_were_written(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, FRAME.shape, dtype, endpoint=True)

    assert np.array_equal(stored(image(tmp_path, values)), values)


def test_a_volume_lies_where_the_box_is_in_nanometres(tmp_path: Path) -> None:
    info = json.loads((segmentation(tmp_path, crowded(3, FRAME.shape)) / "info").read_text())

    scale = info["scales"][0]
    assert (info["type"], info["data_type"], scale["encoding"]) == ("segmentation", "uint32", "compressed_segmentation")
    assert (scale["voxel_offset"], scale["size"], scale["resolution"]) == ([50, 101, 3], [530, 300, 21], [4, 4, 70])


def coarse(array: NDArray[Any], box: Frame, factor: Triple) -> Iterator[tuple[Triple, NDArray[Any]]]:
    """Each voxel of a coarser resolution, whose voxels begin at multiples of the factor, with those it is made of."""
    low = [a // f for a, f in zip(box.start, factor, strict=True)]
    shape = [-(-(a + n) // f) - b for a, n, f, b in zip(box.start, box.shape, factor, low, strict=True)]
    for place in np.ndindex(*shape):
        ends = [(b + i) * f - a for a, f, b, i in zip(box.start, factor, low, place, strict=True)]
        cut = tuple(slice(max(0, end), end + f) for end, f in zip(ends, factor, strict=True))
        yield (place[0], place[1], place[2]), array[cut]


def test_in_a_coarser_resolution_the_greatest_id_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precomputed, "COARSEST", 16)
    box = Frame(start=(3, 5, 7), shape=(6, 40, 61), voxel_nm=(10, 4, 4))
    labels = np.where(crowded(20, box.shape) == 1, crowded(999, box.shape), 0).astype(np.uint32)
    folder = segmentation(tmp_path, labels, box)

    scales = json.loads((folder / "info").read_text())["scales"]
    assert [scale["resolution"] for scale in scales] == [[4, 4, 10], [8, 8, 10], [16, 16, 20]]
    for number, factor in ((1, (1, 2, 2)), (2, (2, 4, 4))):
        found = stored(folder, number)
        assert all(found[place] == part.max() for place, part in coarse(labels, box, factor))


def test_chunks_of_the_coarsest_resolutions_are_thin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precomputed, "COARSEST", 64)
    box = Frame(start=(3, 5, 7), shape=(19, 200, 300), voxel_nm=(50, 4, 4))
    labels = np.where(crowded(20, box.shape) == 1, crowded(999, box.shape), 0).astype(np.uint32)
    folder = segmentation(tmp_path, labels, box)

    scales = json.loads((folder / "info").read_text())["scales"]
    assert [(max(scale["size"][:2]), scale["chunk_sizes"][0][2]) for scale in scales] == [
        (300, 8),
        (151, 8),
        (76, 4),
        (39, 2),
    ]
    for number, factor in ((0, 1), (1, 2), (2, 4), (3, 8)):
        found = stored(folder, number)
        assert all(found[place] == part.max() for place, part in coarse(labels, box, (1, factor, factor)))


@pytest.mark.parametrize(("wide", "scales"), [(256, 1), (257, 2), (512, 2), (1025, 3)])
def test_a_section_larger_than_a_chunk_has_a_coarser_one(wide: int, scales: int, tmp_path: Path) -> None:
    box = Frame(start=(0, 0, 0), shape=(1, wide, 9), voxel_nm=(50, 50, 50))
    folder = image(tmp_path, np.zeros(box.shape, np.uint8), box)

    assert len(json.loads((folder / "info").read_text())["scales"]) == scales


def test_a_coarser_image_is_the_mean_of_its_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precomputed, "COARSEST", 32)
    box = Frame(start=(0, 6, 8), shape=(5, 40, 60), voxel_nm=(50, 4, 4))
    values = crowded(250, box.shape).astype(np.uint8)

    found = stored(image(tmp_path, values, box), 1)

    assert all(found[place] == int(part.mean()) for place, part in coarse(values, box, (1, 2, 2)))


def test_a_large_volume_lies_in_few_files_whatever_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = crowded(5, (40, 600, 700))
    box = Frame(start=(0, 0, 0), shape=labels.shape, voxel_nm=(50, 50, 50))
    few = segmentation(tmp_path / "few", labels, box)
    assert len(list(few.glob("*/*.shard"))) < 16

    monkeypatch.setattr(precomputed, "FILE_OF_IDS", 4 * 2**20)
    many = segmentation(tmp_path / "many", labels, box)
    assert len(list(many.glob("50_50_50/*.shard"))) == 5 * 3 * 2  # two chunks along x share a file
    assert np.array_equal(stored(few), stored(many))


def test_an_info_file_comes_last_and_an_earlier_one_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = segmentation(tmp_path, crowded(3, FRAME.shape))

    def broken(chunk: object) -> bytes:
        raise OSError

    monkeypatch.setattr(precomputed, "compressed_segmentation", broken)
    with pytest.raises(OSError):  # noqa: PT011 - the one above
        segmentation(tmp_path, crowded(3, FRAME.shape))

    assert not (folder / "info").exists()
