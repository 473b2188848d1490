"""`nomads submit --volume`: a volume by address, or by the admin's name, from a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import stores
from sandbox.house import House
from sandbox.volumes import cortex
from tests.support.app import ROOT
from tests.support.processes import Lab

BOX = ("--x", "0,128", "--y", "0,128", "--z", "0,16", "--pipeline", "nomads-unsupervised")


@pytest.fixture
def address(tmp_path: Path) -> str:
    volume = cortex(shape=(16, 128, 128))
    channels = {name: volume.bricks(name).read((0, 0, 0), volume.shape) for name in ("PSD95", "Synapsin")}
    return stores.n5(tmp_path / "volumes" / "mouse", channels)


@pytest.fixture
def lab(house: House, tmp_path: Path) -> Iterator[Lab]:
    settings = {
        "NOMADS_PIPELINES": str(ROOT / "pipelines"),
        "NOMADS_VOLUME_ROOTS": (tmp_path / "volumes").as_uri(),
        "NOMADS_MAIL": "off",
    }
    with Lab(house, tmp_path, **settings) as lab:
        yield lab


def test_a_volume_by_address_runs_without_a_token(lab: Lab, address: str) -> None:
    code, out, err = lab.here("submit", "--volume", address, *BOX, "--wait", token="")

    assert code == 0, err
    assert "Results: " in out


def test_a_volume_runs_by_the_admins_name(lab: Lab, address: str, tmp_path: Path) -> None:
    (tmp_path / "volumes.toml").write_text(f'[[volumes]]\nname = "mouse"\naddress = "{address}"\n')
    listed = {"NOMADS_VOLUMES": str(tmp_path / "volumes.toml")}

    assert lab.here("submit", "--volume", "mouse", *BOX, "--wait", token="", **listed).code == 0
    code, _, err = lab.here("submit", "--volume", "rat", *BOX, token="", **listed)
    assert code == 2
    assert "collection: There is no volume “rat”." in err


def test_what_is_wrong_is_told_by_field(lab: Lab, address: str) -> None:
    code, _, err = lab.here("submit", "--volume", f"{address}/none", *BOX, "--x", "0,500", token="")
    assert code == 2
    assert "collection: There is no N5 volume" in err

    code, _, err = lab.here("submit", "--volume", address, *BOX, "--x", "0,500", token="")
    assert code == 2
    assert "x: This volume has x 0, 128" in err

    code, _, err = lab.here("submit", "--volume", address, "--collection", "demo", *BOX, token="")
    assert code == 2
    assert "volume: This takes the place of --collection and --experiment" in err
