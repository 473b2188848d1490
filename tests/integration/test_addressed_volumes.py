"""The bot's questions about volumes by address: what it is told, how long it waits, and what it never asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from bot.boss.volumes import BossVolumes
from bot.domain.errors import Unavailable
from bot.domain.volume import Channel, Experiment, UnusableAddress
from bot.volumes.addressed import AddressedVolumes
from sandbox import stores
from sandbox.boss import DEMO_TOKEN, BossStandIn
from tests.support.waiting import until
from volumes.roots import Roots

TOKEN = SecretStr(DEMO_TOKEN)
AMPLE = 20.0


@pytest.fixture(scope="module")
def _server() -> Iterator[BossStandIn]:
    with BossStandIn() as server:
        yield server


@pytest.fixture
def server(_server: BossStandIn, tmp_path: Path) -> BossStandIn:
    """BOSS, and a web server with a volume at `/lab/volume`."""
    _server.reset()
    channels = {name: np.ones((4, 5, 6), "uint16") for name in ("PSD95", "Synapsin")}
    stores.ome_zarr(tmp_path / "served" / "volume", channels, offset=(1, 2, 3))
    _server.buckets.add("lab", tmp_path / "served")
    return _server


@pytest.fixture
def volumes(server: BossStandIn) -> Iterator[AddressedVolumes]:
    made = AddressedVolumes(boss=BossVolumes(host=server.url, patience=AMPLE), roots=Roots.read(server.url))
    yield made
    made.close()


def ask(volumes: AddressedVolumes, address: str, *, within: float = AMPLE) -> Experiment:
    return volumes.describe(address, "", token=TOKEN, within=within)


def test_an_address_is_described_as_an_experiment_is(volumes: AddressedVolumes, server: BossStandIn) -> None:
    found = ask(volumes, f"zarr://{server.url}/lab/volume")

    assert found.bounds == ((1, 5), (2, 7), (3, 9))
    assert found.voxel_nm == (50, 96, 96)
    assert found.channels == (Channel(name="PSD95", datatype="uint16"), Channel(name="Synapsin", datatype="uint16"))
    assert found.noun == "volume"


def test_what_is_known_is_not_asked_again(volumes: AddressedVolumes, server: BossStandIn) -> None:
    ask(volumes, f"zarr://{server.url}/lab/volume")
    server.requests.clear()

    assert ask(volumes, f"zarr3://{server.url}/lab//volume/", within=0).channels
    assert not server.requests


def test_a_server_that_hangs_keeps_nobody_longer_than_they_wait(volumes: AddressedVolumes, server: BossStandIn) -> None:
    address = f"zarr://{server.url}/lab/volume"
    with server.hanging(prefix="/lab/") as hold:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer in time"):
            ask(volumes, address, within=0.05)
        assert time.monotonic() - began < 5
        hold.release()
        until(lambda: _known(volumes, address), what="the answer to the question that went on")


def _known(volumes: AddressedVolumes, address: str) -> bool:
    try:
        return bool(ask(volumes, address, within=0))
    except Unavailable:
        return False


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("zarr://{url}/lab/none", "There is no OME-Zarr volume"),
        ("zarr://https://elsewhere.example.org/volume", "NOMADS_VOLUME_ROOTS"),
        ("zarr://file:///etc", "NOMADS_VOLUME_ROOTS"),
        ("zarr://nonsense", "is in none of"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_under_the_collection(
    volumes: AddressedVolumes, server: BossStandIn, address: str, said: str
) -> None:
    with pytest.raises(UnusableAddress, match=said) as refusal:
        ask(volumes, address.format(url=server.url))

    assert refusal.value.field == "collection"


def test_a_server_that_fails_is_no_refusal(volumes: AddressedVolumes, server: BossStandIn) -> None:
    server.fail_next(100, status=503, prefix="/lab/")

    with pytest.raises(Unavailable, match="status 503"):
        ask(volumes, f"zarr://{server.url}/lab/volume")


def test_no_token_is_sent_to_an_address(volumes: AddressedVolumes, server: BossStandIn) -> None:
    seen: list[str] = []
    answer = server.buckets.answer

    def listening(request):  # type: ignore[no-untyped-def]
        seen.append(str(request.headers.items()))
        return answer(request)

    server.buckets.answer = listening  # type: ignore[method-assign]
    ask(volumes, f"zarr://{server.url}/lab/volume")

    assert seen
    assert DEMO_TOKEN not in "".join(seen)


def test_boss_is_asked_as_before(volumes: AddressedVolumes) -> None:
    assert "demo" in volumes.collections(token=TOKEN, within=AMPLE)
    assert "cortex" in volumes.experiments("demo", token=TOKEN, within=AMPLE)
    assert volumes.describe("demo", "cortex", token=TOKEN, within=AMPLE).noun == "experiment"
    assert volumes.experiments("zarr://s3://lab/volume", token=TOKEN, within=AMPLE) == ()
    assert volumes.may_write("demo", "cortex", token=TOKEN, within=AMPLE)
