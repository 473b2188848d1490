"""A box cut out of a volume has inside it what the volume has there: the same synapses, scores and classes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.classifier.driver import OPTIONS
from pipelines.classifier.driver import program as classifier
from pipelines.common.boxes import Box
from pipelines.common.program import run
from pipelines.unsupervised import alignment
from pipelines.unsupervised.driver import program as unsupervised
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import Layout
from sandbox import stores
from sandbox.volumes import cortex
from tests.support import puncta, tissue

Array = NDArray[Any]


class Volume:
    """A volume on disk, of which boxes are run."""

    def __init__(self, folder: Path, channels: dict[str, Array], voxel_nm: tuple[float, float, float]) -> None:
        self.folder = folder
        self.shape = next(iter(channels.values())).shape
        self.place = stores.precomputed(folder / "volume", channels, voxel_nm=voxel_nm)
        self.told: Any = None
        self._whole: dict[tuple[str, float], tuple[list[dict[str, str]], Any]] = {}

    def whole(self, *, program: Any = unsupervised, false_discovery: float = 0.25) -> list[dict[str, str]]:
        """As `found` of the whole volume; run once, though several tests compare their box with it."""
        how = (program.__module__, false_discovery)
        if how not in self._whole:
            rows = self.found(program=program, false_discovery=false_discovery)
            self._whole[how] = rows, self.told
        rows, self.told = self._whole[how]
        return rows

    def found(
        self,
        box: Box | None = None,
        *,
        program: Any = unsupervised,
        in_blocks: bool = False,
        false_discovery: float = 0.25,
    ) -> list[dict[str, str]]:
        """The rows of a run of the box, or of the whole volume."""
        box = box or ((0, self.shape[0]), (0, self.shape[1]), (0, self.shape[2]))
        results = self.folder / f"{program.__module__}-{box}-{in_blocks}-{false_discovery}"
        err = io.StringIO()
        job = f"{results.as_uri()}/"
        words = ["--volume", self.place, "--volume-roots", self.folder.as_uri()]
        words += ["--false-discovery", str(false_discovery)]
        for axis, (start, stop) in zip("zyx", box, strict=True):
            words += [f"--{axis}-range", f"{start},{stop}"]
        stages = [["--results-uri", job]]
        if in_blocks:
            stage = ["--job-uri", job, "--block-voxels", "32000", "--stage"]
            stages = [
                [*stage, "first", "--results-uri", job],
                [*stage, "blocks", "--rounds", "1", "--results-uri", f"{job}blocks/1/"],
                [*stage, "merge", "--rounds", "1", "--results-uri", job],
            ]
        for last in stages:
            code = run(program, argv=[*words, *last], environ={}, err=err, options=OPTIONS)
            assert (code, err.getvalue()) == (0, "")
        self.told = json.loads((results / "results.json").read_text())
        self.crate = json.loads((results / "ro-crate-metadata.json").read_text())
        return list(csv.DictReader(io.StringIO((results / "synapses.csv").read_text())))


def said(rows: list[dict[str, str]], *, box: Box, above: float) -> dict[tuple[str, ...], tuple[str, str]]:
    """Place to score and class, of the synapses in a box that have a higher score.

    A voxel's place is that of its middle: it reaches half a voxel to either side.
    """
    return {
        tuple(row[axis] for axis in "zyx"): (row["score"], row["class"])
        for row in rows
        if float(row["score"]) > above
        and all(low <= float(row[axis]) + 0.5 < high for axis, (low, high) in zip("zyx", box, strict=True))
    }


def assert_same(volume: list[dict[str, str]], here: list[dict[str, str]], box: Box, *, many: int) -> None:
    """Which are kept follows the rate that was measured on what was looked at: those count that both kept.

    Scores are rounded in the file, so that of those with the lowest score either may lack some.
    """
    above = max(min(float(row["score"]) for row in rows) for rows in (volume, here))
    there, found = (said(rows, box=box, above=above) for rows in (volume, here))
    assert len(there) >= many
    assert found == there


def turned(section: Array, degrees: float, by: tuple[float, float]) -> Array:
    """A section turned round its corner, and shifted."""
    turn = np.radians(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(ndimage.affine_transform(section, matrix, by, order=1, mode="reflect"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """Every section lies off the last one, and each presynaptic one off the postsynaptic one, turned."""
    seen, draw = puncta.puncta(3, shape=(14, 640, 560)), np.random.default_rng(5)
    drift = np.cumsum(draw.normal(0, 0.2, 14))
    psd, synapsin = [], []
    for z, angle in enumerate(drift):
        off = (float(draw.integers(-8, 9)), float(draw.integers(-8, 9)))
        psd.append(turned(seen.psd[z], angle, (2.0 * z, -z)))
        synapsin.append(turned(turned(seen.synapsin[z], angle, (2.0 * z, -z)), 0.6, off))
    channels = {"PSD95": np.stack(psd), "Synapsin": np.stack(synapsin)}
    return Volume(tmp_path_factory.mktemp("drawn"), channels, puncta.VOXEL_NM)


@pytest.fixture(scope="module")
def tissue_volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    psd, synapsin = tissue.pictures("array_tomography")
    channels = {"PSD95": psd, "Synapsin": synapsin}
    return Volume(tmp_path_factory.mktemp("tissue"), channels, tissue.VOXEL_NM["array_tomography"])


@pytest.mark.parametrize(
    "box",
    [
        ((5, 9), (0, 120), (430, 560)),
        ((8, 14), (260, 420), (100, 300)),
        ((6, 7), (300, 640), (0, 200)),
    ],
)
def test_a_box_has_the_synapses_of_its_volume_where_sections_are_moved_back(drawn: Volume, box: Box) -> None:
    volume = drawn.whole()
    assert any("it was moved back" in note for note in drawn.told["notes"])

    here = drawn.found(box)

    assert any("it was moved back" in note for note in drawn.told["notes"])
    assert_same(volume, here, box, many=10)
    assert drawn.found(box, in_blocks=True) == here
    assert drawn.told["blocks"]["all"] > 1


def test_that_takes_whole_sections_which_the_checksum_says_as_well(
    drawn: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    box: Box = ((5, 9), (0, 120), (430, 560))
    volume = drawn.whole()
    drawn.found(box)
    inputs = [entity for entity in drawn.crate["@graph"] if "whole sections" in entity.get("description", "")]
    assert [entity["name"] for entity in inputs] == ["PSD95: postsynaptic", "Synapsin: presynaptic"]

    def no_wider(box: Box, sections: Box, *_: Any, **__: Any) -> Box:
        return sections

    monkeypatch.setattr(alignment, "registered_in", no_wider)
    here = drawn.found(box)

    assert not [entity for entity in drawn.crate["@graph"] if "whole sections" in entity.get("description", "")]
    with pytest.raises(AssertionError):
        assert_same(volume, here, box, many=10)


def test_a_box_has_the_classes_of_its_volume_where_channels_are_moved_back(tmp_path: Path) -> None:
    """GABAergic markers, which few synapses have, lie as many sections together say."""
    shape, draw = (44, 500, 440), np.random.default_rng(7)
    made = cortex(seed=14, shape=shape)
    channels = {name: made.bricks(name).read((0, 0, 0), shape) for name in made.channels}
    for name in sorted(set(channels) - {"PSD95"}):
        by = (float(draw.integers(-9, 10)), float(draw.integers(-9, 10)))
        channels[name] = np.stack([turned(section, 0.3, by) for section in channels[name]])
    volume, box = Volume(tmp_path, channels, made.voxel_nm), ((20, 36), (260, 400), (20, 200))

    there, here = volume.found(program=classifier), volume.found(box, program=classifier)

    assert_same(there, here, box, many=30)
    assert {"GABA", "non-GABA"} <= {row["class"] for row in here}


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """Two sections make a pixel."""
    made = cortex(seed=44, shape=(60, 300, 400))
    channels = {name: made.bricks(name).read((0, 0, 0), (60, 300, 400)) for name in made.channels}
    return Volume(tmp_path_factory.mktemp("thin"), channels, (30, 96, 96))


@pytest.mark.parametrize("start", [32, 33])
def test_a_box_of_thin_sections_has_the_classes_of_its_volume(thin: Volume, start: int) -> None:
    """A box may begin in the middle of a pixel."""
    box = ((start, 44), (50, 290), (50, 380))

    there, here = thin.whole(program=classifier), thin.found(box, program=classifier)

    assert_same(there, here, box, many=50)
    assert "not classified" not in {row["class"] for row in here}


def test_a_box_of_numbers_of_64_bits_has_the_synapses_of_its_volume(tmp_path: Path) -> None:
    """A camera's offset grows along y, so that the lowest numbers of a part are not those of the whole."""
    seen, draw = puncta.puncta(3, shape=(6, 640, 560)), np.random.default_rng(1)
    offset = 1000 + 20 * np.arange(640)[:, None] + draw.normal(0, 60, (6, 640, 560))
    deep = {
        name: (data * 200.0 + offset).astype(np.uint64)
        for name, data in (("PSD95", seen.psd), ("Synapsin", seen.synapsin))
    }
    volume, box = Volume(tmp_path, deep, puncta.VOXEL_NM), ((0, 3), (0, 150), (0, 150))

    assert_same(volume.found(false_discovery=0.9), volume.found(box, false_discovery=0.9), box, many=20)


