"""The bot as a process of its own among the stand-ins: started, killed and started again on one data folder."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import select
import subprocess
import sys
import termios
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from bot.__main__ import main
from bot.domain.job import Job
from bot.domain.states import FINAL, JobState
from bot.storage.engine import Database, connect
from bot.storage.tables import effects
from sandbox.house import ROOT, House, bot_process
from sandbox.slack import Ack
from tests.support.app import PROGRAMS, RIGHT, with_endings
from tests.support.rows import Rows
from tests.support.waiting import PATIENCE, until


@dataclass(frozen=True)
class Bot:
    """A running `python -m bot run`."""

    process: subprocess.Popen[bytes]
    log: Path

    @cached_property
    def url(self) -> str:
        """Where it serves, once it does. Fails the test where it ended instead."""
        return until(self._url, within=PATIENCE, what="the bot")

    def _url(self) -> str:
        found = re.search(r"NOMADS is ready at (http://\S+),", self.log.read_text())
        assert found or self.process.poll() is None, self.log.read_text()
        return found[1] if found else ""

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self.process.kill()
        self.process.wait()


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Lab:
    """The stand-ins, one data folder, and the bots that live there. A context manager; ends the bots it started.

    Programs are those of the tests unless NOMADS_PIPELINES names another folder. Leases are short, so that little
    time passes before one bot takes up what another one left.
    """

    def __init__(self, house: House, folder: Path, **env: str) -> None:
        self.house = house
        with_endings(house.boss)
        self.slack = house.slack
        self.mail = house.mail
        self.data = folder / "data"
        ours = {
            "NOMADS_PIPELINES": str(PROGRAMS),
            "NOMADS_LEASE_SECONDS": "1.5",
            "NOMADS_WATCH_INTERVAL": "0.1",
            "NOMADS_EDIT_INTERVAL": "0.1",
        }
        self.environment = house.environment(self.data, socket_mode=False) | ours | env
        self._folder = folder
        self.bots: list[Bot] = []
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bot in self.bots:
            bot.kill()  # asking politely takes a second each
        for run in self.data.glob("runs/*/spec.json"):  # programs outlive the bot: end what a failed test left running
            (run.parent / "cancel").touch()
        self._stack.close()

    # Bots

    def launch(self, **env: str) -> Bot:
        """Start a bot, without waiting for it."""
        log = self._folder / f"bot-{len(self.bots)}.log"
        process = self._stack.enter_context(bot_process({**self.environment, **env}, log=log))
        self.bots.append(Bot(process, log))
        return self.bots[-1]

    def start(self, **env: str) -> Bot:
        """Start a bot, wait until it serves, and let Slack talk to it."""
        bot = self.launch(**env)
        self.talk_to(bot)
        return bot

    def living(self) -> Bot:
        """The bot started last, or a new one in its place if it has ended."""
        if not self.bots or self.bots[-1].process.poll() is not None:
            return self.start()
        self.talk_to(self.bots[-1])
        return self.bots[-1]

    def talk_to(self, bot: Bot) -> None:
        """Let Slack talk to this bot."""
        self.slack.request_url = f"{bot.url}/slack/events"

    def command(
        self, *arguments: str, token: str = "demo-token", terminal: int | None = None, **env: str
    ) -> subprocess.Popen[str]:
        """`python -m bot …` on the same data folder, without Slack's settings."""
        return command(*arguments, settings={**self._settings(), "BOSS_TOKEN": token, **env}, terminal=terminal)

    def here(self, *arguments: str, token: str = "demo-token", **env: str) -> Said:
        """As `command`, to its end, in this process: that saves the second it takes to start another one."""
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            for name, value in {**self._settings(), "BOSS_TOKEN": token, **env}.items():
                patch.setenv(name, value)
            code = main(arguments)
        return Said(code, out.getvalue(), err.getvalue())

    def _settings(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if not name.startswith("SLACK_")}

    @property
    def said(self) -> str:
        """What all the bots logged."""
        return "".join(bot.log.read_text() for bot in self.bots)

    # A person

    def submit(self, **typed: str) -> Ack:
        """Open the form, type what is right but for the changes, press Submit and answer what is asked; it is taken."""
        person = self.slack.person()
        opened = person.slash("/nomads", "submit")
        view = self.slack.view_of(person)
        assert view, (opened, self.said)
        ack = person.submit(view, RIGHT | typed)
        while (asked := self.slack.view_of(person)) and ack.ok:  # the same was done before: run it again
            boxes = [b["block_id"] for b in asked["blocks"] if b["block_id"].startswith("agree-")]
            assert boxes, (asked, self.said)
            ack = person.submit(asked, {box: ["yes"] for box in boxes})
        assert ack.ok, (ack, self.said)
        return ack

    # Looking

    def not_done_once(self, jobs: Sequence[Job]) -> dict[str, list[str]]:
        """What was left out or done twice of jobs that should have succeeded, by id; none where all was done once."""
        replies, mails = defaultdict[str, list[tuple[str, str]]](list), defaultdict[str, dict[str, str]](dict)
        tops = []
        for message in self.slack.messages("#synapses"):
            key, shown = _key(message), _shown(message)
            replies[key.partition("-reply-")[0]].append((key, shown))
            if message.get("thread_ts") in (None, message["ts"]):
                tops.append(shown)
        for mail in self.mail.messages:
            key = str(mail["Message-ID"])
            for job in jobs:
                if job.id in key:
                    mails[job.id][key] = str(mail["Subject"])
        previews = [file.name for file in self.slack.files if file.shared]
        found = {
            job.id: self._amiss(
                job,
                cards=[shown for shown in tops if job.id in shown],
                replies=replies[job.id],
                previews=[name for name in previews if job.id in name],
                mails=sorted(mails[job.id].values()),
            )
            for job in jobs
        }
        return {name: amiss for name, amiss in found.items() if amiss}

    def _amiss(
        self, job: Job, *, cards: list[str], replies: list[tuple[str, str]], previews: list[str], mails: list[str]
    ) -> list[str]:
        starts = self.results(job) / "starts"
        keys = [key for key, _ in replies]
        told = Counter(re.findall(r"\b(Accepted as|Running,|Finished after)", "\n".join(said for _, said in replies)))
        as_it_should = {
            f"state: {job.state}": job.state is JobState.SUCCEEDED,
            "starts of the program": starts.exists() and starts.read_text() == "started\n",
            f"cards: {cards}": len(cards) == 1 and "✅ Finished" in cards[0],
            f"replies: {keys}": len(set(keys)) == len(keys),
            f"steps told: {told}": told == {"Accepted as": 1, "Running,": 1, "Finished after": 1},
            f"previews: {previews}": previews == [f"{job.id}-preview.png"],
            f"mails: {mails}": mails == [f"NOMADS job {job.id}: accepted", f"NOMADS job {job.id}: finished"],
        }
        return [what for what, right in as_it_should.items() if not right]

    @cached_property
    def store(self) -> Database:
        """The bots' database."""
        url = self.environment.get("NOMADS_DATABASE_URL", f"sqlite:///{self.data / 'nomads.db'}")
        store = Database(connect(url))
        self._stack.callback(store.close)
        return store

    @property
    def rows(self) -> Rows:
        """What the database holds."""
        return Rows(self.store)

    @property
    def jobs(self) -> list[Job]:
        """Every job, in the order of acceptance."""
        return self.rows.jobs()

    @property
    def newest(self) -> Job:
        """The job that was accepted last."""
        return self.jobs[-1]

    def running(self, job: Job) -> None:
        """Wait until the job is known to run, and its program, which waits, has got so far."""
        until(lambda: self.rows.job(job.id).state is JobState.RUNNING, within=PATIENCE, what="the program")
        until((self.results(job) / "starts").exists, within=PATIENCE, what="the program's first words")

    def let_go(self, job: Job) -> None:
        """Let the job's program, which waits, come to its end."""
        (self.results(job) / "go").touch()

    def ended(self, job: Job) -> Job:
        """The job once it has ended and nothing of it is left to do; waits for that."""
        try:
            until(lambda: self._over(job), within=PATIENCE)
        except AssertionError:
            raise AssertionError(f"the job did not end:\n{self.rows.job(job.id)}\n{self.said[-6000:]}") from None
        return self.rows.job(job.id)

    def _over(self, job: Job) -> bool:
        return self.rows.job(job.id).state in FINAL and self.rows.open_effects(job.id) == 0

    def tried(self, kind: str) -> bool:
        """Whether somebody began an effect of that kind that is not done."""
        query = sa.select(effects.c.id).where(
            effects.c.kind == kind, effects.c.attempts > 0, effects.c.done_at.is_(None)
        )
        with self.store.read() as transaction:
            return transaction.connection.execute(query).first() is not None

    @property
    def kept_secrets(self) -> int:
        """How many tokens the database holds."""
        return self.rows.tokens

    def results(self, job: Job) -> Path:
        """The job's results folder."""
        return self.data / "results" / job.folder

    def settle(self) -> None:
        """Wait until every job has ended and nothing is left to do."""
        for job in self.jobs:
            self.ended(job)

    def card(self, job: Job) -> str:
        """What the job's card says; empty where there is none. Fails the test where there are two."""
        tops = [m for m in self.slack.messages("#synapses") if m.get("thread_ts") in (None, m["ts"])]
        cards = [shown for shown in map(_shown, tops) if job.id in shown]
        assert len(cards) < 2, cards
        return cards[0] if cards else ""

    def thread(self, job: Job) -> list[str]:
        """What the replies about a job say, the blocks included; files are left out."""
        keys = self.replies(job)
        return [_shown(m) for m in self.slack.messages("#synapses") if _key(m) in keys]

    def replies(self, job: Job) -> list[str]:
        """The keys of the replies about a job."""
        keys = [_key(m) for m in self.slack.messages("#synapses")]
        return [key for key in keys if key.startswith(f"{job.id}-reply-")]


