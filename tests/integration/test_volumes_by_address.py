"""Volumes by address, from files, a web server and buckets: the same voxels through every door, and what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import tensorstore as ts
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from pipelines.common.sharded import Sharding, gzipped
from sandbox import stores
from sandbox.boss import BossStandIn
from sandbox.volumes import Bricks
from tests.support.certificates import certificate_in
from volumes.address import Address, Location, parse
from volumes.describe import describe
from volumes.described import Volume
from volumes.documents import Fetched
from volumes.errors import VolumeDamaged, VolumeError, VolumeRefused, VolumeUnavailable, WrongVolume
from volumes.reading import Array
from volumes.roots import Roots, addresses

OFFSET = (3, 20, 10)
SHAPE = (40, 150, 200)
BOUNDS = ((3, 43), (20, 170), (10, 210))
BOX = ((5, 30), (25, 160), (20, 205))


@pytest.fixture(scope="module")
def channels() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(14)
    return {name: random.integers(1, 65535, SHAPE).astype("uint16") for name in ("PSD95", "Synapsin")}


@pytest.fixture(scope="module")
def _server() -> Iterator[BossStandIn]:
    with BossStandIn(demo=False) as server:
        yield server


@pytest.fixture
def server(_server: BossStandIn) -> BossStandIn:
    """A web server and an endpoint of S3 at one address."""
    _server.reset()
    return _server


class Reader:
    """Describes and reads as a program does, with what the admin allows."""

    def __init__(self, *roots: str, seconds: float = 5, environ: dict[str, str] | None = None) -> None:
        self.documents = Fetched(Roots.parse(roots), time.monotonic() + seconds, environ=environ or {})

    def describe(self, address: str) -> Volume:
        found = parse(address)
        assert isinstance(found, Address)
        return describe(found, self.documents)

    def array(self, address: str, channel: str = "PSD95", *, patience: float = 5) -> Array:
        found = next(each for each in self.describe(address).channels if each.name == channel)
        return Array(found, documents=self.documents, pauses=(0, 0), patience=patience)


def of(box: tuple[tuple[int, int], ...], data: NDArray[Any]) -> NDArray[Any]:
    """The part of a channel's voxels that lies in a box."""
    return data[tuple(slice(a - o, b - o) for (a, b), o in zip(box, OFFSET, strict=True))]


