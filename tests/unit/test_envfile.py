"""What `deploy` writes into `.env`, and what it leaves there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from bot.domain.errors import NomadsError
from bot.terminal.envfile import HEADING, merge, value


def test_a_new_file_has_the_settings_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"

    assert merge(file, {"A": "1", "B": '{"x": "y z"}'}) == ["A", "B"]

    assert file.read_text() == f'{HEADING}\nA=1\nB={{"x": "y z"}}\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert dotenv_values(file) == {"A": "1", "B": '{"x": "y z"}'}


def test_what_is_there_stays_and_a_setting_is_changed_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\nSECRET='a # b'\n\nexport A = old\nC=3\n")

    assert merge(file, {"C": "3", "A": "new", "B": "2"}) == ["A", "B"]

    assert file.read_text() == f"# ours\nSECRET='a # b'\n\nA=new\nC=3\n\n{HEADING}\nB=2\n"


def test_the_last_of_several_lines_of_a_setting_is_changed_since_that_is_the_one_that_is_read(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nA=2\n")

    merge(file, {"A": "3"})

    assert file.read_text() == "A=1\nA=3\n"
    assert dotenv_values(file) == {"A": "3"}


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    merge(file, {"A": "1"})
    before = file.stat().st_ino

    assert merge(file, {"A": "1"}) == []

    assert file.stat().st_ino == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("A=1\n")
    (tmp_path / ".env").symlink_to(tmp_path / "kept")

    merge(tmp_path / ".env", {"A": "2"})

    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "kept").read_text() == "A=2\n"


def test_a_file_that_is_no_text_is_left_and_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(NomadsError, match="is no text in UTF-8; nothing was written"):
        merge(file, {"A": "1"})

    assert file.read_bytes() == b"\xff\xfe"


def test_a_folder_that_cannot_be_written_is_named_and_no_part_of_a_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(NomadsError, match="cannot be written"):
        merge(tmp_path / "missing" / ".env", {"A": "1"})

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("B=2\n", ""),
        ("A=1\nB=2\n", "1"),
        ("A=1\nA=2\n", "2"),
        (" export A = 'lab' # ours\n", "lab"),
        ('#A=0\nA="lab"', "lab"),
        ("A=\n", ""),
    ],
)
def test_a_setting_s_value_is_the_one_that_who_reads_the_settings_finds(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / ".env"
    file.write_text(text)

    assert value(file, "A") == said == (dotenv_values(file).get("A") or "")


def test_where_there_is_no_file_a_setting_has_no_value(tmp_path: Path) -> None:
    assert value(tmp_path / ".env", "A") == ""
