"""The catalogue of pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import NomadsError
from bot.settings import ROOT


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "pipeline.toml").write_text(text)


ROLES = 'a table of lists of text, such as postsynaptic = ["psd"]'
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
    ("text", "says"),
    [
        ("name = ", "this is no TOML: Invalid value (at end of document)."),
        (ENTRY + "colour = 1", "colour: there is no such field."),
        (ENTRY + "timeout = 5", "timeout: “5” cannot be used; it has to be a whole number from 60 to 31536000."),
        (
            ENTRY + 'timeout = "soon"',
            "timeout: “soon” cannot be used; it has to be a whole number from 60 to 31536000.",
        ),
        (ENTRY + "cpu = 0", "cpu: “0” cannot be used; it has to be a number above 0, 1024 at most."),
        (ENTRY.replace("command = ", "#") + "command = [1]", "command.1: “1” cannot be used; each has to be text."),
        (ENTRY + "limits = [1]", "limits: “[1]” cannot be used; it has to be a table."),
        (ENTRY + 'contract = "3"', "contract: “3” cannot be used; it has to be 2018, 1 or 2."),
        (
            ENTRY + "[limits]\nvoxels = 0",
            f"limits.voxels: “0” cannot be used; it has to be a whole number above 0, {10**15} at most.",
        ),
        (ENTRY + "[limits]\npixels = 1", "limits.pixels: there is no such field."),
        (ENTRY + 'roles = "psd"', f"roles: “psd” cannot be used; it has to be {ROLES}."),
        (ENTRY + "roles = { post = 1 }", f"roles.post: “1” cannot be used; it has to be {ROLES}."),
        (
            ENTRY.replace("One", "n" * 76),
            f"title: “{'n' * 59}…” cannot be used; it has to be text of 1 to 75 characters.",
        ),
        (
            ENTRY.replace("one", "One Two"),
            "name: “One Two” cannot be used; it has to be lower-case letters, digits and dashes, 63 at most, "
            "that begin with a letter or digit.",
        ),
        (ENTRY.replace('title = "One"', ""), "title: this is needed; it has to be text of 1 to 75 characters."),
    ],
)
def test_a_wrong_entry_is_told_with_file_and_field_and_what_is_allowed(tmp_path: Path, text: str, says: str) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    write(folder, "a", text)
    with pytest.raises(NomadsError) as caught:
        Catalog.read(folder)
    assert str(caught.value) == f"pipelines/a/pipeline.toml: {says}"


def test_all_mistakes_of_an_entry_are_told_at_once_a_line_each(tmp_path: Path) -> None:
    write(tmp_path, "a", "timeout = 5\n")
    with pytest.raises(NomadsError) as caught:
        Catalog.read(tmp_path)
    told = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert told == ["name", "title", "description", "timeout"]


def test_an_entry_that_is_no_text_is_told_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "a", "")
    (tmp_path / "a" / "pipeline.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(NomadsError, match=r"a/pipeline\.toml: this file cannot be read, or is no text in UTF-8\.$"):
        Catalog.read(tmp_path)


def test_a_folder_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NomadsError, match=r"^The folder of pipelines cannot be read: No such file or directory\.$"):
        Catalog.read(tmp_path / "nowhere")
    with pytest.raises(NomadsError, match=r"^The folder of pipelines cannot be read: File name too long\.$"):
        Catalog.read(tmp_path / ("x" * 5000))


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", ENTRY)
    write(tmp_path, "b", ENTRY)
    with pytest.raises(NomadsError, match="already a pipeline"):
        Catalog.read(tmp_path)


def test_a_pipeline_may_limit_its_boxes(tmp_path: Path) -> None:
    write(tmp_path, "a", ENTRY + "[limits]\nvoxels = 1000\n")
    assert [pipeline.limits.voxels for pipeline in Catalog.read(tmp_path)] == [1000]


def test_memory_grows_with_the_box() -> None:
    pipeline = Pipeline(name="p", title="p", description="", memory=100, memory_per_voxel=24)
    assert pipeline.memory_for(1) == 101
    assert pipeline.memory_for(64 * 1024 * 1024) == 100 + 24 * 64
