"""Programs read volumes by address: the same results through every door, and a last line for whatever goes wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.classifier.driver import program as classifier
from pipelines.common.program import Request, run
from pipelines.unsupervised.driver import program as unsupervised
from sandbox import stores
from sandbox.boss import BossStandIn
from sandbox.volumes import Bricks
from tests.integration.pipelines.conftest import TOKEN

OFFSET = (5, 100, 200)
SHAPE = (40, 200, 300)
BOX = {"z": "9,37", "y": "117,290", "x": "203,475"}
CHANNELS = ("PSD95", "Synapsin", "GABA", "GAD65", "Gephyrin", "GluN1", "VGluT1", "TdTomato")
SAME = ("synapses.csv", "predictions.npz", "preview.png")
TELLS = ("results.json", "report.html", "ro-crate-metadata.json")
"""Files that say where the volume lies, which is not the same through every door."""


@pytest.fixture(scope="module")
def channels() -> dict[str, NDArray[Any]]:
    from sandbox.volumes import cortex

    volume = cortex(seed=14, shape=SHAPE)
    return {name: volume.bricks(name).read((0, 0, 0), SHAPE) for name in CHANNELS}


@pytest.fixture
def doors(boss: BossStandIn, channels: dict[str, NDArray[Any]]) -> BossStandIn:
    """The stand-in with `lab/doors`, through BOSS's cutouts, and `lab/bulk`, in BossDB's bucket."""
    bricks = {}
    for name, data in channels.items():
        bricks[name] = Bricks("uint8")
        bricks[name].write(OFFSET, data)
    boss.add("lab", "doors", shape=SHAPE, offset=OFFSET, channels=bricks)
    boss.add("lab", "bulk", shape=SHAPE, offset=OFFSET, channels=bricks, bulk="bossdb-open-data")
    return boss


class Ran:
    """One run of a program in this process."""

    def __init__(self, place: list[str], folder: Path, *, program: Any = unsupervised, **environ: str) -> None:
        box = [word for axis, span in BOX.items() for word in (f"--{axis}-range", span)]
        err = io.StringIO()
        self.folder = folder
        self.code = run(
            program,
            argv=[*place, *box, "--results-uri", folder.as_uri() + "/"],
            environ=environ,
            err=err,
        )
        self.said = err.getvalue().splitlines()

    @property
    def found(self) -> dict[str, bytes]:
        """The files that the run left, by name, without those that say where the volume lies."""
        files = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if name not in TELLS}

    def file(self, name: str) -> bytes:
        """A file that the run left."""
        return (self.folder / name).read_bytes()

    @property
    def results(self) -> dict[str, Any]:
        """What results.json says."""
        found: dict[str, Any] = json.loads(self.file("results.json"))
        return found


def by_boss(boss: BossStandIn, experiment: str) -> list[str]:
    return ["--host", boss.url, "--col", "lab", "--exp", experiment]


@pytest.mark.parametrize("program", [unsupervised, classifier])
def test_one_volume_gives_the_same_results_through_every_door(
    program: Any, doors: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    first = Ran(by_boss(doors, "doors"), tmp_path / "boss", program=program, BOSS_TOKEN=TOKEN)
    assert first.code == 0, first.said
    assert first.results["counts"]["synapses"] > 50
    assert {*SAME, "segmentation/info", "annotations/info", "image/presynaptic/info"} <= set(first.found)

    for name, write in stores.DOORS.items():
        address = write(tmp_path / "volumes" / name, channels, offset=OFFSET)
        roots = (tmp_path / "volumes").as_uri()

        ran = Ran(["--volume", address, "--volume-roots", roots], tmp_path / name, program=program)

        assert ran.code == 0, ran.said
        assert ran.results["request"]["volume"] == address
        assert ran.found == first.found


def test_bulk_data_are_read_from_their_bucket_and_not_through_boss(
    doors: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", doors.url)
    first = Ran(by_boss(doors, "doors"), tmp_path / "cutouts", BOSS_TOKEN=TOKEN)
    doors.requests.clear()

    ran = Ran(by_boss(doors, "bulk"), tmp_path / "bulk", BOSS_TOKEN=TOKEN)

    assert ran.code == 0, ran.said
    asked = {request.path.split("/")[1 if request.path.startswith("/boss") else 2] for request in doors.requests}
    assert "cutout" not in asked
    assert "bossdb-open-data" in asked
    assert all(ran.file(name) == first.file(name) for name in SAME)


def test_bulk_data_in_a_bucket_that_is_not_allowed_come_through_boss(
    doors: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", doors.url)

    ran = Ran([*by_boss(doors, "bulk"), "--volume-roots", "s3://another"], tmp_path / "bulk", BOSS_TOKEN=TOKEN)

    assert ran.code == 0, ran.said
    assert not [request for request in doors.requests if request.path.startswith("/bossdb-open-data")]
    assert [request for request in doors.requests if "/cutout/" in request.path]


def test_bulk_data_of_other_voxels_than_boss_says_are_refused_with_both_sizes(
    doors: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", doors.url)
    stores.precomputed(tmp_path / "bucket" / "lab" / "bulk", channels, offset=OFFSET, voxel_nm=(50, 192, 192))
    doors.buckets.add("bossdb-open-data", tmp_path / "bucket")

    ran = Ran(by_boss(doors, "bulk"), tmp_path / "bulk", BOSS_TOKEN=TOKEN)

    assert ran.code == 2
    assert "have 50 × 96 × 96 nm (z, y, x), and its bucket has them with 50 × 192 × 192 nm" in ran.said[-1]


def test_of_the_scales_of_bulk_data_the_one_with_bosss_voxels_is_read(
    doors: BossStandIn, channels: dict[str, NDArray[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", doors.url)
    folder = tmp_path / "bucket" / "lab" / "bulk"
    stores.precomputed(folder, channels, offset=OFFSET)
    for path in folder.glob("*/info"):
        info = json.loads(path.read_text())
        finer = info["scales"][0] | {"key": "finer", "resolution": [48, 48, 50]}
        path.write_text(json.dumps(info | {"scales": [finer, *info["scales"]]}))
    doors.buckets.add("bossdb-open-data", tmp_path / "bucket")
    first = Ran(by_boss(doors, "doors"), tmp_path / "cutouts", BOSS_TOKEN=TOKEN)

    ran = Ran(by_boss(doors, "bulk"), tmp_path / "bulk", BOSS_TOKEN=TOKEN)

    assert ran.code == 0, ran.said
    assert all(ran.file(name) == first.file(name) for name in SAME)
    assert [request for request in doors.requests if request.path.startswith("/bossdb-open-data/lab/bulk/PSD95/full")]


def test_a_failed_run_leaves_nothing_of_an_earlier_one_in_its_folder(volume: str, tmp_path: Path) -> None:
    place = ["--volume", volume, "--volume-roots", (tmp_path / "volumes").as_uri()]
    assert Ran(place, tmp_path / "results").code == 0
    (tmp_path / "results" / "notes.txt").write_text("a person's own")
    for path in (tmp_path / "volumes" / "one" / "PSD95" / "full").iterdir():
        path.write_bytes(b"")

    ran = Ran(place, tmp_path / "results")

    assert ran.code == 3
    assert {*ran.found} == {"notes.txt"}


def test_an_image_of_an_earlier_run_does_not_stay(volume: str, tmp_path: Path) -> None:
    place = ["--volume", volume, "--volume-roots", (tmp_path / "volumes").as_uri()]
    assert "image/postsynaptic/info" in Ran(place, tmp_path / "results").found

    ran = Ran([*place, "--image-bytes", "0"], tmp_path / "results")

    assert ran.code == 0
    assert not [name for name in ran.found if name.startswith("image/")]


def test_a_crate_of_somebody_elses_costs_no_file(volume: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine.csv").write_text("1")
    about = [{"@id": "#run", "@type": "CreateAction", "result": [{"@id": "mine.csv"}]}, {"@id": "mine.csv"}]
    (tmp_path / "results" / "ro-crate-metadata.json").write_text(json.dumps({"@graph": about}))

    Ran(["--volume", volume], tmp_path / "results")

    assert (tmp_path / "results" / "mine.csv").exists()


def test_an_address_of_boss_is_read_as_boss_is(doors: BossStandIn, tmp_path: Path) -> None:
    ran = Ran(["--volume", f"boss://{doors.url}/lab/doors"], tmp_path / "boss", BOSS_TOKEN=TOKEN)

    assert ran.code == 0, ran.said
    assert ran.results["request"]["collection"] == "lab"


@pytest.fixture
def volume(channels: dict[str, NDArray[Any]], tmp_path: Path) -> str:
    return stores.precomputed(tmp_path / "volumes" / "one", channels, offset=OFFSET)


def test_chunks_that_are_not_stored_are_told_with_the_results(volume: str, tmp_path: Path) -> None:
    gone = sorted((tmp_path / "volumes" / "one" / "PSD95" / "full").iterdir())[0]
    gone.unlink()

    ran = Ran(["--volume", volume, "--volume-roots", (tmp_path / "volumes").as_uri()], tmp_path / "results")

    assert ran.code == 0, ran.said
    said = "Parts of the channel PSD95 are not stored: they were read as the fill value."
    assert said in ran.results["notes"]


def test_a_damaged_chunk_is_the_last_line_and_no_results_are_left(volume: str, tmp_path: Path) -> None:
    for path in (tmp_path / "volumes" / "one" / "PSD95" / "full").iterdir():
        path.write_bytes(path.read_bytes()[:-1])

    ran = Ran(["--volume", volume, "--volume-roots", (tmp_path / "volumes").as_uri()], tmp_path / "results")

    assert ran.code == 3
    assert ran.said[-1].startswith("A chunk of the channel PSD95 is damaged")
    assert not list((tmp_path / "results").iterdir())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (["--volume", "zarr://{volumes}/none"], "There is no OME-Zarr volume at"),
        (["--volume", "precomputed://{volumes}/one", "--host", "h"], "--volume takes the place of --host"),
        (["--volume", "nonsense"], "“nonsense” is no address"),
        (["--volume", "precomputed://file:///etc"], "NOMADS_VOLUME_ROOTS"),
        (["--volume", "precomputed://{volumes}/one/{{PSD95,GABA}}"], "no presynaptic channel"),
        (["--volume", ""], "no address"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_wrong_request(
    place: list[str], said: str, volume: str, tmp_path: Path
) -> None:
    roots = (tmp_path / "volumes").as_uri()

    ran = Ran([word.format(volumes=roots) for word in place], tmp_path / "results", NOMADS_VOLUME_ROOTS=roots)

    assert ran.code == 2
    assert said in ran.said[-1]


def test_a_box_outside_is_told_with_the_bounds_of_the_volume(volume: str, tmp_path: Path) -> None:
    box = ["--z-range", "0,9", "--y-range", "0,9", "--x-range", "0,9"]
    roots = (tmp_path / "volumes").as_uri()
    err = io.StringIO()

    argv = ["--volume", volume, "--volume-roots", roots, *box, "--results-uri", tmp_path.as_uri() + "/results/"]
    code = run(unsupervised, argv=argv, environ={}, err=err)

    assert code == 2
    assert "the volume has x 200, 500 · y 100, 300 · z 5, 45" in err.getvalue()


def test_float_voxels_are_refused_before_any_is_read(tmp_path: Path) -> None:
    flat = np.ones((40, 300, 500), "float32")
    address = stores.precomputed(tmp_path / "volumes" / "float", {"PSD95": flat, "Synapsin": flat})

    ran = Ran(["--volume", address, "--volume-roots", (tmp_path / "volumes").as_uri()], tmp_path / "results")

    assert ran.code == 2
    assert "has the data type float32" in ran.said[-1]


def test_a_volume_by_address_needs_no_token_and_one_that_is_given_is_printed_nowhere(
    volume: str, tmp_path: Path
) -> None:
    asked: list[Request] = []
    secret = "-".join(["no", "such", "token", "was", "ever", "issued"])

    def program(request: Request) -> None:
        asked.append(request)
        raise RuntimeError(f"with {secret}")

    with_one = Ran(["--volume", volume], tmp_path / "results", program=program, BOSS_TOKEN=secret)
    without = Ran(["--volume", volume], tmp_path / "results", program=program)

    assert [request.token for request in asked] == [secret, ""]
    assert secret not in "\n".join(with_one.said)
    assert with_one.code == without.code == 1
