"""Compute on a cluster: one Slurm job for each Work, and one job array for an array.

Each Work has a folder, as on the bot's own machine; `script.py` and `bot/files/arrays.py` explain its files. The folder
says how a run ended for as long as it is there; Slurm forgets within minutes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from bot.domain.errors import NomadsError, Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Unclear, Work, at_once
from bot.files import records
from bot.files.arrays import Array
from bot.files.runs import NAME, check, disk, ended, folder_of, moment
from bot.slurm.commands import Commands, Unanswered
from bot.slurm.config import SlurmConfig
from bot.slurm.script import script
from bot.slurm.states import CAUSES, FORMAT, OPEN, OVER, Listed, read_queue, waiting

log = logging.getLogger(__name__)

LAG = 90.0
"""Seconds in which what a node wrote has to be seen here: clients of NFS look again after a minute at most."""
_FRESH = 60.0
"""Seconds from which on a folder whose submission Slurm never took is of no use, and its tokens are removed."""
SIGNALLED = 128
"""From here on a shell's exit code says that a signal ended the program."""
_FOLDER = "The folder of runs on the cluster"
_VANISHED = "The cluster no longer knows it, and it left no word of how it ended."
_EXPORTED = "HOME,USER,LANG"
"""The variables that reach a job beside Slurm's own. sbatch itself has no others of the bot's."""


class Tokens(Protocol):
    """Where a program's token is read when its job is submitted."""

    def get(self, reference: str) -> SecretStr:
        """The token. Raises NotFound, Refused or Unavailable."""


@dataclass(frozen=True, slots=True)
class _Finished:
    at: float
    code: int


