"""What the programs share: progress, results, roles, the viewer's link, the preview."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contract.program import MAX_VIEWER
from pipelines.common import preview, viewer
from pipelines.common.boss import _tiles
from pipelines.common.npz import Slabs, npz
from pipelines.common.program import Progress, Request, WrongRequest, parse, run
from pipelines.common.results import Results
from pipelines.common.run import channel_name
from pipelines.common.volume import pick

ARGV = ["--col", "c", "--exp", "e", "--x-range", "0,10", "--y-range", "0:20", "--z-range", "4, 8"]


def request(host: str = "api.bossdb.io", *more: str) -> Request:
    return parse(["--host", host, *ARGV, *more], {"BOSS_TOKEN": "demo-token"})


def test_a_host_is_https_unless_it_says_otherwise() -> None:
    assert (request().protocol, request().host) == ("https", "api.bossdb.io")
    local = request("http://127.0.0.1:9000/")
    assert (local.protocol, local.host) == ("http", "127.0.0.1:9000")


def test_a_request_shows_its_box_and_not_its_token() -> None:
    asked = request()

    assert (asked.start, asked.shape) == ((4, 0, 0), (4, 20, 10))
    assert "demo-token" not in repr(asked) + json.dumps(asked.public())


def test_progress_is_told_at_most_once_a_second() -> None:
    out, now = io.StringIO(), [0.0]
    progress = Progress(out=out, clock=lambda: now[0])

    for now[0], part in ((0, 0), (0.4, 0.1), (0.99, 0.2), (1.0, 0.425), (1.5, 0.6), (2.5, 1.2)):
        progress(part, "reading")

    assert out.getvalue() == "progress 0.00 reading\nprogress 0.42 reading\nprogress 1.00 reading\n"


def test_an_unexpected_error_ends_with_1_and_no_token() -> None:
    def fails(request: Request) -> None:
        raise RuntimeError(f"header {request.token}")

    err = io.StringIO()

    assert run(fails, argv=["--host", "h", *ARGV], environ={"BOSS_TOKEN": "demo-token"}, err=err) == 1
    assert err.getvalue().splitlines()[-1] == "The program failed unexpectedly: RuntimeError: header …"
    assert "demo-token" not in err.getvalue()


def test_results_json_comes_last_and_files_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_text("an earlier run's")
    order: list[str] = []
    replace = os.replace

    def seen(source: str, target: Path) -> None:
        order.append(f"{target.name} {os.path.getsize(source)}")
        replace(source, target)

    monkeypatch.setattr(os, "replace", seen)
    results = Results(tmp_path.as_uri())
    assert not list(tmp_path.iterdir())
    results.add("a.csv", b"12345", title="A", about="All.", media_type="text/csv")
    results.finish({"counts": {"n": 1}})

    assert [order[0], order[1].split()[0]] == ["a.csv 5", "results.json"]
    assert {"a.csv", "results.json"} == {path.name for path in tmp_path.iterdir()}
    said = json.loads((tmp_path / "results.json").read_text())
    assert said["files"] == [{"name": "a.csv", "title": "A", "about": "All.", "media_type": "text/csv"}]


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    results = Results(tmp_path.as_uri())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match=r"a\.csv cannot be written to the results folder: No space left on device"):
        results.add("a.csv", b"12345", title="A", about="All.", media_type="text/csv")
    assert not list(tmp_path.iterdir())


def test_what_is_written_apart_is_known_when_it_is_joined_and_in_that_order(tmp_path: Path) -> None:
    results = Results(tmp_path.as_uri())
    one, other = results.apart(), results.apart()
    other.add("b.csv", b"22", title="B", about="Half.", media_type="text/csv")
    one.put("a/1", b"1")
    results.put("c", b"333")
    assert [file.name for file in results.written] == ["c"]

    results.join(one.done)
    results.join(other.done)

    assert [(file.name, file.size) for file in results.written] == [("c", 3), ("a/1", 1), ("b.csv", 2)]
    assert [file.name for file in results.files] == ["b.csv"]


def test_what_an_ended_copy_left_of_a_file_is_removed_and_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, replace = Results(tmp_path.as_uri()), os.replace

    def linked(source: str, target: Path) -> None:
        os.link(source, Path(source).with_suffix(".2.part"))  # as it lies there after SIGKILL
        replace(source, target)

    monkeypatch.setattr(os, "replace", linked)
    results.apart().put("a.csv", b"12345678")
    (tmp_path / ".1-of-another-program.part").write_bytes(b"")
    assert len(list(tmp_path.glob(".*.part"))) == 2
    results.tidy()

    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", ".1-of-another-program.part"}
    assert (tmp_path / "a.csv").read_bytes() == b"12345678"


def test_a_file_that_comes_in_pieces_is_not_in_the_folder_before_all_of_it_is_there(tmp_path: Path) -> None:
    results = Results(tmp_path.as_uri())

    def pieces() -> Iterator[bytes]:
        yield b"12345"
        assert not list(tmp_path.iterdir()), "a process that is killed here would leave it"
        yield b"678"

    results.stream("a.csv", pieces(), title="A", about="All.", media_type="text/csv")
    assert (tmp_path / "a.csv").read_bytes() == b"12345678"


def test_an_npz_loads_without_pickle_and_has_no_time_in_it() -> None:
    arrays = {"a": np.arange(24).reshape(2, 3, 4)[:, ::-1], "b": np.zeros(0)}

    with np.load(io.BytesIO(npz(arrays)), allow_pickle=False) as loaded:
        assert np.array_equal(arrays["a"], loaded["a"])
    assert npz(arrays) == npz(arrays)


def test_an_npz_of_an_array_that_is_made_in_slabs_is_that_of_the_array() -> None:
    array = np.arange(24, dtype=np.uint16).reshape(4, 3, 2)

    for cuts in ((1,), (0, 4), (2, 2)):  # some without a row
        slabs = iter(np.split(array, cuts))
        assert npz({"a": Slabs(array.shape, array.dtype, slabs)}) == npz({"a": array})
    assert npz({"a": Slabs((0, 3, 2), array.dtype, iter(()))}) == npz({"a": array[:0]})


@pytest.mark.parametrize("runs", [False, True])
def test_an_npz_is_an_archive_as_any_program_reads_it(runs: bool) -> None:
    mask = np.zeros((8, 64, 64), np.uint8)
    mask[2:5, 10:20, 30:40] = 255

    with zipfile.ZipFile(io.BytesIO(npz({"mask": mask, "start": np.arange(3)}, level=2, runs=runs))) as archive:
        assert archive.testzip() is None, "the checksums are those of the contents"
        members = archive.infolist()

    assert [member.filename for member in members] == ["mask.npy", "start.npy"]
    assert [member.date_time for member in members] == [(1980, 1, 1, 0, 0, 0)] * 2
    assert members[0].file_size == mask.nbytes + 128
    assert members[0].compress_size < mask.nbytes // 50


def test_an_npz_that_would_be_too_large_for_its_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.common.npz._MOST", 1000)

    npz({"a": np.zeros(100, np.uint8)})
    with pytest.raises(ValueError, match="large has 4 GiB or more"):
        npz({"a": np.zeros(100, np.uint8), "large": np.zeros(1000, np.uint8)})


ROLES = {"post": ["psd"], "pre": ["synapsin", "vglut"]}


def test_a_role_goes_to_the_channel_with_the_best_alias_whatever_the_server_s_order() -> None:
    channels = ["DAPI", "PSD95_488", "psd", "VGluT1", "Synapsin"]

    for order in (channels, channels[::-1]):
        assert pick(ROLES, order) == {"post": "psd", "pre": "Synapsin"}
    assert pick(ROLES, ["PSD95", "VGluT1"]) == {"post": "PSD95", "pre": "VGluT1"}
    assert pick(ROLES, channels, {"pre": "DAPI"}) == {"post": "psd", "pre": "DAPI"}


@pytest.mark.parametrize(
    ("channels", "chosen", "says"),
    [
        ([], {}, r"no post channel \(with psd in its name\) and no pre .*are none\."),
        (["PSD95"], {}, r"no pre channel \(with synapsin or vglut in its name\); its channels are PSD95\."),
        (["PSD95", "Synapsin"], {"pre": "x"}, r"no channel x; its channels are PSD95, Synapsin\."),
        (["PSD95", "Synapsin"], {"gaba": "PSD95"}, r"no role gaba; the roles are post, pre\."),
        (["PSD95_Synapsin"], {}, r"cannot be post and pre at once; name another one with --channel pre=NAME\."),
    ],
)
def test_roles_that_cannot_be_filled_are_told_with_what_there_is(
    channels: list[str], chosen: dict[str, str], says: str
) -> None:
    with pytest.raises(WrongRequest, match=says):
        pick(ROLES, channels, chosen)


def test_tiles_cover_a_box_once_and_end_where_cuboids_do() -> None:
    start, shape = (5, 1000, 3), (40, 1100, 5)
    covered = np.zeros(shape, np.int64)
    for box in _tiles(start, shape):
        covered[tuple(slice(a - o, b - o) for (a, b), o in zip(box, start, strict=True))] += 1
        assert all(
            b % size == 0 or b == o + n for (_, b), size, o, n in zip(box, (16, 1024, 1024), start, shape, strict=True)
        )

    assert (covered == 1).all()


def test_the_viewers_link_shows_the_middle_of_the_box_in_every_channel() -> None:
    link = viewer.link(request(), channels=["PSD95", "Synapsin"], voxel_nm=(50, 96, 96))

    assert link is not None
    assert len(link) <= MAX_VIEWER
    state = json.loads(unquote(link.removeprefix("https://neuroglancer.bossdb.io/#!")))
    assert state["position"] == [5, 10, 6]
    assert state["layers"][0]["source"] == "boss://https://api.bossdb.io/c/e/PSD95"
    assert pytest.approx(50e-9) == state["dimensions"]["z"][0]


def test_the_detections_are_a_layer_of_the_viewers_link() -> None:
    link = viewer.link(request(), channels=["PSD95"], voxel_nm=(50, 96, 96), detections="lab/predictions/key")

    assert link is not None
    state = json.loads(unquote(link.partition("#!")[2]))
    assert [layer["source"] for layer in state["layers"]] == [
        "boss://https://api.bossdb.io/c/e/PSD95",
        "boss://https://api.bossdb.io/lab/predictions/key",
    ]


def test_a_viewer_of_ones_own_also_shows_a_private_boss() -> None:
    asked = request("http://127.0.0.1:9000", "--viewer", "https://viewer.test/neuro/#!")

    link = viewer.link(asked, channels=["a"], voxel_nm=(1, 1, 1))

    assert link is not None
    assert link.startswith("https://viewer.test/neuro/#!%7B")
    assert "boss%3A%2F%2Fhttp%3A%2F%2F127.0.0.1%3A9000%2Fc%2Fe%2Fa" in link


def test_a_link_that_would_be_too_long_shows_the_first_channels_and_the_detections() -> None:
    names = [f"channel{number}{'x' * 200}" for number in range(10)]

    link = viewer.link(request(), channels=names, voxel_nm=(1, 1, 1), detections="a/b/c")

    assert link is not None
    assert len(link) <= MAX_VIEWER
    layers = [layer["name"] for layer in json.loads(unquote(link.partition("#!")[2]))["layers"]]
    assert layers[0] == names[0]
    assert layers[-1] == "detections"


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:9000", "boss", "10.0.0.1", "http://api.bossdb.io", "boss.internal", "[::1]"]
)
def test_there_is_no_link_to_a_private_boss(host: str) -> None:
    assert viewer.link(request(host), channels=["a"], voxel_nm=(1, 1, 1)) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 500), (2, 700, 4), (1, 1500, 2100)])
def test_a_preview_is_a_picture_of_bounded_size_whatever_the_box(shape: tuple[int, int, int]) -> None:
    plane = np.zeros(shape[1:], np.uint16)
    centres = np.array([[0, shape[1] / 2, shape[2] / 2]])

    drawn = preview.draw(plane, plane, shape=shape[1:], centres=centres, radius=3, voxel_nm=(50, 4, 4))

    picture = Image.open(io.BytesIO(drawn))
    assert (picture.format, 384 <= max(picture.size) <= 1024) == ("PNG", True)
    assert drawn == preview.draw(plane, plane, shape=shape[1:], centres=centres, radius=3, voxel_nm=(50, 4, 4))


@pytest.mark.parametrize(
    ("wide", "nm"),
    [(2400, 12.5), (1200, 25), (600, 50), (300, 100), (30, 100), (3000, 100), (24, 12.5), (1, 3), (9, 3e-5)],
)
def test_a_third_of_a_picture_that_is_a_round_length_has_a_scale_bar(wide: int, nm: float) -> None:
    for high in (wide, 2 * wide, 7):
        plane = np.zeros((min(high, 50), min(wide, 50)), np.uint8)
        assert preview.draw(plane, plane, shape=(high, wide), centres=np.zeros((0, 3)), radius=4, voxel_nm=(50, nm, nm))


@given(st.one_of(st.floats(1e-6, 1e9), st.integers(-6, 9).map(lambda n: float(np.nextafter(10.0**n, 0)))))
def test_a_scale_bar_has_a_round_length_of_at_least_two_fifths_of_what_there_is_room_for(most: float) -> None:
    length = preview.round_length(most)

    assert 0.4 * most < length <= most * 1.000001
    assert f"{length:.6e}"[:8] in ("1.000000", "2.000000", "5.000000")


def test_kinds_are_circled_in_colours_of_their_own() -> None:
    plane = np.zeros((100, 100), np.uint8)
    centres = np.array([[0.0, 30, 30], [0.0, 70, 70]])

    drawn = preview.draw(plane, plane, shape=(100, 100), centres=centres, radius=5, voxel_nm=(50, 4, 4), kinds=[0, 1])

    colours = {colour for _, colour in Image.open(io.BytesIO(drawn)).getcolors() or []}
    assert set(preview.COLOURS[:2]) <= colours


def test_options_of_a_program_s_own_are_handed_on_and_others_refused() -> None:
    argv = ["--host", "h", *ARGV, "--batch-size", "3"]

    assert parse(argv, {"BOSS_TOKEN": "t"}, options={"--batch-size": "how many"}).options == {"batch-size": "3"}
    with pytest.raises(WrongRequest, match="--batch-size is not understood"):
        parse(argv, {"BOSS_TOKEN": "t"})


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("--predictions", "lab", "a collection and an experiment"),
        ("--predictions", "lab/a b", "predictions' experiment"),
        ("--viewer", "viewer.test", "--viewer is no URL"),
        ("--viewer", "https://viewer.test/#x", "--viewer is no URL"),
        ("--channel", "PSD95", "a role and a channel"),
        ("--channel", "post=../x", "post channel's name"),
        ("--results-key", "a/b", "results key's name"),
    ],
)
def test_what_the_bot_hands_on_is_checked(argument: str, value: str, says: str) -> None:
    with pytest.raises(WrongRequest, match=says):
        request("h", argument, value)


def test_a_key_that_boss_would_not_take_is_cut_and_stays_unique() -> None:
    one, other = (f"{'k' * 300}{end}" for end in "ab")

    assert channel_name("short") == "short"
    assert len(channel_name(one)) == len(channel_name(other)) == 255
    assert channel_name(one) != channel_name(other)
