"""Compute, Results and Secrets on this machine: subprocesses, a folder, and sealed rows in the database.

Everything that matters stands on disk, so a bot that restarts finds its running programs again, and the command line
and the bot may share the folders. `bot.supervise` runs beside each program and says which file of a run means what.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets as entropy
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from bot import supervise
from bot.jobs import FINAL, JobState, LogLine, NomadsError, NotFound, Observation, Refused, ResultFile, Unavailable
from bot.ports import Link, Secrets, Work

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_PASSED = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|OMP_NUM_THREADS"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY"
)
"""The environment a program needs to run and to reach BOSS. Whatever else the bot knows is not the program's."""
_ATTEMPTS = 3
"""How often a supervisor is started that dies before it claims its run."""
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.unfinished")
"""A result that is being written, or whose writer was killed: it is no result yet."""


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what} cannot be used: {error.strerror or type(error).__name__}.") from error


@contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[int | None]:
    """Hold the file's lock: its descriptor, or None where somebody else holds it and we do not wait."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield descriptor  # closing it lets go, unless a child process has inherited it
    finally:
        os.close(descriptor)


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class LocalCompute:
    """Runs programs as subprocesses of this machine, at most `slots` at once; the others wait in order of submission.

    `folder` keeps a folder for each run; `root` is the programs' working directory. The compute id is the work's name.
    Waiting programs are started by later calls of submit() or observe(), from whichever process.
    """

    def __init__(self, *, folder: Path, secrets: Secrets, root: Path, slots: int) -> None:
        self._folder = folder.absolute()
        self._queue = self._folder / ".queue"
        self._slots = self._folder / ".slots"
        self._secrets = secrets
        self._root = root.absolute()
        self._count = slots
        self.announcement = (
            f"Programs run on this machine itself, at most {slots} at once; they share its memory and processors "
            "with everything else here. Set NOMADS_COMPUTE=aws to run them on AWS Batch."
        )
        """What the log says at start, loudly."""

    def refuses(self, *, image: str, command: Sequence[str]) -> str:
        """Why such a program cannot run here: only one with a command can; the image does not matter."""
        return "" if command else "It has no program to run yet."

    def submit(self, work: Work) -> str:
        """Queue the program and start what there is room for. A name that was submitted before is not run again."""
        if problem := self.refuses(image=work.image, command=work.command):
            raise Refused(f"{work.pipeline}: {problem}")
        if work.token_argument:
            raise Refused(
                f"{work.pipeline} takes its BOSS token on the command line, where every user of this machine can read "
                "it; it runs in a container only. Set NOMADS_COMPUTE=aws."
            )
        if not _NAME.fullmatch(work.name):
            raise Refused("A run's name has letters, digits, - and _, at most 128 of them.")
        program, *arguments = work.command
        spec = {
            "argv": [sys.executable if program == "python3" else program, *arguments, *work.arguments],
            "timeout": work.timeout.total_seconds(),
            "grace": supervise.GRACE,
            "token": work.token,
        }
        with _disk("The folder of runs"), self._queue_lock():
            if not self._run(work.name).exists():
                self._enqueue(work.name, spec)
            self._start_waiting()
        return work.name

    def find(self, name: str) -> str | None:
        """The name itself, where it was submitted."""
        with _disk("The folder of runs"):
            return name if self._knows(name) else None

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What the run's folder says. A program that was killed together with its supervisor is FAILED."""
        with _disk("The folder of runs"):
            why = ""
            if self._queue.is_dir() and any(self._queue.iterdir()):
                with self._queue_lock():
                    self._start_waiting()
                    why = self._why_they_wait()
            return {i: self._look(self._run(i), why) for i in ids if self._knows(i)}

    def cancel(self, compute_id: str, *, reason: str) -> None:
        """Ask for the end: a waiting run ends at once, a running one within seconds (SIGTERM, 5 s later SIGKILL)."""
        with _disk("The folder of runs"):
            run = self._run(compute_id)
            if not self._knows(compute_id) or (run / "exit.json").exists():
                return
            supervise.write(run / "cancel", reason or "It was cancelled.")
            with self._queue_lock():
                self._start_waiting()

    def log_tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last lines, out of the last 64 KiB of the output; their times are a fifth of a second late at most."""
        if lines < 1 or not _NAME.fullmatch(compute_id):
            return []
        run = self._run(compute_id)
        with _disk("The folder of runs"):
            last = supervise.tail(run / "log")[-lines:]
            times = supervise.times(run, [end for _, end in last])
        return [LogLine(text, _moment(at)) for (text, _), at in zip(last, times, strict=True)]

    def log(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """The output as far as it had come when the first piece was asked for."""
        if not _NAME.fullmatch(compute_id):
            return
        with _disk("The folder of runs"):
            try:
                file = (self._run(compute_id) / "log").open("rb", buffering=0)
            except FileNotFoundError:
                return
        with file:
            left = os.fstat(file.fileno()).st_size  # a program that prints all the time must not keep us here
            while left > 0:
                with _disk("The folder of runs"):
                    piece = file.read(min(left, supervise.PIECE))
                if not piece:
                    return
                left -= len(piece)
                yield piece

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        """For a run that was killed together with its supervisor, which otherwise does it. Times stay as they are."""
        with _disk("The folder of runs"):
            if self._knows(compute_id) and self._look(self._run(compute_id)).state in FINAL:
                supervise.strike_out(self._run(compute_id) / "log", secret.get_secret_value())

    def console(self, compute_id: str) -> str:
        """None: there is no page about this machine."""
        return ""

    def _knows(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name)) and self._run(name).is_dir()

    def _run(self, name: str) -> Path:
        return self._folder / name

    @contextmanager
    def _queue_lock(self) -> Iterator[None]:
        """Hold what processes and threads share: the queue. Nobody holds it for longer than it takes to fork."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._queue.mkdir(mode=0o700, exist_ok=True)
        self._slots.mkdir(mode=0o700, exist_ok=True)
        with _lock(self._folder / ".lock", wait=True):
            yield

    def _enqueue(self, name: str, spec: Mapping[str, object]) -> None:
        """Make the run's folder, whole or not at all; its place in the queue first, which is void without a folder."""
        (self._queue / f"{time.time_ns():020}.{name}").touch(mode=0o600)
        new = self._folder / ".new"
        shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed here
        new.mkdir(mode=0o700)
        supervise.write(new / "spec.json", json.dumps(spec))
        new.rename(self._run(name))

    def _start_waiting(self) -> None:
        room = True
        for place in sorted(self._queue.iterdir()):
            run = self._run(place.name.partition(".")[2])
            if not room and not (run / "cancel").exists():  # a long queue is looked through twice a second
                continue
            if not run.is_dir() or (run / "started").exists() or (run / "exit.json").exists():
                place.unlink()
                continue
            with _lock(run / "lock", wait=False) as lock:
                if lock is None:  # its supervisor is about to claim it
                    continue
                if reason := supervise.cancelled(run):
                    supervise.write_exit(run, code=None, reason=reason)
                elif room:
                    room = self._start(run, lock)

    def _start(self, run: Path, lock: int) -> bool:
        """Start the run's supervisor; False: no other one should be tried now."""
        with self._free_slot() as slot:
            if slot is None:
                return False
            spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
            try:
                token = self._secrets.get(spec["token"])
            except Refused as error:
                supervise.write_exit(run, code=None, reason=str(error))
                return True
            except Unavailable:
                return False  # what was submitted stays queued, and is started when the token can be read
            attempts = os.fstat(lock).st_size  # one byte each
            if attempts >= _ATTEMPTS:
                supervise.write_exit(run, code=None, reason="The program's supervisor could not be started.")
                return True
            with (run / "supervisor.log").open("ab") as output:
                try:
                    child = subprocess.Popen(  # noqa: S603 - our own file, without a shell
                        [sys.executable, "-I", "-S", supervise.__file__, str(run), str(lock)],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        cwd=self._root,
                        env=_environment(token),
                        pass_fds=(lock, slot),  # held by the supervisor from its first moment to its last
                        start_new_session=True,
                    )
                except OSError:
                    return False  # no memory or process to spare: it stays queued
            os.pwrite(lock, b".", attempts)
            threading.Thread(target=child.wait, name=f"reap {child.pid}", daemon=True).start()  # no zombies
            return True

    @contextmanager
    def _free_slot(self) -> Iterator[int | None]:
        for number in range(self._count):
            with _lock(self._slots / str(number), wait=False) as slot:
                if slot is not None:
                    yield slot
                    return
        yield None

    def _why_they_wait(self) -> str:
        """What holds up runs that wait; empty where there is room, so that it is something that passes by itself."""
        if not self._count or not all(_is_held(self._slots / str(number)) for number in range(self._count)):
            return ""
        places = "The one place" if self._count == 1 else f"All {self._count} places"
        return (
            f"{places} for programs on this machine {'is' if self._count == 1 else 'are'} taken; it starts when one is "
            "free. Whoever runs NOMADS can raise NOMADS_LOCAL_SLOTS."
        )

    def _look(self, run: Path, why_it_waits: str = "") -> Observation:
        if ended := _ended(run):
            return ended
        alive = _is_held(run / "lock")
        try:
            started = _time((run / "started").stat().st_mtime)
        except FileNotFoundError:
            return Observation(JobState.STARTING) if alive else Observation(JobState.RUNNABLE, why_it_waits)
        if alive:
            return Observation(JobState.RUNNING, started_at=started)
        return _ended(run) or Observation(  # it may have ended between the two looks
            JobState.FAILED,
            "The program vanished: it or its supervisor was killed, or this machine restarted.",
            started_at=started,
        )


