"""A job in blocks: a first look, blocks by many programs, and a merge that leaves what one run leaves."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws
from pyarrow import parquet

from pipelines.__main__ import _compare
from pipelines.classifier import driver as classifier
from pipelines.common import crate, csvs, layers
from pipelines.common import run as run_of
from pipelines.common.program import run
from pipelines.common.results import Results
from pipelines.unsupervised import blocks, chance, search
from pipelines.unsupervised import driver as unsupervised
from pipelines.unsupervised.stages import first, merge
from sandbox import stores
from sandbox.volumes import cortex
from tests.support import puncta

SHAPE = (6, 480, 460)
BOX = ("--z-range", "0,6", "--y-range", "4,480", "--x-range", "0,451")
SAME = ("synapses.csv", "predictions.npz", "preview.png")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments for a volume some of whose sections are shifted, stored by sections, so that blocks are thin."""
    drawn = puncta.puncta(6, shape=SHAPE, shifted=True)
    folder = tmp_path_factory.mktemp("volumes")
    channels = {"PSD95": drawn.psd, "Synapsin": drawn.synapsin}
    address = stores.precomputed(folder / "precomputed", channels, chunk=(1, 256, 256))
    return ["--volume", address, "--volume-roots", folder.as_uri(), *BOX]


class Job:
    """A job's folder, and its stages, each run in this process."""

    program = staticmethod(unsupervised.program)

    def __init__(self, volume: Sequence[str], folder: Path, *options: str) -> None:
        self.volume, self.folder, self.options = volume, folder, options
        self.uri = folder.as_uri() + "/"
        self.said: list[str] = []

    def run(self, *more: str, environ: dict[str, str] | None = None) -> int:
        err = io.StringIO()
        words = [*self.volume, *self.options, *more]
        code = run(self.program, argv=words, environ=environ or {}, err=err, options=classifier.OPTIONS)
        self.said = err.getvalue().splitlines()
        return code

    def stage(
        self, name: str, *, rounds: str = "", results: str = "", index: int | None = None, voxels: int = 90_000
    ) -> int:
        words = ["--stage", name, "--job-uri", self.uri, "--results-uri", results or self.uri]
        words += ["--rounds", rounds] if rounds else []
        words += ["--block-voxels", str(voxels)]
        return self.run(*words, environ={"NOMADS_INDEX": str(index)} if index is not None else None)

    def round(self, rounds: str, *, only: Sequence[int] | None = None, voxels: int = 90_000) -> None:
        number, count = len(rounds.split(",")), int(rounds.split(",")[-1])
        for index in range(count) if only is None else only:
            results = f"{self.uri}blocks/{number}/"
            assert self.stage("blocks", rounds=rounds, results=results, index=index, voxels=voxels) == 0, self.said

    def file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file("results.json"))
        return found


@pytest.fixture(scope="module")
def once(volume: list[str], tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(volume, tmp_path_factory.mktemp("once"))
    assert job.run("--results-uri", job.uri) == 0, job.said
    assert job.results["counts"]["synapses"] > 100
    return job


def assert_layers_are_those_of(once: Job, job: Job) -> None:
    for folder in ("segmentation", "annotations"):
        names = sorted(p.relative_to(once.folder) for p in (once.folder / folder).rglob("*") if p.is_file())
        assert len(names) >= 2
        assert all(job.file(str(name)) == once.file(str(name)) for name in names)


def test_a_large_run_by_several_processes_leaves_what_one_process_leaves(
    volume: list[str], once: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (search, "BLOCK_VOXELS"),
        (layers, "BLOCK_VOXELS"),
        (run_of, "BLOCK_VOXELS"),
        (chance, "STRIP"),
    ):
        monkeypatch.setattr(module, name, 200)
    monkeypatch.setattr(search, "SHORT", 1)
    large, fork, forks = Job(volume, tmp_path), os.fork, []

    def counted() -> int:
        forks.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)

    assert large.run("--results-uri", large.uri) == 0, large.said

    assert len(forks) >= 10, "for search, merging, painting, brightness and segmentation"
    assert_layers_are_those_of(once, large)
    assert all(large.file(name) == once.file(name) for name in SAME)


