"""Volumes by address, from files, a web server and buckets: the same voxels through every door, and what goes wrong."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from sandbox import stores
from sandbox.boss import BossStandIn
from sandbox.volumes import Bricks
from volumes.address import Address, parse
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


@pytest.mark.parametrize("scheme", ["http", "s3"])
@pytest.mark.parametrize("door", stores.DOORS)
def test_servers_give_the_same_as_files(
    door: str, scheme: str, server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    address = stores.DOORS[door](tmp_path / "volume", channels, offset=OFFSET)
    server.buckets.add("lab", tmp_path)
    root = f"{server.url}/lab" if scheme == "http" else "s3://lab"
    address = address.partition("://")[0] + f"://{root}/volume"
    if scheme == "http" and not door.startswith("ome"):
        address += "/{PSD95,Synapsin}"  # a web server lists no folders
    reader = Reader(root, environ={"AWS_ENDPOINT_URL_S3": server.url})

    assert reader.describe(address).bounds == BOUNDS
    assert np.array_equal(reader.array(address).read(BOX), of(BOX, channels["PSD95"]))


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


def test_no_redirect_is_followed(server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
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


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (403, VolumeRefused, "refuses to show the channel PSD95"),
        (500, VolumeUnavailable, "3 times in a row: it answered with status 500"),
        (429, VolumeUnavailable, "3 times in a row: it answered with status 429"),
    ],
)
def test_what_a_server_answers_in_the_place_of_chunks_is_told(
    status: int,
    error: type[VolumeError],
    said: str,
    server: BossStandIn,
    channels: dict[str, NDArray[Any]],
    tmp_path: Path,
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
    server.buckets.add("lab", tmp_path)
    array = Reader(server.url).array(f"precomputed://{server.url}/lab/volume/PSD95")

    server.fail_next(10_000, status=status, prefix="/lab/")

    with pytest.raises(error, match=said):
        array.read(BOX)


def test_trouble_that_passes_is_not_noticed(
    server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
    server.buckets.add("lab", tmp_path)
    array = Reader(server.url).array(f"precomputed://{server.url}/lab/volume/PSD95")

    server.fail_next(3, status=503, prefix="/lab/")

    assert np.array_equal(array.read(BOX), of(BOX, channels["PSD95"]))


def test_a_server_that_hangs_is_given_up(
    server: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    stores.precomputed(tmp_path / "volume", channels, offset=OFFSET)
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

    def packed(request: Request) -> Response:
        body = bytes(answer(request).body) + b" " * size
        return Response(gzip.compress(body), headers={"Content-Encoding": "gzip"})

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
        Reader("s3://lab").describe(f"precomputed://{server.url}/lab/volume")

    assert not server.requests


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
