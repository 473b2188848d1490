"""All stand-ins together, and the bot as a process that uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from sandbox.boss import BossStandIn
from sandbox.mail import MailServer
from sandbox.slack import SlackStandIn
from sandbox.volumes import Synthetic

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 30
"""Seconds from asking a bot to end until it is killed."""


class House:
    """BOSS, a mail server and a Slack workspace on loopback; use it as a context manager.

    Slack waits `ack_timeout` seconds for an acknowledgement: 3 as Slack does, or more where a busy machine's pauses are
    not what a test is about. BOSS has the usual volume, unless one is given.
    """

    def __init__(self, *, ack_timeout: float = 3.0, demo: bool | Synthetic = True) -> None:
        self.boss = BossStandIn(demo=demo)
        self.mail = MailServer()
        self.slack = SlackStandIn(
            manifest=ROOT / "manifest.yml", ack_timeout=ack_timeout, mailbox=lambda: self.mail.messages
        )
        self._stack = ExitStack()

    def __enter__(self) -> House:
        self._stack.enter_context(self.boss)
        self._stack.enter_context(self.mail)
        self._stack.enter_context(self.slack)
        self.mail.listen(self.slack.touch)
        return self

    def reset(self) -> None:
        """Return every stand-in to its initial state, at the same addresses."""
        self.boss.reset()
        self.mail.reset()
        self.slack.reset()
        self.mail.listen(self.slack.touch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def environment(self, data: Path, *, socket_mode: bool = True, **more: str) -> dict[str, str]:
        """The environment of a bot that uses these stand-ins; `data` is the bot's folder."""
        settings = {
            "SLACK_BOT_TOKEN": self.slack.bot_token,
            "SLACK_SIGNING_SECRET": self.slack.signing_secret,
            "SLACK_API_URL": self.slack.api_url,
            "NOMADS_DATA": str(data),
            "NOMADS_PORT": "0",
            "NOMADS_BOSS_HOST": self.boss.url,
            "NOMADS_MAIL": f"smtp://127.0.0.1:{self.mail.port}",
            "NOMADS_MAIL_FROM": "NOMADS <nomads@example.org>",
        }
        if socket_mode:
            settings["SLACK_APP_TOKEN"] = self.slack.app_token
        return settings | more


@contextmanager
def bot_process(environment: Mapping[str, str], *arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m bot …` with exactly this environment and its output in `log`; ended with the block."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOMADS_", "SLACK_", "AWS_", "BOSS_"))}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bot", *(arguments or ("run",))],
            cwd=log.parent,  # not in the checkout, whose .env is for a real workspace
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
