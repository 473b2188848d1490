"""Ends processes of this machine: those of one run, whoever their parent is by now.

A program's processes can leave its group and its session, and lose their parent. They stay known in three ways: a
supervisor adopts them (Linux), they carry the run's mark in their environment (where there is /proc), and they are
their user's, where programs have users of their own. `supervise.py` uses this module, so it imports the standard
library and `contract` alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))

from bot.local.confinement import User, become

MARK = "NOMADS_RUN"
"""Variable in the environment of a program, and of the processes that it starts: the run's folder."""
PATIENCE = 10.0
"""Seconds that processes have to be gone after SIGKILL; one that hangs in the kernel may take longer."""
_PAUSE = 0.02
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_PROC = Path("/proc")


def adopt_orphans() -> None:
    """Make this process the parent of all its descendants that lose theirs (Linux)."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(but: int) -> None:
    """Take note of the end of children other than `but`, so that none stays as a zombie."""
    if not hasattr(os, "waitid"):  # nor does this system let a process adopt any
        return
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == but:
                return
            os.waitpid(ended.si_pid, 0)


def end_children(wait: Callable[[float], None]) -> None:
    """Kill the children of this process, and their children once they are adopted, until none is left."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            for pid in _pids():
                if _field(pid, "PPid:") == [str(os.getpid())]:
                    os.kill(pid, signal.SIGKILL)  # not yet reaped, so the number is nobody else's
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        wait(_PAUSE)


def end_marked(run: Path) -> None:
    """Kill every process that carries the run's mark and is this user's to see, until none is left (Linux)."""
    mark = f"{MARK}={run}\0".encode()
    _until_none(lambda: [pid for pid in _pids() if _kill_marked(pid, mark)])


def end_all_of(user: User) -> None:
    """Kill every process of that user, who is not this process's."""
    # One kill for all: a process that forks all the time would be gone when its turn came. It takes a process of that
    # user, which only a process without threads may become.
    command = [sys.executable, "-I", "-S", __file__, str(user.uid), str(user.gid)]

    def kill() -> list[int]:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)  # noqa: S603  our own file
        return [pid for pid in _pids() if _is_alive_and_of(pid, user.uid)]

    _until_none(kill)


def _until_none(kill: Callable[[], list[int]]) -> None:
    until = time.monotonic() + PATIENCE
    while kill() and time.monotonic() < until:
        time.sleep(_PAUSE)


def _pids() -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):  # no /proc
        for name in os.listdir(_PROC):
            if name.isdecimal():
                yield int(name)


def _field(pid: int, name: str) -> list[str]:
    """What a process's status says; empty where the process is gone."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(name):
                return line.split()[1:]
    return []


def _is_alive_and_of(pid: int, uid: int) -> bool:
    return str(uid) in _field(pid, "Uid:")[:3] and _field(pid, "State:")[:1] != ["Z"]


def _kill_marked(pid: int, mark: bytes) -> bool:
    """Whether the process carried the mark; then it has been sent SIGKILL."""
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)  # from here on the process is meant, even if its number is another's
        try:
            if mark in b"\0" + (_PROC / str(pid) / "environ").read_bytes():
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return True
        finally:
            os.close(process)
    return False


if __name__ == "__main__":
    become(User(int(sys.argv[1]), int(sys.argv[2])))
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # all but this process; a user without rights reaches nobody else's
