"""What results in a folder promise beyond their port: links that lead nowhere."""

from __future__ import annotations

import os
import stat
import tracemalloc
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.results import ResultFile
from bot.files.results import FolderResults
from tests.contract.rigs import LocalResultsRig

FOLDER = "nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512/a1b2c3"
OTHER = "nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512/a1b2c4"


@pytest.fixture
def results(tmp_path: Path) -> LocalResultsRig:
    rig = LocalResultsRig(tmp_path)
    rig.put(FOLDER, "synapses.csv", b"z,y,x\n")
    rig.put(OTHER, "secret", b"secret")
    return rig


@pytest.mark.parametrize("name", ["", ".", "..", "../a1b2c4/secret", "/etc/passwd", "a\0b", "x" * 5000, "a\\..\\b"])
def test_nothing_outside_its_folder_is_opened(results: LocalResultsRig, name: str) -> None:
    with pytest.raises(NotFound):
        results.results.open(FOLDER, name)


def test_without_a_web_a_file_is_found_on_the_machine_itself(tmp_path: Path) -> None:
    results = FolderResults(folder=tmp_path)

    assert results.uri(FOLDER) == f"{tmp_path.as_uri()}/{FOLDER}/"
    assert results.link(FOLDER, "a b.csv").url == f"{tmp_path.as_uri()}/{FOLDER}/a%20b.csv"


def test_symbolic_links_lead_nowhere_outside(results: LocalResultsRig) -> None:
    """A program is not to publish the machine's files, by mistake or otherwise."""
    folder = results.folder / FOLDER
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "sibling").symlink_to(results.folder / OTHER)
    (folder / "circle").symlink_to("circle")

    assert results.results.list(FOLDER) == [ResultFile("synapses.csv", 6)]
    for name in ("passwd", "sibling/secret", "circle"):
        with pytest.raises(NotFound):
            results.results.read(FOLDER, name, limit=10**6)


def test_a_link_in_the_folders_own_place_leads_nowhere(results: LocalResultsRig) -> None:
    (results.folder / f"{FOLDER}0").symlink_to(results.folder / OTHER)

    assert results.results.list(f"{FOLDER}0") == []
    with pytest.raises(NotFound):
        results.results.read(f"{FOLDER}0", "secret", limit=100)


def test_a_hard_link_to_another_file_of_the_machine_is_no_result(results: LocalResultsRig, tmp_path: Path) -> None:
    """It looks like a file of the folder's own: only its number of links tells."""
    (tmp_path / "secret.key").write_text("a key")
    (results.folder / FOLDER / "mine.csv").hardlink_to(tmp_path / "secret.key")

    assert results.results.list(FOLDER) == [ResultFile("synapses.csv", 6)]
    with pytest.raises(NotFound):
        results.results.read(FOLDER, "mine.csv", limit=100)
    with pytest.raises(NotFound):
        results.results.open(FOLDER, "mine.csv")


@pytest.mark.root
def test_a_file_of_somebody_else_is_no_result_unless_programs_run_as_that_user(tmp_path: Path) -> None:
    rig = LocalResultsRig(tmp_path)
    rig.put(FOLDER, "theirs", b"theirs")
    os.chown(rig.folder / FOLDER / "theirs", 61001, -1)
    others = FolderResults(folder=rig.folder, owners=range(61000, 61002))

    assert rig.results.list(FOLDER) == []
    with pytest.raises(NotFound):
        rig.results.read(FOLDER, "theirs", limit=10)
    assert others.list(FOLDER) == [ResultFile("theirs", 6)]
    assert others.read(FOLDER, "theirs", limit=10) == b"theirs"


def test_what_was_opened_is_what_is_read_whatever_takes_its_name(results: LocalResultsRig, tmp_path: Path) -> None:
    """A program may swap a file for a link between the look at it and its reading."""
    (tmp_path / "secret.key").write_text("a key")
    opened = results.results.open(FOLDER, "synapses.csv")
    (results.folder / FOLDER / "synapses.csv").unlink()
    (results.folder / FOLDER / "synapses.csv").symlink_to(tmp_path / "secret.key")

    assert b"".join(opened.pieces()) == b"z,y,x\n"
    assert opened.size == 6


