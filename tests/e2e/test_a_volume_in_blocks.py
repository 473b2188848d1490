"""`nomads submit` of a volume in blocks, with real programs on this machine: as one run would leave it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.house import House
from tests.support.app import ROOT
from tests.support.processes import Lab, Said

BOX = ("--col", "demo", "--exp", "cortex", "--x", "0,512", "--y", "0,512", "--z", "0,12")
REQUEST = (*BOX, "--pipeline", "nomads-unsupervised", "--wait")


@pytest.fixture
def lab(house: House, tmp_path: Path) -> Iterator[Lab]:
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

    cut = results(lab, lab.here("submit", *REQUEST, "--again", NOMADS_BLOCK_VOXELS="600000"))

    told = json.loads((cut / "results.json").read_text())
    assert told["blocks"]["all"] > 4
    assert told["blocks"]["missing"] == 0, [p.read_text()[-600:] for p in lab.data.glob("runs/*/*/log*")][:4]
    for name in ("synapses.csv", "predictions.npz", "preview.png"):
        assert (cut / name).read_bytes() == (once / name).read_bytes()
    assert not (cut / "blocks" / "1").exists() or not list((cut / "blocks").rglob("*.npz"))
