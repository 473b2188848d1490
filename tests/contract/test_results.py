"""Every Results keeps these promises: in memory, a folder of this machine, S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.results import PIECE, Part, ResultFile
from tests.contract.aws_rigs import AwsResultsRig
from tests.contract.rigs import LocalResultsRig, MemoryResultsRig, ResultsRig
from tests.support.aws import World

KEY = "nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512"
OUTSIDE = ["../secret", "../../secret", "a/../../secret", "../../{other}/secret", "/etc/passwd", "..", ""]


@pytest.fixture(params=["memory", "local", "aws"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, world: World) -> Iterator[ResultsRig]:
    match request.param:
        case "memory":
            yield MemoryResultsRig()
        case "local":
            yield LocalResultsRig(tmp_path)
        case "aws":
            yield AwsResultsRig(world)


@pytest.fixture
def folder(unique: str) -> str:
    """A job's results folder."""
    return f"{KEY}/{unique}"


@pytest.fixture
def other(unique: str) -> str:
    """The folder of another run of the same request."""
    return f"{KEY}/{unique}0"


def test_the_files_of_a_folder_are_listed_by_name_with_their_sizes(rig: ResultsRig, folder: str, other: str) -> None:
    rig.put(folder, "synapses.csv", b"z,y,x\n")
    rig.put(folder, "predictions/000.png", b"png")
    rig.put(folder, "results.json", b"")
    rig.put(other, "other.csv", b"not ours")

    assert rig.results.list(folder) == [
        ResultFile("predictions/000.png", 3),
        ResultFile("results.json", 0),
        ResultFile("synapses.csv", 6),
    ]


def test_a_folder_whose_name_begins_alike_is_another_folder(rig: ResultsRig, folder: str, other: str) -> None:
    rig.put(other, "other.csv", b"not ours")

    assert rig.results.list(folder) == []


def test_a_folder_that_nobody_wrote_is_empty(rig: ResultsRig, folder: str) -> None:
    assert rig.results.list(folder) == []


def test_a_file_is_read_whole(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "preview.png", bytes(range(256)))

    assert rig.results.read(folder, "preview.png", limit=256) == bytes(range(256))


def test_a_file_within_a_folder_within_is_read_by_its_path(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "predictions/000.png", b"png")

    assert rig.results.read(folder, "predictions/000.png", limit=100) == b"png"


@pytest.mark.parametrize(("start", "length"), [(0, 256), (0, 10), (250, 10), (255, 1), (256, 1), (999, 9), (3, 10**6)])
def test_a_part_of_a_file_is_given_with_the_size_of_the_whole(
    rig: ResultsRig, folder: str, start: int, length: int
) -> None:
    content = bytes(range(256))
    rig.put(folder, "image/one/0.shard", content)

    for _ in range(2):  # the second may be remembered
        assert rig.results.part(folder, "image/one/0.shard", start, length) == Part(
            content[start : start + length], 256
        )


def test_a_part_of_an_empty_file_is_empty_and_one_of_an_absent_file_is_not_found(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "empty", b"")

    assert rig.results.part(folder, "empty", 0, 10) == Part(b"", 0)
    with pytest.raises(NotFound):
        rig.results.part(folder, "absent", 0, 10)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_part_of_what_lies_outside_the_folder_is_not_found(
    rig: ResultsRig, folder: str, other: str, name: str
) -> None:
    rig.put(other, "secret", b"secret")

    with pytest.raises((NotFound, Refused)):
        rig.results.part(folder, name.format(other=other), 0, 10)


def test_an_empty_file_is_read(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "empty", b"")

    assert rig.results.read(folder, "empty", limit=0) == b""


def test_a_file_beyond_the_limit_is_refused(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "big", b"x" * 11)

    with pytest.raises(Refused, match="big") as refusal:
        rig.results.read(folder, "big", limit=10)
    assert not isinstance(refusal.value, NotFound)