def _key(message: Mapping[str, object]) -> str:
    metadata = message.get("metadata")
    payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
    return str(payload.get("key", "")) if isinstance(payload, dict) else ""


def _shown(message: Mapping[str, object]) -> str:
    blocks = message.get("blocks")
    texts: list[str] = []
    for block in blocks if isinstance(blocks, list) else []:
        parts = [block.get("text"), *(block.get("fields") or []), *(block.get("elements") or [])]
        texts += [part["text"] for part in parts if part and isinstance(part.get("text"), str)]
    return "\n".join(texts)


def an_order(**changes: str) -> list[str]:
    """What follows `submit` for a right request, but for the changes."""
    wanted = {"pipeline": "quick", "collection": "demo", "experiment": "cortex", "x": "0,8", "y": "0,8", "z": "0,8"}
    options = wanted | {"email": "demo@example.org"} | changes
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def command(*arguments: str, settings: Mapping[str, str], terminal: int | None = None) -> subprocess.Popen[str]:
    """`python -m bot …` with exactly these settings; its output is text in pipes, or goes to its own terminal."""

    def take_the_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOMADS_", "SLACK_", "AWS_", "BOSS_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "bot", *arguments],
        cwd=ROOT,
        env={**inherited, **settings},
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE if terminal is None else terminal,
        text=True,
        start_new_session=terminal is not None,
        preexec_fn=None if terminal is None else take_the_terminal,
    )


def read_terminal(terminal: int, *, until_it_says: str = "") -> str:
    """What comes out of a terminal, up to these words or to its end."""
    said = ""
    while not until_it_says or until_it_says not in said:
        assert select.select([terminal], [], [], PATIENCE)[0], said
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side has closed it
            break
        if not piece:
            break
        said += piece.decode(errors="replace")
    return said
