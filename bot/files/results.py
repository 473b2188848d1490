"""Results in a folder that the bot reaches. People reach it through the bot's web, or on the machine itself.

Programs write the folders, and a program is not trusted. So every part of a path is opened below the one before it and
no link is followed: what was checked is what is read, whatever a program puts in its place meanwhile.
"""

from __future__ import annotations

import errno
import os
import re
import secrets as entropy
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import cast
from urllib.parse import quote

from bot.domain.errors import NotFound, Refused
from bot.domain.results import Link, Opened, Part, ResultFile
from bot.files.records import FILE_MODE, FOLDER_MODE
from bot.files.runs import disk

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.unfinished")
"""Name of a file that is being written, or whose writer was killed: no result yet."""
_ITSELF = os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (FileNotFoundError, NotADirectoryError)
_IN_THE_WAY = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


class FolderResults:
    """The port Results in a folder."""

    def __init__(self, *, folder: Path, owners: Collection[int] = ()) -> None:
        """`owners` are the ids of users whose files are results too, beside those of the bot's own user."""
        self._root = folder.absolute()
        self._owners = owners

    def uri(self, folder: str) -> str:
        """The folder's URI, `file:///…/folder/`, percent-encoded."""
        return self._folder(folder).as_uri() + "/"

    def list(self, folder: str) -> list[ResultFile]:
        """The folder's files that can be opened, by name."""
        found: list[ResultFile] = []
        with disk("The results folder"), suppress(*_ABSENT), self._directory(_parts(folder)) as top:
            for directory, _, names, descriptor in os.fwalk(".", dir_fd=top):
                for name in (name for name in names if not _UNFINISHED.fullmatch(name)):
                    with suppress(FileNotFoundError):  # the program may still be at work
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        if self._is_result(status):
                            found.append(ResultFile(Path(directory, name).as_posix(), status.st_size))
        return sorted(found, key=lambda file: file.name)

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """The file's content. Raises NotFound where it is absent, Refused where it has more than `limit` bytes."""
        with disk("The results folder"), closing(self.open(folder, name).file) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise Refused(f"{name} has more than {limit} bytes.")
        return content

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
        *parents, last = [*_parts(folder), *_parts(name)]
        with disk("The results folder"):
            try:
                with self._directory(parents, make=True) as directory:
                    _write(directory, last, content)
            except OSError as error:
                if error.errno in _IN_THE_WAY:
                    raise Refused("Another file, folder or link is in the way of this result.") from None
                raise

    def open(self, folder: str, name: str) -> Opened:
        """Open a result, which its caller closes. Raises NotFound for all that is no result.

        A result is a regular file without other hard links, reached through no symbolic link, that belongs to the
        bot's user or to one that programs run as.
        """
        missing = NotFound(f"There is no file {name!r} in {folder!r}.")
        if not _stays_inside(folder) or not _stays_inside(name):
            raise missing
        *parents, last = [*_parts(folder), *_parts(name)]
        try:
            with self._directory(parents) as directory:
                # O_NONBLOCK: opening a pipe would wait for its writer.
                descriptor = os.open(last, os.O_RDONLY | os.O_NONBLOCK | _ITSELF, dir_fd=directory)
        except OSError:  # absent, too long, a link, or not to be read
            raise missing from None
        status = os.fstat(descriptor)
        if not self._is_result(status):
            os.close(descriptor)
            raise missing
        return Opened(status.st_size, os.fdopen(descriptor, "rb"), status)

    def part(self, folder: str, name: str, start: int, length: int) -> Part:
        """`length` bytes of a file from byte `start` on. Raises NotFound as `open` does."""
        opened = self.open(folder, name)
        with disk("The results folder"), closing(opened.file):
            return Part(os.pread(cast("BufferedReader", opened.file).fileno(), length, start), opened.size)

    def _is_result(self, status: os.stat_result) -> bool:
        # A hard link may be to any file of the disk, such as the bot's key.
        ours = status.st_uid == os.geteuid() or status.st_uid in self._owners
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and ours

    @contextmanager
    def _directory(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """The descriptor of a folder below the root, whose parts are opened one by one. Raises OSError."""
        if make:
            self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                made = make and _make(part, descriptor)
                within = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _ITSELF, dir_fd=descriptor)
                if made:
                    os.fchmod(within, FOLDER_MODE)  # the umask has its say in mkdir
                os.close(descriptor)
                descriptor = within
            yield descriptor
        finally:
            os.close(descriptor)

    def _folder(self, folder: str) -> Path:
        return self._root.joinpath(*_parts(folder))


def _make(name: str, directory: int) -> bool:
    try:
        os.mkdir(name, FOLDER_MODE, dir_fd=directory)
    except FileExistsError:
        return False
    return True


def _write(directory: int, name: str, content: Iterable[bytes]) -> None:
    temporary = f".{entropy.token_hex(8)}.unfinished"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _ITSELF, FILE_MODE, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def _parts(folder: str) -> list[str]:
    """The parts of a folder's name or a file's. Raises Refused where it leads out of the folder that it is in."""
    if not _stays_inside(folder):
        raise Refused("A results folder stays within the folder of all results.")
    return folder.split("/")


def _stays_inside(name: str) -> bool:
    """Whether a relative name with forward slashes has plain parts only."""
    return name.isprintable() and "\\" not in name and all(part not in ("", ".", "..") for part in name.split("/"))
