"""nomads-classifier as whoever runs it sees it: eight channels and a model in, classes out."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet
from scipy.spatial import cKDTree

from bot.domain.summary import Summary
from pipelines.classifier import model
from pipelines.classifier.driver import OPTIONS, program
from pipelines.classifier.outputs import captioned
from pipelines.common import run as run_of
from pipelines.common.program import run
from sandbox.boss import Access, BossStandIn
from sandbox.demonstration import CHANNELS, demonstration
from sandbox.volumes import BRICK, Bricks, cortex
from tests.integration.pipelines.conftest import CORNER as SECTIONS
from tests.integration.pipelines.conftest import ROOT, TOKEN, arguments, with_corner

Array = NDArray[Any]
FILES = [
    "classes.npz",
    "predictions.npz",
    "preview.png",
    "report.html",
    "results.json",
    "ro-crate-metadata.json",
    "synapses.csv",
]
WORDS = "demonstration model"
GREY = 99
BOX = {"z_range": "0,32", "y_range": "0,256", "x_range": "0,256"}
OFF = (8, -6)
"""By how many voxels (y, x) channels are shifted in experiments named off."""
CORNER = {"z_range": "10,17", "y_range": "0,288", "x_range": "0,288"}
FIELD = ["PSD95_488", "Synapsin647", "GABA488", "GAD647", "gephyrin594", "NR1594", "VGluT1_647"]
"""What another lab calls them; it has no TdTomato."""


@pytest.fixture(scope="module")
def stand_in() -> Iterator[BossStandIn]:
    """demo/cortex and demo/corner; the corner's voxels in lab/deep (uint16), parts of them in lab/cut and lab/thin (8
    sections), and lab/field (seven channels under other names).
    """
    with BossStandIn(tokens={TOKEN: Access(user="demo", write=frozenset({"*"}))}) as boss:
        assert boss.cortex is not None
        shape, nm, names = (32, 256, 256), boss.cortex.voxel_nm, boss.cortex.channels
        channels = {name: deeper(boss.cortex.bricks(name)) for name in names}
        with_corner(boss)
        boss.add("lab", "deep", shape=SECTIONS, voxel_nm=nm, channels=channels)
        for name, depth in (("cut", 32), ("thin", 8)):
            channels = {channel: boss.cortex.bricks(channel) for channel in names}
            boss.add("lab", name, shape=(depth, 256, 256), voxel_nm=nm, channels=channels)
        boss.add("lab", "field", shape=shape, channels={name: Bricks("uint8") for name in FIELD})
        boss.add("lab", "tomato", shape=shape, channels={name: Bricks("uint8") for name in (*FIELD, "tdTomato")})
        yield boss


def deeper(bricks: Bricks) -> Bricks:
    """The same brightness in 16 bits."""

    def fill(index: tuple[int, int, int]) -> Array:
        start = (index[0] * BRICK[0], index[1] * BRICK[1], index[2] * BRICK[2])
        stop = (start[0] + BRICK[0], start[1] + BRICK[1], start[2] + BRICK[2])
        return bricks.read(start, stop).astype(np.uint16) * 257

    return Bricks("uint16", fill=fill)


def off(bricks: Bricks) -> Bricks:
    """The first 26 sections of 400 x 400 voxels, shifted by OFF."""
    shifted = Bricks("uint8")
    shifted.write((0, 0, 0), np.roll(bricks.read((0, 0, 0), (26, 400, 400)), OFF, (1, 2)))
    return shifted


def here(argv: list[str]) -> tuple[int, str]:
    """The program within this process: exit code and stderr."""
    err = io.StringIO()
    code = run(program, argv=argv, environ={"BOSS_TOKEN": TOKEN}, err=err, options=OPTIONS)
    return code, err.getvalue()


def caption() -> bytes:
    """What the preview's caption looks like on a grey picture."""
    grey = io.BytesIO()
    Image.new("RGB", (384, 384), (GREY,) * 3).save(grey, "PNG")
    return captioned(grey.getvalue(), f"classes: {WORDS}")


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "synapses.csv").read_text())))


