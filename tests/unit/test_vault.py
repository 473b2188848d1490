"""Sealed tokens: what the database holds of them, and the key that opens them."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.domain.errors import NomadsError, Refused
from bot.storage.vault import SealedSecrets, load_key
from tests.contract.rigs import TOKEN, MemoryRows


def test_a_sealed_token_cannot_be_read_in_the_database() -> None:
    rows = MemoryRows()
    secrets = SealedSecrets(key=b"k" * 32, rows=rows)

    one, two = secrets.put("U1", SecretStr(TOKEN)), secrets.put("U1", SecretStr(TOKEN))

    assert TOKEN.encode() not in b"".join(rows.rows.values())
    assert rows.rows[one] != rows.rows[two]


def test_a_row_moved_to_another_reference_does_not_open() -> None:
    rows = MemoryRows()
    secrets = SealedSecrets(key=b"k" * 32, rows=rows)
    mine, theirs = secrets.put("U1", SecretStr("demo-mine")), secrets.put("U2", SecretStr("demo-theirs"))

    rows.rows[mine] = rows.rows[theirs]

    with pytest.raises(Refused):
        secrets.get(mine)


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 60])
def test_a_damaged_row_does_not_open(damage: bytes) -> None:
    rows = MemoryRows()
    secrets = SealedSecrets(key=b"k" * 32, rows=rows)
    reference = secrets.put("U1", SecretStr(TOKEN))

    rows.rows[reference] = damage

    with pytest.raises(Refused):
        secrets.get(reference)


def test_another_key_does_not_open_a_token() -> None:
    rows = MemoryRows()
    reference = SealedSecrets(key=b"k" * 32, rows=rows).put("U1", SecretStr(TOKEN))

    with pytest.raises(Refused, match="another key") as refusal:
        SealedSecrets(key=b"o" * 32, rows=rows).get(reference)
    assert TOKEN not in str(refusal.value)


def test_a_key_is_made_at_the_first_start_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "data" / "key"

    key = load_key(path, None)

    assert len(key) == 32
    assert load_key(path, None) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_all_who_make_the_key_at_the_same_moment_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: load_key(tmp_path / "key", None), range(32)))

    assert set(keys) == {keys[0]}


def test_a_key_in_the_settings_needs_no_file(tmp_path: Path) -> None:
    key = load_key(tmp_path / "key", SecretStr("demo-key-of-32-characters-length"))

    assert len(key) == 32
    assert key == load_key(tmp_path / "elsewhere", SecretStr("demo-key-of-32-characters-length"))
    assert key != load_key(tmp_path / "key", SecretStr("demo-key-of-32-characters-another"))
    assert list(tmp_path.iterdir()) == []


def test_a_short_key_in_the_settings_is_refused_without_being_repeated(tmp_path: Path) -> None:
    with pytest.raises(NomadsError, match="NOMADS_SECRET_KEY") as refusal:
        load_key(tmp_path / "key", SecretStr("demo-short"))
    assert "demo-short" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"00ff", b"not a key", b"\xff\xfe"])
def test_a_damaged_key_file_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """A new key would make every kept token unreadable without a word."""
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(NomadsError, match="does not hold a key"):
        load_key(tmp_path / "key", None)
    assert (tmp_path / "key").read_bytes() == content
