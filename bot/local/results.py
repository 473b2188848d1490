"""Results on this machine: a folder. People reach it through the bot's web, or on the machine itself."""

from __future__ import annotations

import os
import re
import secrets as entropy
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from bot.domain.errors import NotFound, Refused
from bot.domain.results import Link, Opened, ResultFile
from bot.local.runs import disk

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.unfinished")
"""Name of a file that is being written, or whose writer was killed: no result yet."""


class LocalResults:
    """The port Results in a folder of this machine."""

    def __init__(self, *, folder: Path) -> None:
        self._root = folder.absolute()

    def uri(self, folder: str) -> str:
        """The folder's URI, `file:///…/folder/`, percent-encoded."""
        return self._folder(folder).as_uri() + "/"

    def list(self, folder: str) -> list[ResultFile]:
        """The folder's regular files, by name; links are not followed."""
        top = self._folder(folder)
        found: list[ResultFile] = []
        with disk("The results folder"):
            if top.resolve() != self._root.resolve() / folder:  # a program has replaced its folder by a link
                return found
            for directory, _, names in os.walk(top):
                for path in (Path(directory, name) for name in names if not _UNFINISHED.fullmatch(name)):
                    with suppress(FileNotFoundError):  # the program may still be at work
                        status = path.lstat()
                        if stat.S_ISREG(status.st_mode):
                            found.append(ResultFile(path.relative_to(top).as_posix(), status.st_size))
        return sorted(found, key=lambda file: file.name)

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """The file's content. Raises NotFound where it is absent, Refused where it has more than `limit` bytes."""
        path = self._file(folder, name)
        with disk("The results folder"):
            try:
                with path.open("rb") as file:
                    content = file.read(limit + 1)
            except FileNotFoundError:
                raise NotFound(f"There is no file {name} in {folder}.") from None
        if len(content) > limit:
            raise Refused(f"{name} has more than {limit} bytes.")
        return content

    def open(self, folder: str, name: str) -> Opened:
        """The file, opened for reading. Raises NotFound where it is absent."""
        path = self._file(folder, name)
        with disk("The results folder"):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise NotFound(f"There is no file {name} in {folder}.") from None
            return Opened(os.fstat(file.fileno()).st_size, file)

    def link(self, folder: str, name: str) -> Link:
        """The file's `file://` URI. Raises Refused for a name that leads out of the folder."""
        if not _stays_inside(name):
            raise Refused("A result's name stays within its folder.")
        return Link(self.uri(folder) + quote(name))

    def redirect(self, folder: str, name: str) -> None:
        """None: only the bot can read its folder."""

    def write(self, folder: str, name: str, content: Iterable[bytes]) -> None:
        """Write the file beside its place, then move it there; a link in its place is replaced, not followed.

        Raises Refused for a name that leads out of the folder, and where links or other files are in the way.
        """
        if not _stays_inside(name):
            raise Refused("A result's name stays within its folder.")
        path = self._folder(folder) / name
        with disk("The results folder"):
            if any(
                step.is_symlink() for step in path.parents if step != self._root and step.is_relative_to(self._root)
            ):
                raise Refused("A link lies in the place of a results folder; nothing is written there.")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{entropy.token_hex(8)}.unfinished")
                try:
                    with temporary.open("xb") as file:
                        for piece in content:
                            file.write(piece)
                        file.flush()
                        os.fsync(file.fileno())
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
            except (FileExistsError, IsADirectoryError, NotADirectoryError):
                raise Refused("Another file or folder is in the way of this result.") from None

    def _folder(self, folder: str) -> Path:
        if not _stays_inside(folder):
            raise Refused("A results folder stays within the folder of all results.")
        return self._root / folder

    def _file(self, folder: str, name: str) -> Path:
        """The regular file of that name; links are followed inside the folder. Raises NotFound."""
        missing = NotFound(f"There is no file {name!r} in {folder!r}.")
        if not _stays_inside(folder) or not _stays_inside(name):
            raise missing
        try:
            top = self._root.resolve() / folder
            path = (top / name).resolve(strict=True)
        except (OSError, RuntimeError):  # absent, too long, or links in a circle
            raise missing from None
        if not path.is_relative_to(top) or not path.is_file():
            raise missing
        return path


def _stays_inside(name: str) -> bool:
    """Whether a relative name with forward slashes has plain parts only."""
    return name.isprintable() and "\\" not in name and all(part not in ("", ".", "..") for part in name.split("/"))
