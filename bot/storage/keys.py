"""The key that seals tokens: from the settings, or from a file that the first start makes."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets as entropy
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from bot.domain.errors import NomadsError


def derived(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose (HMAC-SHA256 of its name)."""
    return hmac.digest(key, purpose.encode(), "sha256")


def load_key(path: Path, given: SecretStr | None) -> bytes:
    """The key of 32 bytes: derived from `given` (scrypt), else read from the file, which the first call makes.

    Two processes that make the file at the same moment get the same key. Raises NomadsError in words for the admin.
    """
    if given is not None:
        return hashlib.scrypt(given.get_secret_value().encode(), salt=b"nomads secret key", n=2**14, r=8, p=1, dklen=32)
    try:
        if not path.exists():
            _make_key(path)
        path.chmod(0o600)  # a copy put back by hand has the umask's mode
        key = bytes.fromhex(path.read_bytes().decode())
    except OSError as error:
        raise NomadsError(f"{path}: the key file cannot be used: {error.strerror}.") from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise NomadsError(
            f"{path} does not hold a key. Put back the one that was there; without it, saved tokens are lost."
        )
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner only
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(entropy.token_bytes(32).hex().encode() + b"\n")
            os.fsync(descriptor)  # before tokens are sealed with it
        with suppress(FileExistsError):  # another process was first: its key is used
            Path(path).hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
