"""The images hold all that their programs need: what a Dockerfile copies out of the checkout runs by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.boss import DEMO_TOKEN, BossStandIn
from sandbox.volumes import cortex

ROOT = Path(__file__).parents[2]


def stages(dockerfile: str) -> dict[str, list[str]]:
    """Each stage's paths that are copied out of the checkout, and those of the stages it begins from."""
    found: dict[str, list[str]] = {}
    stage = ""
    for line in (ROOT / dockerfile).read_text().splitlines():
        match line.split():
            case ["FROM", base, *rest]:
                stage = rest[-1] if rest else "last"
                found[stage] = list(found.get(base, []))
            case ["COPY", source, target] if not target.startswith("/"):
                assert source == target, "a program finds its files where the checkout has them"
                found[stage].append(source)
    return found


def test_the_bots_image_names_a_user_for_programs_who_is_neither_root_nor_the_bot() -> None:
    text = (ROOT / "Dockerfile").read_text()
    [programs] = set(re.findall(r"NOMADS_LOCAL_USER=(\d+)$", text, re.MULTILINE))
    users = re.findall(r"^USER (\d+)$", text, re.MULTILINE)
    accounts = re.findall(r"--uid (\d+)", text)

    assert int(programs) > 0
    assert set(users) == set(accounts)  # what runs by itself runs without root
    assert not set(accounts) & {str(int(programs) + place) for place in range(256)}


def image(folder: Path, dockerfile: str, stage: str) -> Path:
    """What that stage's image has in its working directory."""
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in stages(dockerfile)[stage]:
        assert path.split("/")[0] in sent, f".dockerignore keeps {path} back"
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    return folder


def run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The module as a program, started in that folder."""
    environment = {"PATH": os.environ["PATH"], "BOSS_TOKEN": DEMO_TOKEN, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("pipeline", ["unsupervised", "classifier"])
def test_a_pipeline_runs_from_its_image(pipeline: str, tmp_path: Path) -> None:
    folder = image(tmp_path / "image", "pipelines/Dockerfile", pipeline)
    with BossStandIn(demo=cortex(shape=(32, 256, 256))) as boss:
        box = ["--z-range", "0,16", "--y-range", "0,64", "--x-range", "0,64"]
        place = ["--host", boss.url, "--col", "demo", "--exp", "cortex", *box]
        done = run(folder, f"pipelines.{pipeline}", *place, "--results-uri", (tmp_path / "out").as_uri())

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    assert not (folder / "bot").exists()


def test_the_bot_starts_from_its_image(tmp_path: Path) -> None:
    folder = image(tmp_path / "image", "Dockerfile", "sources")

    assert run(folder, "bot", "--help").returncode == 0
    imported = run(folder, "bot.local.compute")  # as much of the bot as stands on what the programs share
    assert (imported.returncode, imported.stderr) == (0, "")