def test_links_within_the_folder_are_not_followed_either(results: LocalResultsRig) -> None:
    """A link that is looked at and one that is followed a moment later need not be the same."""
    folder = results.folder / FOLDER
    results.put(FOLDER, "deep/there", b"there")
    (folder / "link").symlink_to("synapses.csv")
    (folder / "way").symlink_to("deep")

    for name in ("link", "way/there"):
        with pytest.raises(NotFound):
            results.results.read(FOLDER, name, limit=10)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_written_file_is_readable_by_its_owner_and_group_whatever_the_umask(
    results: LocalResultsRig, umask: int
) -> None:
    before = os.umask(umask)
    try:
        results.results.write(FOLDER, "deep/log.txt", [b"done\n"])
    finally:
        os.umask(before)

    written = results.folder / FOLDER / "deep/log.txt"
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o750
    assert [path.name for path in written.parent.iterdir()] == ["log.txt"]


def test_a_long_file_is_written_without_holding_it(results: LocalResultsRig) -> None:
    piece = b"x" * 2**20
    tracemalloc.start()
    try:
        results.results.write(FOLDER, "log.txt", repeat(piece, 64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (results.folder / FOLDER / "log.txt").stat().st_size == 64 * 2**20
    assert peak < 4 * 2**20


def test_an_unfinished_file_of_a_process_that_was_killed_is_no_result(results: LocalResultsRig) -> None:
    def killed() -> Iterator[bytes]:
        yield b"half"
        [unfinished] = [path for path in (results.folder / FOLDER).iterdir() if path.name != "synapses.csv"]
        unfinished.with_name(f".{'0' * 16}.unfinished").write_bytes(b"half")  # what a kill here would leave
        assert results.results.list(FOLDER) == [ResultFile("synapses.csv", 6)]

    results.results.write(FOLDER, "log.txt", killed())

    assert results.results.list(FOLDER) == [ResultFile("log.txt", 4), ResultFile("synapses.csv", 6)]


@pytest.mark.parametrize("name", ["log.txt", "deep/log.txt", "deep/er/log.txt"])
def test_nothing_is_written_through_a_link_in_a_folders_place(
    results: LocalResultsRig, tmp_path: Path, name: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (results.folder / f"{FOLDER}0").symlink_to(tmp_path / "elsewhere")
    (results.folder / FOLDER / "deep").symlink_to(tmp_path / "elsewhere")
    (results.folder / "circle").symlink_to("circle")

    for folder in (f"{FOLDER}0", "circle", "circle/a", *([FOLDER] if "/" in name else [])):
        with pytest.raises(Refused):
            results.results.write(folder, name, [b"mine"])

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_in_the_files_own_place_is_replaced_and_not_followed(results: LocalResultsRig, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (results.folder / FOLDER / "log.txt").symlink_to(tmp_path / "precious")

    results.results.write(FOLDER, "log.txt", [b"mine"])

    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert results.results.read(FOLDER, "log.txt", limit=10) == b"mine"


@pytest.mark.parametrize("name", ["synapses.csv/log.txt", "synapses.csv/deep/log.txt", "folder"])
def test_what_is_in_the_way_of_a_file_stays(results: LocalResultsRig, name: str) -> None:
    (results.folder / FOLDER / "folder").mkdir()

    with pytest.raises(Refused, match="in the way"):
        results.results.write(FOLDER, name, [b"mine"])

    assert results.results.list(FOLDER) == [ResultFile("synapses.csv", 6)]


def test_a_results_folder_that_cannot_be_written_is_unavailable(results: LocalResultsRig) -> None:
    with pytest.raises(Unavailable, match="results folder"):
        results.results.write(FOLDER, "x" * 300, [b"mine"])


def test_what_is_no_regular_file_is_not_read(results: LocalResultsRig) -> None:
    os.mkfifo(results.folder / FOLDER / "pipe")

    assert results.results.list(FOLDER) == [ResultFile("synapses.csv", 6)]
    with pytest.raises(NotFound):
        results.results.read(FOLDER, "pipe", limit=100)
