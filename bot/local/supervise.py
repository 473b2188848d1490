"""Runs one program for LocalCompute and outlives the bot: `python -I -S supervise.py RUN [LOCK CONFINEMENT]`.

RUN is a folder that LocalCompute made; CONFINEMENT is JSON that says what holds the program back. A process of this
module runs beside every program, so this module and those of this folder that it imports need only the standard library
and `contract`, and it starts without site-packages. At its end nothing of the run is alive: it adopts the program's
processes that lose their parent. Where the supervisor itself is killed, its guard (`guard.py`) ends what is left, and
where both are, LocalCompute ends what it can find.
The files in the folder are the whole state of a run:

| file        | written by  | says                                                                   |
|-------------|-------------|------------------------------------------------------------------------|
| `spec.json` | LocalCompute| `argv`, `timeout` and `grace` in seconds, the token's reference, the   |
|             |             | folder of results, and its number where it is of an array              |
| `lock`      | LocalCompute| held (flock) as long as the supervisor or its guard lives, and no      |
|             |             | program inherits it; a byte an attempt                                 |
| `started`   | supervisor  | the run was claimed; claimed once, so that no program is run twice     |
| `cancel`    | LocalCompute| end it; the content says why                                           |
| `log`       | the program | its output; at the end, the token is struck out of it                  |
| `log.times` | supervisor  | a line each time the log was seen to have grown: seconds since 1970,   |
|             |             | its size in bytes; so a line's time is the first one that covers it    |
| `exit.json` | supervisor  | `code`, `started`, `stopped` (seconds since 1970), `reason` of failure,|
|             |             | and its `cause`                                                        |

The token reaches the program in the environment this process was given, and nothing here writes it anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":
    # Started with -I -S, Python finds its own library only. The checkout comes last, so that it hides none of that.
    sys.path.append(str(Path(__file__).parents[2]))

from bot.files import records
from bot.local import guard, processes
from bot.local.confinement import Confinement, close_folder, open_folder, used
from contract import masking
from contract.program import TOKEN_VARIABLE

GRACE = 5.0
"""Seconds a program has to end between SIGTERM and SIGKILL."""
LOOKS = 0.2
"""Seconds between two looks for a cancellation and at the log's size (half a megabyte of notes an hour)."""
USE_LOOKS = 2.0
"""Seconds between two looks at how much disk a program uses, at least."""


