"""Chunks by name out of sharded layers, as TensorStore reads them, and nothing out of what is no layer."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from bot.domain.errors import NotFound
from bot.domain.shards import Layer
from pipelines.common.annotations import Points, write_annotations
from pipelines.common.precomputed import Frame, write_image, write_segmentation
from pipelines.common.results import Results

FRAME = Frame(start=(3, 100, 1000), shape=(20, 700, 900), voxel_nm=(50, 10, 10))
CHANCE = np.random.default_rng(3)


class Folder:
    """A layer in a folder, read chunk by chunk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layer = Layer((path / "info").read_bytes())
        self.info: dict[str, Any] = json.loads(self.layer.info)
        self.reads = 0
        self._known: dict[str, Any] = {}

    def chunk(self, name: str) -> bytes:
        content, gzipped = self.layer.chunk(name, self._read, self._remembered)
        return gzip.decompress(content) if gzipped else content

    def _read(self, name: str, start: int, length: int) -> bytes:
        self.reads += 1
        try:
            return (self.path / name).read_bytes()[start : start + length]
        except OSError:
            raise NotFound(name) from None

    def _remembered(self, name: str, find: Any) -> Any:
        if name not in self._known:
            self._known[name] = find()
        return self._known[name]


def unsharded(layer: Folder, out: Path) -> None:
    """Write all chunks of a volume as files of their own."""
    out.mkdir()
    (out / "info").write_bytes(layer.layer.info)
    for scale in layer.info["scales"]:
        begin, size, side = (np.array(scale[name]) for name in ("voxel_offset", "size", "chunk_sizes"))
        for cell in np.ndindex(*(-(-size // side[0]))):
            first = begin + np.array(cell) * side[0]
            stop = np.minimum(first + side[0], begin + size)
            name = "_".join(f"{a}-{b}" for a, b in zip(first, stop, strict=True))
            (out / scale["key"]).mkdir(exist_ok=True)
            (out / scale["key"] / name).write_bytes(layer.chunk(f"{scale['key']}/{name}"))


@pytest.mark.parametrize("kind", ["image", "segmentation"])
def test_a_volume_made_of_its_chunks_is_the_volume(tmp_path: Path, kind: str) -> None:
    values = CHANCE.integers(0, 200, FRAME.shape).astype(np.uint16)
    results = Results(tmp_path.as_uri() + "/")
    if kind == "image":
        read = lambda start, stop, top, bottom: values[start:stop, top:bottom]  # noqa: E731
        write_image(results, "one", read, values.dtype, FRAME, title="", about="")
    else:
        write_segmentation(results, "one", values, FRAME, title="", about="")
    layer = Folder(tmp_path / "one")

    unsharded(layer, tmp_path / "two")

    for number, _ in enumerate(layer.info["scales"]):
        one, two = (
            ts.open(
                {
                    "driver": "neuroglancer_precomputed",
                    "kvstore": {"driver": "file", "path": f"{tmp_path / name}/"},
                    "scale_index": number,
                }
            )
            .result()
            .read()
            .result()
            for name in ("one", "two")
        )
        assert np.array_equal(one, two)
    assert "sharding" not in layer.layer.info.decode()


def test_every_annotation_is_in_one_cell_and_under_its_id(tmp_path: Path) -> None:
    count = 40_000
    centres = CHANCE.random((count, 3)) * (np.array(FRAME.shape) - 1)
    numbers = CHANCE.random(count)
    points = Points(centres=centres, scores=numbers, sizes=numbers, kind=np.zeros(count, np.int64), kinds=("synapse",))
    write_annotations(Results(tmp_path.as_uri() + "/"), "points", points, FRAME, title="", about="")
    layer = Folder(tmp_path / "points")

    ids: list[int] = []
    for level in layer.info["spatial"]:
        for cell in np.ndindex(*level["grid_shape"]):
            try:
                content = layer.chunk(f"{level['key']}/{'_'.join(map(str, cell))}")
            except NotFound:
                continue
            (held,) = struct.unpack_from("<Q", content)
            ids += struct.unpack_from(f"<{held}Q", content, 8 + 24 * held)
    assert sorted(ids) == list(range(1, count + 1))
    x, y, z, score, *_ = struct.unpack("<6f", layer.chunk("by_id/777"))
    assert [z, y, x] == pytest.approx(centres[776] + np.array(FRAME.start) + 0.5, abs=1e-3)
    assert score == pytest.approx(numbers[776])


def test_an_index_is_read_once_for_all_its_chunks(tmp_path: Path) -> None:
    write_segmentation(
        Results(tmp_path.as_uri() + "/"), "one", np.ones((8, 512, 512), np.uint32), FRAME_OF_FOUR, title="", about=""
    )
    layer = Folder(tmp_path / "one")
    key = layer.info["scales"][0]["key"]

    for x, y in ((0, 0), (256, 0), (0, 256), (256, 256)):
        layer.chunk(f"{key}/{x}-{x + 256}_{y}-{y + 256}_0-8")

    assert layer.reads == 2 + 4


FRAME_OF_FOUR = Frame(start=(0, 0, 0), shape=(8, 512, 512), voxel_nm=(50, 10, 10))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "info",
        "x/0-1_0-1_0-1",
        "10_10_50/",
        "10_10_50/0-256_0-256_0-9999999999999",
        "10_10_50/9999-1_0-1_0-1",
        "10_10_50/0_0_0",
        "10_10_50/../info",
        "10_10_50/0.shard",
    ],
)
def test_what_is_no_chunk_is_not_found(tmp_path: Path, name: str) -> None:
    write_segmentation(
        Results(tmp_path.as_uri() + "/"), "one", np.ones((8, 512, 512), np.uint32), FRAME_OF_FOUR, title="", about=""
    )
    with pytest.raises(NotFound):
        Folder(tmp_path / "one").chunk(name)


SHARDED = {
    "hash": "identity",
    "preshift_bits": 3,
    "minishard_bits": 0,
    "shard_bits": 0,
    "minishard_index_encoding": "raw",
    "data_encoding": "raw",
}
SCALE = {"key": "k", "size": [9, 9, 9], "voxel_offset": [0, 0, 0], "chunk_sizes": [[8, 8, 8]], "sharding": SHARDED}


@pytest.mark.parametrize(
    "info",
    [
        b"",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"scales": 3}).encode(),
        json.dumps({"scales": [SCALE | {"chunk_sizes": [[0, 1, 1]]}]}).encode(),
        json.dumps({"scales": [SCALE | {"chunk_sizes": []}]}).encode(),
        json.dumps({"scales": [SCALE | {"size": ["a", 1, 1]}]}).encode(),
        json.dumps({"scales": [SCALE | {"sharding": SHARDED | {"preshift_bits": 10**9}}]}).encode(),
        json.dumps({"scales": [SCALE | {"sharding": SHARDED | {"hash": "murmurhash3_x86_128"}}]}).encode(),
        json.dumps({"by_id": {"sharding": SHARDED}}).encode(),
    ],
)
def test_what_is_no_description_is_not_found(info: bytes) -> None:
    with pytest.raises(NotFound):
        Layer(info)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"short",
        struct.pack("<2Q", 0, 2**63),
        struct.pack("<2Q", 2**63, 2**63 + 24),
        struct.pack("<2Q", 9, 3),
        struct.pack("<2Q", 0, 23) + bytes(23),
        struct.pack("<2Q", 0, 32) + bytes(32),
        struct.pack("<2Q", 0, 24) + struct.pack("<3Q", 0, 2**63, 5),
        struct.pack("<2Q", 0, 24) + struct.pack("<3Q", 0, 0, 2**40),
    ],
    ids=range(9),
)
def test_in_a_broken_file_nothing_is_found(tmp_path: Path, file: bytes) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "info").write_text(json.dumps({"scales": [SCALE]}))
    (tmp_path / "k" / "0.shard").write_bytes(file)

    with pytest.raises(NotFound):
        Folder(tmp_path).chunk("k/0-8_0-8_0-8")


def test_an_index_that_unpacks_to_more_than_it_may_takes_no_memory(tmp_path: Path) -> None:
    packed = gzip.compress(bytes(2**28))
    (tmp_path / "k").mkdir()
    (tmp_path / "info").write_text(
        json.dumps({"scales": [SCALE | {"sharding": SHARDED | {"minishard_index_encoding": "gzip"}}]})
    )
    (tmp_path / "k" / "0.shard").write_bytes(struct.pack("<2Q", 0, len(packed)) + packed)

    with pytest.raises(NotFound):
        Folder(tmp_path).chunk("k/0-8_0-8_0-8")