@pytest.mark.tissue
@pytest.mark.parametrize("rate", [0.25, 0.9])
@pytest.mark.parametrize(
    "box",
    [
        ((2, 7), (301, 640), (200, 555)),
        ((0, 8), (0, 100), (0, 100)),
        ((4, 5), (200, 800), (50, 600)),
        ((7, 8), (0, 1024), (0, 672)),
    ],
)
def test_a_box_of_tissue_has_the_synapses_of_the_tissue(tissue_volume: Volume, box: Box, rate: float) -> None:
    """At a high rate many objects lie near one another, in rows that reach through many sections."""
    volume = tissue_volume.whole(false_discovery=rate)

    assert_same(volume, tissue_volume.found(box, false_discovery=rate), box, many=70)


def test_a_box_that_is_small_beside_its_sections_is_registered_by_tiles_of_whole_sections(
    drawn: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever sections are too large to be read for it."""
    monkeypatch.setattr("pipelines.unsupervised.registration.TILE_NM", 6000.0)
    monkeypatch.setattr("pipelines.unsupervised.registration.TILES", 4)
    monkeypatch.setattr("pipelines.unsupervised.registration.AROUND_NM", 500.0)
    box: Box = ((5, 9), (0, 120), (430, 560))
    volume = drawn.found()
    layout = Layout.of(drawn.shape[1:], Grid.of(puncta.VOXEL_NM))
    assert layout
    assert layout.alone

    here = drawn.found(box)

    assert any("it was moved back" in note for note in drawn.told["notes"])
    assert_same(volume, here, box, many=10)