class _Times:
    """Writes `log.times`. A disk that fails costs the times, not the run."""

    def __init__(self, run: Path) -> None:
        self._log = run / "log"
        self._size = 0
        self._at = 0.0
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(run / "log.times", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self) -> None:
        """Note the log's size and the time, if the log has grown."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            size = self._log.stat().st_size
            if size > self._size:
                self._size, self._at = size, max(self._at, time.time())  # times ascend even if the clock is put back
                os.write(self._file, b"%.3f %d\n" % (self._at, size))


def _claim(run: Path) -> bool:
    """Claim the run: True for one process in the life of a run, which runs the program."""
    try:
        os.close(os.open(run / "started", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _words(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"


def _size(count: int) -> str:
    return f"{count / 10**9:g} GB" if count >= 10**9 else f"{count / 10**6:g} MB"


class _Use:
    """Looks how much a program prints and writes, against its limits."""

    def __init__(self, run: Path, folders: Sequence[Path], confinement: Confinement) -> None:
        self._log = run / "log"
        self._folders = folders
        self._limits = confinement.limits
        self._next = time.monotonic()

    def too_much(self) -> str:
        """Why the program has to end; empty while it keeps to its limits, as far as can be seen."""
        limits = self._limits
        printed = 0
        with contextlib.suppress(OSError):  # somebody has moved the run's folder
            printed = self._log.stat().st_size
        if limits.log and printed > limits.log:
            return f"The program was ended: it printed more than its limit of {_size(limits.log)}."
        began = time.monotonic()
        if limits.disk and began >= self._next:
            disk = used(*self._folders)
            now = time.monotonic()
            self._next = now + max(USE_LOOKS, 20 * (now - began))  # a folder of very many files takes long to look at
            if disk > limits.disk:
                return f"The program was ended: its files take more than their limit of {_size(limits.disk)}."
        return ""


class _Signals:
    """Wakes a wait when a child ends or this process is asked to end."""

    def __init__(self) -> None:
        self.asked_to_end = False
        self._read, write_end = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.asked_to_end = True

    def wait(self, seconds: float) -> None:
        """Return at the next signal, or after that time."""
        if select.select([self._read], [], [], max(0.0, seconds))[0]:
            os.read(self._read, 4096)


def _run(run: Path, confinement: Confinement) -> None:
    spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
    signals = _Signals()
    if reason := records.cancelled(run):
        records.write_exit(run, code=None, reason=reason)
        return
    started, began = time.time(), time.monotonic()
    deadline = began + spec["timeout"]
    results, scratch = _folders(spec, confinement)
    if confinement.user:  # whoever ran in this place before
        processes.end_all_of(confinement.user)
    processes.adopt_orphans()
    if results:
        open_folder(results, confinement.user)
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
        open_folder(scratch, confinement.user)
    with open(run / "log", "ab", opener=records.private) as log:
        try:
            child = subprocess.Popen(  # noqa: S603 - an argument list from the catalogue, without a shell
                spec["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(run, scratch),
                start_new_session=True,
                preexec_fn=confinement.begins(os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            why = error.strerror if isinstance(error, OSError) else "its user or its limits cannot be set"
            reason = f"The program could not be started: {why}."
            records.write_exit(run, code=None, reason=reason, started=started, cause="setup")
            return

    reason, cause = "", None
    times, use = _Times(run), _Use(run, [folder for folder in (results, scratch) if folder], confinement)
    while child.poll() is None and not reason:
        times.note()
        processes.reap_orphans(but=child.pid)
        if reason := records.cancelled(run):
            cause = "unknown"
            continue
        if reason := use.too_much():
            cause = "setup"
            continue
        if time.monotonic() >= deadline:
            reason = f"The program was ended: it ran longer than its limit of {_words(spec['timeout'])}."
            cause = "time-limit"
        elif signals.asked_to_end:
            reason = "The program was ended with the machine or the service it ran under."
            cause = "machine"
        else:
            signals.wait(min(LOOKS, deadline - time.monotonic()))
    if reason:
        _signal_group(child.pid, signal.SIGTERM)
        patience = time.monotonic() + spec["grace"]
        while child.poll() is None and time.monotonic() < patience:
            signals.wait(min(LOOKS, patience - time.monotonic()))
            times.note()
    _signal_group(child.pid, signal.SIGKILL)  # the program, and whatever it left behind
    child.kill()  # it may have left its group
    code = child.wait()
    times.note()
    token = os.environ.get(TOKEN_VARIABLE, "")
    reason = reason or records.explain(code, run / "log", secret=token)
    end_leftovers(run, confinement, wait=signals.wait)
    with contextlib.suppress(OSError):  # a bad disk must not hide how the program ended
        masking.strike_out(run / "log", token)
    stopped = started + time.monotonic() - began  # how long it ran is right, also if the clock was set meanwhile
    records.write_exit(run, code=code, reason=reason, started=started, stopped=stopped, cause=cause)


def end_leftovers(run: Path, confinement: Confinement, *, wait: Callable[[float], None] | None = None) -> None:
    """Kill what is alive of a run whose program has ended or is to end, and give its results to the bot.

    `wait`: this process is the run's supervisor, and can wait so for its children.
    """
    if confinement.user:
        processes.end_all_of(confinement.user)
    if wait:
        processes.end_children(wait)
    else:
        processes.end_marked(run)
    with contextlib.suppress(OSError, ValueError):  # the run ends all the same
        spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
        results, scratch = _folders(spec, confinement)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        if results:
            close_folder(results, uid=confinement.user.uid if confinement.user else None)


def _folders(spec: Mapping[str, Any], confinement: Confinement) -> tuple[Path | None, Path | None]:
    """Where the run's results go, and its program's scratch; None: the program is told of no such folder."""
    results, scratch = spec.get("results", ""), confinement.scratch
    return Path(results) if results else None, Path(scratch) if scratch else None


def _environment(run: Path, scratch: Path | None) -> dict[str, str]:
    """This process's own, with the run's mark; the bot's home is nothing for another user."""
    environment = os.environ | {processes.MARK: str(run)}
    if scratch:
        environment = {name: value for name, value in environment.items() if name != "USER"}
        environment |= {"HOME": str(scratch), "TMPDIR": str(scratch)}
    return environment


def main(arguments: list[str]) -> int:
    """Supervise the run, unless another supervisor does or did. LOCK is the inherited descriptor of the lock."""
    os.umask(0o077)
    guard.begin()  # before the lock becomes this process's alone
    run = Path(arguments[0])
    confinement = Confinement()
    if len(arguments) > 1:
        os.set_inheritable(int(arguments[1]), False)  # held by this process and its guard alone
        confinement = Confinement.read(json.loads(arguments[2]))
    else:
        lock = os.open(run / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
    if (run / "exit.json").exists() or not _claim(run):
        return 0
    try:
        _run(run, confinement)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        processes.end_children(time.sleep)
        records.write_exit(run, code=None, reason=f"The program could not be supervised: {type(error).__name__}.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
