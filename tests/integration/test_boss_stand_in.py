"""The unmodified intern against the stand-in: what works with BOSS works here, and what BOSS refuses is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from intern.remote.boss import BossRemote
from intern.resource.boss.resource import (
    ChannelResource,
    CollectionResource,
    ExperimentResource,
)

from sandbox.boss import Access, BossStandIn
from sandbox.volumes import Bricks, cortex

ROOT = Path(__file__).parents[2]
READER, WRITER = "reader-token", "demo-token"
CHANNELS = ["PSD95", "Synapsin", "GABA", "GAD65", "Gephyrin", "GluN1", "VGluT1", "TdTomato"]


@pytest.fixture
def boss() -> Iterator[BossStandIn]:
    """A stand-in with demo/cortex, and in the private collection lab: deep, which does not start at 0, and wide."""
    tokens = {
        WRITER: Access(user="demo", write=frozenset({"*"})),
        READER: Access(user="reader", read=frozenset({"lab"})),
        "stranger-token": Access(user="stranger"),
    }
    with BossStandIn(tokens=tokens) as boss:
        boss.add("lab", "deep", shape=(8, 64, 64), offset=(10, 100, 200), channels={"PSD": Bricks("uint16")})
        boss.add("lab", "wide", shape=(40, 300, 600), channels={})
        yield boss


def remote(boss: BossStandIn, token: str = WRITER) -> BossRemote:
    """intern, as its users set it up."""
    made = BossRemote({"protocol": "http", "host": boss.url.removeprefix("http://"), "token": token})
    for service in (made.project_service, made.volume_service, made.metadata_service):
        service.session_send_opts = {**service.session_send_opts, "timeout": 10}
    return made


def asked(boss: BossStandIn, path: str, token: str = WRITER) -> httpx.Response:
    """What the stand-in answers to a GET."""
    return httpx.get(f"{boss.url}{path}", headers={"Authorization": f"Token {token}"}, timeout=10)


def test_the_console_shows_a_channel_to_a_browser_without_a_token(boss: BossStandIn) -> None:
    shown = httpx.get(f"{boss.url}/v1/mgmt/resources/demo/cortex/PSD95")
    assert (shown.status_code, "demo/cortex/PSD95" in shown.text) == (200, True)
    for place in ("demo/cortex/nothing", "demo/nothing/PSD95", "nothing/cortex/PSD95", "demo/cortex/<b>"):
        missing = httpx.get(f"{boss.url}/v1/mgmt/resources/{place}")
        assert (missing.status_code, "<b>" in missing.text) == (404, False)


def test_intern_lists_what_is_there(boss: BossStandIn) -> None:
    intern = remote(boss)

    assert intern.list_collections() == ["demo", "collman_nomads", "lab"]
    assert asked(boss, "/v1/collection/demo").json()["experiments"] == ["cortex"]
    assert asked(boss, "/v1/collection/demo/experiment/cortex").json()["channels"] == CHANNELS


def test_intern_lists_with_a_double_slash(boss: BossStandIn) -> None:
    remote(boss).list_collections()

    assert boss.requests[-1].path == "/v1/collection//"


def test_intern_describes_what_is_there(boss: BossStandIn) -> None:
    intern = remote(boss)

    experiment = intern.get_experiment("lab", "deep")
    frame = intern.get_coordinate_frame(experiment.coord_frame)
    channel = intern.get_channel("PSD", "lab", "deep")

    assert intern.get_extents(experiment) == [[200, 264], [100, 164], [10, 18]]
    assert (frame.z_voxel_size, frame.y_voxel_size, frame.x_voxel_size) == (50, 96, 96)
    assert (channel.type, channel.datatype, channel.cutout_ready) == ("image", "uint16", True)
    assert intern.get_project(CollectionResource("demo")).public is True
    assert intern.get_project(CollectionResource("lab")).public is False


def test_a_cutout_is_the_volume_in_zyx_order(boss: BossStandIn) -> None:
    assert boss.cortex is not None
    intern = remote(boss)

    found = intern.get_cutout(intern.get_channel("PSD95", "demo", "cortex"), 0, [5, 300], [7, 40], [14, 19])

    assert found.shape == (5, 33, 295)
    assert np.array_equal(boss.cortex.bricks("PSD95").read((14, 7, 5), (19, 40, 300)), found)


def test_what_intern_makes_and_writes_it_reads_again(boss: BossStandIn) -> None:
    intern = remote(boss)
    for datatype in ("uint8", "uint16", "uint64"):
        channel = intern.create_project(ChannelResource(datatype, "lab", "wide", "annotation", datatype=datatype))
        random = np.random.default_rng(1)
        data = random.integers(0, np.iinfo(datatype).max, (20, 30, 290), dtype=datatype, endpoint=True)

        intern.create_cutout(channel, 0, [250, 540], [240, 270], [10, 30], data)

        read = intern.get_cutout(intern.get_channel(datatype, "lab", "wide"), 0, [250, 540], [240, 270], [10, 30])
        assert np.array_equal(data, read)
        assert not intern.get_cutout(channel, 0, [0, 250], [0, 300], [0, 40]).any()

    intern.create_cutout_to_black(channel, 0, [250, 540], [240, 270], [10, 30])

    assert not intern.get_cutout(channel, 0, [250, 540], [240, 270], [10, 30]).any()


def test_a_channel_is_described_anew(boss: BossStandIn) -> None:
    intern = remote(boss)

    intern.update_project("PSD", ChannelResource("PSD", "lab", "deep", datatype="uint16", description="unfinished"))

    assert intern.get_channel("PSD", "lab", "deep").description == "unfinished"


def test_permissions_tell_readers_from_writers(boss: BossStandIn) -> None:
    deep = ExperimentResource("deep", "lab")

    [held] = remote(boss, READER).list_permissions(resource=deep)
    assert "read_volumetric_data" in held["permissions"]
    assert "add_volumetric_data" not in held["permissions"]
    assert remote(boss, "stranger-token").list_permissions(resource=deep) == []
    [held] = remote(boss).list_permissions(resource=deep)
    assert "add_volumetric_data" in held["permissions"]


def _cutout(intern: BossRemote, **ranges: list[int]) -> Any:
    box = {"x": [200, 210], "y": [100, 110], "z": [10, 12]} | ranges
    channel = ChannelResource("PSD", "lab", "deep", datatype="uint16")
    return intern.get_cutout(channel, 0, box["x"], box["y"], box["z"])


@pytest.mark.parametrize(
    ("token", "call", "status", "code"),
    [
        (READER, lambda i: _cutout(i, x=[199, 210]), 400, 1001),
        (READER, lambda i: _cutout(i, z=[10, 19]), 400, 1001),
        (READER, lambda i: _cutout(i, y=[105, 105]), 400, 1001),
        (READER, lambda i: i.get_channel("nope", "lab", "deep"), 404, 4000),
        (READER, lambda i: i.get_experiment("lab", "nope"), 404, 4000),
        (READER, lambda i: i.get_project(CollectionResource("nope")), 404, 4000),
        (READER, lambda i: i.get_coordinate_frame("nope"), 404, 4000),
        (READER, lambda i: i.create_project(ChannelResource("new", "lab", "deep")), 403, 3001),
        ("stranger-token", _cutout, 403, 3001),
        ("stranger-token", lambda i: i.get_channel("PSD", "lab", "deep"), 403, 3001),
        ("public", lambda i: i.get_experiment("lab", "deep"), 403, 3001),
        (READER, lambda i: i.list_permissions(resource=ExperimentResource("nope", "lab")), 404, 4000),
        (WRITER, lambda i: i.create_project(ChannelResource("no spaces", "lab", "deep")), 400, 1003),
        (WRITER, lambda i: i.create_project(ChannelResource("PSD", "lab", "deep")), 400, 1003),
    ],
)
def test_a_refusal_has_bosss_status_and_code(
    boss: BossStandIn, token: str, call: Callable[[BossRemote], object], status: int, code: int
) -> None:
    with pytest.raises(requests.HTTPError) as refused:
        call(remote(boss, token))

    answer = refused.value.response
    assert answer is not None
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["message"]


def test_a_cutout_beyond_520_mib_is_too_large(boss: BossStandIn) -> None:
    boss.add("lab", "vast", shape=(64, 4096, 4096), channels={"a": Bricks("uint8")})

    answer = asked(boss, "/v1/cutout/lab/vast/a/0/0:4096/0:4096/0:33/")

    assert (answer.status_code, answer.json()["code"]) == (413, 2000)


def test_voxels_that_do_not_fit_are_refused(boss: BossStandIn) -> None:
    channel = ChannelResource("PSD", "lab", "deep", datatype="uint16")
    with pytest.raises(requests.HTTPError, match="2002"):
        remote(boss).create_cutout(channel, 0, [200, 210], [100, 110], [10, 12], np.ones((2, 10, 9), "uint16"))


def test_zeros_leave_what_lies_under_them_and_only_to_black_erases(boss: BossStandIn) -> None:
    intern = remote(boss)
    channel = intern.get_channel("PSD", "lab", "deep")
    box = ([210, 214], [110, 114], [12, 14])
    data = np.zeros((2, 4, 4), np.uint16)
    data[0] = 7
    intern.create_cutout(channel, 0, *box, data)
    intern.create_cutout(channel, 0, *box, data[::-1].copy())
    assert (intern.get_cutout(channel, 0, *box) == 7).all()

    intern.create_cutout_to_black(channel, 0, *box)

    assert not intern.get_cutout(channel, 0, *box).any()


def test_a_bad_token_is_401_with_a_detail(boss: BossStandIn) -> None:
    for headers in ({"Authorization": "Token wrong"}, {}):
        answer = httpx.get(f"{boss.url}/v1/collection//", headers=headers)

        assert answer.status_code == 401
        assert list(answer.json()) == ["detail"]


def test_the_public_token_reads_what_is_public_and_lists_nothing_else(boss: BossStandIn) -> None:
    intern = remote(boss, "public")

    assert intern.list_collections() == ["demo"]
    found = intern.get_cutout(intern.get_channel("Synapsin", "demo", "cortex"), 0, [0, 8], [0, 8], [0, 2])
    assert found.shape == (2, 8, 8)


def test_a_null_time_step_unit_crashes_intern_here_too(boss: BossStandIn) -> None:
    boss.add("lab", "old", shape=(1, 1, 1), channels={}, time_step_unit=None)

    with pytest.raises(AttributeError):
        remote(boss).get_experiment("lab", "old")


def test_the_next_requests_fail_as_asked_and_then_no_more(boss: BossStandIn) -> None:
    boss.fail_next(2, status=503, prefix="/v1/collection", headers={"Retry-After": "1"})
    assert asked(boss, "/v1/coord/lab_deep").status_code == 200
    failed = asked(boss, "/v1/collection//")
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
    assert [asked(boss, "/v1/collection//").status_code for _ in range(2)] == [503, 200]


def test_a_connection_is_cut_in_the_middle_of_an_answer(boss: BossStandIn) -> None:
    intern = remote(boss)
    channel = intern.get_channel("PSD95", "demo", "cortex")
    boss.cut_next(prefix="/v1/cutout")

    with pytest.raises(requests.RequestException):
        intern.get_cutout(channel, 0, [0, 64], [0, 64], [0, 4])
    assert intern.get_cutout(channel, 0, [0, 64], [0, 64], [0, 4]).shape == (4, 64, 64)


def test_requests_hang_until_they_are_released(boss: BossStandIn) -> None:
    answered = threading.Event()

    def ask() -> None:
        remote(boss).list_collections()
        answered.set()

    with boss.hanging(prefix="/v1/collection") as hold:
        asking = threading.Thread(target=ask)
        asking.start()
        assert hold.reached.wait(10)
        assert not answered.is_set()
    asking.join(10)
    assert answered.is_set()


def test_nothing_logged_holds_a_token(boss: BossStandIn, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        remote(boss).list_collections()
        asked(boss, "/v1/collection//", "wrong-token")

    assert "GET /v1/collection// 200" in caplog.text
    assert WRITER not in caplog.text
    assert "wrong-token" not in caplog.text


def test_two_stand_ins_have_the_same_voxels_and_separate_writes() -> None:
    box = [0, 32], [0, 32], [0, 4]
    with BossStandIn() as one, BossStandIn() as other:
        channel = remote(one).get_channel("PSD95", "demo", "cortex")
        before = remote(other).get_cutout(channel, 0, *box)
        assert np.array_equal(before, remote(one).get_cutout(channel, 0, *box))

        remote(one).create_cutout(channel, 0, *box, np.full((4, 32, 32), 7, "uint8"))

        assert (remote(one).get_cutout(channel, 0, *box) == 7).all()
        assert np.array_equal(before, remote(other).get_cutout(channel, 0, *box))


def test_the_command_line_says_where_it_serves_and_what_is_there() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox", "boss", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(5)]
            url = said[0].split()[3]
            answer = httpx.get(f"{url}/v1/collection//", headers={"Authorization": "Token demo-token"}, timeout=10)
        finally:
            process.terminate()
            process.wait(10)

    assert answer.json() == {"collections": ["demo", "collman_nomads"]}
    assert url.startswith("http://127.0.0.1:")
    assert "demo-token" in said[1]
    assert f"demo/cortex: {', '.join(CHANNELS)}" in said[2]
    assert said[3] == "collman_nomads/nomads_predictions: no channels yet\n"
    assert "x 0, 1024 · y 0, 1024 · z 0, 64" in said[4]


def test_voxels_do_not_depend_on_what_was_read_before() -> None:
    whole = cortex().bricks("PSD95").read((10, 200, 250), (20, 300, 270))
    other = cortex()
    pieces = [other.bricks("PSD95").read((z, 200, 250), (z + 2, 300, 270)) for z in (18, 16, 14, 12, 10)]

    assert np.array_equal(whole, np.concatenate(pieces[::-1]))


def test_both_markers_shine_at_a_true_synapse_and_one_beside() -> None:
    volume = cortex()
    psd, synapsin = (volume.bricks(name).read((0, 0, 0), (16, 256, 256)) for name in ("PSD95", "Synapsin"))
    positions, kinds = volume.sites
    inside = np.all(positions < (15, 255, 255), axis=1)

    def lit(seen: np.ndarray[Any, Any], kind: int) -> float:
        z, y, x = np.rint(positions[inside & (kinds == kind)]).astype(int).T
        return float(np.median(seen[z, y, x]))

    kinds_named = [kind.name for kind in volume.kinds]
    assert kinds_named == ["GABAergic synapse", "other synapse", "PSD95 alone", "Synapsin alone"]
    assert [lit(psd, kind) > 60 for kind in range(4)] == [True, True, True, False]
    assert [lit(synapsin, kind) > 60 for kind in range(4)] == [True, True, False, True]
    assert len(volume.truth) > 4000


def test_the_other_markers_tell_gabaergic_synapses_from_the_rest() -> None:
    volume, (start, stop) = cortex(), ((0, 0, 0), (16, 256, 256))
    centres, classes = volume.truth_within(start, stop), volume.classes_within(start, stop)
    well_inside = np.all(centres < (14, 250, 250), axis=1)
    z, y, x = np.rint(centres[well_inside]).astype(int).T
    gaba = classes[well_inside] == "GABA"

    assert set(volume.classes) == {"GABA", "non-GABA"}
    assert len(volume.classes) == len(volume.truth)
    assert 0.2 < (volume.classes == "GABA").mean() < 0.33
    for name, more in {"GABA": True, "GAD65": True, "Gephyrin": True, "GluN1": False, "VGluT1": False}.items():
        seen = volume.bricks(name).read(start, stop)[z, y, x]
        assert (np.median(seen[gaba]) > np.median(seen[~gaba]) + 20) is np.bool_(more), name


def test_another_seed_is_another_volume_of_the_same_kind() -> None:
    one, other = (cortex(seed=seed, shape=(16, 256, 256)) for seed in (1, 2))

    assert one.channels == other.channels == CHANNELS
    assert not np.array_equal(one.truth, other.truth)
    assert np.all(one.truth < (16, 256, 256))
