"""Compute on this machine: subprocesses.

The state of every run is on disk, so a bot that restarts finds its running programs again, and the command line and
the bot may share the folders. `supervise.py` runs beside each program, and explains the files of a run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from bot.domain.errors import Refused, Unavailable
from bot.domain.work import Cause, Observation, Unclear, Work
from bot.local import supervise
from bot.local.confinement import Confinement, Limits, User
from bot.local.runs import NAME, SPOILED, VANISHED, disk, ended, has_vanished, is_held, lock, look
from contract.program import TOKEN_VARIABLE

log = logging.getLogger(__name__)

_PASSED = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|OMP_NUM_THREADS"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY"
)
"""The variables that a program needs to run and to reach BOSS; it gets no other variable of the bot's."""
_ATTEMPTS = 3
"""Starts of a run's supervisor, where it dies before it claims the run."""


class Tokens(Protocol):
    """Where a program's token is read when the program starts."""

    def get(self, reference: str) -> SecretStr:
        """The token. Raises NotFound, Refused or Unavailable."""


class LocalCompute:
    """Runs programs as subprocesses of this machine, at most `slots` at once; the others wait in order of submission.

    `folder` holds a folder for each run; `root` is the programs' working directory. The compute id is the work's name.
    Waiting programs are started by later calls of submit(), observe() or cancel(), in any process.

    `users` are those that programs run as, one for each slot; empty: the bot's own. Such a program has a folder below
    `scratch` for its home and temporary files, as long as it runs.
    """

    def __init__(
        self,
        *,
        folder: Path,
        tokens: Tokens,
        root: Path,
        slots: int,
        users: Sequence[User] = (),
        limits: Limits | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._queue = self._folder / ".queue"
        self._slots = self._folder / ".slots"
        self._tokens = tokens
        self._root = root.absolute()
        self._count = slots
        self._users = users
        self._limits = limits or Limits()
        self._scratch = (scratch or folder.with_name("scratch")).absolute()

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        """Why such a program cannot run here: it has no command. The image does not matter."""
        return "" if command else "It has no program to run yet."

    def submit(self, work: Work) -> str:
        """Queue the program, and start programs while there is room. A name submitted before is not run again."""
        if problem := self.refuses(image=work.image, command=work.command):
            raise Refused(f"{work.pipeline}: {problem}")
        if work.token_argument:
            raise Refused(
                f"{work.pipeline} takes its BOSS token on the command line, where every user of this machine can read "
                "it; it runs in a container only. Set NOMADS_COMPUTE=aws."
            )
        if not NAME.fullmatch(work.name):
            raise Refused("A run's name has letters, digits, - and _, at most 128 of them.")
        program, *arguments = work.command
        spec = {
            "argv": [sys.executable if program == "python3" else program, *arguments, *work.arguments],
            "timeout": work.timeout.total_seconds(),
            "grace": supervise.GRACE,
            "token": work.token,
            "results": _path(work.results),
        }
        with disk("The folder of runs"), self._queue_lock():
            if not self._run(work.name).exists():
                self._enqueue(work.name, spec)
            self._start_waiting()
        return work.name

    def find(self, name: str) -> str | None:
        """The name itself, where it was submitted; else None."""
        with disk("The folder of runs"):
            return name if self._knows(name) else None

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What each run's folder says. A run whose supervisor was killed is FAILED, once nothing of it is alive."""
        seen: dict[str, Observation] = {}
        unclear: dict[str, str] = {}
        with disk("The folder of runs"):
            known = [name for name in ids if self._knows(name)]
            queued = {_run_of(place) for place in self._queue.iterdir()} if self._queue.is_dir() else set()
            for name in known:
                with _alone(name, unclear):
                    self._end_if_vanished(name, queued=name in queued)
            why = ""
            if self._queue.is_dir() and any(self._queue.iterdir()):
                with self._queue_lock():
                    self._start_waiting()
                    why = self._why_they_wait()
            for name in known:
                with _alone(name, unclear):
                    seen[name] = look(self._run(name), why, queued=name in queued)
        if unclear:
            raise Unclear(next(iter(unclear.values())), ids=unclear, seen=seen)
        return seen

    def _end_if_vanished(self, name: str, *, queued: bool) -> None:
        if has_vanished(self._run(name), queued=queued):
            with self._queue_lock(), lock(self._run(name) / "lock", wait=False) as held:
                if held is not None:
                    self._end_vanished(self._run(name))

    def cancel(self, compute_id: str, *, reason: str) -> None:
        """Ask for the end: a waiting run ends at once, a running one within seconds (SIGTERM, 5 s later SIGKILL)."""
        with disk("The folder of runs"):
            run = self._run(compute_id)
            if not self._knows(compute_id) or ended(run):
                return
            supervise.write(run / "cancel", reason or "It was cancelled.")
            with self._queue_lock():
                self._start_waiting()

    def console(self, compute_id: str) -> str:
        """Empty: this machine has no such page."""
        return ""

    def _knows(self, name: str) -> bool:
        return bool(NAME.fullmatch(name)) and self._run(name).is_dir()

    def _run(self, name: str) -> Path:
        return self._folder / name

    @contextmanager
    def _queue_lock(self) -> Iterator[None]:
        """Hold the lock of the queue, which processes and threads share, for no longer than starting programs takes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._queue.mkdir(mode=0o700, exist_ok=True)
        self._slots.mkdir(mode=0o700, exist_ok=True)
        with lock(self._folder / ".lock", wait=True):
            yield

    def _enqueue(self, name: str, spec: Mapping[str, object]) -> None:
        """Make the run's place in the queue, then its folder, whole or not at all. A place without a folder is void."""
        (self._queue / f"{time.time_ns():020}.{name}").touch(mode=0o600)
        new = self._folder / ".new"
        shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed here
        new.mkdir(mode=0o700)
        supervise.write(new / "spec.json", json.dumps(spec))
        new.rename(self._run(name))

    def _start_waiting(self) -> None:
        room = True
        for place in sorted(self._queue.iterdir()):
            run = self._run(_run_of(place))
            if not room and not (run / "cancel").exists():  # cheap: a long queue is scanned twice a second
                continue
            if not run.is_dir() or (run / "started").exists() or (run / "exit.json").exists():
                place.unlink()
                continue
            try:
                with lock(run / "lock", wait=False) as held:
                    if held is None:  # a supervisor is about to claim the run
                        continue
                    if reason := supervise.cancelled(run):
                        supervise.write_exit(run, code=None, reason=reason)
                    elif room:
                        room = self._start(run, held)
            except OSError as error:  # the run keeps its place; the others are started
                log.warning("Run %s cannot be started now: %s.", run.name, error.strerror or type(error).__name__)

    def _end_vanished(self, run: Path) -> None:
        """End what a killed supervisor left alive, then the run. The locks of queue and run are held."""
        if ended(run):  # another process was first
            return
        confinement = Confinement()
        for slot in self._slots.iterdir():
            name, _, told = slot.read_bytes().partition(b"\n")
            if name == run.name.encode():
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # spoiled: as the bot's user
                    confinement = Confinement.read(json.loads(told))
        supervise.end_leftovers(run, confinement)
        started, reason, cause = None, SPOILED, Cause.UNKNOWN
        if (run / "started").exists():
            started = (run / "started").stat().st_mtime
            if not (run / "exit.json").exists():
                reason, cause = VANISHED, Cause.MACHINE
        with contextlib.suppress(IsADirectoryError):  # in the place of exit.json; look() says the same of it
            supervise.write_exit(run, code=None, reason=reason, started=started, cause=cause.value)

    def _start(self, run: Path, lock: int) -> bool:
        """Start the run's supervisor; False: no other run should be tried now."""
        with self._free_slot() as (number, slot):
            if slot is None:
                return False
            self._end_previous(slot)
            confinement = json.dumps(self._confinement(number).told())
            try:
                spec = json.loads((run / "spec.json").read_bytes())
                token = self._tokens.get(spec["token"])
            except (ValueError, KeyError, TypeError):
                supervise.write_exit(run, code=None, reason=SPOILED, cause=Cause.UNKNOWN.value)
                return True
            except Refused as error:
                supervise.write_exit(run, code=None, reason=str(error), cause=Cause.SECRET.value)
                return True
            except Unavailable:
                return False  # the run stays queued until the token can be read
            attempts = os.fstat(lock).st_size  # one byte an attempt
            if attempts >= _ATTEMPTS:
                supervise.write_exit(run, code=None, reason="The program's supervisor could not be started.")
                return True
            os.ftruncate(slot, 0)
            os.pwrite(slot, f"{run.name}\n{confinement}".encode(), 0)  # for whoever finds its supervisor killed
            with open(run / "supervisor.log", "ab", opener=supervise.private) as output:
                try:
                    child = subprocess.Popen(  # noqa: S603 - our own file, without a shell
                        [sys.executable, "-I", "-S", supervise.__file__, str(run), str(lock), confinement],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        cwd=self._root,
                        env=_environment(token),
                        pass_fds=(lock, slot),  # held by the supervisor from its first moment to its last
                        start_new_session=True,
                    )
                except OSError:
                    return False  # no memory or process to spare: the run stays queued
            os.pwrite(lock, b".", attempts)
            threading.Thread(target=child.wait, name=f"reap {child.pid}", daemon=True).start()  # no zombies
            return True

    def _end_previous(self, slot: int) -> None:
        """End the run that had the slot before, where its supervisor was killed: the next one has the same user."""
        name = os.pread(slot, 4096, 0).decode().partition("\n")[0]
        if name and self._knows(name) and has_vanished(self._run(name)):
            with lock(self._run(name) / "lock", wait=False) as held:
                if held is not None:
                    self._end_vanished(self._run(name))

    def _confinement(self, slot: int) -> Confinement:
        if slot >= len(self._users):
            return Confinement(limits=self._limits)
        return Confinement(user=self._users[slot], scratch=str(self._scratch / str(slot)), limits=self._limits)

    @contextmanager
    def _free_slot(self) -> Iterator[tuple[int, int | None]]:
        """The number and the lock's descriptor of a slot that nothing runs in; None: there is none."""
        for number in range(self._count):
            with lock(self._slots / str(number), wait=False) as slot:
                if slot is not None:
                    yield number, slot
                    return
        yield -1, None

    def _why_they_wait(self) -> str:
        """Why runs wait, in words for a person; empty while there is room: the cause then passes by itself."""
        if not self._count or not all(is_held(self._slots / str(number)) for number in range(self._count)):
            return ""
        places = "The one place" if self._count == 1 else f"All {self._count} places"
        return (
            f"{places} for programs on this machine {'is' if self._count == 1 else 'are'} taken; it starts when one is "
            "free. Whoever runs NOMADS can raise NOMADS_LOCAL_SLOTS."
        )


@contextmanager
def _alone(name: str, unclear: dict[str, str]) -> Iterator[None]:
    """Note an OSError of the block in `unclear`, under the run's name: a program may have done it to its own files."""
    try:
        yield
    except OSError as error:
        unclear[name] = f"the files of its run cannot be used: {error.strerror or type(error).__name__}"


def _run_of(place: Path) -> str:
    """The name of the run that has this place in the queue."""
    return place.name.partition(".")[2]


def _path(uri: str) -> str:
    """The path in a file:// URI; empty for any other."""
    parts = urlsplit(uri)
    return unquote(parts.path).rstrip("/") if parts.scheme == "file" else ""


def _environment(token: SecretStr) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    return passed | {"PYTHONUNBUFFERED": "1", TOKEN_VARIABLE: token.get_secret_value()}
