"""How the images are named, pinned and told of, without building one."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bot.settings import ROOT, Settings
from deploy import bases, images, sbom
from tests.support.compose import compose, make_secrets

DOCKERFILES = ("Dockerfile", "pipelines/Dockerfile")
INDEX = json.dumps({"schemaVersion": 2, "manifests": [{"digest": f"sha256:{'1' * 64}"}]}).encode()
OLD = f"sha256:{'0' * 64}"


@contextmanager
def registry(index: bytes = INDEX, *, token: str = "for anybody") -> Iterator[tuple[str, list[str]]]:
    """A registry that gives an index to whoever has its login service's token; its URL and what was asked."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/token"):
                self._say(200, json.dumps({"token": token}).encode())
            elif self.headers["Authorization"] != f"Bearer {token}":
                realm = f'Bearer realm="{url}/token",service="stand-in",scope="repository:library/python:pull"'
                self._say(401, b"", **{"WWW-Authenticate": realm})
            else:
                self._say(200, index)

        def _say(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield url, asked
        server.shutdown()
        thread.join()


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "bases.env"
    path.write_text(f"# why\nPYTHON_IMAGE=python:3.11-slim@{OLD}\n")
    return path


# The pins


def test_the_digests_of_base_images_stand_in_one_file_alone() -> None:
    pinned = bases.read(bases.FILE.read_text())
    assert set(pinned) == {"PYTHON_IMAGE", "POSTGRES_IMAGE"}
    for reference in pinned.values():
        digest = reference.partition("@")[2]
        files = [path for path in ROOT.rglob("*") if path.suffix in {"", ".py", ".yaml", ".yml", ".md", ".env"}]
        ours = [path for path in files if path.is_file() and not {".venv", ".git", "var"} & set(path.parts)]
        assert [path for path in ours if digest.encode() in path.read_bytes()] == [bases.FILE]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_a_dockerfile_begins_from_the_argument_and_by_itself_from_the_same_tag(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    python = bases.unpinned(bases.read(bases.FILE.read_text())["PYTHON_IMAGE"])
    assert re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE) == [python]
    begun = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    assert begun - set(re.findall(r" AS (\S+)$", text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


def test_what_is_pushed_is_built_on_the_pinned_base_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_succeeds", lambda *_, **__: False)  # there is no such image, and no registry
    with pytest.raises(images.CannotBuild, match="what is pushed is built on no other"):
        images.base_image("buildah", fresh=False, pushed=True)


def test_renewing_asks_the_registry_and_takes_the_digest_of_what_it_read(
    pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry() as (url, asked):
        assert bases.main(["--registry", url, "--file", str(pins)]) == 0
    new = f"python:3.11-slim@sha256:{hashlib.sha256(INDEX).hexdigest()}"
    assert pins.read_text() == f"# why\nPYTHON_IMAGE={new}\n"
    assert capsys.readouterr().out == f"PYTHON_IMAGE: {new} (new)\n"
    assert asked[0] == asked[-1] == "/v2/library/python/manifests/3.11-slim"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"layers": []}'])
def test_an_answer_that_is_no_index_changes_nothing_and_is_told(
    body: bytes, pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pins.read_text()
    with registry(body) as (url, _):
        assert bases.main(["--registry", url, "--file", str(pins)]) == 1
    assert pins.read_text() == before
    assert "python:3.11-slim" in capsys.readouterr().err


def test_a_registry_that_is_not_there_changes_nothing_and_is_told(
    pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pins.read_text()
    assert bases.main(["--registry", "http://127.0.0.1:1", "--file", str(pins)]) == 1
    assert pins.read_text() == before
    assert "did not tell the digest of python:3.11-slim" in capsys.readouterr().err


def test_a_base_without_a_digest_is_refused() -> None:
    with pytest.raises(bases.NotPinned, match="PYTHON_IMAGE"):
        bases.read("PYTHON_IMAGE=python:3.11-slim\n")


# What is built, and with what


def test_there_is_an_image_for_the_bot_with_and_without_programs_and_for_each_pipeline() -> None:
    assert [image.name for image in images.images()] == [
        "nomads",
        "nomads-local",
        "nomads-unsupervised",
        "nomads-classifier",
    ]


def test_locks_that_are_installed_together_agree() -> None:
    bot, pipelines = (
        dict(
            line.split()[0].split("==")
            for line in sbom.installed(
                (ROOT / f"requirements/{lock}.txt").read_text(), sbom.image_environment("3.11.14")
            )
        )
        for lock in ("bot", "pipelines")
    )
    assert bot.keys() & pipelines.keys()
    assert {name for name in bot.keys() & pipelines.keys() if bot[name] != pipelines[name]} == set()


def test_pip_s_settings_of_the_machine_are_handed_over_but_for_its_folders(tmp_path: Path) -> None:
    said = (
        "global.index-url='https://one.example/simple'\n"
        "global.extra-index-url='file:///there https://two.example/simple'\n"
        "global.find-links='/wheels'\n"
        ":env:.index-url='https://three.example/simple'\n"
        ":env:.cert='/etc/ca.pem'\n"
        "freeze.timeout='10'\n"
    )
    options = images.pip_secrets(said, tmp_path)
    assert options == ["--secret", "id=ca,src=/etc/ca.pem", "--secret", f"id=pip,src={tmp_path / 'pip.conf'}"]
    assert (tmp_path / "pip.conf").read_text().splitlines() == [
        "[global]",
        "index-url = https://three.example/simple",
        "extra-index-url = https://two.example/simple",
        "cert = /run/secrets/ca",
    ]
    assert (tmp_path / "pip.conf").stat().st_mode & 0o777 == 0o600


def test_the_size_of_an_image_is_known_whatever_other_names_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "buildah"
    program.write_text("#!/bin/sh\necho 408 MB\necho 408 MB\n")  # as buildah does of an image with two names
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    assert images.size("nomads", "buildah") == 408_000_000


# The bills of materials

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2:2.36-9+deb12u10

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def test_a_bill_of_materials_is_as_cyclonedx_has_it_and_names_python_s_and_debian_s_packages() -> None:
    lock = f"a==1 \\\n    --hash=sha256:{'1' * 64}\n"
    first, second = (sbom.bill_of_materials([lock, lock], python="3.11.2", debian=STATUS) for _ in range(2))
    assert first == second
    python, debian = json.loads(first)["components"]
    assert (python["name"], python["version"]) == ("a", "1")
    assert [found["content"] for found in python["externalReferences"][0]["hashes"]] == ["1" * 64]
    assert debian["purl"] == "pkg:deb/debian/libc6@2%3A2.36-9+deb12u10?arch=amd64"


def test_a_bill_of_materials_leaves_out_what_other_systems_and_pythons_need() -> None:
    locked = (
        "a==1 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n    # via\n    #   b\n"
        "a==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:ac\n"
        "colorama==3 ; sys_platform == 'win32' \\\n    --hash=sha256:ad\n"
        "psycopg==4 \\\n    --hash=sha256:ae\n"
    )
    assert sbom.installed(locked, sbom.image_environment("3.11.14")) == [
        "a==1 --hash=sha256:aa --hash=sha256:ab\n",
        "psycopg==4 --hash=sha256:ae\n",
    ]


# compose.yaml


def test_compose_names_settings_that_there_are_and_images_by_the_file_of_pins() -> None:
    services = compose()["services"]
    known = {f"NOMADS_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"NOMADS_[A-Z_]+", (ROOT / "compose.yaml").read_text()))
    assert named
    assert named <= known
    images_named = {service["image"] for service in services.values() if "image" in service}
    assert {re.match(r"\$\{(\w+):\?", name)[1] for name in images_named} == {"POSTGRES_IMAGE"}  # type: ignore[index]
    assert services["bot"]["build"]["args"].keys() == {"PYTHON_IMAGE"}
    assert f" AS {services['bot']['build']['target']}\n" in (ROOT / "Dockerfile").read_text()


def test_compose_publishes_on_loopback_alone_keeps_data_in_named_volumes_and_watches_health() -> None:
    told = compose()
    ports = [port for service in told["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    mounted = {volume.partition(":")[0] for service in told["services"].values() for volume in service["volumes"]}
    assert mounted == set(told["volumes"])
    assert all("healthcheck" in told["services"][name] for name in ("database", "bot"))


def test_compose_makes_its_secrets_once_for_their_owner_alone_and_has_none(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    make_secrets(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    settings = Settings(_env_file=tmp_path / ".env")
    assert made["password"] in settings.database_url.get_secret_value()
    assert settings.secret_key
    assert len(settings.secret_key.get_secret_value()) == 48
    assert made["password"] != settings.secret_key.get_secret_value()
