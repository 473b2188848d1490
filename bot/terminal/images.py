"""Has a checkout's images built, as `python -m deploy.images` does, and pushes them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from bot.domain.errors import NomadsError

SOURCES = ("Dockerfile", "deploy/bases.env", "requirements", "bot", "handlers", "contract", "volumes", "pipelines")
"""What the images are made of, within a checkout."""
_LEFT_OUT = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache"})


@dataclass(frozen=True)
class Image:
    """One image of a checkout."""

    name: str
    """`bot`, or the last part of a pipeline's name."""
    built: str
    """What `deploy.images` calls it."""


BOT = Image("bot", "nomads")
PROGRAMS = (Image("unsupervised", "nomads-unsupervised"), Image("classifier", "nomads-classifier"))


class ToolFailed(NomadsError):
    """An image could not be built or pushed; the text has the command."""


def tool(checkout: Path) -> str:
    """What builds and pushes here, `docker` or `buildah`; empty where neither does."""
    command = [sys.executable, "-m", "deploy.images", "--engine"]
    asked = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S603
    return asked.stdout.strip()


def content_tag(checkout: Path) -> str:
    """A tag that is the same for the same sources and another for others. Raises NomadsError without a checkout."""
    digest = hashlib.sha256()
    if missing := [name for name in SOURCES if not (checkout / name).exists()]:
        raise NomadsError(f"Images are built from a checkout, and {checkout} lacks {', '.join(missing)}.")
    for file in _files(checkout):
        digest.update(f"{file.relative_to(checkout)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _files(checkout: Path) -> Iterator[Path]:
    for name in SOURCES:
        root = checkout / name
        found = [root] if root.is_file() else sorted(root.rglob("*"))
        yield from (file for file in found if file.is_file() and not _LEFT_OUT & set(file.parts))


def build(python: str, image: Image, reference: str, *, platform: str) -> list[str]:
    """The command that builds an image in the root of a checkout; `platform` such as `linux/amd64`."""
    return [python, "-m", "deploy.images", image.built, "--platform", platform, "--tag", reference]


def push(program: str, reference: str) -> list[str]:
    """The command that pushes an image."""
    return [program, "push", reference]


def login(program: str, registry: str) -> list[str]:
    """The command that takes the registry's password on its stdin, where no other user of the machine reads it."""
    return [program, "login", "--username", "AWS", "--password-stdin", registry]


def publish(
    program: str,
    images: Sequence[tuple[Image, str, str]],
    *,
    checkout: Path,
    password: Callable[[], SecretStr],
    say: Callable[[str], None],
) -> None:
    """Build images, each with its reference and its platform, and push them. Raises ToolFailed.

    What the commands print goes to the terminal. The login is taken back at the end.
    """
    for image, reference, platform in images:
        say(f"building {reference}")
        _run(build(sys.executable, image, reference, platform=platform), checkout)
    registry = images[0][1].partition("/")[0]
    _run(login(program, registry), checkout, given=password())
    try:
        for _, reference, _ in images:
            say(f"pushing {reference}")
            _run(push(program, reference), checkout)
    finally:
        subprocess.run([program, "logout", registry], cwd=checkout, check=False, capture_output=True)  # noqa: S603


def _run(command: Sequence[str], checkout: Path, *, given: SecretStr | None = None) -> None:
    stdin = given.get_secret_value().encode() if given else b""
    try:
        ended = subprocess.run(command, cwd=checkout, input=stdin, check=False)  # noqa: S603
    except OSError as error:
        raise ToolFailed(f"{command[0]} cannot be started: {error.strerror}.") from None
    if ended.returncode:
        said = f"{' '.join(command)} failed (exit {ended.returncode}); what it printed says why."
        raise ToolFailed(f"{said} Mend that, and deploy again.")
