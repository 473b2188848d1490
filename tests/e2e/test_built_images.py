"""The images, really built and run: what is in them, what is not, and that their programs do what they do outside."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy import images
from deploy.images import Built
from sandbox.boss import DEMO_TOKEN, BossStandIn
from sandbox.house import House
from sandbox.volumes import cortex
from tests.contract.rigs import free_port
from tests.support.compose import compose, make_secrets
from tests.support.containers import run, running
from tests.support.databases import Postgres
from tests.support.waiting import until

pytestmark = pytest.mark.images

NAMES = [image.name for image in images.images()]
PROGRAMS = {image.name: image.target for image in images.images() if image.dockerfile.startswith("pipelines")}
BOUNDS = {"nomads": 470, "nomads-local": 1100, "nomads-unsupervised": 960, "nomads-classifier": 960}
"""Megabytes, a tenth above what was measured on a base of Debian's packages."""
SECOND = "localhost/nomads-by-a-second-name:1"
ROOT = images.ROOT


@pytest.fixture(scope="session")
def built(testrun_uid: str) -> dict[str, str]:
    """Name to id, as this checkout has them: one worker builds, and the others wait for it."""
    with open(f"{tempfile.gettempdir()}/nomads-images-{testrun_uid}", "a") as once:
        fcntl.flock(once, fcntl.LOCK_EX)
        if not once.tell():
            images.make(tool="buildah")  # of whose images these tests are, also where Docker's engine runs
            once.write("built")
    return {name: (images.FOLDER / f"{name}.id").read_text().strip() for name in NAMES}


