"""What a contract case needs beyond the port itself: to play the outside world, whichever adapter is in the middle."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any, Protocol, Self

from aiosmtpd.controller import Controller
from pydantic import SecretStr

from bot.application.ports import Compute, Logs, Mailer, Results, Volumes
from bot.boss.volumes import BossVolumes
from bot.domain.states import FINAL, JobState
from bot.domain.urls import MailServer, Security
from bot.domain.work import LogLine, Observation, Work
from bot.files.logs import FolderLogs
from bot.files.results import FolderResults
from bot.local.compute import LocalCompute
from bot.local.confinement import Limits
from bot.local.runs import is_over
from bot.mail.smtp import SmtpMailer, mime
from bot.storage.engine import Database, connect
from bot.storage.vault import Vault
from sandbox.boss import Access, BossStandIn
from sandbox.volumes import Bricks
from tests.support.databases import new_sqlite
from tests.support.memory import Bounds, MemoryCompute, MemoryMailer, MemoryResults, MemorySecrets, MemoryVolumes
from tests.support.waiting import until

TOKEN = "demo-token-canary"


def texts(lines: Sequence[LogLine]) -> list[str]:
    """What the lines say."""
    return [line.text for line in lines]


class ComputeRig(Protocol):
    """A compute whose programs do what the case says."""

    @property
    def compute(self) -> Compute:
        """The adapter."""

    @property
    def logs(self) -> Logs:
        """The logs of its programs."""

    def work(self, name: str) -> Work:
        """A program with TOKEN as its token; it prints and ends when told to."""

    def run(self, compute_id: str) -> None:
        """Let the program run: the next observation says RUNNING. For an array's, its child's id is given."""

    def end(self, compute_id: str, *, code: int, lines: tuple[str, ...] = ()) -> None:
        """Let a running program print these lines and end with that code; the next observation says how it ended."""

    def say(self, compute_id: str, *lines: str) -> None:
        """Let a running program print these lines; they are there when this returns."""

    def after_cancel(self, compute_id: str) -> None:
        """Let the outside world do its part after cancel(); the next observation says FAILED."""

    def exposed(self) -> str:
        """Everything that other people of this machine or account can read about the programs."""


class MemoryComputeRig:
    """MemoryCompute, told what to see."""

    def __init__(self) -> None:
        self.compute = self.logs = MemoryCompute()

    def work(self, name: str) -> Work:
        return a_work(name, token=MemorySecrets().put("U1", SecretStr(TOKEN)))

    def run(self, compute_id: str) -> None:
        self.compute.tell(compute_id, Observation(JobState.RUNNING, started_at=datetime.now(UTC)))

    def end(self, compute_id: str, *, code: int, lines: tuple[str, ...] = ()) -> None:
        self.compute.print(compute_id, *lines)
        state, reason = (JobState.SUCCEEDED, "") if code == 0 else (JobState.FAILED, f"exit code {code}")
        now = datetime.now(UTC)
        began = self.compute.observe([compute_id])[compute_id].started_at
        self.compute.tell(compute_id, Observation(state, reason, code, started_at=began or now, stopped_at=now))

    def say(self, compute_id: str, *lines: str) -> None:
        self.compute.print(compute_id, *lines)

    def after_cancel(self, compute_id: str) -> None:
        pass

    def exposed(self) -> str:
        return repr(self.compute.works)


PROGRAM = """
import os, pathlib, sys, time
index = os.environ.get("NOMADS_INDEX")
control = pathlib.Path(sys.argv[1] if index is None else f"{sys.argv[1]}.{index}")
assert os.environ["BOSS_TOKEN"]
said = control.with_name(f"{control.name}.say")
while not control.exists():
    if said.exists():
        print(said.read_text(), flush=True)
        said.unlink()
    time.sleep(0.01)
