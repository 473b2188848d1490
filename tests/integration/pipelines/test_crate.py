"""A run's crate: what it tells, and that running it again gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.common.program import run
from pipelines.unsupervised.driver import program
from sandbox.boss import BossStandIn
from sandbox.stores import precomputed
from sandbox.volumes import cortex
from tests.integration.pipelines.conftest import ROOT, TOKEN, arguments, start

CRATE = "ro-crate-metadata.json"


def contents(folder: Path) -> dict[str, bytes]:
    """Each file that lies in a folder or below it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entities(folder: Path) -> dict[str, Any]:
    """The entities of a folder's crate by their ids."""
    return {entity["@id"]: entity for entity in json.loads((folder / CRATE).read_text())["@graph"]}


def ran(boss: BossStandIn, folder: Path, **changed: str) -> dict[str, Any]:
    """Run the program; returns the crate's entities by their ids."""
    with start(arguments(boss, results_uri=folder.as_uri() + "/", **changed)) as process:
        _, complained = process.communicate(timeout=60)
    assert (process.returncode, complained) == (0, "")
    return entities(folder)


@pytest.fixture(scope="module")
def _usual(_boss: BossStandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the usual box, which nothing writes to."""
    folder = tmp_path_factory.mktemp("usual")
    ran(_boss, folder)
    return folder


@pytest.fixture
def usual(_usual: Path, tmp_path: Path) -> Path:
    """A copy of the folder of a run of the usual box."""
    return Path(shutil.copytree(_usual, tmp_path / "usual"))


def rerun(crate: Path, folder: Path, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "rerun", str(crate), "--results-uri", folder.as_uri() + "/", *more],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BOSS_TOKEN": TOKEN, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_crate_names_every_file_with_its_size_and_checksum(usual: Path) -> None:
    graph = entities(usual)

    listed = {name: entity for name, entity in graph.items() if entity["@type"] == "File"}
    there = contents(usual)
    assert set(listed) == set(there) - {CRATE}
    for name, entity in listed.items():
        digest = hashlib.sha256(there[name]).hexdigest()
        assert (entity["contentSize"], entity["sha256"]) == (str(len(there[name])), digest), name
    parts = {part["@id"] for part in graph["./"]["hasPart"]}
    assert parts == {*listed, "segmentation/", "annotations/", "image/postsynaptic/", "image/presynaptic/"}


def test_a_crate_tells_what_was_read_and_with_what(boss: BossStandIn, tmp_path: Path) -> None:
    assert boss.cortex is not None
    graph = ran(boss, tmp_path, method="probabilistic")

    voxels = boss.cortex.bricks("PSD95").read((0, 0, 0), (8, 128, 128))
    assert graph["#postsynaptic"]["identifier"] == f"{boss.url}/demo/corner/PSD95"
    assert graph["#postsynaptic"]["sha256"] == hashlib.sha256(voxels.tobytes()).hexdigest()
    run = graph["#run"]
    values = {graph[one["@id"]]["name"]: graph[one["@id"]].get("value") for one in run["object"]}
    assert (values["x-range"], values["method"]) == ("0,128", "probabilistic")
    tool = graph[run["instrument"]["@id"]]
    assert (tool["name"], tool["softwareVersion"]) == ("nomads-unsupervised", "1")
    needs = {graph[one["@id"]]["name"] for one in tool["softwareRequirements"]}
    assert {"numpy", "scipy"} < needs


def test_a_crate_is_what_the_profile_asks_for(usual: Path) -> None:
    """RO-Crate 1.1 and Process Run Crate 0.5: what they say must be there."""
    graph = entities(usual)

    assert json.loads((usual / CRATE).read_text())["@context"] == [
        "https://w3id.org/ro/crate/1.1/context",
        "https://w3id.org/ro/terms/workflow-run/context",
    ]
    about, root, run = graph[CRATE], graph["./"], graph["#run"]
    assert about["@type"] == "CreativeWork"
    assert (about["about"], about["conformsTo"]) == ({"@id": "./"}, {"@id": "https://w3id.org/ro/crate/1.1"})
    assert root["@type"] == "Dataset"
    assert all(root[field] for field in ("name", "description", "datePublished", "license"))
    assert root["mentions"] == {"@id": "#run"}
    assert graph[root["conformsTo"]["@id"]]["version"] == "0.5"
    assert run["@type"] == "CreateAction"
    assert graph[run["instrument"]["@id"]]["@type"] == "SoftwareApplication"

    def named(value: Any) -> list[str]:
        if isinstance(value, list):
            return [name for one in value for name in named(one)]
        return [value["@id"]] if isinstance(value, dict) else []

    used = {name for entity in graph.values() for value in entity.values() for name in named(value)}
    assert used - set(graph) == {"https://w3id.org/ro/crate/1.1"}


def test_a_crate_that_is_run_again_gives_the_same_bytes(boss: BossStandIn, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    ran(boss, one, method="probabilistic", viewer="https://viewer.test/", z_range="3,11", channel="presynaptic=VGluT1")

    done = rerun(one, other)

    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines()[-1]
        == f"All {len(contents(one)) - 1} files are the same as the crate's, byte for byte."
    )
    assert contents(other) == contents(one)


def test_a_crate_of_a_volume_by_address_is_run_again_where_its_place_is_allowed(tmp_path: Path) -> None:
    volume = cortex(seed=14, shape=(16, 96, 96))
    bricks = {name: volume.bricks(name).read((0, 0, 0), (16, 96, 96)) for name in ("PSD95", "Synapsin")}
    address = precomputed(tmp_path / "volumes", bricks, offset=(0, 0, 0))
    box = ["--z-range", "2,14", "--y-range", "0,90", "--x-range", "8,96"]
    one, other = tmp_path / "one", tmp_path / "other"
    roots = (tmp_path / "volumes").as_uri()
    argv = ["--volume", address, "--volume-roots", roots, *box, "--results-uri", one.as_uri() + "/"]
    assert run(program, argv=argv, environ={}, err=io.StringIO()) == 0

    refused = rerun(one, other)
    done = rerun(one, other, NOMADS_VOLUME_ROOTS=roots)

    assert (refused.returncode, "NOMADS_VOLUME_ROOTS" in refused.stderr) == (2, True), refused.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(other) == contents(one)
    assert f"{address}/PSD95" in (one / CRATE).read_text()
    assert roots not in (one / CRATE).read_text().replace(address, "")


def test_what_is_not_the_same_is_named(boss: BossStandIn, usual: Path, tmp_path: Path) -> None:
    path = usual / CRATE
    graph = json.loads(path.read_text())
    for entity in graph["@graph"]:
        if entity["@id"] == "#presynaptic":
            entity["sha256"] = "0" * 64
    path.write_text(json.dumps(graph))

    done = rerun(path, tmp_path / "other")

    assert (done.returncode, done.stderr) == (
        1,
        f"Not the same as before: the channel {boss.url}/demo/corner/Synapsin.\n",
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"@graph": [{"@id": "#run"}]}', "[" * 100_000], ids=range(5))
def test_another_file_is_said_to_be_no_crate(tmp_path: Path, content: str) -> None:
    (tmp_path / "crate").write_text(content)

    done = rerun(tmp_path / "crate", tmp_path / "other")

    assert (done.returncode, done.stderr) == (2, f"This is not the {CRATE} of a run of NOMADS's.\n")


def test_a_crate_runs_no_program_but_those_that_are_here(usual: Path, tmp_path: Path) -> None:
    changed = (usual / CRATE).read_text().replace('"nomads-unsupervised"', '"elsewhere"')
    (usual / CRATE).write_text(changed)

    done = rerun(usual, tmp_path / "other")

    assert (done.returncode, done.stderr) == (2, "The crate's pipeline is none of those here.\n")


def changed(crate: Path, argument: str, **values: str) -> None:
    """Change the argument of that name."""
    graph = json.loads(crate.read_text())
    for entity in graph["@graph"]:
        if entity.get("name") == argument and entity["@type"] == "PropertyValue":
            entity |= values
    crate.write_text(json.dumps(graph))


@pytest.mark.parametrize(
    "host", ["https://boss.example.org", "http://127.0.0.2:9000", "boss.example.org", "http://api.bossdb.io"]
)
def test_a_volume_of_a_boss_does_not_say_where_the_token_goes_either(usual: Path, tmp_path: Path, host: str) -> None:
    for name in ("col", "exp"):
        changed(usual / CRATE, name, **{"@type": "Thing"})
    changed(usual / CRATE, "host", name="volume", value=f"boss://{host}/lab/doors")

    done = rerun(usual, tmp_path / "other")

    asked = host if "://" in host else f"https://{host}"
    said = f"The crate sends the token to {asked!r}; where it may, give --as-told.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_volume_of_the_boss_that_is_trusted_is_run_again(boss: BossStandIn, usual: Path, tmp_path: Path) -> None:
    for name in ("col", "exp"):
        changed(usual / CRATE, name, **{"@type": "Thing"})
    changed(usual / CRATE, "host", name="volume", value=f"boss://{boss.url}/demo/corner")

    done = rerun(usual, tmp_path / "other")

    assert (tmp_path / "other" / "synapses.csv").exists(), done.stderr


@pytest.mark.parametrize(
    "host", ["https://boss.example.org", "http://127.0.0.1@example.org", "http://localhost.example"]
)
def test_a_crate_does_not_say_where_the_token_goes(usual: Path, tmp_path: Path, host: str) -> None:
    changed(usual / CRATE, "host", value=host)

    done = rerun(usual, tmp_path / "other")

    said = f"The crate sends the token to {host!r}; where it may, give --as-told.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_crate_writes_to_boss_only_where_a_person_says_so(boss: BossStandIn, tmp_path: Path) -> None:
    ran(boss, tmp_path / "one", predictions="collman_nomads/nomads_predictions")
    boss.requests.clear()

    refused = rerun(tmp_path / "one", tmp_path / "other")
    assert refused.returncode == 2
    assert "writes to 'collman_nomads/nomads_predictions' in BOSS" in refused.stderr
    assert not boss.requests

    done = rerun(tmp_path / "one", tmp_path / "other", "--as-told")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize("name", ["token", "results-uri", "host", "host=http://127.0.0.1:1", "Exp", ""])
def test_a_crate_with_arguments_that_no_run_has_is_none(usual: Path, tmp_path: Path, name: str) -> None:
    changed(usual / CRATE, "exp", name=name)

    done = rerun(usual, tmp_path / "other")

    assert (done.returncode, done.stderr) == (2, f"This is not the {CRATE} of a run of NOMADS's.\n")
