"""`nomads submit` of a volume in blocks, with real programs on this machine: as one run would leave it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.domain.states import JobState
from sandbox.house import House
from tests.support.app import ROOT
from tests.support.processes import Lab, Said
from tests.support.waiting import PATIENCE, until

BOX = ("--col", "demo", "--exp", "corner", "--x", "0,256", "--y", "0,256", "--z", "0,12")
REQUEST = (*BOX, "--pipeline", "nomads-unsupervised", "--wait")


@pytest.fixture
def lab(house: House, tmp_path: Path) -> Iterator[Lab]:
    """demo/corner is what demo/cortex begins with: programs register whole sections, and these are smaller."""
    cortex = house.boss.cortex
    assert cortex
    channels = {name: cortex.bricks(name) for name in cortex.channels}
    house.boss.add("demo", "corner", shape=(64, 288, 288), voxel_nm=cortex.voxel_nm, channels=channels)
    settings = {"NOMADS_PIPELINES": str(ROOT / "pipelines"), "NOMADS_MAIL": "off"}
    with Lab(house, tmp_path, **settings) as lab:
        yield lab


def results(lab: Lab, said: Said) -> Path:
    """The folder of the job that was submitted."""
    assert said.code == 0, said.err
    found = re.search(r"[Jj]ob ([0-9a-z]{8,16})", said.out + said.err)
    assert found, said
    (folder,) = lab.data.glob(f"results/*/{found[1]}")
    return folder


def test_a_volume_in_blocks_is_as_one_program_leaves_it(lab: Lab) -> None:
    once = results(lab, lab.here("submit", *REQUEST))

    cut = results(lab, lab.here("submit", *REQUEST, "--again", NOMADS_BLOCK_VOXELS="150000"))

    told = json.loads((cut / "results.json").read_text())
    assert told["blocks"]["all"] > 4
    assert told["blocks"]["missing"] == 0, [p.read_text()[-600:] for p in lab.data.glob("runs/*/*/log*")][:4]
    for name in ("synapses.csv", "predictions.npz", "preview.png"):
        assert (cut / name).read_bytes() == (once / name).read_bytes()
    assert not (cut / "blocks" / "1").exists() or not list((cut / "blocks").rglob("*.npz"))


def test_a_terminal_tells_the_blocks_before_and_after(lab: Lab) -> None:
    small = ("--col", "demo", "--exp", "corner", "--x", "0,128", "--y", "0,128", "--z", "0,8")
    request = (*small, "--pipeline", "nomads-unsupervised", "--wait", "--json")

    code, out, err = lab.here("submit", *request, NOMADS_BLOCK_VOXELS="120000")

    assert code == 0, err
    takes = next(line for line in err.splitlines() if "voxels" in line)
    assert "x 0, 128 · y 0, 128 · z 0, 8: 131,072 voxels, 262 kB, in about 2 blocks of about 120,000 voxels" in takes
    assert takes.endswith("of machine time, all programs together")
    told = json.loads(out.splitlines()[-1])
    assert told["blocks"]["all"] > 1
    assert told["blocks"]["missing"] == 0
    status = json.loads(lab.here("status", told["job"], "--json").out)
    assert status["blocks"] == {"all": told["blocks"]["all"], "done": told["blocks"]["all"], "again": 0}


STAGED = ROOT / "tests" / "support" / "staged"


@pytest.mark.parametrize("seed", range(2))
def test_a_bot_that_is_killed_at_any_moment_of_a_job_in_blocks_runs_each_program_once(
    house: House, tmp_path: Path, seed: int
) -> None:
    moments = random.Random(seed)
    with Lab(house, tmp_path, NOMADS_PIPELINES=str(STAGED), NOMADS_LOCAL_USER="off") as lab:
        lab.start()
        lab.submit()
        folder = lab.results(lab.newest)
        for count in sorted(moments.sample(range(9), 4)):
            until(lambda count=count: len(list(folder.rglob("starts-*"))) >= count, within=PATIENCE)  # type: ignore[misc]
            lab.bots[-1].kill()
            lab.start()

        job = lab.ended(lab.newest)

        assert job.state is JobState.SUCCEEDED, (job.reason, lab.said)
        assert job.summary
        assert job.summary.counts == {"synapses": 6}
        assert job.summary.notes == ["started"]
        for stage in ("first", "merge"):
            assert (lab.results(job) / f"starts-{stage}").read_text() == "started\n"
        keys = lab.replies(job)
        assert len(set(keys)) == len(keys)
        assert "Finished" in lab.card(job)
