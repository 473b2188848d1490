"""What holds a program back on this machine: a user that is not the bot's, and limits.

`supervise.py` uses this module, so it imports the standard library and `contract` alone. Where it says Linux, other
systems do without.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import resource
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bot.files.records import FILE_MODE, FOLDER_MODE
from contract.program import dies_with

FIRST = 60600
"""Id of the first user of programs where root starts the bot and no setting names one: systems leave it unused."""
LAST = 2**32 - 2
"""The largest id of a user that Linux has; the one after it means none."""
OFF = "off"
"""What the setting says where programs are to run as the bot's user."""
SHARED_MODE = 0o644
"""Who may read what is shared with programs of other users: everybody who knows its name."""
PASSAGE_MODE = 0o711
"""A folder that other users may pass through and not list."""
_UMASK = 0o027
_RIGHTS = {0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 3: "CAP_FOWNER", 5: "CAP_KILL", 6: "CAP_SETGID", 7: "CAP_SETUID"}
"""What it takes to run a program as another user and to read what it left: <linux/capability.h>."""
_PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


@dataclass(frozen=True)
class Limits:
    """What one program may use. 0: no limit."""

    memory: int = 0
    """Bytes of memory of each of its processes (Linux)."""
    processes: int = 0
    """Processes and threads, where the program has a user of its own."""
    files: int = 0
    """Open files of each process."""
    disk: int = 0
    """Bytes of its results and its scratch folder together, and of any one file."""
    log: int = 0
    """Bytes that it may print."""


@dataclass(frozen=True)
class User:
    """A user that a program runs as."""

    uid: int
    gid: int


class Impossible(Exception):
    """Programs cannot run as another user; the text says why, in words for the admin."""


@dataclass(frozen=True)
class Confinement:
    """How a program is held back, as its supervisor is told on its command line."""

    user: User | None = None
    scratch: str = ""
    """The program's home and folder for temporary files, where it has a user of its own."""
    limits: Limits = field(default_factory=Limits)

    def told(self) -> dict[str, Any]:
        """What `read` reads."""
        return asdict(self)

    @classmethod
    def read(cls, told: dict[str, Any]) -> Confinement:
        """What `told` gave."""
        user = told["user"]
        return cls(User(**user) if user else None, told["scratch"], Limits(**told["limits"]))

    def begins(self, parent: int) -> Callable[[], None]:
        """A function for a new process to call before it becomes the program. It dies with its parent (Linux)."""
        dies = dies_with(parent)
        prctl = getattr(ctypes.CDLL(None), "prctl", None)
        limits = _kernel_limits(self.limits, alone=self.user is not None)

        def begin() -> None:
            os.umask(_UMASK)
            with contextlib.suppress(OSError):  # short of memory, the kernel is to end the program and not the bot
                Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
            for kind, most in limits:
                _, hard = resource.getrlimit(kind)
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(kind, (most, most))
            if self.user:
                become(self.user)
            if prctl:
                prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
                prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            dies()  # last: a change of user undoes it

        return begin


def _kernel_limits(limits: Limits, *, alone: bool) -> list[tuple[int, int]]:
    """The limits that the kernel holds. `alone`: no process of another program counts for the user."""
    # Not RLIMIT_AS: numerical libraries reserve addresses that they never use.
    kinds = [(resource.RLIMIT_DATA, limits.memory), (resource.RLIMIT_NOFILE, limits.files)]
    if limits.disk:
        kinds.append((resource.RLIMIT_FSIZE, max(limits.disk, limits.log)))
    if alone:
        kinds.append((resource.RLIMIT_NPROC, limits.processes))
    return [(resource.RLIMIT_CORE, 0)] + [(kind, most) for kind, most in kinds if most]  # a core holds the token


def become(user: User) -> None:
    """Make this process that user's, for good. Raises OSError where that cannot be."""
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)
    mine = (*os.getresuid(), *os.getresgid()) if hasattr(os, "getresuid") else (os.geteuid(), os.getegid())
    if set(mine) - {user.uid, user.gid} or os.geteuid() != user.uid:
        raise PermissionError("this process is still somebody else's")


def users(setting: str, places: int, *, reads: Sequence[Path]) -> list[User]:
    """A user for each place, so that no two programs that run at once share one. Raises Impossible.

    `setting` is the name or the id of the first one; the others have the ids that follow. Empty: FIRST.
    `reads` are what every program has to reach.
    """
    if setting == OFF:
        raise Impossible("NOMADS_LOCAL_USER is off")
    if missing := _missing_rights():
        raise Impossible(f"the bot is not root and lacks {missing}")
    first, gid = _first(setting)
    if first + places - 1 > LAST:
        raise Impossible(f"{places} places need {places} users, and ids of users end at {LAST}")
    found = [User(first + place, first + place if gid is None else gid) for place in range(places)]
    for user in found:
        if user.uid in (0, os.geteuid()):
            raise Impossible(f"user {user.uid} is root, or the bot itself")
        if owner := _account(user.uid):
            if user.uid == first and setting:
                continue
            raise Impossible(f"{places} places need {places} users, and user {user.uid} is {owner}'s already")
    for path in reads:
        if shut := _shut(path):
            raise Impossible(f"other users cannot enter {shut}, through which programs reach {path}")
    return found