code, *lines = control.read_text().splitlines()
print("\\n".join(lines))
sys.exit(int(code))
"""


class LocalComputeRig:
    """LocalCompute with real subprocesses, which wait for a file that says how to end."""

    def __init__(self, folder: Path, *, slots: int = 2) -> None:
        self.folder = folder / "runs"
        self.control = folder / "control"
        self.control.mkdir()
        self.secrets = MemorySecrets()
        self.slots = slots
        self.compute = self.another()
        self.logs = FolderLogs(folder=self.folder, is_over=is_over)

    def another(self) -> LocalCompute:
        """A second adapter on the same folder, as after a restart."""
        return LocalCompute(folder=self.folder, tokens=self.secrets, root=self.control, slots=self.slots)

    def limited(self, limits: Limits) -> LocalCompute:
        """An adapter on the same folder that holds its programs to the limits."""
        return LocalCompute(folder=self.folder, tokens=self.secrets, root=self.control, slots=self.slots, limits=limits)

    def work(self, name: str) -> Work:
        token = self.secrets.put("U1", SecretStr(TOKEN))
        return a_work(name, token=token, command=("python3", "-c", PROGRAM), arguments=(str(self.control / name),))

    def script(self, name: str, source: str, *arguments: str, timeout: float = 60) -> Work:
        """A program of one's own."""
        token = self.secrets.put("U1", SecretStr(TOKEN))
        return a_work(name, token=token, command=("python3", "-c", source), arguments=arguments, timeout=timeout)

    def state(self, compute_id: str) -> JobState:
        """What observe() says now."""
        return self.compute.observe([compute_id])[compute_id].state

    def run(self, compute_id: str) -> None:
        until(lambda: self.state(compute_id) is JobState.RUNNING, what=f"{compute_id} running")

    def end(self, compute_id: str, *, code: int, lines: tuple[str, ...] = ()) -> None:
        content = self.control / f"{compute_id}.new"
        content.write_text("\n".join([str(code), *lines]))
        content.rename(self.control / compute_id)
        self.wait(compute_id)

    def say(self, compute_id: str, *lines: str) -> None:
        content = self.control / f"{compute_id}.new"
        content.write_text("\n".join(lines))
        content.rename(self.control / f"{compute_id}.say")
        last = lines[-1]
        until(lambda: last in texts(self.logs.tail(compute_id, log=None, lines=1)), what="the program's words")

    def after_cancel(self, compute_id: str) -> None:
        self.wait(compute_id)

    def wait(self, compute_id: str) -> Observation:
        """How the run ended."""
        until(lambda: self.state(compute_id) in FINAL, what=f"the end of {compute_id}")
        return self.compute.observe([compute_id])[compute_id]

    def exposed(self) -> str:
        return "\n".join([*command_lines(), *(path.read_text() for path in self.folder.rglob("*") if path.is_file())])

    def close(self) -> None:
        """Leave no program behind."""
        if self.folder.exists():
            names = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
            for name in names:
                self.compute.cancel(name, reason="the test is over")
            for name in names:
                self.wait(name)


def command_lines() -> list[str]:
    """Every process's arguments, as any user of this machine sees them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it ended meanwhile
            continue
    return found


def a_work(
    name: str,
    *,
    token: str,
    command: tuple[str, ...] = ("python3", "-m", "demo"),
    arguments: tuple[str, ...] = ("--col", "demo"),
    timeout: float = 60,
) -> Work:
    """A run of a small pipeline."""
    return Work(
        name=name,
        pipeline="nomads-demo",
        image="registry.example.org/nomads-demo:1",
        command=command,
        arguments=arguments,
        cpu=1,
        memory=2048,
        timeout=timedelta(seconds=timeout),
        owner="U1",
        token=token,
        tags={"job": name, "user": "U1", "pipeline": "nomads-demo"},
    )


class ResultsRig(Protocol):
    """Results into which a program writes."""

    @property
    def results(self) -> Results:
        """The adapter."""

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Write a file, as a program does."""