def _environment(token: SecretStr) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    return passed | {"PYTHONUNBUFFERED": "1", "BOSS_TOKEN": token.get_secret_value()}


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)


def _ended(run: Path) -> Observation | None:
    try:
        ended = json.loads((run / "exit.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Observation(
        JobState.SUCCEEDED if ended["code"] == 0 and not ended["reason"] else JobState.FAILED,
        ended["reason"],
        exit_code=ended["code"],
        started_at=_moment(ended["started"]),
        stopped_at=_time(ended["stopped"]),
    )


class LocalResults:
    """Results in a folder of this machine.

    An address under `base_url` holds a signature of its folder: whoever has the link can read that folder and no other.
    Without a base URL addresses are `file://` URIs.
    """

    def __init__(self, *, folder: Path, base_url: str, key: bytes) -> None:
        self._root = folder.absolute()
        self._base_url = base_url.rstrip("/")
        self._key = key

    def uri(self, folder: str) -> str:
        """`file:///…/folder/`, percent-encoded."""
        return self._folder(folder).as_uri() + "/"

    def address(self, folder: str) -> str:
        """`{base_url}/results/{signature}/{folder}/`: relative links below it keep working."""
        if not self._base_url:
            return self.uri(folder)
        self._folder(folder)
        return f"{self._base_url}/results/{self.signature(folder)}/{quote(folder)}/"

    def list(self, folder: str) -> list[ResultFile]:
        """The regular files, by name; links are not followed."""
        top = self._folder(folder)
        found: list[ResultFile] = []
        with _disk("The results folder"):
            if top.resolve() != self._root.resolve() / folder:  # a program put a link in its folder's place
                return found
            for directory, _, names in os.walk(top):
                for path in (Path(directory, name) for name in names if not _UNFINISHED.fullmatch(name)):
                    with suppress(FileNotFoundError):  # the program may still be at work
                        status = path.lstat()
                        if stat.S_ISREG(status.st_mode):
                            found.append(ResultFile(path.relative_to(top).as_posix(), status.st_size))
        return sorted(found, key=lambda file: file.name)

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """The file's bytes, never more than `limit`."""
        path = self._file(folder, name)
        with _disk("The results folder"):
            try:
                with path.open("rb") as file:
                    content = file.read(limit + 1)
            except FileNotFoundError:
                raise NotFound(f"There is no file {name} in {folder}.") from None
        if len(content) > limit:
            raise Refused(f"{name} has more than {limit} bytes.")
        return content

    def link(self, folder: str, name: str) -> Link:
        """The file's address below the folder's. Raises Refused for a name that leads out of the folder."""
        if not _stays_inside(name):
            raise Refused("A result's name stays within its folder.")
        return Link(self.address(folder) + quote(name))

    def write(self, folder: str, name: str, content: Iterable[bytes]) -> None:
        """Written beside its place and then moved there. Raises Refused also where links or other files are in the way.

        A link in the file's own place is replaced, not followed.
        """
        if not _stays_inside(name):
            raise Refused("A result's name stays within its folder.")
        path = self._folder(folder) / name
        with _disk("The results folder"):
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

    def signature(self, folder: str) -> str:
        """What lets its bearer read that folder: 32 hexadecimal digits."""
        return hmac.digest(self._key, b"results:" + folder.encode(), "sha256").hex()[:32]

    def admits(self, signature: str, folder: str) -> bool:
        """Whether that is the folder's signature; takes as long for any wrong one."""
        return hmac.compare_digest(self.signature(folder).encode(), signature.encode(errors="replace"))

    def open(self, signature: str, folder: str, name: str) -> Path:
        """The file behind an address. Raises NotFound, without saying why, if it is absent or the signature wrong."""
        if not self.admits(signature, folder):
            raise NotFound("There is no such file.")
        return self._file(folder, name)

    def _folder(self, folder: str) -> Path:
        if not _stays_inside(folder):
            raise Refused("A results folder stays within the folder of all results.")
        return self._root / folder

    def _file(self, folder: str, name: str) -> Path:
        """The regular file of that name, wherever links lead as long as they stay inside the folder."""
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


class SecretRows(Protocol):
    """Where sealed tokens are kept; the store has it. Raises Unavailable."""

    def put_secret(self, reference: str, owner: str, sealed: bytes) -> None:
        """Keep a new row."""

    def get_secret(self, reference: str) -> bytes | None:
        """What was sealed, if it is there."""

    def delete_secret(self, reference: str) -> None:
        """Erase the row, if there is one."""


class SealedSecrets:
    """Tokens sealed with AES-256-GCM in the database; each is bound to its reference, so rows cannot be swapped.

    `key` has 32 bytes or more, from load_key().
    """

    _PREFIX = "sealed:"

    def __init__(self, *, key: bytes, rows: SecretRows) -> None:
        self._cipher = AESGCM(hmac.digest(key, b"tokens", "sha256"))
        self._rows = rows

    def put(self, owner: str, value: SecretStr) -> str:
        """Keep it under a new, random reference."""
        reference = self._PREFIX + entropy.token_urlsafe(16)
        nonce = entropy.token_bytes(12)
        sealed = nonce + self._cipher.encrypt(nonce, value.get_secret_value().encode(), reference.encode())
        self._rows.put_secret(reference, owner, sealed)
        return reference

    def get(self, reference: str) -> SecretStr:
        """The value. Raises NotFound, and Refused where it was sealed with another key."""
        sealed = self._rows.get_secret(reference) if self.holds(reference) else None
        if sealed is None:
            raise NotFound("The BOSS token of this job is not kept any more.")
        try:
            return SecretStr(self._cipher.decrypt(sealed[:12], sealed[12:], reference.encode()).decode())
        except (InvalidTag, ValueError):
            raise Refused("The BOSS token of this job was sealed with another key; submit the job again.") from None

    def forget(self, reference: str) -> None:
        """Erase the row."""
        if self.holds(reference):
            self._rows.delete_secret(reference)

    def holds(self, reference: str) -> bool:
        """Whether it begins with `sealed:`."""
        return reference.startswith(self._PREFIX)


def load_key(path: Path, given: SecretStr | None) -> bytes:
    """The key of 32 bytes: made from what the settings give, else read from the file, which is made at the first call.

    Two processes that make it at the same moment get the same one. Raises NomadsError in words for the admin.
    """
    if given is not None:
        text = given.get_secret_value()
        if len(text) < 16:
            raise NomadsError(
                "NOMADS_SECRET_KEY is too short: give it 16 random characters or more, or leave it unset."
            )
        return hashlib.scrypt(text.encode(), salt=b"nomads secret key", n=2**14, r=8, p=1, dklen=32)
    try:
        if not path.exists():
            _make_key(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise NomadsError(f"{path}: the key file cannot be used: {error.strerror}.") from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise NomadsError(
            f"{path} does not hold a key. Put back the one that was there; without it, kept tokens are lost."
        )
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner only
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(entropy.token_bytes(32).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its key is the key
            Path(path).hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
