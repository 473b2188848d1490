"""Sealed tokens: what the database holds of them, and the key that opens them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.domain.errors import NomadsError, Refused
from bot.storage.keys import load_key
from tests.contract.rigs import TOKEN, VaultRig


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[VaultRig]:
    with VaultRig(tmp_path) as rig:
        yield rig


def test_a_sealed_token_cannot_be_read_in_the_database(vault: VaultRig) -> None:
    one, two = vault.put("U1", SecretStr(TOKEN)), vault.put("U1", SecretStr(TOKEN))

    assert TOKEN.encode() not in vault.sealed(one) + vault.sealed(two)
    assert vault.sealed(one) != vault.sealed(two)


def test_a_row_moved_to_another_reference_does_not_open(vault: VaultRig) -> None:
    mine, theirs = vault.put("U1", SecretStr("demo-mine")), vault.put("U2", SecretStr("demo-theirs"))

    vault.overwrite(mine, vault.sealed(theirs))

    with pytest.raises(Refused):
        vault.get(mine)


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 60])
def test_a_damaged_row_does_not_open(vault: VaultRig, damage: bytes) -> None:
    reference = vault.put("U1", SecretStr(TOKEN))

    vault.overwrite(reference, damage)

    with pytest.raises(Refused):
        vault.get(reference)


def test_another_key_does_not_open_a_token(vault: VaultRig) -> None:
    reference = vault.put("U1", SecretStr(TOKEN))

    with pytest.raises(Refused, match="another key") as refusal:
        vault.with_key(b"o" * 32).get(reference)
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


@pytest.mark.parametrize("content", [b"", b"00ff", b"not a key", b"\xff\xfe"])
def test_a_damaged_key_file_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """A new key would make every kept token unreadable without a word."""
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(NomadsError, match="does not hold a key"):
        load_key(tmp_path / "key", None)
    assert (tmp_path / "key").read_bytes() == content