class MemoryResultsRig:
    """MemoryResults."""

    def __init__(self) -> None:
        self.results = MemoryResults()

    def put(self, folder: str, name: str, content: bytes) -> None:
        self.results.put(folder, name, content)


class LocalResultsRig:
    """LocalResults in a folder, with a file beside the results that nobody may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "results"
        self.results = FolderResults(folder=self.folder)

    def put(self, folder: str, name: str, content: bytes) -> None:
        path = self.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class VaultRig:
    """The Vault over a database of its own, each call in a transaction of its own."""

    def __init__(self, folder: Path, *, key: bytes = b"k" * 32) -> None:
        self._database = Database(connect(new_sqlite(folder / "vault.db")))
        self._vault = Vault(key=key, database=self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def with_key(self, key: bytes) -> Vault:
        """Another vault on the same rows."""
        return Vault(key=key, database=self._database)

    def put(self, owner: str, value: SecretStr) -> str:
        with self._database.begin() as transaction:
            return self._vault.put(transaction, owner, value)

    def get(self, reference: str) -> SecretStr:
        return self._vault.get(reference)

    def forget(self, reference: str) -> None:
        with self._database.begin() as transaction:
            self._vault.forget(transaction, reference)

    def holds(self, reference: str) -> bool:
        return self._vault.holds(reference)

    def sealed(self, reference: str) -> bytes:
        """The row as it is kept."""
        with self._database.read() as transaction:
            return transaction.sealed.get(reference) or b""

    def overwrite(self, reference: str, sealed: bytes) -> None:
        """Put something else into the row."""
        with self._database.begin() as transaction:
            transaction.sealed.delete(reference)
            transaction.sealed.add(reference, "U1", sealed, at=datetime.now(UTC))


class MailerRig(Protocol):
    """A mailer with a server behind it."""

    @property
    def mailer(self) -> Mailer:
        """The adapter."""

    def delivered(self) -> list[tuple[list[str], EmailMessage]]:
        """What the server took: the envelope's recipients and the message."""

    def refuse(self, address: str) -> None:
        """Let the server refuse mail for that address for good."""


class MemoryMailerRig:
    """MemoryMailer."""

    def __init__(self) -> None:
        self.mailer = MemoryMailer()

    def delivered(self) -> list[tuple[list[str], EmailMessage]]:
        return [([mail.to], mime(mail, sender="nomads@example.org")) for mail in self.mailer.sent]

    def refuse(self, address: str) -> None:
        self.mailer.refused.add(address)


class SmtpMailerRig:
    """SmtpMailer and a real SMTP server on loopback."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self.mailer = SmtpMailer(server=server.address(), sender="NOMADS <nomads@example.org>", timeout=10)

    def delivered(self) -> list[tuple[list[str], EmailMessage]]:
        return self._server.taken

    def refuse(self, address: str) -> None:
        self._server.answers[address] = "550 5.1.1 No such user"


class SmtpServer:
    """A handler for aiosmtpd that keeps what it gets, or answers with what the test says."""

    def __init__(self) -> None:
        self.port = 0
        self.taken: list[tuple[list[str], EmailMessage]] = []
        self.answers: dict[str, str] = {}
        """Recipient, or `MAIL`, `DATA` or `QUIT`, to the answer given instead of yes."""
        self.hangs_up = False
        """Whether it takes a mail and closes the connection instead of saying so."""
        self.logins: list[str] = []
        self.secured: list[bool] = []
        """Whether each mail came over TLS."""

    def address(self, *, security: Security = "none", user: str = "", password: str = "") -> MailServer:
        """The settings that lead here."""
        return MailServer(
            kind="smtp",
            host="127.0.0.1",
            port=self.port,
            security=security,
            user=user,
            password=SecretStr(password) if password else None,
        )

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if "MAIL" in self.answers:
            return self.answers["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if "DATA" in self.answers:
            return self.answers["DATA"]
        self.taken.append((list(envelope.rcpt_tos), message_from_bytes(envelope.content, policy=SMTP)))
        self.secured.append(server.transport.get_extra_info("ssl_object") is not None)
        if self.hangs_up:
            server.transport.abort()
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        return self.answers.get("QUIT", "221 Bye")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def smtp_server(*, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[SmtpServer]:
    """A real SMTP server; `tls` lets it speak TLS from the start, `options` are aiosmtpd's."""
    handler = SmtpServer()
    while True:  # somebody else may take the port between the look and the bind
        handler.port = free_port()
        controller = Controller(
            handler,
            hostname="127.0.0.1",
            port=handler.port,
            ssl_context=tls,
            server_hostname="localhost",  # it would ask DNS for our name
            **options,
        )
        try:
            controller.start()
        except OSError:
            continue
        break
    try:
        yield handler
    finally:
        controller.stop()