def test_a_first_look_by_several_processes_reads_the_volume_in_this_one(tmp_path: Path) -> None:
    drawn = puncta.puncta(6, shape=(40, 128, 512))
    channels = {"PSD95": drawn.psd, "Synapsin": drawn.synapsin}
    address = stores.precomputed(tmp_path / "volume", channels, chunk=(16, 64, 64))
    words = ["--volume", address, "--volume-roots", tmp_path.as_uri()]
    box = ["--z-range", "0,40", "--y-range", "0,128", "--x-range", "0,512"]
    job = Job([*words, *box], tmp_path / "job")

    assert job.stage("first") == 0, job.said

    assert json.loads(job.file("blocks/plan.json"))["blocks"] > 5


def test_a_job_in_blocks_leaves_what_one_run_leaves(volume: list[str], once: Job, tmp_path: Path) -> None:
    job = Job(volume, tmp_path)

    assert job.stage("first") == 0, job.said
    plan = json.loads(job.file("blocks/plan.json"))
    assert plan["blocks"] == len(plan["cores"]) > 5
    assert len({tuple(core[0]) for core in plan["cores"]}) == 6
    assert (plan["merge"]["memory"], plan["merge"]["seconds"]) == (351, 1), "of a few hundred synapses"
    job.round("3")
    assert job.stage("merge", rounds="3") == 0, job.said

    assert all(job.file(name) == once.file(name) for name in SAME)
    for folder in ("segmentation", "image"):
        files = [path for path in (once.folder / folder).rglob("*") if path.is_file()]
        assert len(files) > 1
        for path in files:
            assert path.read_bytes() == job.file(path.relative_to(once.folder).as_posix()), path
    same = ("counts", "density_per_um3", "chance", "channels")
    assert {name: job.results[name] for name in same} == {name: once.results[name] for name in same}
    assert job.results["blocks"] == {"all": plan["blocks"], "missing": 0, "numbers": [], "boxes": []}
    assert "it was moved back" in "".join(job.results["notes"])
    assert not list((tmp_path / "blocks").rglob("*.npz"))


