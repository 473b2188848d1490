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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from bot.domain.errors import Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Unclear, Work, at_once
from bot.files import records
from bot.files.arrays import Array
from bot.files.runs import NAME, SPOILED, check, disk, ended, folder_of, is_held, lock
from bot.local import supervise
from bot.local.confinement import Confinement, Limits, User, share_files
from bot.local.runs import VANISHED, has_vanished, look
from contract.program import INDEX_VARIABLE, TOKEN_VARIABLE

log = logging.getLogger(__name__)

_PASSED = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|OMP_NUM_THREADS"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY"
)
"""The variables that a program needs to run and to reach BOSS; it gets no other variable of the bot's."""
MAX_COUNT = 10_000
"""Programs of an array: as many as AWS Batch takes."""
_REST = "~"
"""In the queue, the number of all programs of an array that have no folder yet. It sorts after every number."""
_ATTEMPTS = 3
"""Starts of a run's supervisor, where it dies before it claims the run."""


class Tokens(Protocol):
    """Where a program's token is read when the program starts."""

    def get(self, reference: str) -> SecretStr:
        """The token. Raises NotFound, Refused or Unavailable."""


class LocalCompute:
    """Runs programs as subprocesses of this machine, at most `slots` at once; the others wait in order of submission.

    `folder` holds a folder for each run; `root` is the programs' working directory. The compute id is the work's name.
    An array has one place in the queue, and its programs take their turn there in the order of their numbers. Waiting
    programs are started by later calls of submit(), observe() or cancel(), in any process.

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
        self._arrays: dict[str, Array] = {}

    @property
    def max_count(self) -> int:
        """The largest array."""
        return MAX_COUNT

    @property
    def lasts(self) -> bool:
        """False: all work runs on the same machines."""
        return False

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        """Why such a program cannot run here: it has no command. The image does not matter."""
        return "" if command else "It has no program to run yet."

    def submit(self, work: Work, *, turn: Callable[[], None] = at_once) -> str:
        """Queue the program, and start programs while there is room. A name submitted before is not run again."""
        check(
            work,
            self.refuses(image=work.image, command=work.command),
            most=MAX_COUNT,
            place="here",
            exposed="every user of this machine can read it; it runs in a container only. Set NOMADS_COMPUTE=aws",
        )
        program, *arguments = work.command
        spec = {
            "argv": [sys.executable if program == "python3" else program, *arguments, *work.arguments],
            "timeout": work.timeout.total_seconds(),
            "grace": supervise.GRACE,
            "token": work.token,
            "results": _path(work.results),
        }
        turn()
        with disk("The folder of runs"), self._queue_lock():
            if not self._run(work.name).exists():
                if self._users and (shared := _path(work.shared)):
                    share_files(Path(shared))
                self._enqueue(work.name, spec, work.count)
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
            # Before the look at the queue: a run that has a folder has or had its place there.
            arrays = {name: array for name in known if (array := self._array(name)) and not ended(array.folder)}
            begun = {name: array.begun() for name, array in arrays.items()}
            children = {name: [f"{name}.{n}" for n in array.unsettled(begun[name])] for name, array in arrays.items()}
            runs = {one for name in known for one in children.get(name, [name])}
            looked, why = self._look_at(sorted(runs), unclear)
            for name in known:
                with _alone(name, unclear):
                    if name not in arrays:
                        seen |= {name: looked[name]} if name in looked else {}
                        continue
                    if doubt := next((unclear[one] for one in children[name] if one in unclear), ""):
                        unclear[name] = doubt
                        continue
                    of = {int(one.rpartition(".")[2]): looked[one] for one in children[name]}
                    seen[name] = arrays[name].observe(of, begun=begun[name], why=why)
        if unclear := {name: doubt for name, doubt in unclear.items() if name in known}:
            raise Unclear(next(iter(unclear.values())), ids=unclear, seen=seen)
        return seen

    def glance(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Empty: nothing costs less than `observe`."""
        return {}

    def _look_at(self, names: Sequence[str], unclear: dict[str, str]) -> tuple[dict[str, Observation], str]:
        """What each run's folder says, and why those wait that do. Ends what vanished, and starts what can start."""
        queued = {_run_of(place) for place in self._queue.iterdir()} if self._queue.is_dir() else set()
        for name in names:
            with _alone(name, unclear):
                if self._run(name).is_dir():
                    self._end_if_vanished(name, queued=name in queued)
        why = ""
        if self._queue.is_dir() and any(self._queue.iterdir()):
            with self._queue_lock():
                self._start_waiting()
                why = self._why_they_wait()
        seen: dict[str, Observation] = {}
        for name in names:
            with _alone(name, unclear):
                run = self._run(name)
                array = None if run.is_dir() else self._array(run.parent.name)
                seen[name] = array.waiting(why) if array else look(run, why, queued=name in queued)
        return seen, why

    def child(self, compute_id: str, number: int) -> str:
        """The compute id of one program of an array."""
        return f"{compute_id}.{number}"

    def children(self, compute_id: str, *, states: Collection[JobState] | None = None) -> Mapping[int, Observation]:
        """What the folder of each program says: a few files are read for each that may be in one of the states."""
        wanted = frozenset(JobState if states is None else states)
        with disk("The folder of runs"):
            array = self._array(compute_id) if self._knows(compute_id) else None
            if array is None:
                return {}
            numbers = [number for number in range(array.count) if array.may_be(number, wanted)]
        seen = self.observe([self.child(compute_id, number) for number in numbers])
        found = {number: seen.get(self.child(compute_id, number)) for number in numbers}
        return {number: one for number, one in found.items() if one and one.state in wanted}

    def _end_if_vanished(self, name: str, *, queued: bool) -> None:
        if has_vanished(self._run(name), queued=queued):
            with self._queue_lock(), lock(self._run(name) / "lock", wait=False) as held:
                if held is not None:
                    self._end_vanished(self._run(name))

    def cancel(self, compute_id: str, *, reason: str) -> None:
        """Ask for the end: a waiting run ends at once, a running one within seconds (SIGTERM, 5 s later SIGKILL)."""
        with disk("The folder of runs"):
            run = self._run(compute_id)
            if not self._knows(compute_id) or not run.is_dir() or ended(run):
                return
            records.write(run / "cancel", reason or "It was cancelled.")
            with self._queue_lock():
                self._start_waiting()

    def console(self, compute_id: str) -> str:
        """Empty: this machine has no such page."""
        return ""

    def _knows(self, name: str) -> bool:
        run = folder_of(self._folder, name)
        if run is None or run.is_dir() or run.parent == self._folder:
            return run is not None and run.is_dir()
        array = self._array(run.parent.name)
        return array is not None and int(run.name) < array.count

    def _run(self, name: str) -> Path:
        return folder_of(self._folder, name) or self._folder / ".none"

    def _name(self, run: Path) -> str:
        """The compute id of the run in that folder."""
        return run.relative_to(self._folder).as_posix().replace("/", ".")

    def _array(self, name: str) -> Array | None:
        """The array of that name; None: it is a single run, or there is none."""
        if name not in self._arrays:
            array = Array.read(self._folder / name) if NAME.fullmatch(name) else None
            if array is None:
                return None
            self._arrays[name] = array
        return self._arrays[name]

    @contextmanager
    def _queue_lock(self) -> Iterator[None]:
        """Hold the lock of the queue, which processes and threads share, for no longer than starting programs takes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._queue.mkdir(mode=0o700, exist_ok=True)
        self._slots.mkdir(mode=0o700, exist_ok=True)
        with lock(self._folder / ".lock", wait=True):
            yield

    def _enqueue(self, name: str, spec: Mapping[str, object], count: int | None) -> None:
        """Make the place in the queue of a run or an array, then its folder. A place without a folder is void."""
        place = name if count is None else f"{name}.{_REST}"
        (self._queue / f"{time.time_ns():020}.{place}").touch(mode=0o600)
        with self._new(self._folder / name) as new:
            records.write(new / "spec.json", json.dumps(spec))
            if count is not None:
                records.write(new / "count", str(count))

    @contextmanager
    def _new(self, folder: Path) -> Iterator[Path]:
        """A folder to fill, which is then moved to its place, whole or not at all."""
        new = self._folder / ".new"
        shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed here
        new.mkdir(mode=0o700)
        yield new
        new.rename(folder)

    def _start_waiting(self) -> None:
        room = True
        for place in sorted(self._queue.iterdir()):
            name, _, number = _run_of(place).partition(".")
            run = self._run(name)
            if not room and not (run / "cancel").exists():  # cheap: a long queue is scanned twice a second
                continue
            try:
                room = self._begin(place, run, room=room) if number == _REST else self._start_at(place, room=room)
            except OSError as error:  # the run keeps its place; the others are started
                log.warning("Run %s cannot be started now: %s.", run.name, error.strerror or type(error).__name__)

    def _start_at(self, place: Path, *, room: bool) -> bool:
        """Start or end the run that waits at this place; returns whether another may be started now."""
        run = self._run(_run_of(place))
        if not run.is_dir() or (run / "started").exists() or (run / "exit.json").exists():
            place.unlink()
            return room
        with lock(run / "lock", wait=False) as held:
            if held is None:  # a supervisor is about to claim the run
                return room
            if reason := records.cancelled(run):
                records.write_exit(run, code=None, reason=reason)
                return room
            return room and self._start(run, held)

    def _begin(self, place: Path, folder: Path, *, room: bool) -> bool:
        """Start programs of the array that waits at this place; returns whether another may be started now."""
        array = self._array(folder.name)
        if array is None or (folder / "cancel").exists() or (folder / "exit.json").exists():
            place.unlink()
            return room
        while room and (number := array.begun()) < array.count:
            if self._is_full():
                return False
            try:
                spec = array.spec(number)
            except (ValueError, KeyError, TypeError):
                records.write_exit(folder, code=None, reason=SPOILED, cause=Cause.UNKNOWN.value)
                break
            own = place.with_name(place.name.removesuffix(_REST) + str(number))
            own.touch(mode=0o600)
            with self._new(folder / str(number)) as new:
                records.write(new / "spec.json", json.dumps(spec))
                (new / "cancel").symlink_to("../cancel")
            room = self._start_at(own, room=room)
        else:
            if array.begun() < array.count:
                return room
        place.unlink()
        return room

    def _end_vanished(self, run: Path) -> None:
        """End what a killed supervisor left alive, then the run. The locks of queue and run are held."""
        if ended(run):  # another process was first
            return
        confinement = Confinement()
        for slot in self._slots.iterdir():
            name, _, told = slot.read_bytes().partition(b"\n")
            if name == self._name(run).encode():
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # spoiled: as the bot's user
                    confinement = Confinement.read(json.loads(told))
        supervise.end_leftovers(run, confinement)
        started, reason, cause = None, SPOILED, Cause.UNKNOWN
        if (run / "started").exists():
            started = (run / "started").stat().st_mtime
            if not (run / "exit.json").exists():
                reason, cause = VANISHED, Cause.MACHINE
        with contextlib.suppress(IsADirectoryError):  # in the place of exit.json; look() says the same of it
            records.write_exit(run, code=None, reason=reason, started=started, cause=cause.value)

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
                records.write_exit(run, code=None, reason=SPOILED, cause=Cause.UNKNOWN.value)
                return True
            except Refused as error:
                records.write_exit(run, code=None, reason=str(error), cause=Cause.SECRET.value)
                return True
            except Unavailable:
                return False  # the run stays queued until the token can be read
            attempts = os.fstat(lock).st_size  # one byte an attempt
            if attempts >= _ATTEMPTS:
                records.write_exit(run, code=None, reason="The program's supervisor could not be started.")
                return True
            os.ftruncate(slot, 0)
            os.pwrite(slot, f"{self._name(run)}\n{confinement}".encode(), 0)  # for whoever finds its supervisor killed
            with open(run / "supervisor.log", "ab", opener=records.private) as output:
                try:
                    child = subprocess.Popen(  # noqa: S603 - our own file, without a shell
                        [sys.executable, "-I", "-S", supervise.__file__, str(run), str(lock), confinement],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        cwd=self._root,
                        env=_environment(token, spec.get("index")),
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

    def _is_full(self) -> bool:
        return all(is_held(self._slots / str(number)) for number in range(self._count))

    def _why_they_wait(self) -> str:
        """Why runs wait, in words for a person; empty while there is room: the cause then passes by itself."""
        if not self._count or not self._is_full():
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


def _environment(token: SecretStr, index: int | None) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    own = {} if index is None else {INDEX_VARIABLE: str(index)}
    return passed | own | {"PYTHONUNBUFFERED": "1", TOKEN_VARIABLE: token.get_secret_value()}