class SlurmCompute:
    """The port Compute on one cluster. The compute id is the work's name.

    A round of `observe` is one squeue, whatever the number of jobs and of their programs. A submission that went
    unanswered is looked for by its name before it is made again, and a script that finds its program begun ends.
    """

    def __init__(
        self,
        *,
        config: SlurmConfig,
        tokens: Tokens,
        root: Path,
        commands: Commands | None = None,
        lag: float = LAG,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._folder = config.folder / "runs"
        self._tokens = tokens
        self._root = root.absolute()
        self._commands = commands or Commands(patience=config.patience)
        self._lag = lag
        self._clock = clock
        self._arrays: dict[str, Array] = {}
        self._puzzling: dict[Path, float] = {}  # since when a run's files and Slurm do not agree

    @property
    def max_count(self) -> int:
        """The largest array, by the setting."""
        return self._config.max_array

    @property
    def lasts(self) -> bool:
        """False: all work runs on the same machines."""
        return False

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        """Why such a program cannot run here: it has no command. The pipeline's own image does not matter."""
        return "" if command else "It has no program to run yet."

    def submit(self, work: Work, *, turn: Callable[[], None] = at_once) -> str:
        """Hand the work to Slurm. A name that Slurm took before is not submitted again."""
        check(
            work,
            self.refuses(image=work.image, command=work.command),
            most=self.max_count,
            place="on this cluster",
            exposed="every user of a node can read it; here only programs run that take it from their environment",
        )
        run = self._folder / work.name
        with disk(_FOLDER):
            if run.exists() and self.find(work.name):
                return work.name
            if not run.exists():
                self._make(run, work)
        try:
            turn()
            printed = self._commands.run("sbatch", *self._arguments(work), str(run / "script"))
            job = printed.strip().partition(";")[0]
            if not job.isdecimal():
                raise Unanswered("Slurm's answer does not say under which id it took the job.")
        except Unanswered:  # it may have been taken
            raise
        except NomadsError:
            shutil.rmtree(run, ignore_errors=True)
            raise
        with disk(_FOLDER):
            records.write(run / "job", job)
        return work.name

    def _make(self, run: Path, work: Work) -> None:
        """Make the run's folder, whole or not at all, with a token for each of its programs."""
        token = self._tokens.get(work.token).get_secret_value()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        new = self._folder / f".{work.name}.{os.getpid()}.{time.monotonic_ns()}"
        new.mkdir(mode=0o700)
        try:
            spec = {"timeout": work.timeout.total_seconds(), "token": work.token, "results": _path(work.results)}
            records.write(new / "spec.json", json.dumps(spec))
            records.write(new / "script", self._script(run, work))
            if work.count is not None:
                records.write(new / "count", str(work.count))
            for here in [new] if work.count is None else [new / str(number) for number in range(work.count)]:
                here.mkdir(mode=0o700, exist_ok=True)
                with open(here / "token", "x", encoding="utf-8", opener=records.private) as file:
                    file.write(token)
            if results := _path(work.results):
                _open_folder(Path(results))
            new.rename(run)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _sweep(self) -> None:
        """Remove what a process left that was killed while it made a folder: a token lies there."""
        for entry in os.scandir(self._folder):
            if entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > _FRESH:
                        shutil.rmtree(entry.path, ignore_errors=True)

    def _script(self, run: Path, work: Work) -> str:
        return script(
            run=run,
            is_array=work.count is not None,
            root=self._root,
            argv=[*work.command, *work.arguments],
            python=self._config.python or sys.executable,
            image=self._config.image,
            apptainer=self._config.apptainer,
            binds=self._config.folder,
        )

    def _arguments(self, work: Work) -> list[str]:
        config = self._config
        asked = [*config.arguments, "--parsable", "--no-requeue", f"--export={_EXPORTED}", "--chdir=/"]
        asked += [f"--job-name={work.name}", "--input=/dev/null", "--output=/dev/null", "--error=/dev/null"]
        asked += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={max(1, math.ceil(work.cpu))}", f"--mem={work.memory}M"]
        asked += [f"--time={max(1, math.ceil(work.timeout.total_seconds() / 60))}"]
        asked += [f"--partition={config.partition}"] if config.partition else []
        asked += [f"--account={config.account}"] if config.account else []
        asked += [f"--array=0-{work.count - 1}"] if work.count is not None else []
        return asked

    def find(self, name: str) -> str | None:
        """The name itself, where Slurm took the work; else None. Slurm is asked only about a submission in doubt."""
        run = self._folder / name
        with disk(_FOLDER):
            if not NAME.fullmatch(name) or not run.is_dir():
                return None
            if self._job(run):
                return name
            if time.time() - run.stat().st_mtime > _FRESH:  # nobody is about to submit it
                shutil.rmtree(run)
            return None

    def _job(self, run: Path) -> str:
        """The id of the run's Slurm job; empty: Slurm never took it."""
        with suppress(FileNotFoundError):
            return (run / "job").read_text(encoding="ascii").strip()
        begun = next(((run / one / "begun") for one in (".", "0") if (run / one / "begun").exists()), None)
        begun = begun or next(run.glob("*/begun"), None)
        if begun:
            job = begun.read_text(encoding="utf-8").split()[1]
        else:
            printed = self._commands.run(
                "squeue", "--noheader", "--states=all", f"--name={run.name}", f"--format={FORMAT}"
            )
            job = next((job for job, name in read_queue(printed) if name == run.name), "")
        if job:
            records.write(run / "job", job)
        return job

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What the runs' folders and squeue say. A run that Slurm has forgotten and that left no end is absent."""
        seen: dict[str, Observation] = {}
        unclear: dict[str, str] = {}
        with disk(_FOLDER):
            open_ = []
            for name in ids:
                if (run := folder_of(self._folder, name)) is None or not run.is_dir():
                    continue
                if end := ended(run):
                    seen[name] = end
                else:
                    open_.append(name)
            queue = self._queue() if open_ else {}
            for name in open_:
                with _alone(name, unclear):
                    if found := self._look(name, queue):
                        seen[name] = found
        if unclear:
            raise Unclear(next(iter(unclear.values())), ids=unclear, seen=seen)
        return seen

    def glance(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Empty: nothing costs less than `observe`."""
        return {}

    def _queue(self) -> Mapping[tuple[str, str], Mapping[int | None, Listed]]:
        """What Slurm says of all jobs of this user, by id and name; each program of an array is listed."""
        arguments = ("--noheader", "--states=all", f"--user={os.geteuid()}", f"--format={FORMAT}")
        return read_queue(self._commands.run("squeue", *arguments))

    def _look(self, name: str, queue: Mapping[tuple[str, str], Mapping[int | None, Listed]]) -> Observation | None:
        """What is seen of a run, of an array, or of one program of an array. None: nothing is known of it."""
        here = self._folder_of(name)
        run = here if here.parent == self._folder else here.parent
        listed = queue.get((self._job(run), run.name), {})
        if here != run:
            return self._see(here, run, listed.get(int(here.name)))
        if (array := self._array(name)) is None:
            return self._see(run, run, listed.get(None))
        seen: dict[int, Observation] = {}
        for number in array.unsettled(array.count):
            seen[number] = self._see(run / str(number), run, listed.get(number)) or Observation(JobState.STARTING)
        why = next((waiting(one.reason) for one in listed.values() if OPEN.get(one.state) is JobState.RUNNABLE), "")
        return array.observe(seen, begun=array.count, why=why)

    def _see(self, here: Path, run: Path, listed: Listed | None) -> Observation | None:
        """What is seen of one program, by its folder and by Slurm's line. Raises ValueError for an unknown state."""
        state = listed.state if listed else ""
        if listed and OPEN.get(state) is JobState.RUNNABLE:
            return Observation(JobState.RUNNABLE, waiting(listed.reason))
        if end := ended(here):
            return end
        finished = _finished(here)
        itself = finished is not None and finished.code < SIGNALLED and not _cancelled(here, run)
        if finished and (itself or state not in OPEN):
            # Who sent a signal is known once Slurm has said how the job ended.
            return self._conclude(here, run, state, finished)
        begun = _begun(here)
        if state in OPEN:
            if begun is None:
                return Observation(JobState.STARTING)
            return Observation(JobState.RUNNING, started_at=moment(begun))
        if state and state not in OVER:
            raise ValueError(f"Slurm says that it is {state[:40]}, which NOMADS does not know")
        if state in CAUSES or _cancelled(here, run):
            return self._conclude(here, run, state, None)
        # It ran and left no end, or nobody has heard of it: the node's files may be on their way.
        now = self._clock()
        late = now - self._puzzling.setdefault(here, now) >= self._lag
        if not state and here == run:
            if late:  # should it begin after all, it has no token
                (here / "token").unlink(missing_ok=True)
            return None
        return self._conclude(here, run, state, None) if late else _on_its_way(begun)

    def _conclude(self, here: Path, run: Path, state: str, finished: _Finished | None) -> Observation | None:
        """Record how the program ended, and give the record."""
        begun = _begun(here)
        stopped = finished.at if finished else time.time()
        reason, cause = self._why(here, run, state, finished, ran=stopped - begun if begun else 0)
        records.write_exit(
            here,
            code=finished.code if finished else None,
            reason=reason,
            started=begun,
            stopped=max(stopped, begun or 0),
            cause=cause.value if cause else None,
        )
        (here / "token").unlink(missing_ok=True)
        self._puzzling.pop(here, None)
        return ended(here)

    def _why(
        self, here: Path, run: Path, state: str, finished: _Finished | None, *, ran: float
    ) -> tuple[str, Cause | None]:
        """Why the program failed, and what made it; empty where it did not."""
        code = finished.code if finished else None
        itself = code is not None and code < SIGNALLED
        said = _cancelled(here, run)
        if said and (state == "CANCELLED" or (not itself and state not in CAUSES)):
            return said, Cause.UNKNOWN
        if state in CAUSES:
            return CAUSES[state]
        spec = json.loads((run / "spec.json").read_bytes())
        if code is None and state == "FAILED":
            where = self._config.folder
            return (
                f"Its script could not begin on its node. The folder {where} has to be on every node, at the same path "
                "and for the same user (NOMADS_SLURM_FOLDER).",
                Cause.SETUP,
            )
        if code is None:
            return _VANISHED, Cause.MACHINE
        if code >= SIGNALLED and ran >= spec["timeout"]:
            return CAUSES["TIMEOUT"]
        if code >= SIGNALLED:
            return records.explain(SIGNALLED - code, here / "log"), None
        return self._explain(code, here, spec["token"]), None

    def _explain(self, code: int, here: Path, reference: str) -> str:
        """Why a program failed that ended by itself. Its last line is told where the token can be hidden in it."""
        if code == 0:
            return ""
        try:
            secret = self._tokens.get(reference).get_secret_value()
        except NomadsError:
            return records.explain(code, here / "nothing")
        return records.explain(code, here / "log", secret=secret)

    def child(self, compute_id: str, number: int) -> str:
        """The compute id of one program of an array."""
        return f"{compute_id}.{number}"

    def children(self, compute_id: str, *, states: Collection[JobState] | None = None) -> Mapping[int, Observation]:
        """What is seen of each program: one squeue, and a few files for each that may be in one of the states."""
        wanted = frozenset(JobState if states is None else states)
        with disk(_FOLDER):
            array = self._array(compute_id) if NAME.fullmatch(compute_id) else None
            if array is None:
                return {}
            numbers = [number for number in range(array.count) if array.may_be(number, wanted)]
        seen = self.observe([self.child(compute_id, number) for number in numbers])
        found = {number: seen.get(self.child(compute_id, number)) for number in numbers}
        return {number: one for number, one in found.items() if one and one.state in wanted}

    def cancel(self, compute_id: str, *, reason: str) -> None:
        """End the job, by one scancel; of an array, that ends all programs. SIGTERM, and SIGKILL after KillWait."""
        run = folder_of(self._folder, compute_id)
        with disk(_FOLDER):
            if run is None or not run.is_dir() or self._has_ended(compute_id, run):
                return
            records.write(run / "cancel", reason or "It was cancelled.")
            top = run if run.parent == self._folder else run.parent
            if job := self._job(top):
                with suppress(Refused):  # it ended meanwhile, or Slurm has forgotten it
                    self._commands.run("scancel", job if top == run else f"{job}_{run.name}")

    def _has_ended(self, compute_id: str, run: Path) -> bool:
        """Whether the work has ended, as far as its own files say it; Slurm need not be there."""
        array = self._array(compute_id) if run.parent == self._folder else None
        of = [run] if array is None else [run / str(number) for number in array.unsettled(array.count)]
        return ended(run) is not None or all((here / "finished").exists() or ended(here) for here in of)

    def console(self, compute_id: str) -> str:
        """Empty: Slurm has no such page."""
        return ""

    def _folder_of(self, name: str) -> Path:
        return folder_of(self._folder, name) or self._folder / ".none"

    def _array(self, name: str) -> Array | None:
        if name not in self._arrays:
            array = Array.read(self._folder / name)
            if array is None:
                return None
            self._arrays[name] = array
        return self._arrays[name]


def is_over(run: Path) -> bool:
    """Whether the run has ended."""
    return ended(run) is not None


def _on_its_way(begun: float | None) -> Observation:
    """What is told of a program whose end is not seen yet."""
    return Observation(JobState.STARTING) if begun is None else Observation(JobState.RUNNING, started_at=moment(begun))


def _cancelled(here: Path, run: Path) -> str:
    """Why the program, or all of its array, is to be cancelled; empty: it is not."""
    return records.cancelled(here) or (records.cancelled(run) if here != run else "")


def _begun(here: Path) -> float | None:
    with suppress(FileNotFoundError, ValueError, IndexError):
        return float((here / "begun").read_text(encoding="utf-8").split()[0])
    return None


def _finished(here: Path) -> _Finished | None:
    with suppress(FileNotFoundError, ValueError):
        at, code = (here / "finished").read_text(encoding="utf-8").split()
        return _Finished(float(at), int(code))
    return None


def _path(uri: str) -> str:
    """The path in a file:// URI; empty for any other."""
    parts = urlsplit(uri)
    return unquote(parts.path).rstrip("/") if parts.scheme == "file" else ""


def _open_folder(folder: Path) -> None:
    """Make a run's folder of results, with its parents, so that nobody else writes there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir()
    folder.chmod(records.FOLDER_MODE)


@contextlib.contextmanager
def _alone(name: str, unclear: dict[str, str]) -> Iterator[None]:
    """Note what makes no sense of one run in `unclear`; the others are seen all the same."""
    try:
        yield
    except Unavailable:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = str(error) if isinstance(error, ValueError) and "Slurm" in str(error) else type(error).__name__
        unclear[name] = f"what Slurm or the files of its run say makes no sense: {said}"
