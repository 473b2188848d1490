"""nomads-unsupervised as whoever runs it sees it: arguments in; files, exit codes and last lines out."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import tensorstore as ts
from moto.server import ThreadedMotoServer
from numpy.typing import NDArray
from PIL import Image

from bot.domain.summary import Summary
from contract.program import REFUSED
from pipelines.common import channels, seen
from pipelines.common.copies import in_copies
from pipelines.common.program import run
from pipelines.common.results import Done, Results
from pipelines.unsupervised.detector import METHODS
from pipelines.unsupervised.driver import OPTIONS, program
from sandbox.boss import BossStandIn
from sandbox.volumes import Bricks
from tests.integration.pipelines.conftest import ROOT, TOKEN, arguments, start
from tests.support import puncta
from tests.support.puncta import match

FILES = ["predictions.npz", "preview.png", "report.html", "results.json", "ro-crate-metadata.json", "synapses.csv"]
IMAGES = ["image/postsynaptic", "image/presynaptic"]
FOLDERS = ["annotations", *IMAGES, "segmentation"]
"""Of many files each, of which `info` is announced."""


def everything(folder: Path) -> dict[str, bytes]:
    """Each file that lies in a folder or below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def beside(names: Iterable[str]) -> list[str]:
    """The names of files that lie in none of the folders."""
    return sorted(name for name in names if not name.startswith(tuple(f"{folder}/" for folder in FOLDERS)))


def here(argv: list[str], environ: dict[str, str] | None = None) -> tuple[int, str]:
    """The program within this process: exit code and stderr."""
    err = io.StringIO()
    environ = {"BOSS_TOKEN": TOKEN} if environ is None else environ
    code = run(program, argv=argv, environ=environ, err=err, options=OPTIONS)
    return code, err.getvalue()


def summary(folder: Path) -> Summary:
    """results.json, as the bot understands it."""
    return Summary.model_validate_json((folder / "results.json").read_bytes())


def rows(folder: Path) -> NDArray[np.float64]:
    """The numbers in synapses.csv: id, z, y, x, z_nm, y_nm, x_nm, voxels, volume_um3, score."""
    return np.loadtxt(folder / "synapses.csv", delimiter=",", skiprows=1, usecols=range(10), ndmin=2)


def uri(folder: Path) -> str:
    return folder.as_uri() + "/"