READER, WRITER, STRANGER = (SecretStr(f"demo-{who}-canary") for who in ("reader", "writer", "stranger"))
"""Tokens that read the collection `lab`, write everywhere, and open what is public alone."""


class VolumesRig(Protocol):
    """Volumes of a BOSS that knows READER, WRITER and STRANGER, and has no collection yet."""

    @property
    def volumes(self) -> Volumes:
        """The adapter."""

    def add(
        self,
        collection: str,
        experiment: str,
        *,
        bounds: Bounds = ((0, 8), (0, 64), (0, 64)),
        voxel_nm: tuple[float, float, float] = (50, 96, 96),
        channels: Mapping[str, str] | None = None,
        public: bool = False,
    ) -> None:
        """Add an experiment with channels of these data types; axes z, y, x."""

    def hanging(self) -> AbstractContextManager[object]:
        """Let no question be answered until the block ends."""


class MemoryVolumesRig:
    """MemoryVolumes."""

    def __init__(self) -> None:
        self.volumes = MemoryVolumes(
            readers={_word(READER): ("lab",), _word(STRANGER): ()}, writers={_word(WRITER): ("*",)}
        )

    def add(self, collection: str, experiment: str, **about: Any) -> None:
        self.volumes.add(collection, experiment, **({"channels": {}} | about))

    @contextmanager
    def hanging(self) -> Iterator[None]:
        with (
            self.volumes.hanging("collections"),
            self.volumes.hanging("experiments"),
            self.volumes.hanging("describe"),
            self.volumes.hanging("may_write"),
        ):
            yield


class BossVolumesRig:
    """BossVolumes and the stand-in of BOSS."""

    def __init__(self, boss: BossStandIn) -> None:
        self._boss = boss
        self.volumes = BossVolumes(host=boss.url, patience=20)

    def add(
        self,
        collection: str,
        experiment: str,
        *,
        bounds: Bounds = ((0, 8), (0, 64), (0, 64)),
        voxel_nm: tuple[float, float, float] = (50, 96, 96),
        channels: Mapping[str, str] | None = None,
        public: bool = False,
    ) -> None:
        (z, z_stop), (y, y_stop), (x, x_stop) = bounds
        self._boss.add(
            collection,
            experiment,
            shape=(z_stop - z, y_stop - y, x_stop - x),
            offset=(z, y, x),
            voxel_nm=voxel_nm,
            channels={name: Bricks(datatype) for name, datatype in (channels or {}).items()},
            public=public,
        )

    def hanging(self) -> AbstractContextManager[object]:
        return self._boss.hanging()


@contextmanager
def boss_volumes() -> Iterator[BossVolumesRig]:
    """BossVolumesRig, with its server."""
    tokens = {
        _word(READER): Access(user="reader", read=frozenset({"lab"})),
        _word(WRITER): Access(user="writer", write=frozenset({"*"})),
        _word(STRANGER): Access(user="stranger"),
    }
    with BossStandIn(tokens=tokens, demo=False) as boss:
        rig = BossVolumesRig(boss)
        try:
            yield rig
        finally:
            rig.volumes.close()


def _word(token: SecretStr) -> str:
    return token.get_secret_value()