def _first(setting: str) -> tuple[int, int | None]:
    if not setting:
        return FIRST, None
    if re.fullmatch(r"[0-9]{1,10}", setting):
        return int(setting), None
    try:
        account = pwd.getpwnam(setting)
    except KeyError:
        raise Impossible(f"this machine has no user {setting}") from None
    return account.pw_uid, account.pw_gid


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def _missing_rights() -> str:
    """The rights that a supervisor would lack, by name; empty where nothing is missing."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return "" if os.geteuid() == 0 else ", ".join(_RIGHTS.values())
    # What a program that is not root is to have after exec has to be ambient.
    kind = "CapEff:" if os.geteuid() == 0 else "CapAmb:"
    held = next((int(line.split()[1], 16) for line in lines if line.startswith(kind)), 0)
    return ", ".join(name for bit, name in _RIGHTS.items() if not held >> bit & 1)


def _shut(path: Path) -> str:
    """The first folder on the way to the path that others may not enter, or the path itself; empty: there is none."""
    for step in [*reversed([*path.parents, *path.resolve().parents]), path]:
        with contextlib.suppress(FileNotFoundError):
            if not step.stat().st_mode & stat.S_IXOTH:
                return str(step)
    return ""


def open_folder(folder: Path, user: User | None) -> None:
    """Make a run's folder of results, for its program to write. Folders above it may be passed through by others.

    What lies in it already, as the results of an array's programs do when they are merged, is the program's too.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if user:
        for step in folder.parents:
            if step.stat().st_mode & stat.S_IXOTH or step.stat().st_uid != os.geteuid():
                break
            step.chmod(PASSAGE_MODE)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if user:
            _give(descriptor, user)
            os.fchown(descriptor, user.uid, os.getegid())
        # The files in it belong to the bot's group.
        os.fchmod(descriptor, FOLDER_MODE | (stat.S_ISGID if user else 0))
    finally:
        os.close(descriptor)


def share_files(folder: Path) -> None:
    """Let other users read the bot's plain files right in a folder, for whoever knows their names."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
                os.chmod(entry.path, SHARED_MODE, follow_symlinks=False)


def _give(folder: int, user: User) -> None:
    """Give the user what lies in the folder and is this process's own."""
    for _, folders, files, directory in os.fwalk(".", dir_fd=folder):
        for name in [*folders, *files]:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            plain = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
            if plain and status.st_uid == os.geteuid():
                os.chown(name, user.uid, os.getegid(), dir_fd=directory, follow_symlinks=False)


def close_folder(folder: Path, *, uid: int | None) -> None:
    """Give the bot what the user left in the folder, readable by its group. Nothing of the program may be alive."""
    ours = {os.geteuid(), uid}
    for _, folders, files, descriptor in os.fwalk(folder, topdown=False):
        for name in [*folders, *files]:
            _settle(name, descriptor, ours)
    with contextlib.suppress(FileNotFoundError):
        _settle(str(folder), None, ours)


def _settle(name: str, directory: int | None, ours: set[int | None]) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    is_folder = stat.S_ISDIR(status.st_mode)
    # A link may be to a file of somebody else.
    if status.st_uid not in ours or not (is_folder or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)):
        return
    if status.st_uid != os.geteuid():
        os.chown(name, os.geteuid(), os.getegid(), dir_fd=directory, follow_symlinks=False)
    os.chmod(name, FOLDER_MODE if is_folder else FILE_MODE, dir_fd=directory)


def used(*folders: Path) -> int:
    """Bytes on disk of all that lies in the folders."""
    total = 0
    for folder in folders:
        for _, _, names, descriptor in os.fwalk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # the program is at work
                    total += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks * 512
    return total


def narrowed(path: Path, *, take: int) -> str:
    """Take these rights from the path, where it has them and is this process's own. Empty where it has none of them.

    Otherwise a sentence for the admin: what was done, or what the admin has to do.
    """
    try:
        status = path.stat()
    except OSError:  # there is none, or nobody reaches it
        return ""
    if not (wrong := stat.S_IMODE(status.st_mode) & take):
        return ""
    what = f"Other users of this machine, and so programs, could {'write to' if wrong & 0o022 else 'read'} {path}"
    with contextlib.suppress(OSError):
        if status.st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(status.st_mode) & ~take)
            return f"{what}; NOMADS has made it {stat.S_IMODE(path.stat().st_mode):o}."
    return f"{what}, which is not NOMADS's own to change: chmod {stat.S_IMODE(status.st_mode) & ~take:o} {path}"


def tighten(folder: Path, *, folders: int, files: int) -> None:
    """Give what lies in a folder these modes at most, once: files of versions before had the umask's.

    The folder's own mode comes last, and says that it was done.
    """
    if not folder.is_dir() or not stat.S_IMODE(folder.stat().st_mode) & ~PASSAGE_MODE & ~folders:
        return
    for _, names, others, descriptor in os.fwalk(folder, topdown=False):
        for name in [*names, *others]:
            with contextlib.suppress(OSError):  # it went, or is somebody else's
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                most = folders if stat.S_ISDIR(status.st_mode) else files
                if not stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid():
                    os.chmod(name, stat.S_IMODE(status.st_mode) & most, dir_fd=descriptor)
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) & folders)