def test_the_demo_box_ends_with_its_synapses_in_a_folder(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    with start(
        arguments(
            boss,
            exp="cortex",
            z_range="0,16",
            y_range="0,512",
            x_range="0,512",
            false_discovery="0.05",
            results_uri=uri(tmp_path / "new"),
        )
    ) as process:
        said, complained = process.communicate(timeout=60)
    folder = tmp_path / "new"

    assert (process.returncode, complained) == (0, "")
    assert beside(everything(folder)) == FILES
    told, found = summary(folder), rows(folder)
    assert told.counts["synapses"] == len(found)
    announced = {*FILES, *(f"{name}/info" for name in FOLDERS)} - {"results.json"}
    assert announced == {file.name for file in told.files}
    assert told.preview == "preview.png"
    assert told.viewer is None
    precision, recall = match(found[:, 1:4], boss.cortex.truth_within((0, 0, 0), (16, 512, 512)))
    assert precision > 0.95
    assert recall > 0.95
    assert said.splitlines()[0] == "progress 0.00 starting"
    with np.load(folder / "predictions.npz", allow_pickle=False) as predictions:
        mask = predictions["predictions"]
    assert ((16, 512, 512), {0, 255}) == (mask.shape, set(np.unique(mask)))
    assert told.counts["voxels in synapses"] == found[:, 7].sum() == np.count_nonzero(mask)
    with Image.open(folder / "preview.png") as picture:
        assert picture.size == (512, 512)


def test_the_token_is_in_nothing_that_is_written_or_said(boss: BossStandIn, tmp_path: Path) -> None:
    with start(arguments(boss, results_uri=uri(tmp_path), token=TOKEN), BOSS_TOKEN="") as process:
        said, complained = process.communicate(timeout=60)

    assert process.returncode == 0
    assert TOKEN not in said + complained
    assert not [name for name, content in everything(tmp_path).items() if TOKEN.encode() in content]


def test_the_same_request_gives_the_same_bytes(boss: BossStandIn, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    argv = {"predictions": "collman_nomads/nomads_predictions", "viewer": "https://viewer.test/"}
    assert here(arguments(boss, results_uri=uri(one), **argv)) == (0, "")
    with start(arguments(boss, results_uri=uri(other), **argv)) as process:
        process.communicate(timeout=60)

    assert set(FILES) < set(everything(one))
    assert everything(one) == everything(other)


def test_places_are_in_the_experiments_voxels_and_nanometres(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    box = {"z_range": "20,32", "y_range": "100,228", "x_range": "150,278"}
    assert here(arguments(boss, **box, results_uri=uri(tmp_path))) == (0, "")

    found = rows(tmp_path)
    assert (found[:, 1:4] >= (20, 100, 150)).all()
    assert np.allclose(found[:, 4:7], found[:, 1:4] * (50, 96, 96), atol=1)
    assert np.allclose(found[:, 8], found[:, 7] * 50 * 96 * 96 / 1e9, atol=1e-6)
    _, recall = match(found[:, 1:4], boss.cortex.truth_within((21, 104, 154), (31, 224, 274)))
    assert recall > 0.9
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as predictions:
        assert predictions["start"].tolist() == [20, 100, 150]


def test_an_empty_volume_with_an_offset_and_no_time_unit_gives_no_synapses(boss: BossStandIn, tmp_path: Path) -> None:
    box = {"z_range": "10,14", "y_range": "100,132", "x_range": "200,232"}
    with start(arguments(boss, col="lab", exp="empty", **box, results_uri=uri(tmp_path))) as process:
        _, complained = process.communicate(timeout=60)

    told = summary(tmp_path)
    warnings = ["The channels psd and Synapsin are 0 everywhere in this box: they show nothing."]
    assert (process.returncode, complained.splitlines()) == (0, warnings)
    assert told.counts["synapses"] == 0
    assert told.notes == [
        *warnings,
        "Channels by role: postsynaptic psd, presynaptic Synapsin.",
        "Nothing here has the score of 0.75 that is used in so small a volume, of less than 12 µm along y and x, where "
        "chance cannot be told.",
    ]
    assert len((tmp_path / "synapses.csv").read_text().splitlines()) == 1


def test_a_box_of_one_section_is_run_and_said_to_be_one(boss: BossStandIn, tmp_path: Path) -> None:
    with start(arguments(boss, z_range="5,6", results_uri=uri(tmp_path), method="probabilistic")) as process:
        _, complained = process.communicate(timeout=60)

    assert process.returncode == 0
    assert complained.splitlines()[-1].startswith("The box is one section thick:")
    assert complained.strip() in summary(tmp_path).notes
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert file["predictions"].shape == (1, 128, 128)


def test_blank_sections_are_named_and_a_channel_that_is_there_under_two_names_is_told(
    boss: BossStandIn, tmp_path: Path
) -> None:
    assert here(arguments(boss, col="lab", exp="copies", results_uri=uri(tmp_path)))[0] == 0

    assert summary(tmp_path).notes[:3] == [
        "PSD95 and Synapsin hold the same voxels: what they show says nothing of synapses.",
        "Sections 3 and 5 of PSD95 and Synapsin are blank: nothing is to be found there.",
        "Channels by role: postsynaptic PSD95, presynaptic Synapsin.",
    ]


def test_what_reaches_the_score_in_a_small_box_and_is_not_beyond_chance_is_told(
    boss: BossStandIn, tmp_path: Path
) -> None:
    """One channel is upside down, so that whatever meets meets by chance."""
    drawn = puncta.puncta(4, shape=(2, 100, 100), level=2)
    channels = {"PSD95": Bricks("uint8"), "Synapsin": Bricks("uint8")}
    channels["PSD95"].write((0, 0, 0), drawn.psd)
    channels["Synapsin"].write((0, 0, 0), np.ascontiguousarray(drawn.synapsin[:, ::-1]))
    boss.add("lab", "few", shape=(2, 100, 100), voxel_nm=puncta.VOXEL_NM, channels=channels)
    box = {"col": "lab", "exp": "few", "z_range": "0,2", "y_range": "0,100", "x_range": "0,100"}
    assert here(arguments(boss, **box, results_uri=uri(tmp_path)))[0] == 0

    told = json.loads((tmp_path / "results.json").read_text())
    assert told["counts"]["synapses"] == 0
    (line,) = [note for note in told["notes"] if "objects have the score of 0.75" in note]
    assert line.endswith("nothing here is beyond chance.")
    assert told["facts"]["Threshold"] == "none: what reaches a score of 0.75 is not beyond chance"


@pytest.mark.parametrize("deeper", ["uint16", "uint64"])
def test_deeper_voxels_show_the_same_synapses(boss: BossStandIn, tmp_path: Path, deeper: str) -> None:
    assert here(arguments(boss, results_uri=uri(tmp_path / "uint8"))) == (0, "")
    assert here(arguments(boss, col="lab", exp=deeper, results_uri=uri(tmp_path / deeper))) == (0, "")

    assert len(rows(tmp_path / "uint8"))
    plain, deep = rows(tmp_path / "uint8"), rows(tmp_path / deeper)
    assert np.array_equal(plain[:, :-1], deep[:, :-1])
    assert np.allclose(plain[:, -1], deep[:, -1], atol=0.05)  # a grey level is less there, and so is its rounding


def test_a_channel_can_be_named_for_a_role(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    other = next(name for name in boss.cortex.channels if name not in ("PSD95", "Synapsin"))
    assert here([*arguments(boss, results_uri=uri(tmp_path)), "--channel", f"presynaptic={other}"]) == (0, "")

    assert summary(tmp_path).notes[0] == f"Channels by role: postsynaptic PSD95, presynaptic {other}."
    assert f"mean_{other}" in (tmp_path / "synapses.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_can_be_asked_for_and_is_told(boss: BossStandIn, tmp_path: Path, method: str) -> None:
    assert here(arguments(boss, method=method, results_uri=uri(tmp_path))) == (0, "")

    told = json.loads((tmp_path / "results.json").read_text())
    assert told["facts"]["Method"] == method
    assert told["chance"]["low"] <= told["chance"]["share"] <= told["chance"]["high"]
    assert any("nomads2018" in note for note in told["notes"]) == (method == "nomads2018")
    assert told["counts"]["synapses"] > 0


def test_witnesses_are_told_and_more_is_found_by_chance_where_more_may_be(boss: BossStandIn, tmp_path: Path) -> None:
    box = {"z_range": "0,16", "y_range": "0,256", "x_range": "0,256"}
    told = {}
    for rate in ("0.1", "0.5"):
        folder = tmp_path / rate
        asked = arguments(boss, **box, false_discovery=rate, witness="GluN1,TdTomato", results_uri=uri(folder))
        assert here(asked) == (0, "")
        told[rate] = json.loads((folder / "results.json").read_text())

    assert told["0.1"]["counts"]["synapses"] < told["0.5"]["counts"]["synapses"]
    low, high = (told[rate]["chance"] for rate in ("0.1", "0.5"))  # the threshold is measured with the margin
    assert low["low"] <= 0.1 < low["high"] < high["low"] <= 0.5 < high["high"]
    assert told["0.1"]["facts"]["False discovery rate"] == "0.1"
    enriched = [note for note in told["0.1"]["notes"] if "times as often" in note]
    assert [note.split()[0] for note in enriched] == ["GluN1", "TdTomato"]
    assert float(enriched[0].split(": ")[1].split()[0]) > 3
    page = (tmp_path / "0.1" / "report.html").read_text()
    assert "Found, by false discovery rate" in page
    assert "Section by section" in page
    header, *found = (tmp_path / "0.1" / "synapses.csv").read_text().splitlines()
    rates = [float(row.split(",")[header.split(",").index("false_discovery_rate")]) for row in found]
    assert 0 <= min(rates) <= max(rates) <= 0.1


def test_a_witness_that_lies_off_is_looked_up_where_it_really_is_and_told_to_be_off(
    boss: BossStandIn, tmp_path: Path
) -> None:
    """All sections of GluN1 lie off by ten pixels."""
    assert boss.cortex is not None
    moved = Bricks("uint8")
    moved.write((0, 0, 0), np.roll(boss.cortex.bricks("GluN1").read((0, 0, 0), (12, 512, 512)), (8, -6), (1, 2)))
    channels = {name: boss.cortex.bricks(name) for name in ("PSD95", "Synapsin")} | {"GluN1": moved}
    boss.add("lab", "witness", shape=(12, 512, 512), voxel_nm=boss.cortex.voxel_nm, channels=channels)
    box = {"col": "lab", "exp": "witness", "z_range": "2,10", "y_range": "100,300", "x_range": "100,300"}
    told = {}
    for register in ("auto", "report", "off"):
        folder = tmp_path / register
        assert here(arguments(boss, **box, witness="GluN1", register=register, results_uri=uri(folder))) == (0, "")
        told[register] = json.loads((folder / "results.json").read_text())["notes"]

    def enriched(notes: list[str]) -> str:
        return next(note for note in notes if note.startswith("GluN1 stands out")).partition(": ")[2]

    line = "In sections 2 to 9 PSD95 lies up to 10 pixels off GluN1; it was {}."
    assert line.format("moved back") in told["auto"]
    assert line.format("left there") in told["report"]
    assert not [note for note in told["off"] if "pixels off" in note]
    assert float(enriched(told["auto"]).removesuffix(" times as often.")) > 3
    assert enriched(told["report"]) == enriched(told["off"]) == "no sure difference."
    assert "Sure shifts: GluN1" in (tmp_path / "auto" / "report.html").read_text()


@pytest.mark.parametrize(
    ("method", "rows", "sections", "registered"),
    [
        ({"method": "nomads2018"}, ("500:512", "512:1024"), ("14:16", "16:18"), ()),
        # and what scores depend on, on a grid of 8 pixels; and the same sections, whole
        ({}, ("240:512", "512:1024"), ("9:16", "16:23"), ("0:512", "512:1024")),
    ],
)
def test_how_much_is_read_at_a_time_changes_nothing(
    boss: BossStandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, str],
    rows: tuple[str, ...],
    sections: tuple[str, ...],
    registered: tuple[str, ...],
) -> None:
    """Bands of rows that end where BOSS's cuboids do, instead of all rows at once."""
    box = {"exp": "cortex", "z_range": "14,18", "y_range": "500,1024", "x_range": "100,164"} | method
    assert here(arguments(boss, **box, results_uri=uri(tmp_path / "whole"))) == (0, "")
    boss.requests.clear()
    monkeypatch.setattr(channels, "FETCH", 1)
    monkeypatch.setattr(channels, "PIECE", 1000)
    assert here(arguments(boss, **box, results_uri=uri(tmp_path / "pieces"))) == (0, "")

    asked = [served.path.split("/")[-3:-1] for served in boss.requests if "/PSD95/0/" in served.path]
    assert asked == [[row, section] for part in (rows, registered) for section in sections for row in part]
    assert everything(tmp_path / "whole") == everything(tmp_path / "pieces")


def test_the_preview_of_a_large_box_shows_its_brightest_voxels(
    boss: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "LARGEST", 100)
    assert here(arguments(boss, exp="cortex", x_range="0,512", results_uri=uri(tmp_path))) == (0, "")

    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.size == (512, 128)
        assert np.percentile(np.asarray(picture), 99) > 200


MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small process between this one and the program: a child's peak starts with its parent's."""


@pytest.mark.parametrize(
    ("pipeline", "box"),
    [
        ("unsupervised", {"exp": "cortex", "z_range": "0,64", "y_range": "0,1024", "x_range": "0,1024"}),
        ("classifier", {"exp": "cortex", "z_range": "0,32", "y_range": "0,1024", "x_range": "0,512"}),
        ("unsupervised", {"exp": "cortex", "z_range": "3,4", "y_range": "0,1024", "x_range": "0,1024"}),
        ("unsupervised", {"col": "lab", "exp": "large", "z_range": "0,20", "y_range": "0,1024", "x_range": "0,1024"}),
    ],
)
def test_a_run_takes_8_bytes_a_voxel_and_300_mb_at_most(
    boss: BossStandIn, tmp_path: Path, pipeline: str, box: dict[str, str]
) -> None:
    argv = arguments(boss, **box, results_uri=uri(tmp_path), predictions="collman_nomads/nomads_predictions")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, sys.executable, "-m", f"pipelines.{pipeline}", *argv],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BOSS_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert (done.returncode, done.stderr) == (0, "") or "one section" in done.stderr
    voxels = math.prod(int(b) - int(a) for a, b in (side.split(",") for key, side in box.items() if "range" in key))
    assert int(done.stdout.splitlines()[-1]) * 1024 <= 8 * voxels + 300 * 10**6


def test_a_table_names_its_columns(boss: BossStandIn, tmp_path: Path) -> None:
    assert here(arguments(boss, results_uri=uri(tmp_path))) == (0, "")

    header, first, *_ = (tmp_path / "synapses.csv").read_text().splitlines()
    assert (
        header == "id,z,y,x,z_nm,y_nm,x_nm,voxels,volume_um3,score,class,false_discovery_rate,mean_PSD95,mean_Synapsin"
    )
    assert first.split(",")[10] == "synapse"


BOUNDS = "x 0, 288 · y 0, 288 · z 0, 64"


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"witness": "Nobody"}, 2, "The experiment has no channel Nobody for a witness"),
        ({"witness": "PSD95"}, 2, "PSD95 cannot be a witness: it is what synapses are found in."),
        ({"x_range": "280,289"}, 2,
         f"The box x 280, 289 · y 0, 128 · z 0, 8 is not within the experiment; the experiment has {BOUNDS}."),
        ({"z_range": "60,65"}, 2, BOUNDS),
        ({"col": "lab", "exp": "empty"}, 2, "x 200, 232 · y 100, 132 · z 10, 14"),
        ({"col": "nope"}, 2, "no collection “nope”"),
        ({"exp": "nope"}, 2, "“demo” has no experiment “nope”; it has cortex, corner."),
        ({"col": "lab", "exp": "gaba", "z_range": "0,4", "y_range": "0,32", "x_range": "0,32"}, 2,
         "no presynaptic channel (with synapsin or vglut in its name); its channels are GABA, PSD95."),
        ({"col": "lab", "exp": "wide", "z_range": "0,4", "y_range": "0,32", "x_range": "0,32"}, 2, "uint32"),
        ({"col": "lab", "exp": "float", "z_range": "0,4", "y_range": "0,32", "x_range": "0,32"}, 2,
         "The channel “PSD95” has the data type float32; only uint8, uint16 and uint64 can be read."),
        ({"channel": "presynaptic=Nope"}, 2, "no channel Nope; its channels are PSD95, Synapsin"),
        ({"channel": "gaba=PSD95"}, 2, "There is no role gaba; the roles are postsynaptic, presynaptic."),
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
        ({"image_bytes": "-1"}, "--image-bytes is not a whole number of bytes"),
        ({"false_discovery": "1"}, "--false-discovery is a number from 0.01 to 0.9, such as 0.25."),
        ({"false_discovery": "nan"}, "--false-discovery is a number from 0.01 to 0.9, such as 0.25."),
        ({"register": "maybe"}, "--register is one of auto, off, report."),
        ({"witness": "a,b,c,d,e"}, "--witness takes 4 channels at most"),
        ({"method": "magic"}, "--method is one of paired, probabilistic, nomads2018."),
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
    boss.fail_next(1, status=429, prefix="/v1/cutout/demo/corner/PSD95")
    boss.cut_next(1, prefix="/v1/cutout")

    assert here(arguments(boss, results_uri=uri(tmp_path))) == (0, "")
    assert 429 in [served.status for served in boss.requests]
    assert (tmp_path / "results.json").exists()


def test_a_boss_that_stays_broken_is_given_up_with_exit_3(boss: BossStandIn, tmp_path: Path) -> None:
    boss.fail_next(4, status=503, prefix="/v1/cutout")
    with start(arguments(boss, results_uri=uri(tmp_path))) as process:
        _, complained = process.communicate(timeout=60)

    assert process.returncode == 3
    assert "failed 4 times in a row: it answered with status 503. Try again later." in complained.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_connection_that_breaks_every_time_is_given_up_with_exit_3(boss: BossStandIn, tmp_path: Path) -> None:
    boss.cut_next(4, prefix="/v1/cutout")

    code, complained = here(arguments(boss, results_uri=uri(tmp_path)))

    assert code == 3
    assert "failed 4 times in a row: the connection broke. Try again later." in complained.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "BOSS refused the token"),
        (403, "BOSS does not let this token read demo/corner"),
        (404, "the channel is not there any more: see what the experiment has."),
        (413, "; ask for a smaller box."),
    ],
)
def test_a_refusal_in_the_middle_is_not_tried_again(boss: BossStandIn, tmp_path: Path, status: int, says: str) -> None:
    boss.fail_next(1, status=status, prefix="/v1/cutout/demo/corner/Synapsin")

    code, complained = here(arguments(boss, results_uri=uri(tmp_path)))

    assert code == 3
    assert says in complained.splitlines()[-1]
    assert [served.status for served in boss.requests][-1] == status
    assert not list(tmp_path.iterdir())


def test_where_boss_itself_refuses_the_program_says_that_it_would_refuse_again(
    boss: BossStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, complained = here(arguments(boss, results_uri=uri(tmp_path)), {"BOSS_TOKEN": "nobody-s-token"})

    assert code == 3
    assert complained == "BOSS refused the token; make a new one on BOSS's token page and submit again.\n"
    assert capsys.readouterr().out.splitlines()[-1] == REFUSED


@pytest.mark.parametrize(("status", "times"), [(401, 1), (403, 1), (503, 4)])
def test_a_page_of_a_proxy_and_a_boss_that_is_away_are_no_refusals_for_good(
    boss: BossStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, times: int
) -> None:
    boss.fail_next(times, status=status, prefix="/v1/cutout")

    code, _ = here(arguments(boss, results_uri=uri(tmp_path)))

    assert code == 3
    assert REFUSED not in capsys.readouterr().out


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
        _, complained = process.communicate(timeout=30)

    assert process.returncode == 1
    assert complained.splitlines()[-1] == "The run was stopped before it was done."
    assert not list(tmp_path.iterdir())


STOPPED_AT_ONCE = """
import os, signal, sys
os.kill(os.getpid(), signal.SIGTERM)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["argparse"]
import argparse
"""
"""A module that is imported first in place of the library's: SIGTERM comes while the program still imports."""


@pytest.mark.parametrize("pipeline", ["unsupervised", "classifier"])
def test_sigterm_at_the_very_start_is_heeded_as_well(boss: BossStandIn, tmp_path: Path, pipeline: str) -> None:
    (tmp_path / "argparse.py").write_text(STOPPED_AT_ONCE)
    done = subprocess.run(
        [sys.executable, "-m", f"pipelines.{pipeline}", *arguments(boss, results_uri=uri(tmp_path / "results"))],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BOSS_TOKEN": TOKEN, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "The run was stopped before it was done."
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())


def test_a_folder_that_cannot_be_written_is_said_before_boss_is_asked(boss: BossStandIn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    code, complained = here(arguments(boss, results_uri=uri(tmp_path / "file" / "folder")))

    assert (code, complained) == (1, "The results folder cannot be made: Not a directory.\n")
    assert not boss.requests


def test_a_disk_that_is_full_ends_the_run_while_it_keeps_what_it_reads(
    boss: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, free = os.pwrite, 100_000

    def full(file: int, data: memoryview, place: int) -> int:
        if place >= free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: free - place], place)  # as much of it as there is room for

    monkeypatch.setattr(os, "pwrite", full)

    code, complained = here(arguments(boss, results_uri=uri(tmp_path)))

    assert (code, complained) == (1, "What was read cannot be kept on this machine: No space left on device.\n")
    assert everything(tmp_path) == {}


def test_a_file_that_cannot_be_written_ends_the_run_without_results_json(
    boss: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preview.png" / "in the way").mkdir(parents=True)
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * size)
    (tmp_path / ".0000-of-a-killed-copy.part").write_bytes(b"half")

    code, complained = here(arguments(boss, results_uri=uri(tmp_path)))

    assert code == 1
    assert complained == "preview.png cannot be written to the results folder: Is a directory.\n"
    assert not (tmp_path / "results.json").exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3 on loopback."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, *, called: str = "results") -> tuple[dict[str, str], Any]:
    """The environment of an S3, and a client. It has the bucket `called`; a process's servers share what is in it."""
    aws = {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=called)
    return aws, client


def test_copies_of_a_program_write_to_s3_over_connections_of_their_own(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = bucket(s3, monkeypatch, called="of-copies")
    results = Results("s3://of-copies/some/key")
    results.put("first", b"1")  # over a connection that copies of this process must not use
    mine = results._place._client  # type: ignore[attr-defined]

    def write(part: int) -> tuple[Done, bool]:
        own = results.apart()
        own.put(f"part/{part}", b"%d" % part * 100_000)
        return own.done, own._place._client is mine  # type: ignore[attr-defined]

    for done, shared in in_copies(write, range(6), most=2):
        results.join(done)
        assert not shared

    assert results._place._client is mine  # type: ignore[attr-defined]
    assert [file.name for file in results.written] == ["first", *(f"part/{n}" for n in range(6))]
    for n in range(6):
        stored = client.get_object(Bucket="of-copies", Key=f"some/key/part/{n}")["Body"].read()
        assert stored == b"%d" % n * 100_000


def test_results_go_to_s3_with_results_json_last(boss: BossStandIn, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aws, client = bucket(s3, monkeypatch)
    with start(arguments(boss, results_uri="s3://results/some/key"), **aws) as process:
        _, complained = process.communicate(timeout=60)

    assert (process.returncode, complained) == (0, "")
    there = client.list_objects_v2(Bucket="results")["Contents"]
    keys = [entry["Key"].removeprefix("some/key/") for entry in there]
    assert beside(keys) == FILES
    assert {f"{folder}/info" for folder in FOLDERS} < set(keys)
    written = {entry["Key"]: entry["LastModified"] for entry in there}
    assert written["some/key/results.json"] == max(written.values())
    found = client.get_object(Bucket="results", Key="some/key/results.json")
    assert found["ContentType"] == "application/json"
    assert "synapses" in json.loads(found["Body"].read())["counts"]

    code, complained = here(arguments(boss, results_uri="s3://nowhere/key/"))
    assert (code, complained) == (1, "s3://nowhere cannot be written to: NoSuchBucket.\n")
    client.close()


def volume(folder: Path) -> NDArray[np.int64]:
    """A precomputed volume's finest resolution, z, y, x."""
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    values = ts.open(spec, read=True).result()
    found: NDArray[np.int64] = values.read().result()[..., 0].transpose(2, 1, 0).astype(np.int64)
    return found


def test_a_segmentation_has_the_ids_of_the_table_where_the_synapses_are(boss: BossStandIn, tmp_path: Path) -> None:
    box = {"z_range": "20,32", "y_range": "100,228", "x_range": "150,278"}
    assert here(arguments(boss, **box, results_uri=uri(tmp_path))) == (0, "")

    found, table = volume(tmp_path / "segmentation"), rows(tmp_path)
    voxels = np.bincount(found.reshape(-1))
    assert np.array_equal(np.flatnonzero(voxels[1:]) + 1, table[:, 0])
    assert np.array_equal(voxels[1:], table[:, 7])
    for number in (1, len(table)):
        z, y, x = np.rint(table[number - 1, 1:4]).astype(np.int64) - (20, 100, 150)
        assert found[z, y, x] == number


def test_an_image_is_what_was_read(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    assert here(arguments(boss, results_uri=uri(tmp_path))) == (0, "")

    for folder, name in zip(IMAGES, ("PSD95", "Synapsin"), strict=True):
        expected = boss.cortex.bricks(name).read((0, 0, 0), (8, 128, 128))
        assert np.array_equal(volume(tmp_path / folder), expected)


@pytest.mark.parametrize(("most", "told"), [(2 * 8 * 128 * 128 - 1, True), (0, False)])
def test_an_image_that_is_too_large_is_left_out(boss: BossStandIn, tmp_path: Path, most: int, told: bool) -> None:
    assert here(arguments(boss, image_bytes=str(most), results_uri=uri(tmp_path))) == (0, "")

    assert not (tmp_path / "image").exists()
    said = f"There is no image/ among the results: the channels have 262,144 bytes, more than {most:,}."
    assert (said in summary(tmp_path).notes) == told
