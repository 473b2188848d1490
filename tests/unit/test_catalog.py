"""The catalogue of pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import NomadsError
from bot.domain.volume import Box, Range
from bot.settings import ROOT


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "pipeline.toml").write_text(text)


ENTRY = 'name = "one"\ntitle = "One"\ndescription = "The first."\n'


def test_every_folder_with_an_entry_is_a_pipeline(tmp_path: Path) -> None:
    write(tmp_path, "b", ENTRY)
    write(tmp_path, "a", ENTRY.replace("one", "two"))
    (tmp_path / "common").mkdir()
    assert [pipeline.name for pipeline in Catalog.read(tmp_path)] == ["one", "two"]


def test_the_project_s_own_entries_can_be_read() -> None:
    catalog = Catalog.read(ROOT / "pipelines")
    channels = {pipeline.name: pipeline.channels for pipeline in catalog}
    assert {"nomads-classifier": 8, "nomads-unsupervised": 2}.items() <= channels.items()


def test_settings_put_another_image_in_place(tmp_path: Path) -> None:
    write(tmp_path, "a", ENTRY)
    catalog = Catalog.read(tmp_path, images={"one": "registry.test/one:2"})
    assert [pipeline.image for pipeline in catalog] == ["registry.test/one:2"]


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        ENTRY + "colour = 1",
        ENTRY + "timeout = 5",
        ENTRY + "[limits]\nvoxels = 0",
        ENTRY.replace("one", "One Two"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    write(tmp_path, "a", text)
    with pytest.raises(NomadsError, match=r"a/pipeline\.toml"):
        Catalog.read(tmp_path)


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", ENTRY)
    write(tmp_path, "b", ENTRY)
    with pytest.raises(NomadsError, match="already a pipeline"):
        Catalog.read(tmp_path)


def test_a_pipeline_may_limit_its_boxes(tmp_path: Path) -> None:
    write(tmp_path, "a", ENTRY + "[limits]\nvoxels = 1000\n")
    assert [pipeline.limits.voxels for pipeline in Catalog.read(tmp_path)] == [1000]


def test_memory_grows_with_the_box() -> None:
    pipeline = Pipeline(name="p", title="", description="", memory=100, memory_per_voxel=24)
    assert pipeline.memory_for(Box(Range(0, 1), Range(0, 1), Range(0, 1))) == 101
    assert pipeline.memory_for(Box(Range(0, 64), Range(0, 1024), Range(0, 1024))) == 100 + 24 * 64