def test_a_file_that_is_not_there_is_not_found(rig: ResultsRig, folder: str, other: str) -> None:
    rig.put(folder, "there", b"")

    with pytest.raises(NotFound):
        rig.results.read(folder, "results.json", limit=10)
    with pytest.raises(NotFound):
        rig.results.read(other, "there", limit=10)


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_the_folder_is_read(rig: ResultsRig, folder: str, other: str, name: str) -> None:
    rig.put(folder, "there", b"")
    rig.put(other, "secret", b"secret")
    rig.put(folder.split("/")[0], "secret", b"secret")

    with pytest.raises(NotFound):
        rig.results.read(folder, name.format(other=other), limit=100)


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_link_leads_outside_the_folder(rig: ResultsRig, folder: str, name: str) -> None:
    with pytest.raises(Refused):
        rig.results.link(folder, name.format(other=other))


def test_a_file_is_written_and_read_back(rig: ResultsRig, folder: str) -> None:
    rig.results.write(folder, "log.txt", iter([b"one\n", b"", b"two \xc2\xb5\n"]))
    rig.results.write(folder, "deep/empty.txt", [])

    assert rig.results.read(folder, "log.txt", limit=100) == "one\ntwo µ\n".encode()
    assert rig.results.list(folder) == [ResultFile("deep/empty.txt", 0), ResultFile("log.txt", 11)]


def test_a_file_written_again_takes_the_first_one_s_place(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "log.txt", b"a longer first content")

    rig.results.write(folder, "log.txt", [b"second"])

    assert rig.results.read(folder, "log.txt", limit=100) == b"second"
    assert rig.results.list(folder) == [ResultFile("log.txt", 6)]


@pytest.mark.parametrize("before", [0, 3, 20], ids=lambda count: f"after {count} MB")
def test_a_file_whose_content_breaks_off_is_not_there_and_harms_none(rig: ResultsRig, folder: str, before: int) -> None:
    def broken() -> Iterator[bytes]:
        for _ in range(before):
            yield b"x" * 2**20
        raise Unavailable("the log cannot be read any further")

    rig.put(folder, "old.txt", b"as it was")

    for name in ("new.txt", "old.txt"):
        with pytest.raises(Unavailable, match="any further"):
            rig.results.write(folder, name, broken())

    assert rig.results.list(folder) == [ResultFile("old.txt", 9)]
    assert rig.results.read(folder, "old.txt", limit=100) == b"as it was"


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_written_outside_the_folder(rig: ResultsRig, folder: str, other: str, name: str) -> None:
    rig.put(other, "secret", b"secret")

    with pytest.raises(Refused):
        rig.results.write(folder, name.format(other=other), [b"mine"])

    assert rig.results.list(folder) == []
    assert rig.results.read(other, "secret", limit=100) == b"secret"


def test_the_program_is_told_a_uri_that_ends_with_the_folder(rig: ResultsRig, folder: str) -> None:
    uri = rig.results.uri(folder)

    assert uri.startswith(("s3://", "file:///"))
    assert uri.endswith(f"/{folder}/")


def test_a_link_leads_to_the_file_whether_or_not_it_exists(rig: ResultsRig, folder: str) -> None:
    link = rig.results.link(folder, "a b#1?.csv")

    assert "a%20b%231%3F.csv" in link.url
    assert folder.split("/")[1] in link.url
    assert link.expires is None or link.expires.tzinfo is not None


def test_a_file_is_opened_with_its_size_and_read_in_pieces(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "predictions/big.npz", b"x" * (PIECE + 1))

    opened = rig.results.open(folder, "predictions/big.npz")

    assert opened.size == PIECE + 1
    assert [len(piece) for piece in opened.pieces()] == [PIECE, 1]


@pytest.mark.parametrize("name", ["absent.csv", *OUTSIDE])
def test_nothing_else_is_opened(rig: ResultsRig, folder: str, other: str, name: str) -> None:
    rig.put(folder, "there", b"")
    rig.put(other, "secret", b"secret")

    with pytest.raises(NotFound):
        rig.results.open(folder, name.format(other=other))


def test_a_store_that_serves_browsers_itself_says_where_and_for_how_long(rig: ResultsRig, folder: str) -> None:
    rig.put(folder, "report.html", b"<p>")

    link = rig.results.redirect(folder, "report.html")

    assert link is None or (link.url.startswith("https://") and link.expires is not None)