@pytest.mark.parametrize("door", stores.DOORS)
def test_every_format_gives_the_same_volume(door: str, channels: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    address = stores.DOORS[door](tmp_path / "volume", channels, offset=OFFSET)
    reader = Reader(tmp_path.as_uri())

    volume = reader.describe(address)

    assert volume.bounds == BOUNDS
    assert volume.voxel_nm == (50, 96, 96)
    assert [(c.name, c.datatype) for c in volume.channels] == [("PSD95", "uint16"), ("Synapsin", "uint16")]
    for name, data in channels.items():
        array = reader.array(address, name)
        assert np.array_equal(array.read(BOX), of(BOX, data))
        assert np.array_equal(array.read(BOUNDS), data)
        assert array.missing == 0


@pytest.mark.parametrize("axes", ["xyzc", "zcyx", "tczyx"])
def test_axes_may_have_any_order(axes: str, channels: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    address = stores.ome_zarr(tmp_path / "volume.zarr", channels, axes=axes, offset=OFFSET)

    assert np.array_equal(Reader(tmp_path.as_uri()).array(address).read(BOX), of(BOX, channels["PSD95"]))


def test_big_endian_voxels_are_read_as_any_others(channels: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    address = stores.ome_zarr(tmp_path / "volume.zarr", channels, dtype=">u2", offset=OFFSET)

    found = Reader(tmp_path.as_uri()).array(address).read(BOX)

    assert found.dtype.isnative
    assert np.array_equal(found, of(BOX, channels["PSD95"]))


@pytest.mark.parametrize("scheme", ["http", "s3", "gs"])
@pytest.mark.parametrize("door", stores.DOORS)
def test_servers_give_the_same_as_files(
    door: str, scheme: str, server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    address = stores.DOORS[door](tmp_path / "volume", channels, offset=OFFSET)
    server.buckets.add("lab", tmp_path)
    root = f"{server.url}/lab" if scheme == "http" else f"{scheme}://lab"
    address = address.partition("://")[0] + f"://{root}/volume"
    if scheme == "http" and not door.startswith("ome"):
        address += "/{PSD95,Synapsin}"  # a web server lists no folders
    reader = Reader(root, environ={"AWS_ENDPOINT_URL_S3": server.url, "STORAGE_EMULATOR_HOST": server.url})

    assert reader.describe(address).bounds == BOUNDS
    assert np.array_equal(reader.array(address).read(BOX), of(BOX, channels["PSD95"]))


@pytest.mark.parametrize("own", ["", "127.0.0.1:9", "https://gcs.example.org/"])
def test_googles_buckets_lie_where_googles_own_tools_look_for_them(own: str) -> None:
    place = Location.parse("gs://lab/a b")

    url = Reader("gs://lab", environ={"STORAGE_EMULATOR_HOST": own} if own else {}).documents.url(place)

    where = {"": "https://storage.googleapis.com", "127.0.0.1:9": "http://127.0.0.1:9"}
    assert url == f"{where.get(own, 'https://gcs.example.org')}/lab/a%20b"


def test_googles_buckets_are_asked_without_credentials(
    server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
    server.buckets.add("private", tmp_path, public=False)
    reader = Reader("gs://private", environ={"STORAGE_EMULATOR_HOST": server.url})

    with pytest.raises(VolumeRefused, match="not public, or not there"):
        reader.describe("precomputed://gs://private/volume")


def test_a_private_bucket_is_read_with_a_signature(
    server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
    server.buckets.add("private", tmp_path, public=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    reader = Reader("s3://private", environ={"AWS_ENDPOINT_URL_S3": server.url})

    array = reader.array("precomputed://s3://private/volume")

    assert np.array_equal(array.read(BOX), of(BOX, channels["PSD95"]))


def test_a_bucket_that_refuses_strangers_says_so(
    server: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server.buckets.add("private", tmp_path, public=False)
    reader = Reader("s3://private", environ={"AWS_ENDPOINT_URL_S3": server.url})

    with pytest.raises(VolumeRefused, match="not public, or not there"):
        reader.describe("precomputed://s3://private/volume")


THROUGH = """
import hashlib, json, os, sys
from tests.integration.test_volumes_by_address import BOX, Reader
from volumes.errors import VolumeError
from volumes.reading import Array
root, address, trusted, still = sys.argv[1:]
os.environ["SSL_CERT_FILE"] = trusted
reader = Reader(root)
channel = reader.describe(address).channels[0]
os.environ["SSL_CERT_FILE"] = still
try:
    print(hashlib.sha256(Array(channel, documents=reader.documents, pauses=()).read(BOX)).hexdigest())
except VolumeError as error:
    print(type(error).__name__, error)
"""
"""Its own process, since tensorstore reads these variables once: the checksum of a box, or what was said."""
UNTRUSTED = r"127\.0\.0\.1(:\d+)? cannot prove who it is: this machine does not trust its certificate\."


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody vouches for, with its key."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(certificate: Path, channels: dict[str, NDArray[Any]], tmp_path: Path) -> Iterator[BossStandIn]:
    """A web server that speaks TLS, with a volume at `/lab/volume/{PSD95}`."""
    with BossStandIn(demo=False, certificate=certificate) as server:
        stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
        server.buckets.add("lab", tmp_path)
        yield server


def _through(server: BossStandIn, trusted: Path, still: Path) -> str:
    """What is read of the volume where these certificates are trusted while it is described, and while it is read."""
    argv = [server.url, f"precomputed://{server.url}/lab/volume/PSD95", str(trusted), str(still)]
    done = subprocess.run([sys.executable, "-c", THROUGH, *argv], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_web_server_is_read_over_tls_where_its_certificate_is_trusted(
    secured: BossStandIn, certificate: Path, channels: dict[str, NDArray[Any]]
) -> None:
    found = _through(secured, certificate, certificate)

    assert secured.url.startswith("https://")
    assert found == hashlib.sha256(of(BOX, channels["PSD95"]).tobytes()).hexdigest()


def test_a_web_server_whose_certificate_nobody_trusts_is_refused(
    secured: BossStandIn, certificate: Path, tmp_path: Path
) -> None:
    with pytest.raises(WrongVolume, match=UNTRUSTED):
        Reader(secured.url).describe(f"precomputed://{secured.url}/lab/volume/PSD95")
    assert not secured.requests

    (tmp_path / "other").mkdir()
    said = _through(secured, certificate, certificate_in(tmp_path / "other"))
    assert re.match(f"WrongVolume {UNTRUSTED}", said)


def test_bulk_channels_are_the_same_voxels_as_cutouts(server: BossStandIn) -> None:
    bricks = Bricks("uint16")
    data = np.random.default_rng(1).integers(0, 999, (20, 300, 300)).astype("uint16")
    bricks.write((5, 6, 7), data)
    server.add("lab", "bulk", shape=(20, 300, 300), offset=(5, 6, 7), channels={"PSD95": bricks}, bulk="bulk")
    reader = Reader("s3://bulk", environ={"AWS_ENDPOINT_URL_S3": server.url})

    array = reader.array("precomputed://s3://bulk/lab/bulk")

    assert np.array_equal(array.read(((5, 25), (6, 306), (7, 307))), data)


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


def _chunks(folder: Path) -> list[Path]:
    named = ("info", "attributes.json", "zarr.json", ".zarray", ".zattrs", ".zgroup")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in named)


@pytest.mark.parametrize("door", stores.DOORS)
def test_a_chunk_that_is_not_stored_is_the_fill_value_and_is_counted(
    door: str, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    address = stores.DOORS[door](tmp_path / "volume", channels, offset=OFFSET)
    for path in _chunks(tmp_path):
        path.unlink()
    array = Reader(tmp_path.as_uri()).array(address)

    assert not array.read(BOX).any()
    assert array.missing == 1


def test_chunks_that_were_packed_file_by_file_are_not_taken_for_missing_ones(
    channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    address = stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
    for path in _chunks(tmp_path):
        path.rename(f"{path}.gz")

    with pytest.raises(WrongVolume, match=r"packed one by one \(\.gz\)"):
        Reader(tmp_path.as_uri()).array(address).read(BOX)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(3).bytes(path.stat().st_size + 1))


@pytest.mark.parametrize("harm", [_half, _noise])
@pytest.mark.parametrize("door", stores.DOORS)
def test_a_damaged_chunk_ends_the_run_and_never_gives_voxels(
    door: str, harm: Callable[[Path], None], channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    address = stores.DOORS[door](tmp_path / "volume", channels, offset=OFFSET)
    for path in _chunks(tmp_path):
        harm(path)

    with pytest.raises(VolumeDamaged, match="A chunk of the channel PSD95 is damaged"):
        Reader(tmp_path.as_uri()).array(address).read(BOUNDS)


def test_a_chunk_that_unpacks_to_more_than_it_may_is_refused(channels: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    address = stores.n5(tmp_path / "volume", channels, offset=OFFSET)
    bomb = gzip.compress(bytes(2**26))
    for path in _chunks(tmp_path):
        path.write_bytes(path.read_bytes()[:16] + bomb)

    with pytest.raises(VolumeDamaged, match="cannot be unpacked"):
        Reader(tmp_path.as_uri()).array(address).read(BOX)


SHARDED = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "identity",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 1,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}
PLAIN = {"minishard_index_encoding": "raw", "data_encoding": "raw"}


@pytest.mark.parametrize("changed", [{}, PLAIN, {"hash": "murmurhash3_x86_128"}, {"preshift_bits": 9}])
@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg", "compressed_segmentation"])
def test_shards_are_read_as_tensorstore_reads_them(encoding: str, changed: dict[str, Any], tmp_path: Path) -> None:
    kind = "uint64" if encoding.startswith("c") else "uint8"
    scale = {"key": "full/{a}", "size": [50, 40, 30], "voxel_offset": [10, 20, 3], "chunk_size": [16, 8, 8]}
    store = ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{tmp_path}/v/"},
            "create": True,
            "multiscale_metadata": {"type": "image", "data_type": kind, "num_channels": 2 if encoding == "raw" else 1},
            "scale_metadata": {**scale, "encoding": encoding, "resolution": [9, 9, 50], "sharding": SHARDED | changed},
        }
    ).result()
    store[...] = np.random.default_rng(7).integers(0, 200, store.shape).astype(kind)
    name = "channel_1" if encoding == "raw" else "v"
    array = Reader(tmp_path.as_uri()).array(f"precomputed://{tmp_path.as_uri()}/v", name)

    found = array.read(((4, 30), (23, 60), (10, 57)))

    assert np.array_equal(found, store[10:57, 23:60, 4:30, store.shape[3] - 1].T.read().result())
    assert found.any()


NO_SHUFFLE = {"cname": "zstd", "clevel": 5}
BLOSC: Mapping[str, Mapping[str, Any]] = {
    "zarr": {"compressor": {"id": "blosc", "shuffle": 0, **NO_SHUFFLE}},
    "n5": {"compression": {"type": "blosc", "shuffle": 0, **NO_SHUFFLE}},
    "zarr3": {"name": "blosc", "configuration": {"shuffle": "noshuffle", "typesize": 1, "blocksize": 0, **NO_SHUFFLE}},
}


def bloscs(folder: Path, door: str, shape: tuple[int, ...], chunk: tuple[int, ...], *, split: int = 2) -> str:
    """Write zeros, chunk by chunk, packed with blosc; returns the volume's address. The order of axes is z, y, x.

    A chunk's sides are split so in shards.
    """
    array = folder if door == "n5" else folder / "0"
    sharded = {"codecs": [{"name": "bytes"}, BLOSC["zarr3"]]}
    codecs = {
        "zarr3": [{"name": "bytes"}, BLOSC["zarr3"]],
        "shards": [
            {"name": "transpose", "configuration": {"order": [2, 0, 1]}},
            {
                "name": "sharding_indexed",
                "configuration": {**sharded, "chunk_shape": [chunk[i] // split for i in (2, 0, 1)]},
            },
        ],
    }
    metadata: dict[str, Any] = {
        "zarr": {"shape": shape, "chunks": chunk, "dtype": "|u1", **BLOSC["zarr"]},
        "n5": {"dimensions": shape, "blockSize": chunk, "dataType": "uint8", "axes": list("zyx"), **BLOSC["n5"]},
    }.get(door) or {
        "shape": shape,
        "data_type": "uint8",
        "fill_value": 1,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": codecs[door],
    }
    driver = {"shards": "zarr3"}.get(door, door)
    kvstore = {"driver": "file", "path": f"{array}/"}
    store = ts.open(
        {
            "driver": driver,
            "kvstore": kvstore,
            "create": True,
            "metadata": metadata,
            "store_data_equal_to_fill_value": True,
        }
    ).result()
    store[...] = np.zeros(shape, "uint8")
    if door == "n5":
        about = json.loads((folder / "attributes.json").read_text())
        about |= {
            "resolution": [50, 96, 96],
            "units": ["nm"] * 3,
            "transform": {"axes": list("zyx"), "units": ["nm"] * 3, "scale": [50, 96, 96]},
        }
        (folder / "attributes.json").write_text(json.dumps(about))
        return f"n5://{folder.as_uri()}"
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    placed = [{"type": "scale", "scale": [50, 96, 96]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": placed}]}
    if door == "zarr":
        (folder / ".zattrs").write_text(json.dumps({"multiscales": [image | {"version": "0.4"}]}))
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (folder / "zarr.json").write_text(json.dumps(group))
    return f"zarr://{folder.as_uri()}"


@pytest.mark.parametrize("door", ["zarr", "n5", "zarr3", "shards"])
def test_chunks_of_blosc_are_read_where_they_are_as_large_as_they_should_be(door: str, tmp_path: Path) -> None:
    address = bloscs(tmp_path / "v", door, (20, 30, 40), (16, 16, 32))
    array = Reader(tmp_path.as_uri()).array(address, "v")

    assert not array.read(((3, 20), (5, 30), (7, 40))).any()
    assert array.missing == 0


MEMORY = """
import sys
from pathlib import Path
from tests.integration.test_volumes_by_address import Reader
from volumes.errors import VolumeDamaged
def most():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
array = Reader(sys.argv[1]).array(sys.argv[2], "v", patience=60)
before = most()
try:
    array.read(((0, 16), (0, 16), (0, 256)))
    said = "it was read"
except VolumeDamaged as error:
    said = str(error)
print((most() - before) >> 10, said)
"""
"""Its own process: prints by how many MiB its memory grew while eight chunks were read, and what was said of them."""


@pytest.mark.parametrize("door", ["zarr", "n5", "zarr3", "shards"])
def test_eight_chunks_of_blosc_that_unpack_to_more_than_they_may_take_no_memory(door: str, tmp_path: Path) -> None:
    address = bloscs(tmp_path / "v", door, (16, 16, 256), (16, 16, 32))
    bloscs(tmp_path / "bomb", door, (256, 1024, 1024), (256, 1024, 1024))
    (bomb,) = _chunks(tmp_path / "bomb")
    for path in _chunks(tmp_path / "v"):
        own = path.read_bytes()[:16] if door == "n5" else b""  # the block's extent, which is right
        path.write_bytes(own + bomb.read_bytes()[len(own) :])

    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path.as_uri(), address], capture_output=True, text=True, check=True
    )

    grown, _, said = done.stdout.partition(" ")
    assert "cannot be unpacked to what it should hold" in said
    assert int(grown) < 40, done.stdout


@pytest.mark.parametrize("door", ["zarr", "n5", "zarr3", "shards"])
def test_eight_files_that_are_longer_than_chunks_may_be_take_no_memory(door: str, tmp_path: Path) -> None:
    address = bloscs(tmp_path / "v", door, (16, 16, 256), (16, 16, 32))
    for path in _chunks(tmp_path / "v"):
        os.truncate(path, 2**28)  # of zeros, which take no room on a disk

    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path.as_uri(), address], capture_output=True, text=True, check=True
    )

    grown, _, said = done.stdout.partition(" ")
    assert "cannot be unpacked to what it should hold" in said
    assert int(grown) < 40, done.stdout


def test_a_shard_may_be_long_for_its_chunks_headers(tmp_path: Path) -> None:
    address = bloscs(tmp_path / "v", "shards", (64, 64, 64), (64, 64, 64), split=64)
    (shard,) = _chunks(tmp_path / "v")
    assert shard.stat().st_size > 30 * 64**3, "its chunks are voxels"

    assert not Reader(tmp_path.as_uri()).array(address, "v").read(((0, 1), (0, 1), (0, 64))).any()


def _shards(folder: Path, encoding: str, chunks: Sequence[bytes], *, index: bytes = b"") -> str:
    """Eight chunks of 16 x 16 x 32 voxels of uint8 in one shard, as they are in it; returns the volume's address.

    `index` takes the place of the shard's index.
    """
    sharding = Sharding(preshift=3, shard=0)
    scale = {"key": "full", "size": [256, 16, 16], "resolution": [96, 96, 50], "chunk_sizes": [[32, 16, 16]]}
    scales = [{**scale, "encoding": encoding, "voxel_offset": [0, 0, 0], "sharding": sharding.described()}]
    about = {"@type": "neuroglancer_multiscale_volume", "type": "image", "data_type": "uint8", "num_channels": 1}
    (folder / "full").mkdir(parents=True)
    (folder / "info").write_text(json.dumps(about | {"scales": scales}))

    def put(name: str, content: bytes) -> None:
        (folder / "full" / name).write_bytes(content)

    sharding.write(enumerate(chunks), put)
    if index:
        (folder / "full" / "0.shard").write_bytes(struct.pack("<2Q", 0, len(index)) + index)
    return f"precomputed://{folder.as_uri()}"


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("where", ["chunks", "index"])
def test_shards_that_unpack_to_more_than_they_may_take_no_memory(where: str, encoding: str, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(2**28), 1)
    address = _shards(tmp_path / "v", encoding, [bomb] * 8, index=bomb if where == "index" else b"")

    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path.as_uri(), address], capture_output=True, text=True, check=True
    )

    grown, _, said = done.stdout.partition(" ")
    assert "cannot be unpacked to what it should hold" in said
    assert int(grown) < 40, done.stdout


VOXELS = bytes(range(256)) * 32
"""A chunk's."""


def test_a_chunk_of_a_shard_is_read_if_it_is_as_it_should_be(tmp_path: Path) -> None:
    array = Reader(tmp_path.as_uri()).array(_shards(tmp_path / "v", "raw", [gzip.compress(VOXELS)] * 8), "v")

    assert array.read(((0, 16), (0, 16), (32, 64))).tobytes() == VOXELS


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        VOXELS,
        zlib.compress(VOXELS),
        gzip.compress(VOXELS)[:-9],
        gzip.compress(VOXELS)[:-8] + bytes(8),
        gzip.compress(VOXELS) + b"more",
        gzip.compress(VOXELS[:99]) + gzip.compress(VOXELS[99:]),
        gzip.compress(VOXELS[1:]),
        gzip.compress(VOXELS + b"more"),
    ],
    ids=["none", "plain", "zlib's", "cut", "checksum", "followed", "two members", "short", "long"],
)
def test_a_chunk_of_a_shard_that_is_not_as_it_should_be_is_damaged(chunk: bytes, tmp_path: Path) -> None:
    array = Reader(tmp_path.as_uri()).array(_shards(tmp_path / "v", "raw", [chunk] * 8), "v")

    with pytest.raises(VolumeDamaged):
        array.read(((0, 16), (0, 16), (32, 64)))


@pytest.mark.parametrize(
    "shard",
    [
        b"",
        b"short",
        struct.pack("<2Q", 9, 3),
        struct.pack("<2Q", 0, 2**63),
        struct.pack("<2Q", 2**64 - 60, 2**64 - 30),
        struct.pack("<2Q", 0, 24) + bytes(24),
        struct.pack("<2Q", 0, 32) + gzipped(bytes(23)).ljust(32, b"x"),
        *(
            struct.pack("<2Q", 0, len(index)) + index
            for index in map(gzipped, (bytes(23), struct.pack("<3Q", 0, 2**63, 5), struct.pack("<3Q", 0, 0, 2**62)))
        ),
    ],
    ids=range(10),
)
def test_a_shard_that_makes_no_sense_is_damaged(shard: bytes, tmp_path: Path) -> None:
    address = _shards(tmp_path / "v", "raw", [gzip.compress(VOXELS)] * 8)
    (tmp_path / "v" / "full" / "0.shard").write_bytes(shard)

    with pytest.raises(VolumeDamaged):
        Reader(tmp_path.as_uri()).array(address, "v").read(((0, 16), (0, 16), (0, 64)))


def test_chunks_of_a_shard_may_lie_in_any_order(tmp_path: Path) -> None:
    chunks = [gzip.compress(VOXELS), gzip.compress(VOXELS[::-1])]
    first, second = map(len, chunks)
    index = struct.pack("<6Q", 0, 1, second, 2**64 - first - second, first, second)  # the second one lies before
    address = _shards(tmp_path / "v", "raw", chunks)
    info = json.loads((tmp_path / "v" / "info").read_text())
    info["scales"][0]["sharding"]["minishard_index_encoding"] = "raw"
    (tmp_path / "v" / "info").write_text(json.dumps(info))
    places = struct.pack("<2Q", first + second, first + second + len(index))
    (tmp_path / "v" / "full" / "0.shard").write_bytes(places + chunks[1] + chunks[0] + index)

    array = Reader(tmp_path.as_uri()).array(address, "v")

    assert array.read(((0, 16), (0, 16), (0, 32))).tobytes() == VOXELS
    assert array.read(((0, 16), (0, 16), (32, 64))).tobytes() == VOXELS[::-1]


def test_chunks_that_an_index_does_not_name_are_not_stored(tmp_path: Path) -> None:
    array = Reader(tmp_path.as_uri()).array(_shards(tmp_path / "v", "raw", [gzip.compress(VOXELS)] * 3), "v")

    found = array.read(((0, 16), (0, 16), (0, 256)))

    assert [bool(found[..., x : x + 32].any()) for x in range(0, 256, 32)] == [True] * 3 + [False] * 5
    assert array.missing == 1


def test_large_chunks_are_unpacked_few_at_a_time(tmp_path: Path) -> None:
    small = bloscs(tmp_path / "v", "zarr", (8, 8, 8), (8, 8, 8))
    metadata = tmp_path / "v" / "0" / ".zarray"
    about = json.loads(metadata.read_text())
    metadata.write_text(json.dumps(about | {"chunks": [512, 1024, 1024]}))

    assert Reader(tmp_path.as_uri()).array(small, "v").at_once == 2


@pytest.mark.parametrize("name", ["my mouse", "m(1)+,&@'", "50% {a}", "Mäuse #1", "a?b;c"])
def test_a_servers_paths_have_any_characters(
    name: str, server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / name, channels, offset=OFFSET)
    server.buckets.add("lab", tmp_path)
    for root in (f"{server.url}/lab", "s3://lab"):
        reader = Reader(root, environ={"AWS_ENDPOINT_URL_S3": server.url})

        array = reader.array(f"precomputed://{root}/{quote(name)}/{{PSD95}}")

        assert np.array_equal(array.read(BOX), of(BOX, channels["PSD95"]))


def test_a_layout_that_is_not_read_is_no_damaged_chunk(tmp_path: Path) -> None:
    address = stores.ome_zarr(tmp_path / "v", {"PSD95": np.ones((4, 4, 4), "uint8")}, axes="zyx")
    metadata = tmp_path / "v" / "0" / ".zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"fill_value": 7.5}))

    with pytest.raises(WrongVolume, match="The metadata of the channel PSD95 ask for"):
        Reader(tmp_path.as_uri()).array(address)


def test_shards_need_a_server_that_sends_parts_of_files(
    server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "v", channels, offset=OFFSET, sharded=True)
    answer = server.buckets.answer

    def whole(request: Request) -> Response:
        headers = [each for each in request.scope["headers"] if each[0] != b"range"]
        return answer(Request({**request.scope, "headers": headers}))

    server.buckets.add("whole", tmp_path)
    server.buckets.answer = whole  # type: ignore[method-assign]
    array = Reader(server.url).array(f"precomputed://{server.url}/whole/v/PSD95")

    with pytest.raises(WrongVolume, match="sends files as a whole"):
        array.read(BOX)


@pytest.mark.parametrize(
    ("scheme", "door"),
    [("s3", "precomputed"), ("s3", "sharded"), ("s3", "ome-zarr-0.4"), ("s3", "n5"), ("gs", "precomputed")],
)
def test_in_a_bucket_that_is_not_listed_a_refused_chunk_is_one_that_is_not_stored(
    scheme: str,
    door: str,
    server: BossStandIn,
    channels: dict[str, NDArray[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    local = stores.DOORS[door](tmp_path / "v", channels, offset=OFFSET)
    for path in _chunks(tmp_path)[::3]:
        path.unlink()
    expected = Reader(tmp_path.as_uri()).array(local).read(BOX)
    server.buckets.add("hidden", tmp_path, listed=False)
    names = "" if door.startswith("ome") else "/{PSD95,Synapsin}"
    root = f"{scheme}://hidden"
    reader = Reader(root, environ={"AWS_ENDPOINT_URL_S3": server.url, "STORAGE_EMULATOR_HOST": server.url})

    array = reader.array(f"{local.partition('://')[0]}://{root}/v{names}")

    assert np.array_equal(array.read(BOX), expected)
    assert array.missing == 1


def test_a_bucket_that_refuses_every_chunk_refuses_the_channel(
    server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    stores.precomputed(tmp_path / "v", channels, offset=OFFSET)
    for path in _chunks(tmp_path):
        path.unlink()
    server.buckets.add("hidden", tmp_path, listed=False)
    reader = Reader("s3://hidden", environ={"AWS_ENDPOINT_URL_S3": server.url})

    with pytest.raises(VolumeRefused, match="refuses to show the channel PSD95"):
        reader.array("precomputed://s3://hidden/v/{PSD95}").read(BOX)


@pytest.mark.parametrize(
    ("status", "error"),
    [(204, WrongVolume), (400, WrongVolume), (410, WrongVolume), (408, VolumeUnavailable), (500, VolumeUnavailable)],
)
def test_only_a_status_that_may_pass_is_worth_another_try(
    status: int, error: type[VolumeError], server: BossStandIn, tmp_path: Path
) -> None:
    server.buckets.add("odd", tmp_path)
    server.fail_next(10, status=status, prefix="/odd/")

    with pytest.raises(error):
        Reader(server.url).describe(f"precomputed://{server.url}/odd/v")


@pytest.mark.parametrize("door", stores.DOORS)
def test_a_chunk_that_is_a_link_out_of_the_allowed_folder_is_refused(
    door: str, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    address = stores.DOORS[door](allowed / "volume", channels, offset=OFFSET)
    outside.mkdir()
    for number, path in enumerate(_chunks(allowed)):
        path.rename(outside / str(number))
        path.symlink_to(outside / str(number))

    with pytest.raises(WrongVolume, match="leads out"):
        Reader(allowed.as_uri()).array(address).read(BOX)


def test_a_folder_of_chunks_that_is_a_link_out_is_refused(channels: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    address = stores.precomputed(allowed / "volume", channels, offset=OFFSET)
    (allowed / "volume" / "PSD95" / "full").rename(outside)
    (allowed / "volume" / "PSD95" / "full").symlink_to(outside)

    with pytest.raises(WrongVolume, match="leads out"):
        Reader(allowed.as_uri()).array(address).read(BOX)


def test_metadata_behind_a_link_out_of_the_allowed_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "allowed" / "volume").mkdir(parents=True)
    (tmp_path / "info").write_text("{}")
    (tmp_path / "allowed" / "volume" / "info").symlink_to(tmp_path / "info")

    with pytest.raises(WrongVolume, match="leads out"):
        Reader((tmp_path / "allowed").as_uri()).describe(f"precomputed://{(tmp_path / 'allowed/volume').as_uri()}")


def test_a_pipe_in_the_place_of_metadata_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "info")

    with pytest.raises(VolumeError):
        Reader(tmp_path.as_uri()).describe(f"precomputed://{tmp_path.as_uri()}")


@pytest.mark.parametrize("sharded", [False, True])
def test_no_redirect_is_followed(
    sharded: bool, server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET, sharded=sharded)
    server.buckets.add("moved", tmp_path)
    address = f"precomputed://{server.url}/moved/volume/PSD95"
    reader = Reader(server.url)
    elsewhere = {"Location": f"{server.url}/moved/volume/Synapsin/info"}

    server.fail_next(1, status=302, prefix="/moved/", headers=elsewhere)
    with pytest.raises(WrongVolume, match="another address"):
        reader.describe(address)

    array = reader.array(address)
    server.fail_next(100, status=302, prefix="/moved/", headers=elsewhere)
    with pytest.raises(WrongVolume, match="another address"):
        array.read(BOX)


@pytest.fixture
def elsewhere() -> Iterator[BossStandIn]:
    """Another server, which nobody may ask."""
    with BossStandIn(demo=False) as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_no_bucket_leads_to_another_host(
    scheme: str,
    status: int,
    server: BossStandIn,
    elsewhere: BossStandIn,
    channels: dict[str, NDArray[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
    for each in (server, elsewhere):
        each.buckets.add("moved", tmp_path, public=scheme == "gs")
    reader = Reader(
        f"{scheme}://moved", environ={"AWS_ENDPOINT_URL_S3": server.url, "STORAGE_EMULATOR_HOST": server.url}
    )
    address = f"precomputed://{scheme}://moved/volume/PSD95"
    array = reader.array(address)
    assert reader.documents.bucket("moved").signed == (scheme == "s3")
    key = "moved/volume/PSD95/full/10-74_20-84_3-19"

    server.fail_next(100, status=status, prefix="/moved/", headers={"Location": f"{elsewhere.url}/{key}"})
    with pytest.raises(WrongVolume, match="another address"):
        array.read(((3, 4), (20, 21), (10, 11)))
    with pytest.raises(WrongVolume, match="another address"):
        reader.describe(address)

    assert [served.path for served in elsewhere.requests] == []


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (403, VolumeRefused, "refuses to show the channel PSD95"),
        (500, VolumeUnavailable, "3 times in a row: it answered with status 500"),
        (429, VolumeUnavailable, "3 times in a row: it answered with status 429"),
        (425, VolumeUnavailable, "3 times in a row: it answered with status 425"),
        (408, VolumeUnavailable, "3 times in a row: it answered with status 408"),
        (400, WrongVolume, "answered with status 400 when asked for the channel PSD95"),
        (451, WrongVolume, "answered with status 451 when asked for the channel PSD95"),
    ],
)
@pytest.mark.parametrize("sharded", [False, True])
def test_what_a_server_answers_in_the_place_of_chunks_is_told(
    sharded: bool,
    status: int,
    error: type[VolumeError],
    said: str,
    server: BossStandIn,
    channels: dict[str, NDArray[Any]],
    tmp_path: Path,
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET, sharded=sharded)
    server.buckets.add("lab", tmp_path)
    array = Reader(server.url).array(f"precomputed://{server.url}/lab/volume/PSD95")

    server.fail_next(10_000, status=status, prefix="/lab/")

    with pytest.raises(error, match=said):
        array.read(BOX)


@pytest.mark.parametrize("sharded", [False, True])
def test_trouble_that_passes_is_not_noticed(
    sharded: bool, server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET, sharded=sharded)
    server.buckets.add("lab", tmp_path)
    array = Reader(server.url).array(f"precomputed://{server.url}/lab/volume/PSD95")

    server.fail_next(3, status=503, prefix="/lab/")

    assert np.array_equal(array.read(BOX), of(BOX, channels["PSD95"]))


@pytest.mark.parametrize("sharded", [False, True])
def test_a_server_that_hangs_is_given_up(
    sharded: bool, server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET, sharded=sharded)
    server.buckets.add("lab", tmp_path)
    address = f"precomputed://{server.url}/lab/volume/PSD95"
    array = Reader(server.url).array(address, patience=0.2)

    with server.hanging(prefix="/lab/"):
        with pytest.raises(VolumeUnavailable, match="did not answer in time"):
            Reader(server.url, seconds=0.2).describe(address)
        with pytest.raises(VolumeUnavailable, match="did not answer in time"):
            array.read(BOX)


def test_an_answer_that_breaks_off_is_no_document(server: BossStandIn, tmp_path: Path) -> None:
    stores.precomputed(tmp_path / "volume", {"PSD95": np.ones((4, 4, 4), "uint8")})
    server.buckets.add("torn", tmp_path)  # not asked for by what an earlier test left under way

    server.cut_next(1, prefix="/torn/")

    with pytest.raises(VolumeUnavailable):
        Reader(server.url).describe(f"precomputed://{server.url}/torn/volume/PSD95")


@pytest.mark.parametrize("size", [10, 2**26])
def test_metadata_that_a_server_sends_packed_is_unpacked_within_its_limit(
    size: int, server: BossStandIn, tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "volume", {"PSD95": np.ones((4, 4, 4), "uint8")})
    answer = server.buckets.answer

    info = (tmp_path / "volume" / "PSD95" / "info").read_bytes()
    ready = gzip.compress(info + b" " * size)  # before anybody waits for it

    def packed(request: Request) -> Response:
        body = bytes(answer(request).body)
        return Response(ready if body == info else gzip.compress(body), headers={"Content-Encoding": "gzip"})

    server.buckets.add("packed", tmp_path)
    server.buckets.answer = packed  # type: ignore[method-assign]
    reader, address = Reader(server.url), f"precomputed://{server.url}/packed/volume/PSD95"

    if size == 10:
        assert reader.describe(address).bounds == ((0, 4), (0, 4), (0, 4))
    else:
        with pytest.raises(WrongVolume, match="more than 8 MiB"):
            reader.describe(address)


def test_a_host_that_leads_to_a_metadata_address_is_never_asked() -> None:
    with pytest.raises(WrongVolume, match="holds no volumes"):
        addresses("169.254.169.254", 80)
    with pytest.raises(WrongVolume, match="holds no volumes"):
        Reader("http://169.254.169.254").describe("precomputed://http://169.254.169.254/latest")


def test_nothing_is_asked_that_is_not_allowed(server: BossStandIn) -> None:
    with pytest.raises(WrongVolume, match="NOMADS_VOLUME_ROOTS"):
        Reader("s3://lab").describe(f"precomputed://{server.url}/forbidden/volume")

    # what another test gave up to wait for may still be asked for
    assert not [served for served in server.requests if "forbidden" in served.path]


def test_metadata_that_changed_since_it_was_described_is_noticed(tmp_path: Path) -> None:
    address = stores.precomputed(tmp_path / "volume", {"PSD95": np.ones((4, 4, 4), "uint8")})
    reader = Reader(tmp_path.as_uri())
    channel = reader.describe(address).channels[0]
    (tmp_path / "volume" / "PSD95" / "info").unlink()
    stores.precomputed(tmp_path / "volume", {"PSD95": np.ones((4, 4, 4), "uint16")})

    with pytest.raises(WrongVolume, match="not as it says"):
        Array(channel, documents=reader.documents)


def test_only_a_place_below_a_root_is_opened(tmp_path: Path) -> None:
    address = stores.precomputed(tmp_path / "volume", {"PSD95": np.ones((4, 4, 4), "uint8")})
    channel = Reader(tmp_path.as_uri()).describe(address).channels[0]

    with pytest.raises(WrongVolume, match="NOMADS_VOLUME_ROOTS"):
        Array(channel, documents=Reader("s3://lab").documents)