@pytest.fixture(scope="module")
def done(stand_in: BossStandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corner of demo/cortex, run as a process without weights."""
    folder = tmp_path_factory.mktemp("demo")
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.classifier", *arguments(stand_in, **BOX, results_uri=folder.as_uri())],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "BOSS_TOKEN": TOKEN},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "progress" in ended.stdout
    return folder


def test_the_demo_s_synapses_get_their_true_classes(done: Path) -> None:
    volume, stop = cortex(), (32, 256, 256)
    truth, classes = volume.truth_within((0, 0, 0), stop), volume.classes_within((0, 0, 0), stop)
    found = rows(done)

    places = np.array([[float(row[axis]) for axis in "zyx"] for row in found])
    said = np.array([row["class"] for row in found])
    near, which = cKDTree(truth / (1, 2, 2)).query(places / (1, 2, 2))
    judged = (near < 2) & (said != "not classified")
    assert judged.sum() > 50
    assert (said[judged] == classes[which[judged]]).mean() > 0.97
    inside = np.all(places >= (7, 4, 4), axis=1)  # at its other faces the experiment goes on
    assert (places >= (25, 252, 252)).any(), "of those whose cubes leave the box"
    assert np.array_equal(inside, said != "not classified")


def test_counts_say_how_many_there_are_of_each_class(done: Path) -> None:
    summary = Summary.model_validate_json((done / "results.json").read_bytes())
    said = [row["class"] for row in rows(done)]

    for name in ("GABA", "non-GABA", "not classified"):
        assert summary.counts[name] == said.count(name) > 0
    assert summary.counts["synapses"] == len(said)


def test_a_volume_of_classes_agrees_with_the_table_and_the_predictions(done: Path) -> None:
    with np.load(done / "classes.npz", allow_pickle=False) as file:
        classes, meaning, gaba = file["classes"], file["meaning"].tolist(), file["gaba"]
    with np.load(done / "predictions.npz", allow_pickle=False) as file:
        assert np.array_equal(file["predictions"] > 0, classes > 0)

    table = rows(done)
    assert meaning == ["no synapse", "non-GABA", "GABA", "not classified"]
    for code, name in enumerate(meaning[1:], start=1):
        assert (classes == code).sum() == sum(int(row["voxels"]) for row in table if row["class"] == name)
    said = np.array([row["class"] for row in table])
    assert np.array_equal(np.isnan(gaba), said == "not classified")
    assert np.array_equal(gaba > 0.5, said == "GABA")


def test_every_output_says_in_words_that_the_model_is_a_demonstration(done: Path) -> None:
    assert sorted(path.name for path in done.iterdir() if path.is_file()) == FILES
    summary = json.loads((done / "results.json").read_text())
    assert [file["name"] for file in summary["files"] if WORDS not in file["about"]] == []
    assert any(WORDS in note and "synthetic data" in note for note in summary["notes"])
    assert {row["model"] for row in rows(done)} == {WORDS}
    assert WORDS in (done / "report.html").read_text()
    with np.load(done / "classes.npz", allow_pickle=False) as file:
        assert WORDS in str(file["model"])
    drawn, alone = (np.asarray(Image.open(io.BytesIO(png))) for png in ((done / "preview.png").read_bytes(), caption()))
    places = np.argwhere((alone != GREY).any(axis=2))
    (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
    assert right - left > 150
    assert np.array_equal(drawn[top:bottom, left:right], alone[top:bottom, left:right])


def test_the_same_request_gives_the_same_bytes(stand_in: BossStandIn, done: Path, tmp_path: Path) -> None:
    assert here(arguments(stand_in, **BOX, results_uri=tmp_path.as_uri())) == (0, "")

    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (done, tmp_path)
    )
    assert one == other


def test_a_large_table_names_the_model_too(
    stand_in: BossStandIn, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_of, "MANY", 1)

    assert here(arguments(stand_in, **BOX, results_uri=tmp_path.as_uri())) == (0, "")

    assert (tmp_path / "synapses.csv").read_bytes() == (done / "synapses.csv").read_bytes()
    table = parquet.read_table(tmp_path / "synapses.parquet").to_pylist()
    assert [(row["class"], row["model"]) for row in table] == [(row["class"], row["model"]) for row in rows(done)]


def test_annotations_name_the_classes_of_the_table(done: Path) -> None:
    info = json.loads((done / "annotations" / "info").read_text())
    [kind] = [entry for entry in info["properties"] if entry["id"] == "class"]
    names = dict(zip(kind["enum_values"], kind["enum_labels"], strict=True))
    with open(done / "annotations" / "by_id" / "0.shard", "rb") as file:
        minishards = 1 << info["by_id"]["sharding"]["minishard_bits"]
        records = np.frombuffer(file.read()[16 * minishards :][: 24 * len(rows(done))], "<f4").reshape(-1, 6)

    assert [names[int(value)] for value in records[:, 5]] == [row["class"] for row in rows(done)]


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., str]:
    """Writes a model like the one that is shipped, changed, and returns its path."""

    def write(**changed: Any) -> str:
        about: dict[str, Any] = {
            "name": "lab's own",
            "about": "The classes come from the lab's own forest.",
            "demonstration": False,
        }
        shipped = model.load(str(model.DEMONSTRATION))
        path = tmp_path / "weights.npz"
        path.write_bytes(replace(shipped, **(about | changed)).to_bytes())
        return str(path)

    return write


def test_with_weights_nothing_speaks_of_a_demonstration_and_classes_are_the_weights(
    stand_in: BossStandIn, done: Path, tmp_path: Path, weights: Callable[..., str]
) -> None:
    shipped = model.load(str(model.DEMONSTRATION))
    path = weights(frequencies=shipped.frequencies[:, ::-1])  # this one says the opposite

    code, said = here(arguments(stand_in, **BOX, results_uri=(tmp_path / "out").as_uri(), weights=path))

    assert (code, said) == (0, "")
    opposite = {"GABA": "non-GABA", "non-GABA": "GABA", "not classified": "not classified"}
    ours, theirs = rows(tmp_path / "out"), rows(done)
    agree = [row["class"] == opposite[other["class"]] for row, other in zip(ours, theirs, strict=True)]
    assert np.mean(agree) > 0.99  # but for ties, which are non-GABA either way
    assert {row["model"] for row in ours} == {"lab's own"}
    for file in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert WORDS.encode() not in file.read_bytes()


def test_sixteen_bits_give_the_same_classes_and_a_note(stand_in: BossStandIn, done: Path, tmp_path: Path) -> None:
    code, _ = here(arguments(stand_in, col="lab", exp="deep", **BOX, results_uri=tmp_path.as_uri()))

    assert code == 0
    assert [row["class"] for row in rows(tmp_path)] == [row["class"] for row in rows(done)]
    assert "scaled to grey levels 0 to 255" in " ".join(json.loads((tmp_path / "results.json").read_text())["notes"])


def test_an_experiment_thinner_than_a_cube_is_detected_but_not_classified_and_says_so(
    stand_in: BossStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = here(arguments(stand_in, col="lab", exp="thin", results_uri=tmp_path.as_uri()))

    assert code == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "No synapse was classified: that takes an experiment of at least 15 × 9 × 9 voxels (z, y, x)."
    assert {row["class"] for row in rows(tmp_path)} == {"not classified"}


def test_a_thin_box_at_the_border_of_a_deep_experiment_says_that_the_border_is_too_near(
    stand_in: BossStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = BOX | {"z_range": "0,5"}
    code, _ = here(arguments(stand_in, col="lab", exp="cut", **box, results_uri=tmp_path.as_uri()))

    notes = json.loads((tmp_path / "results.json").read_text())["notes"]
    assert code == 0
    assert {row["class"] for row in rows(tmp_path)} == {"not classified"}
    assert any(note.startswith("Not classified: ") and "too near the experiment's border" in note for note in notes)
    assert "at least 15" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "box",
    [
        {"z_range": "10,16", "y_range": "60,200", "x_range": "40,180"},
        {"z_range": "0,32", "y_range": "200,256", "x_range": "0,256"},
        {"z_range": "12,13", "y_range": "0,256", "x_range": "0,256"},
    ],
)
def test_a_box_has_the_synapses_of_its_experiment_with_their_scores_and_classes(
    stand_in: BossStandIn, tmp_path: Path, box: dict[str, str]
) -> None:
    """Which are kept follows the threshold of what was looked at: one may have fainter ones that the other has not."""
    place = {"col": "lab", "exp": "cut"}
    for name, asked in (("whole", BOX), ("box", box)):
        assert here(arguments(stand_in, **place, **asked, results_uri=(tmp_path / name).as_uri())) == (0, "")

    ranges = [tuple(map(int, box[f"{axis}_range"].split(","))) for axis in "zyx"]
    there, told = (
        {
            tuple(row[name] for name in ("z", "y", "x", "score", "class"))
            for row in rows(tmp_path / of)
            if all(low <= float(row[axis]) < high for axis, (low, high) in zip("zyx", ranges, strict=True))
        }
        for of in ("whole", "box")
    )
    faintest = [min(float(row["score"]) for row in rows(tmp_path / of)) for of in ("whole", "box")]
    assert all(float(one[3]) < max(faintest) for one in there ^ told)
    assert len(there & told) > 0.8 * len(there)
    assert len(told) > 2
    with np.load(tmp_path / "box" / "classes.npz", allow_pickle=False) as file:
        assert file["classes"].shape == tuple(high - low for low, high in ranges)
    summary = json.loads((tmp_path / "box" / "results.json").read_text())
    assert summary["counts"]["synapses"] == len(told)


@pytest.fixture(scope="module")
def shifted(stand_in: BossStandIn) -> BossStandIn:
    """lab/straight, a corner of demo/cortex; lab/off, where all its channels but PSD95 are shifted; and lab/others-off,
    where Synapsin lies as PSD95 does.
    """
    assert stand_in.cortex is not None
    nm, names, bricks = stand_in.cortex.voxel_nm, stand_in.cortex.channels, stand_in.cortex.bricks
    moved = {name: off(bricks(name)) for name in names}
    straight = {name: bricks(name) for name in names}
    kept = {name: bricks(name) for name in ("PSD95", "Synapsin")}
    for name, channels in (
        ("straight", straight),
        ("off", moved | {"PSD95": bricks("PSD95")}),
        ("others-off", moved | kept),
    ):
        stand_in.add("lab", name, shape=(26, 400, 400), voxel_nm=nm, channels=channels)
    return stand_in


def classified(boss: BossStandIn, folder: Path, **asked: str) -> tuple[dict[tuple[float, ...], dict[str, str]], str]:
    """The classified synapses of CORNER by their places, and all notes."""
    assert here(arguments(boss, col="lab", **CORNER, **asked, results_uri=folder.as_uri())) == (0, "")
    found = [row for row in rows(folder) if row["class"] != "not classified"]
    notes = "\n".join(json.loads((folder / "results.json").read_text())["notes"])
    return {tuple(float(row[axis]) for axis in "zyx"): row for row in found}, notes


def brightness(found: Mapping[Any, Mapping[str, str]], channel: str) -> float:
    return float(np.mean([float(row[f"mean_{channel}"]) for row in found.values()]))


def test_classes_and_brightness_are_read_where_a_shifted_channel_really_lies(
    shifted: BossStandIn, tmp_path: Path
) -> None:
    """All channels but the postsynaptic one lie off by ten pixels."""
    straight, plain = classified(shifted, tmp_path / "straight", exp="straight", witness="GluN1")
    moved, told = classified(shifted, tmp_path / "off", exp="off", witness="GluN1")

    near, which = cKDTree(list(straight)).query(list(moved))
    before = [row["class"] for row in straight.values()]
    pairs = [(before[n], row["class"]) for far, n, row in zip(near, which, moved.values(), strict=True) if far < 2.5]
    assert len(pairs) > 0.8 * len(straight) > 20
    assert sum(was == now for was, now in pairs) > 0.9 * len(pairs)
    assert sum(now == "GABA" for _, now in pairs) > 4
    for channel in ("GABA", "GAD65", "GluN1", "Synapsin"):
        assert brightness(moved, channel) == pytest.approx(brightness(straight, channel), rel=0.1)
    (line,) = (note for note in told.splitlines() if note.startswith("Off PSD95 lie "))
    assert all(name in line for name in CHANNELS.values() if name != "PSD95")
    assert line.endswith("They were moved back.")
    times = [float(notes.split("GluN1 stands out")[1].split(": ")[1].split()[0]) for notes in (plain, told)]
    assert times[1] > 0.7 * times[0] > 2
    page = (tmp_path / "off" / "report.html").read_text()
    for name in set(CHANNELS.values()) - {"PSD95"}:
        assert f'<th scope="col">{name}</th>' in page.partition("Section by section")[2]
        assert f"Sure shifts: {name}" in page


def test_warnings_of_many_channels_are_one_sentence_before_all_else_and_the_report_has_all_notes(
    stand_in: BossStandIn, tmp_path: Path
) -> None:
    """One section lacks all channels, and Synapsin is a copy of PSD95."""
    assert stand_in.cortex is not None
    channels = {}
    for name in stand_in.cortex.channels:
        of = "PSD95" if name == "Synapsin" else name
        voxels = stand_in.cortex.bricks(of).read((0, 0, 0), (8, 256, 256)).copy()
        voxels[3] = 0
        channels[name] = Bricks("uint8")
        channels[name].write((0, 0, 0), voxels)
    nm = stand_in.cortex.voxel_nm
    stand_in.add("lab", "blank", shape=(8, 256, 256), voxel_nm=nm, channels=channels)
    box = {"col": "lab", "exp": "blank", "z_range": "0,8", "y_range": "0,64", "x_range": "0,64"}
    asked = arguments(stand_in, **box, results_uri=tmp_path.as_uri())
    code, _ = here(asked)

    notes = json.loads((tmp_path / "results.json").read_text())["notes"]
    assert code == 0
    assert "PSD95 and Synapsin hold the same voxels: what they show says nothing of synapses." in notes[:2]
    (blank,) = (note for note in notes if "blank" in note)
    assert notes.index(blank) < notes.index(next(note for note in notes if note.startswith("Channels by role")))
    assert blank.startswith("Section 3 of ")
    assert blank.endswith(" is blank: nothing is to be found there.")
    assert all(name in blank for name in channels)
    page = (tmp_path / "report.html").read_text()
    assert all(note in html.unescape(page) for note in notes)


def test_the_first_witness_that_has_no_role_is_the_first_one_whatever_the_others_are(
    stand_in: BossStandIn, tmp_path: Path
) -> None:
    assert stand_in.cortex is not None
    bricks = {name: stand_in.cortex.bricks(name) for name in stand_in.cortex.channels}
    more = {"Extra": bricks["Synapsin"], "Other": bricks["PSD95"]}
    nm = stand_in.cortex.voxel_nm
    stand_in.add("lab", "witnesses", shape=(4, 64, 64), voxel_nm=nm, channels=bricks | more)
    box = {"col": "lab", "exp": "witnesses", "z_range": "0,4", "y_range": "0,64", "x_range": "0,64"}
    asked = arguments(stand_in, **box, witness="GABA,Extra,Other", results_uri=tmp_path.as_uri())
    code, _ = here(asked)

    channels = json.loads((tmp_path / "results.json").read_text())["channels"]
    assert code == 0
    assert (channels["witness"], channels["witness 2"]) == ("Extra", "Other")


def test_shifts_are_only_told_where_that_is_asked_for_and_not_looked_for_where_it_is_not(
    shifted: BossStandIn, tmp_path: Path
) -> None:
    """Synapses are found, as both markers lie on one another, and their classes are read in the wrong places."""
    place = {"exp": "others-off"}
    auto, _ = classified(shifted, tmp_path / "auto", **place)
    reported, told = classified(shifted, tmp_path / "report", register="report", **place)
    left, silent = classified(shifted, tmp_path / "off", register="off", **place)

    def gaba(found: Mapping[Any, Mapping[str, str]]) -> int:
        return sum(row["class"] == "GABA" for row in found.values())

    assert gaba(auto) > 4 > 1 >= gaba(left)
    assert gaba(reported) == gaba(left)
    assert brightness(auto, "GABA") > 1.1 * brightness(reported, "GABA")
    assert "They were left there." in told
    assert "Off PSD95" not in silent
    assert "Section by section" in (tmp_path / "report" / "report.html").read_text()
    assert "Section by section" not in (tmp_path / "off" / "report.html").read_text()
    assert json.loads((tmp_path / "off" / "results.json").read_text())["facts"]["Registration"] == "off"


def test_another_method_than_the_default_has_its_channels_registered_for_the_classes(
    shifted: BossStandIn, tmp_path: Path
) -> None:
    found, told = classified(shifted, tmp_path, exp="others-off", method="probabilistic")

    assert sum(row["class"] == "GABA" for row in found.values()) > 4
    assert "GluN1" in next(note for note in told.splitlines() if note.startswith("Off PSD95 lie "))


def test_an_empty_volume_has_no_synapses_of_any_class(stand_in: BossStandIn, tmp_path: Path) -> None:
    code, _ = here(arguments(stand_in, col="lab", exp="tomato", **BOX, results_uri=tmp_path.as_uri()))

    assert code == 0
    summary = json.loads((tmp_path / "results.json").read_text())
    assert [summary["counts"][name] for name in ("synapses", "GABA", "non-GABA", "not classified")] == [0] * 4
    assert summary["channels"] == {
        "gaba": "GABA488",
        "gad": "GAD647",
        "gephyrin": "gephyrin594",
        "glun": "NR1594",
        "postsynaptic": "PSD95_488",
        "presynaptic": "Synapsin647",
        "tdtomato": "tdTomato",
        "vglut": "VGluT1_647",
    }


def _refused(boss: BossStandIn, folder: Path, changed: Mapping[str, str]) -> str:
    """Run what cannot work; what is said about it."""
    boss.requests.clear()
    code, said = here(arguments(boss, **({**BOX, "results_uri": folder.as_uri()} | dict(changed))))
    assert code == 2
    assert not [served for served in boss.requests if served.path.startswith("/v1/cutout")]
    [last] = said.splitlines()
    return last


def test_a_missing_channel_ends_the_run_with_the_list_of_those_there_are(stand_in: BossStandIn, tmp_path: Path) -> None:
    said = _refused(stand_in, tmp_path, {"col": "lab", "exp": "field"})

    assert "no tdtomato channel (with tdtomato or tdtom in its name)" in said
    assert f"its channels are {', '.join(FIELD)}." in said


def test_one_channel_is_not_taken_for_two_roles(stand_in: BossStandIn, tmp_path: Path) -> None:
    said = _refused(stand_in, tmp_path, {"col": "lab", "exp": "field", "channel": "tdtomato=GAD647"})

    assert "GAD647 cannot be gad and tdtomato at once" in said


def test_weights_that_cannot_be_used_end_the_run_before_boss_is_asked(
    stand_in: BossStandIn, tmp_path: Path, weights: Callable[..., str]
) -> None:
    (tmp_path / "text").write_text("no weights")
    for path, says in ((tmp_path / "none", "cannot be read"), (tmp_path / "text", "cannot be used")):
        assert says in _refused(stand_in, tmp_path, {"weights": str(path)})
        assert not stand_in.requests
    other = weights(roles=("dapi", *model.ROLES_2018[1:]))
    assert "The weights want a dapi channel" in _refused(stand_in, tmp_path, {"weights": other})


def test_the_shipped_model_is_what_its_script_makes_and_as_good_as_is_said() -> None:
    made, figures = demonstration()
    shipped = model.load(str(model.DEMONSTRATION))

    assert json.loads(model.DEMONSTRATION.with_suffix(".json").read_text()) == figures
    assert figures["held-out accuracy"] == pytest.approx(0.9989, abs=0.005)
    assert (made.roles, made.cube, made.about) == (shipped.roles, shipped.cube, shipped.about)
    for name in ("components", "left", "right", "feature", "threshold", "frequencies"):
        assert np.allclose(getattr(made, name), getattr(shipped, name)), name


def test_the_demo_has_a_channel_for_every_role() -> None:
    assert sorted(CHANNELS) == sorted(model.ROLES_2018)
    assert sorted(CHANNELS.values()) == sorted(cortex().channels)