class Classified(Job):
    """As Job, of the classifier."""

    program = staticmethod(classifier.program)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments for a part of a volume of eight channels, six of which lie off the others."""
    shape, folder = (26, 420, 400), tmp_path_factory.mktemp("eight")
    drawn = cortex(shape=shape)
    channels = {name: drawn.bricks(name).read((0, 0, 0), shape) for name in drawn.channels}
    for name in set(channels) - {"PSD95", "Synapsin"}:
        channels[name] = np.roll(channels[name], (8, -6), (1, 2))
    address = stores.precomputed(folder / "v", channels, chunk=(4, 128, 128), voxel_nm=drawn.voxel_nm)
    box = ["--z-range", "3,24", "--y-range", "10,420", "--x-range", "0,391"]
    return ["--volume", address, "--volume-roots", folder.as_uri(), *box]


@pytest.mark.parametrize("kind", [Job, Classified])
def test_witnesses_and_classes_of_a_job_in_blocks_are_those_of_one_run(
    eight: list[str], tmp_path: Path, kind: type[Job]
) -> None:
    once, job = (kind(eight, tmp_path / name, "--witness", "GluN1,GABA") for name in ("once", "blocks"))
    assert once.run("--results-uri", once.uri) == 0, once.said

    assert job.stage("first", voxels=600_000) == 0, job.said
    assert json.loads(job.file("blocks/plan.json"))["blocks"] > 5
    job.round("3", voxels=600_000)
    assert job.stage("merge", rounds="3") == 0, job.said

    same = [*SAME, "classes.npz"] if kind is Classified else SAME
    assert [name for name in same if job.file(name) != once.file(name)] == []
    assert job.results["counts"] == once.results["counts"]
    assert job.results["notes"] == once.results["notes"]
    for name in ("GluN1", "GABA"):
        assert any(f"{name} stands out at" in note and "times as often" in note for note in job.results["notes"])
    if kind is Classified:
        assert min(job.results["counts"][name] for name in ("GABA", "non-GABA", "not classified")) > 3
        assert [file["title"] for file in job.results["files"]] == [file["title"] for file in once.results["files"]]


def test_a_channel_that_is_another_one_in_the_box_is_told_though_it_differs_beside_it(tmp_path: Path) -> None:
    drawn = puncta.puncta(4, shape=(6, 400, 400))
    alike = drawn.synapsin.copy()
    alike[:, :, :60] = np.roll(alike[:, :, :60], 3, 1)
    alike[:, :, 20:40] = 0  # which is not stored
    channels = {"PSD95": drawn.psd, "Synapsin": drawn.synapsin, "Alike": alike}
    address = stores.precomputed(tmp_path / "v", channels, chunk=(6, 20, 20), voxel_nm=puncta.VOXEL_NM)
    place = ["--volume", address, "--volume-roots", tmp_path.as_uri(), "--z-range", "0,6", "--y-range", "0,400"]
    words = [*place, "--x-range", "150,400", "--witness", "Alike"]
    once, job = (Job(words, tmp_path / name) for name in ("once", "blocks"))
    assert once.run("--results-uri", once.uri) == 0, once.said

    assert job.stage("first", voxels=200_000) == 0, job.said
    job.round("1")
    assert job.stage("merge", rounds="1") == 0, job.said

    assert job.results["notes"] == once.results["notes"]
    assert any("Synapsin and Alike hold the same voxels" in note for note in job.results["notes"])
    assert "Parts of the channel Alike are not stored" in "".join(job.results["notes"])


def test_witnesses_of_a_large_volume_are_told_by_samples(
    eight: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "WHOLE", 1000)
    monkeypatch.setattr(blocks, "WHOLE", 1000)
    monkeypatch.setattr(blocks, "SAMPLE", (8, 200, 200))
    job = Job(eight, tmp_path, "--witness", "GluN1")

    assert job.stage("first") == 0, job.said
    job.round("1")
    assert job.stage("merge", rounds="1") == 0, job.said

    (note,) = (note for note in job.results["notes"] if "stands out" in note)
    assert "times as often" in note
    (note,) = (note for note in job.results["notes"] if "in samples spread over it" in note)
    assert note.startswith("Thresholds, chance and witnesses were measured on ")


def test_weights_that_want_another_channel_end_a_job_at_its_first_look(volume: list[str], tmp_path: Path) -> None:
    job = Classified(volume, tmp_path)

    assert job.stage("first") == 2
    assert job.said[-1].startswith("The experiment has no ")


@pytest.fixture
def looked(volume: list[str], tmp_path: Path) -> Job:
    """A job after its first look."""
    job = Job(volume, tmp_path)
    assert job.stage("first") == 0, job.said
    return job


def test_what_a_lost_block_would_have_shown_is_told_as_missing_and_repaired(looked: Job, once: Job) -> None:
    looked.round("3", only=[0, 2])  # the second program never ran
    there = sorted((looked.folder / "blocks" / "1").rglob("*.npz"))
    there[0].write_bytes(there[0].read_bytes()[:-200])  # and one block's file is cut off
    cores = json.loads(looked.file("blocks/plan.json"))["cores"]
    blocks = len(cores)
    lost = [0, *range(1, blocks, 3)]

    assert looked.stage("merge", rounds="3") == 0, looked.said

    said = looked.results["blocks"]
    assert said == {"all": blocks, "missing": len(lost), "numbers": lost, "boxes": [cores[n] for n in lost]}
    (note,) = (note for note in looked.results["notes"] if "blocks are missing" in note)
    assert note.startswith(f"{len(lost)} of {blocks} blocks are missing")
    (z, y, x), more = cores[0], len(lost) - 2
    assert f"Missing: z {z[0]}:{z[1]} y {y[0]}:{y[1]} x {x[0]}:{x[1]}, z " in note
    assert note.endswith(f", and {more} more; results.json has all of them.")
    assert looked.results["counts"]["synapses"] < once.results["counts"]["synapses"]

    looked.round("3,2")
    assert looked.stage("merge", rounds="3,2") == 0, looked.said

    assert all(looked.file(name) == once.file(name) for name in SAME)
    assert looked.results["blocks"]["missing"] == 0


def test_a_large_merge_by_several_processes_leaves_the_same_but_for_predictions(
    looked: Job, once: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (merge, layers, run_of):
        monkeypatch.setattr(module, "BLOCK_VOXELS", 1)
    for module, name, number in ((chance, "STRIP", 200), (csvs, "ROWS", 50), (run_of, "MANY", 1), (run_of, "MOST", 9)):
        monkeypatch.setattr(module, name, number)
    looked.round("3")

    assert looked.stage("merge", rounds="3") == 0, looked.said

    assert not (looked.folder / "predictions.npz").exists()
    assert any(note.startswith("There is no predictions.npz") for note in looked.results["notes"])
    assert looked.file("synapses.csv") == once.file("synapses.csv")
    table = parquet.read_table(looked.folder / "synapses.parquet")
    assert table.num_rows == looked.results["counts"]["synapses"]
    assert ",".join(table.column_names) == looked.file("synapses.csv").decode().split("\n")[0]
    assert not (once.folder / "synapses.parquet").exists()
    assert_layers_are_those_of(once, looked)


def test_sections_of_which_all_blocks_are_missing_are_not_told_as_blank(looked: Job) -> None:
    cores = json.loads(looked.file("blocks/plan.json"))["cores"]
    looked.round(str(len(cores)), only=[n for n, core in enumerate(cores) if core[0][0] != 2])

    assert looked.stage("merge", rounds=str(len(cores))) == 0, looked.said

    assert looked.results["blocks"]["missing"] > 1
    assert not [note for note in looked.results["notes"] if "blank" in note]


def test_a_block_that_is_there_is_not_worked_on_again_and_a_damaged_one_is(looked: Job) -> None:
    looked.round("2")
    there = sorted((looked.folder / "blocks" / "1").rglob("*.npz"))
    before = [path.read_bytes() for path in there]
    for path in there:
        os.utime(path, (1, 1))
    there[1].write_bytes(b"PK")

    looked.round("2")

    assert [path.read_bytes() for path in there] == before
    assert [path.stat().st_mtime == 1 for path in there] == [True, False, *[True] * (len(there) - 2)]


@pytest.mark.parametrize("damage", [b"PK\x03\x04", b"", b"\x00" * 600])
def test_a_block_whose_file_is_damaged_anywhere_is_missing_and_worked_on_again(
    looked: Job, once: Job, damage: bytes
) -> None:
    looked.round("1")
    there = sorted((looked.folder / "blocks" / "1").rglob("*.npz"))
    content = bytearray(there[2].read_bytes())
    content[len(content) // 3 : len(content) // 3 + len(damage)] = damage
    there[2].write_bytes(bytes(content) if damage else b"")

    assert looked.stage("merge", rounds="1") == 0, looked.said
    assert looked.results["blocks"]["missing"] in ([0, 1] if damage == b"PK\x03\x04" else [1])
    if looked.results["blocks"]["missing"]:
        looked.round("1,1")
        assert looked.stage("merge", rounds="1,1") == 0, looked.said
    assert looked.file("synapses.csv") == once.file("synapses.csv")


def test_a_merge_that_was_ended_while_it_tidied_up_leaves_its_results(
    looked: Job, once: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked.round("2")
    remove, left = Results.remove, 5

    def dies(self: Results, name: str) -> None:
        nonlocal left
        if name.startswith("blocks/"):
            left -= 1
            if not left:
                raise KeyboardInterrupt
        remove(self, name)

    monkeypatch.setattr(Results, "remove", dies)
    with pytest.raises(KeyboardInterrupt):
        looked.stage("merge", rounds="2")
    monkeypatch.setattr(Results, "remove", remove)
    assert list((looked.folder / "blocks").rglob("*.npz"))

    for _ in range(2):
        assert looked.stage("merge", rounds="2") == 0, looked.said
        assert looked.file("synapses.csv") == once.file("synapses.csv")
        assert looked.results["blocks"]["missing"] == 0
    assert not [path for path in (looked.folder / "blocks").rglob("*") if path.is_file()]


def test_a_damaged_plan_is_told_in_words(looked: Job) -> None:
    for name in ("known.npz", "plan.json"):
        path = looked.folder / "blocks" / name
        content = path.read_bytes()
        path.write_bytes(b"{}" + content[:40])

        assert looked.stage("merge", rounds="1") == 1
        assert looked.said == ["The plan of the first look is damaged; the job has to be submitted again."]
        path.write_bytes(content)


def test_two_programs_that_work_on_one_block_at_once_leave_it_whole(looked: Job, once: Job) -> None:
    with ThreadPoolExecutor(2) as both:
        folder = f"{looked.uri}blocks/1/"
        ran = both.map(lambda _: looked.stage("blocks", rounds="1", results=folder, index=0), range(2))
        assert list(ran) == [0, 0]

    assert looked.stage("merge", rounds="1") == 0, looked.said
    assert looked.file("synapses.csv") == once.file("synapses.csv")


def test_a_volume_that_changed_between_the_blocks_is_told(
    looked: Job, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = json.loads(looked.file("blocks/plan.json"))
    (looked.folder / "blocks" / "plan.json").write_text(json.dumps(plan | {"volume": "another"}))

    assert looked.stage("blocks", rounds="1", results=f"{looked.uri}blocks/1/", index=0) == 2

    assert looked.said[-1].startswith("The volume is not the one that the first look saw")


def test_a_volume_that_changed_after_its_blocks_is_not_merged(looked: Job) -> None:
    looked.round("1")
    path = looked.folder / "blocks" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"volume": "another"}))

    assert looked.stage("merge", rounds="1") == 2

    assert looked.said[-1].startswith("The volume is not the one that the first look saw")
    assert not (looked.folder / "results.json").exists()


def test_without_a_first_look_there_is_nothing_to_work_on(volume: list[str], tmp_path: Path) -> None:
    job = Job(volume, tmp_path)

    assert job.stage("blocks", rounds="1", results=f"{job.uri}blocks/1/", index=0) == 1
    assert "The first look at this volume has left no plan" in job.said[-1]


def test_if_blocks_beside_the_box_alone_left_anything_there_are_no_results(tmp_path: Path) -> None:
    drawn = puncta.puncta(4, shape=(6, 200, 800))
    channels = {"PSD95": drawn.psd, "Synapsin": drawn.synapsin}
    address = stores.precomputed(tmp_path / "v", channels, chunk=(6, 64, 64), voxel_nm=puncta.VOXEL_NM)
    place = ["--volume", address, "--volume-roots", tmp_path.as_uri(), "--z-range", "0,6", "--y-range", "0,200"]
    job = Job([*place, "--x-range", "500,800"], tmp_path / "job")
    assert job.stage("first") == 0, job.said
    cores = json.loads(job.file("blocks/plan.json"))["cores"]
    beside = [number for number, core in enumerate(cores) if core[2][1] <= 500]
    assert beside
    job.round(str(len(cores)), only=beside)

    assert job.stage("merge", rounds=str(len(cores))) == 1

    assert job.said == ["None of the blocks of this job has left anything."]


def test_if_no_block_left_anything_there_are_no_results(looked: Job) -> None:
    assert looked.stage("merge", rounds="2") == 1
    assert looked.said == ["None of the blocks of this job has left anything."]
    assert not (looked.folder / "results.json").exists()


def test_what_blocks_cannot_do_is_refused_at_the_first_look(volume: list[str], tmp_path: Path) -> None:
    job = Job(volume, tmp_path, "--method", "nomads2018")

    assert job.stage("first") == 2
    assert job.said == ["The method nomads2018 takes one block; choose paired, or a smaller box."]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stage", "merge", "--job-uri", "file:///tmp/x/"), "--rounds is empty, and has no program number 0."),
        (("--stage", "first"), "--job-uri is needed for a stage of a job in blocks."),
        (
            ("--stage", "first", "--job-uri", "file:///x/", "--block-voxels", "many"),
            "--block-voxels is not a whole number",
        ),
        (("--stage", "blocks", "--job-uri", "file:///x/", "--rounds", "3,x"), "--rounds is not a list of numbers"),
    ],
)
def test_arguments_of_a_stage_are_checked(volume: list[str], words: tuple[str, ...], said: str) -> None:
    err = io.StringIO()

    assert run(unsupervised.program, argv=[*volume, *words], environ={}, err=err) == 2
    assert said in err.getvalue()


def test_a_volume_of_zeros_shows_nothing(tmp_path: Path) -> None:
    empty = np.zeros((3, 240, 200), np.uint8)
    address = stores.DOORS["precomputed"](tmp_path / "v", {"PSD95": empty, "Synapsin": empty}, offset=(0, 0, 0))
    place = ["--volume", address, "--volume-roots", (tmp_path / "v").as_uri()]
    place += ["--z-range", "0,3", "--y-range", "0,240", "--x-range", "0,200"]
    job = Job(place, tmp_path / "job")

    assert job.stage("first") == 0, job.said
    job.round("2")
    assert job.stage("merge", rounds="2") == 0, job.said

    assert job.results["counts"] == {"synapses": 0, "voxels in synapses": 0}


def test_a_job_in_blocks_may_lie_on_s3(
    volume: list[str], once: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="results")
        job = Job(volume, tmp_path)
        job.uri = "s3://results/some/key/"

        assert job.stage("first") == 0, job.said
        job.round("4")
        assert job.stage("merge", rounds="4") == 0, job.said

        got = client.get_object(Bucket="results", Key="some/key/synapses.csv")["Body"].read()
        assert got == once.file("synapses.csv")
        left = client.list_objects_v2(Bucket="results", Prefix="some/key/blocks/")
        assert left["KeyCount"] == 0


def test_too_little_memory_is_no_damage_and_removes_no_block(looked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    looked.round("1")
    there = sorted((looked.folder / "blocks" / "1").rglob("*.npz"))

    def short(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "bitwise_count", short)
        assert looked.stage("merge", rounds="1") == 1

    assert looked.said == ["The box is too large for the memory of this machine; ask for a smaller one."]
    assert sorted((looked.folder / "blocks" / "1").rglob("*.npz")) == there


def test_the_crate_says_what_the_checksums_of_a_job_in_blocks_are_of(looked: Job, once: Job) -> None:
    looked.round("1")
    assert looked.stage("merge", rounds="1") == 0, looked.said

    assert b"sha256 is of its voxels in C order" in once.file("ro-crate-metadata.json")
    assert b"sha256 is of the SHA-256 of each block" in looked.file("ro-crate-metadata.json")


def test_a_rerun_of_such_a_crate_does_not_say_that_channels_have_changed(
    looked: Job, once: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    looked.round("1")
    assert looked.stage("merge", rounds="1") == 0, looked.said
    of_blocks, of_one = (crate.read(job.file("ro-crate-metadata.json")) for job in (looked, once))
    capsys.readouterr()

    assert _compare(of_blocks, of_one) == 1

    cannot, files = capsys.readouterr().err.splitlines()
    assert cannot.startswith(
        "Channels cannot be compared: the crate has checksums of the SHA-256 of each block's voxels"
    )
    assert files == "Not the same as before: the file report.html, results.json."
