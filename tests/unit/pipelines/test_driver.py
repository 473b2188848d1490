"""nomads-unsupervised as whoever runs it sees it: arguments in; files, exit codes and last lines out."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from bot.jobs import Summary
from pipelines.common.program import run
from pipelines.unsupervised.driver import program
from sandbox.boss import BossStandIn
from tests.unit.pipelines.conftest import TOKEN, arguments, start
from tests.unit.pipelines.matching import match

FILES = ["predictions.npz", "preview.png", "results.json", "synapses.csv"]


def here(argv: list[str], environ: dict[str, str] | None = None) -> tuple[int, str]:
    """The program within this process: exit code and stderr."""
    err = io.StringIO()
    code = run(program, argv=argv, environ={"BOSS_TOKEN": TOKEN} if environ is None else environ, err=err)
    return code, err.getvalue()


def uri(folder: Path) -> str:
    return folder.as_uri() + "/"


def test_the_demo_box_ends_with_its_synapses_in_a_folder(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    with start(
        arguments(boss, z_range="0,16", y_range="0,512", x_range="0,512", results_uri=uri(tmp_path / "new"))
    ) as process:
        said, complained = process.communicate(timeout=60)
    folder = tmp_path / "new"

    assert (process.returncode, complained) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    summary = Summary.model_validate_json((folder / "results.json").read_bytes())
    rows = np.loadtxt(folder / "synapses.csv", delimiter=",", skiprows=1)
    assert summary.counts["synapses"] == len(rows)
    assert set(FILES) - {"results.json"} == {file.name for file in summary.files}
    assert summary.preview == "preview.png"
    assert summary.viewer is None
    precision, recall = match(rows[:, 1:4], boss.cortex.truth_within((0, 0, 0), (16, 512, 512)))
    assert precision > 0.95
    assert recall > 0.95
    assert said.splitlines()[0] == "progress 0.00 starting"
    with np.load(folder / "predictions.npz", allow_pickle=False) as predictions:
        mask = predictions["predictions"]
    assert ((16, 512, 512), {0, 255}) == (mask.shape, set(np.unique(mask)))
    assert summary.counts["voxels in synapses"] == np.count_nonzero(mask)
    with Image.open(folder / "preview.png") as picture:
        assert picture.size == (512, 512)


def test_the_token_is_in_nothing_that_is_written_or_said(boss: BossStandIn, tmp_path: Path) -> None:
    with start(arguments(boss, results_uri=uri(tmp_path), token=TOKEN), BOSS_TOKEN="") as process:
        said, complained = process.communicate(timeout=60)

    assert process.returncode == 0
    assert TOKEN not in said + complained
    assert not [path.name for path in tmp_path.iterdir() if TOKEN.encode() in path.read_bytes()]


def test_the_same_request_gives_the_same_bytes(boss: BossStandIn, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        assert here(arguments(boss, results_uri=uri(folder))) == (0, "")

    for name in FILES:
        if name != "results.json":  # it holds timings
            assert (one / name).read_bytes() == (other / name).read_bytes()


def test_places_are_in_the_experiments_voxels_and_nanometres(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    box = {"z_range": "20,32", "y_range": "300,428", "x_range": "700,828"}
    assert here(arguments(boss, **box, results_uri=uri(tmp_path))) == (0, "")

    rows = np.loadtxt(tmp_path / "synapses.csv", delimiter=",", skiprows=1)
    assert (rows[:, 1:4] >= (20, 300, 700)).all()
    assert np.allclose(rows[:, 4:7], rows[:, 1:4] * (50, 96, 96), atol=1)
    _, recall = match(rows[:, 1:4], boss.cortex.truth_within((21, 304, 704), (31, 424, 824)))
    assert recall > 0.9
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as predictions:
        assert predictions["start"].tolist() == [20, 300, 700]


def test_an_empty_volume_with_an_offset_and_no_time_unit_gives_no_synapses(boss: BossStandIn, tmp_path: Path) -> None:
    box = {"z_range": "10,14", "y_range": "100,132", "x_range": "200,232"}
    assert here(arguments(boss, col="lab", exp="empty", **box, results_uri=uri(tmp_path))) == (0, "")

    summary = Summary.model_validate_json((tmp_path / "results.json").read_bytes())
    assert summary.counts["synapses"] == 0
    assert summary.notes[:1] == ["psd was taken as postsynaptic and Synapsin as presynaptic."]
    assert len((tmp_path / "synapses.csv").read_text().splitlines()) == 1


BOUNDS = "x 0, 1024 · y 0, 1024 · z 0, 64"


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"x_range": "1000,1025"}, 2,
         f"The box x 1000, 1025 · y 0, 128 · z 0, 8 is not within the experiment; the experiment has {BOUNDS}."),
        ({"z_range": "60,65"}, 2, BOUNDS),
        ({"col": "lab", "exp": "empty"}, 2, "x 200, 232 · y 100, 132 · z 10, 14"),
        ({"col": "nope"}, 2, "no collection “nope”"),
        ({"exp": "nope"}, 2, "“demo” has no experiment “nope”; it has cortex."),
        ({"col": "lab", "exp": "gaba", "z_range": "0,4", "y_range": "0,32", "x_range": "0,32"}, 2,
         "no presynaptic channel (with synapsin in its name); its channels are GABA, PSD95."),
        ({"col": "lab", "exp": "wide", "z_range": "0,4", "y_range": "0,32", "x_range": "0,32"}, 2, "uint32"),
        ({"token": "wrong"}, 3, "refused the token"),
        ({"token": "stranger", "col": "lab", "exp": "gaba"}, 3, "does not let this token read lab/gaba: Missing read"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_work_ends_before_a_voxel_is_read(
    boss: BossStandIn, tmp_path: Path, changed: dict[str, str], code: int, says: str
) -> None:
    (tmp_path / "results.json").write_text("{}")

    ended, complained = here(arguments(boss, results_uri=uri(tmp_path), **changed))

    assert code == ended
    [last] = complained.splitlines()
    assert says in last
    assert not [served for served in boss.requests if served.path.startswith("/v1/cutout")]
    assert not (tmp_path / "results.json").exists(), "an earlier run's results would be taken for this run's"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ({"x_range": "5"}, "x range is not two whole numbers"),
        ({"x_range": "-5,10"}, "x range is not two whole numbers"),
        ({"y_range": "9,9"}, "y range starts at 9"),
        ({"z_range": "1" * 20 + ",5"}, "z range is not two whole numbers"),
        ({"col": "../etc"}, "collection's name"),
        ({"exp": ""}, "experiment's name"),
        ({"host": "http://user:pw@host"}, "--host"),
        ({"host": "ftp://host"}, "--host"),
        ({"host": "host/path"}, "--host"),
        ({"host": "host:99999"}, "port"),
        ({"token": "two words"}, "token has a space"),
        ({"token": "line\nbreak"}, "token has a space"),
        ({"results_uri": "http://host/x"}, "--results-uri"),
        ({"results_uri": "file://host/x"}, "--results-uri"),
        ({"results_uri": "s3:///key"}, "--results-uri"),
        ({"bucket": "canary-token"}, "--bucket is not understood"),
    ],
)
def test_wrong_arguments_are_told_without_asking_boss(boss: BossStandIn, argv: dict[str, str], says: str) -> None:
    code, complained = here(arguments(boss, **argv))

    assert code == 2
    [last] = complained.splitlines()
    assert says in last
    assert TOKEN not in last
    assert not boss.requests


def test_missing_arguments_and_a_missing_token_are_told() -> None:
    code, complained = here([])
    assert code == 2
    assert "--host, --col, --exp" in complained

    ranges = [word for axis in "xyz" for word in (f"--{axis}-range", "0,1")]
    code, complained = here(["--host", "h", "--col", "c", "--exp", "e", *ranges], environ={})
    assert code == 2
    assert "BOSS_TOKEN" in complained


def test_trouble_that_passes_is_waited_out(boss: BossStandIn, tmp_path: Path) -> None:
    boss.fail_next(1, status=502, prefix="/v1/coord")
    boss.cut_next(1, prefix="/v1/cutout")

    assert here(arguments(boss, results_uri=uri(tmp_path))) == (0, "")
    assert (tmp_path / "results.json").exists()


def test_a_boss_that_stays_broken_is_given_up_with_exit_3(boss: BossStandIn, tmp_path: Path) -> None:
    boss.fail_next(4, status=503, prefix="/v1/cutout")
    with start(arguments(boss, results_uri=uri(tmp_path))) as process:
        _, complained = process.communicate(timeout=60)

    assert process.returncode == 3
    assert "failed 4 times in a row: it answered with status 503. Try again later." in complained.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_host_that_is_no_boss_is_said_to_be_none(boss: BossStandIn, tmp_path: Path) -> None:
    boss.fail_next(1, status=200)  # a page, as any web server has one

    code, complained = here(arguments(boss, results_uri=uri(tmp_path)))

    assert code == 3
    assert "does not answer as BOSS does (status 200); check the host." in complained


def test_a_host_where_nobody_listens_is_told_within_seconds(tmp_path: Path) -> None:
    with BossStandIn(demo=False) as gone:
        argv = arguments(gone, results_uri=uri(tmp_path))

    code, complained = here(argv)

    assert code == 3
    assert "no connection could be made" in complained


def test_sigterm_ends_a_run_that_waits_and_leaves_no_half_file(boss: BossStandIn, tmp_path: Path) -> None:
    with boss.hanging(prefix="/v1/cutout") as hold, start(arguments(boss, results_uri=uri(tmp_path))) as process:
        assert hold.reached.wait(20)
        process.send_signal(signal.SIGTERM)
        _, complained = process.communicate(timeout=5)

    assert process.returncode == 1
    assert complained.splitlines()[-1] == "The run was stopped before it was done."
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said_before_boss_is_asked(boss: BossStandIn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    code, complained = here(arguments(boss, results_uri=uri(tmp_path / "file" / "folder")))

    assert (code, complained) == (1, "The results folder cannot be made: Not a directory.\n")
    assert not boss.requests


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3 on loopback."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


def test_results_go_to_s3_with_results_json_last(boss: BossStandIn, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aws = {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="results")
    with start(arguments(boss, results_uri="s3://results/some/key"), **aws) as process:
        _, complained = process.communicate(timeout=60)

    assert (process.returncode, complained) == (0, "")
    there = client.list_objects_v2(Bucket="results")["Contents"]
    assert [f"some/key/{name}" for name in FILES] == [entry["Key"] for entry in there]
    found = client.get_object(Bucket="results", Key="some/key/results.json")
    assert found["ContentType"] == "application/json"
    assert "synapses" in json.loads(found["Body"].read())["counts"]

    code, complained = here(arguments(boss, results_uri="s3://nowhere/key/"))
    assert (code, complained) == (1, "s3://nowhere cannot be written to: NoSuchBucket.\n")
    client.close()