@pytest.fixture
def server(_postgres: Postgres) -> Postgres:
    """A real PostgreSQL."""
    return _postgres


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that the user of a container may write to."""
    with tempfile.TemporaryDirectory(prefix="nomads-mounted-", dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def described(name: str) -> dict[str, Any]:
    """The image as buildah tells of it."""
    told = subprocess.run(
        ["buildah", "inspect", "--type=image", f"localhost/{name}"], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def sh(name: str, script: str, *options: str) -> str:
    """What a shell prints in the image."""
    done = run(name, "-c", script, options=["--entrypoint=sh", *options])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_nobody_on_a_root_that_cannot_be_written(name: str, built: dict[str, str]) -> None:
    assert sh(name, "id -u; touch /srv/nomads/x 2>/dev/null || echo refused").split() == ["10001", "refused"]
    assert described(name)["OCIv1"]["config"]["User"] == "10001"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_no_compiler_and_its_python_has_no_installer(name: str, built: dict[str, str]) -> None:
    found = sh(
        name,
        "for c in gcc cc g++ clang make ld; do command -v $c || true; done;"
        " ls /usr/include/stdio.h 2>/dev/null || true;"
        " grep -E '^Package: (.*-dev|gcc.*[0-9]|build-essential)$' /var/lib/dpkg/status | grep -v base || true;"
        " python3 -c 'import pip' 2>/dev/null && echo pip || true",
    )
    assert found == ""


@pytest.mark.parametrize("name", NAMES)
def test_an_image_keeps_nothing_of_the_machine_that_built_it(name: str, built: dict[str, str]) -> None:
    left = sh(
        name,
        "find / -xdev -name '*pip.conf' ! -path '/usr/share/*';"
        " find / -xdev -path '*/.cache/*' -type f; find /run/secrets -type f;"
        " test ! -s /etc/machine-id || echo machine-id",
        "--user=0",
        "--cap-add=dac_override",
        "--no-hosts",
    )
    said = json.dumps(described(name)["OCIv1"])
    assert left == ""
    assert not [word for word in ("index-url", "://", "BEGIN CERTIFICATE", str(ROOT)) if word in said]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_tell_the_day_on_which_it_was_built(name: str, built: dict[str, str]) -> None:
    shadow = sh(name, "grep '^nomads:' /etc/shadow", "--user=0", "--cap-add=dac_override")
    assert shadow.split(":")[2] == ""


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_no_larger_than_is_said(name: str, built: dict[str, str]) -> None:
    assert images.size(name, "buildah") <= BOUNDS[name] * 10**6


def test_an_image_with_a_second_name_as_a_deployment_gives_it_has_the_same_size(built: dict[str, str]) -> None:
    before = images.size("nomads", "buildah")
    subprocess.run(["buildah", "tag", "localhost/nomads", SECOND], check=True)
    try:
        assert {images.size(name, "buildah") for name in ("nomads", SECOND)} == {before}
    finally:
        subprocess.run(["buildah", "rmi", SECOND], check=True, capture_output=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_s_bill_of_materials_names_what_is_installed_and_nothing_else(
    name: str, built: dict[str, str]
) -> None:
    [image] = [image for image in images.images() if image.name == name]
    bill = json.loads(images.bill(image).read_text())
    listed = "import importlib.metadata as m; [print(d.name + '==' + d.version) for d in m.distributions()]"
    python = {line.lower().replace("_", "-").replace(".", "-") for line in sh(name, f'python3 -c "{listed}"').split()}
    debian = sh(name, "dpkg-query --show --showformat='${Package}==${Version}\\n'").split()
    told: dict[bool, set[str]] = {True: set(), False: set()}
    for part in bill["components"]:
        told[part["purl"].startswith("pkg:deb/")].add(f"{part['name']}=={part['version']}")

    assert told[True] == set(debian)
    assert {line.lower().replace("_", "-").replace(".", "-") for line in told[False]} == python


@pytest.mark.parametrize("name", ["nomads", "nomads-unsupervised"])
def test_an_image_of_each_dockerfile_built_once_more_on_the_same_base_is_the_same(
    name: str, built: dict[str, str]
) -> None:
    [image] = [image for image in images.images() if image.name == name]
    again: Built = images.build(image, "buildah", images.base_image("buildah", fresh=False), fresh=True)
    assert again.id == built[image.name]


@pytest.mark.parametrize("name", ["nomads", "nomads-local"])
def test_the_bot_in_its_image_says_how_it_is_used(name: str, built: dict[str, str]) -> None:
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_in_its_image_says_how_it_is_used(name: str, built: dict[str, str]) -> None:
    done = run(name, "python3", "-m", f"pipelines.{PROGRAMS[name]}", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--results-uri" in done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_in_its_image_leaves_the_results_that_it_leaves_outside(
    name: str, built: dict[str, str], shared: Path, tmp_path: Path
) -> None:
    with BossStandIn(demo=cortex(shape=(32, 256, 256))) as boss:
        box = ["--z-range", "0,16", "--y-range", "0,64", "--x-range", "0,64"]
        command = ["-m", f"pipelines.{PROGRAMS[name]}", "--host", boss.url, "--col", "demo", "--exp", "cortex", *box]
        token = {"BOSS_TOKEN": DEMO_TOKEN}
        inside, outside = shared / "out", tmp_path / "out"
        there = run(name, "python3", *command, "--results-uri", inside.as_uri(), environment=token, mounts=[shared])
        here = subprocess.run(
            [sys.executable, *command, "--results-uri", outside.as_uri()],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **token},
            capture_output=True,
            text=True,
            check=False,
        )

    assert (there.returncode, there.stderr) == (0, "")
    assert (here.returncode, here.stderr) == (0, "")
    names = {str(path.relative_to(outside)) for path in outside.rglob("*") if path.is_file()}
    assert "results.json" in names
    assert names == {str(path.relative_to(inside)) for path in inside.rglob("*") if path.is_file()}
    differing = {name for name in names if (inside / name).read_bytes() != (outside / name).read_bytes()}
    # another release of Python may write another version in an archive's head; the crate has the archive's hash
    archives = {name for name in differing if name.endswith(".npz")}
    assert differing - archives <= ({"ro-crate-metadata.json"} if archives else set())
    assert [members(inside / name) for name in archives] == [members(outside / name) for name in archives]
    crate = (inside / "ro-crate-metadata.json").read_text()
    for archive in archives:
        crate = crate.replace(sha256(inside / archive), sha256(outside / archive))
    assert crate == (outside / "ro-crate-metadata.json").read_text()
    assert (inside / "results.json").stat().st_uid == 10001


def members(archive: Path) -> dict[str, bytes]:
    """Name to content."""
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_compose_s_bot_migrates_postgresql_answers_and_runs_a_program_as_another_user(
    built: dict[str, str], house: House, server: Postgres, shared: Path, tmp_path: Path
) -> None:
    service = compose()["services"]["bot"]
    make_secrets(shared)
    data = shared / "data"
    data.mkdir()
    port = free_port()
    name = f"nomads-test-{port}"
    options = [f"--user={service['user']}", *[f"--cap-add={right}" for right in service["cap_add"]]]
    options += [f"--workdir={shared}"]
    with server.database(migrated=False) as url:
        [socket] = re.findall(r"host=([^&]+)", url)
        settings = service["environment"] | house.environment(data, socket_mode=False)
        settings |= {"NOMADS_DATABASE_URL": url, "NOMADS_HOST": "127.0.0.1", "NOMADS_PORT": str(port)}
        log = tmp_path / "bot.log"
        with running(
            "nomads-local", name, log=log, environment=settings, mounts=[shared, Path(socket)], options=options
        ):
            assert until(lambda: healthy(port, log), what="the bot")
            test = service["healthcheck"]["test"][1:]
            assert podman("exec", name, *(word.replace(":3000", f":{port}") for word in test)) == ""
            assert httpx.get(f"http://127.0.0.1:{port}/ready").text == "ready\n"
            token = f"--env=BOSS_TOKEN={DEMO_TOKEN}"
            submit = ["podman", "--runtime=runc", "exec", token, name, "python3", "-m", "bot", *SUBMIT.split()]
            with subprocess.Popen(submit, stdout=subprocess.PIPE, text=True) as submitted:
                until(lambda: 20000 in users(), what="a program of that user")
                done, _ = submitted.communicate(timeout=60)
    assert submitted.returncode == 0
    assert " synapse" in done
    assert list(data.rglob("results.json"))


def users() -> set[int]:
    """Who has a process on this machine, containers included."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            found.add(process.stat().st_uid)
    return found


SUBMIT = """
    submit --pipeline nomads-unsupervised --collection demo --experiment cortex --x 0,64 --y 0,64 --z 0,16
    --email demo@example.org --wait
"""


def healthy(port: int, log: Path) -> bool:
    """Whether the bot lives. Fails the test where it says that it cannot."""
    assert "Set NOMADS_SECRET_KEY" not in log.read_text(), log.read_text()
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").text == "ok\n"
    except httpx.TransportError:
        return False


def podman(*arguments: str) -> str:
    """What podman prints."""
    done = subprocess.run(["podman", "--runtime=runc", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
