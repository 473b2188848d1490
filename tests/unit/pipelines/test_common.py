"""What the programs share: progress, results, roles, the viewer's link, the preview."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from pipelines.common import preview, viewer
from pipelines.common.boss import _tiles, pick
from pipelines.common.program import Progress, Request, WrongRequest, parse, run
from pipelines.common.results import Results, npz, table

ARGV = ["--col", "c", "--exp", "e", "--x-range", "0,10", "--y-range", "0:20", "--z-range", "4, 8"]


def request(host: str = "api.bossdb.io") -> Request:
    return parse(["--host", host, *ARGV], {"BOSS_TOKEN": "demo-token"})


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
    results.add("a.csv", b"12345", title="A", media_type="text/csv")
    results.finish({"counts": {"n": 1}})

    assert [order[0], order[1].split()[0]] == ["a.csv 5", "results.json"]
    assert {"a.csv", "results.json"} == {path.name for path in tmp_path.iterdir()}
    said = json.loads((tmp_path / "results.json").read_text())
    assert said["files"] == [{"name": "a.csv", "title": "A", "media_type": "text/csv"}]


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    results = Results(tmp_path.as_uri())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match=r"a\.csv cannot be written to the results folder: No space left on device"):
        results.add("a.csv", b"12345", title="A", media_type="text/csv")
    assert not list(tmp_path.iterdir())


def test_an_npz_loads_without_pickle_and_has_no_time_in_it() -> None:
    arrays = {"a": np.arange(24).reshape(2, 3, 4)[:, ::-1], "b": np.zeros(0)}

    with np.load(io.BytesIO(npz(arrays)), allow_pickle=False) as loaded:
        assert np.array_equal(arrays["a"], loaded["a"])
    assert npz(arrays) == npz(arrays)
    assert table(["a", "b"], [[1, "é"]]) == b"a,b\n1,\xc3\xa9\n"


def test_roles_go_to_the_first_channel_whose_name_fits() -> None:
    roles = {"post": ["psd"], "pre": ["synapsin", "vglut"]}

    assert pick(roles, ["DAPI", "PSD95_488", "psd", "VGluT1", "Synapsin"]) == {"post": "PSD95_488", "pre": "VGluT1"}
    with pytest.raises(WrongRequest, match=r"no post channel \(with psd in its name\) and no pre .*are none\."):
        pick(roles, [])


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
    state = json.loads(unquote(link.removeprefix("https://neuroglancer.bossdb.io/#!")))
    assert state["position"] == [5, 10, 6]
    assert state["layers"][0]["source"] == "boss://https://api.bossdb.io/c/e/PSD95"
    assert pytest.approx(50e-9) == state["dimensions"]["z"][0]


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:9000", "boss", "10.0.0.1", "http://api.bossdb.io", "boss.internal", "[::1]"]
)
def test_there_is_no_link_to_a_private_boss(host: str) -> None:
    assert viewer.link(request(host), channels=["a"], voxel_nm=(1, 1, 1)) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 500), (2, 700, 4), (1, 1500, 2100)])
def test_a_preview_is_a_picture_of_bounded_size_whatever_the_box(shape: tuple[int, int, int]) -> None:
    volume = np.zeros(shape, np.uint16)
    centres = np.array([[0, shape[1] / 2, shape[2] / 2]])

    drawn = preview.draw(volume, volume, centres=centres, radius=3, voxel_nm=(50, 4, 4))

    picture = Image.open(io.BytesIO(drawn))
    assert (picture.format, 384 <= max(picture.size) <= 1024) == ("PNG", True)
    assert drawn == preview.draw(volume, volume, centres=centres, radius=3, voxel_nm=(50, 4, 4))
