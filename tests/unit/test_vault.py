"""Sealed tokens: what the database holds of them, and the key that opens them."""

from __future__ import annotations

import hmac
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from bot.domain.errors import NomadsError, NotFound, Refused
from bot.storage.keys import load_key
from tests.contract.rigs import TOKEN, VaultRig

KEY_OF_THEN = 703_828_950
"""The checksum of the key that the first release derives from that of the settings."""


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


def test_a_row_of_the_first_release_opens(vault: VaultRig) -> None:
    reference, nonce = vault.put("U1", SecretStr("demo-other")), bytes(range(12))
    cipher = AESGCM(hmac.digest(b"k" * 32, b"tokens", "sha256"))

    vault.overwrite(reference, nonce + cipher.encrypt(nonce, TOKEN.encode(), reference.encode()))

    assert vault.get(reference).get_secret_value() == TOKEN


def test_a_token_that_was_forgotten_is_told_to_be(vault: VaultRig) -> None:
    reference = vault.put("U1", SecretStr(TOKEN))
    vault.forget(reference)

    for unknown in (reference, "arn:of-another-keeper"):
        with pytest.raises(NotFound, match=r"^The BOSS token of this job was erased\.$"):
            vault.get(unknown)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_at_the_first_start_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data" / "key"
    before = os.umask(0)
    try:
        key = load_key(path, None)
    finally:
        os.umask(before)

    assert len(key) == 32
    assert load_key(path, None) == key
    assert (_mode(path), _mode(path.parent)) == (0o600, 0o700)
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_a_key_is_on_the_disk_and_hidden_beside_its_place_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []

    def sync(descriptor: int) -> None:
        synced.append(os.pread(descriptor, 100, 0))
        (made,) = tmp_path.iterdir()
        assert made.name.startswith(".key.")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "another disk"))
    key = load_key(tmp_path / "key", None)

    assert synced == [(tmp_path / "key").read_bytes()] == [f"{key.hex()}\n".encode()]


def test_a_key_that_another_process_makes_meanwhile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = bytes(range(32))
    monkeypatch.setattr(os, "fsync", lambda _: (tmp_path / "key").write_text(theirs.hex(), encoding="ascii"))

    assert load_key(tmp_path / "key", None) == theirs
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_key_that_was_put_back_by_hand_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{bytes(range(32)).hex()}\n\n", encoding="ascii")
    (tmp_path / "key").chmod(0o644)

    assert load_key(tmp_path / "key", None) == bytes(range(32))
    assert _mode(tmp_path / "key") == 0o600


@pytest.mark.parametrize(("place", "why"), [("folder", "Is a directory"), ("file/key", "File exists")])
def test_a_key_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(NomadsError) as caught:
        load_key(tmp_path / place, None)
    assert str(caught.value) == f"{tmp_path / place}: the key file cannot be used: {why}."


def test_all_who_make_the_key_at_the_same_moment_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: load_key(tmp_path / "key", None), range(32)))

    assert set(keys) == {keys[0]}


def test_a_key_in_the_settings_needs_no_file(tmp_path: Path) -> None:
    key = load_key(tmp_path / "key", SecretStr("demo-key-of-32-characters-length"))

    assert len(key) == 32
    assert key == load_key(tmp_path / "elsewhere", SecretStr("demo-key-of-32-characters-length"))
    assert key != load_key(tmp_path / "key", SecretStr("demo-key-of-32-characters-another"))
    assert zlib.crc32(key) == KEY_OF_THEN, "tokens that were saved could not be opened any more"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"00ff", b"not a key", b"\xff\xfe"])
def test_a_damaged_key_file_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """A new key would make every kept token unreadable without a word."""
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(NomadsError, match="does not hold a key"):
        load_key(tmp_path / "key", None)
    assert (tmp_path / "key").read_bytes() == content
