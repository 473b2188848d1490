"""Levers of the demo's page: each breaks something, and says what should happen."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.house import House, bot_process

TIMES = 3
"""Answers that a broken service does not give."""
CALM = 5
"""Seconds for which Slack asks for patience."""
_OF_SLACK = ("chat.postMessage", "chat.update")


@dataclass(frozen=True)
class Lever:
    """What a person at the page may break."""

    name: str
    says: str
    """One sentence: what should happen."""
    pull: Callable[[], None]


class Kept:
    """A bot that is started anew when it was killed."""

    def __init__(self, settings: Mapping[str, str], *, log: Path) -> None:
        self._settings, self._log = settings, log
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._process = self._stack.enter_context(bot_process(self._settings, log=self._log))

    def kill(self) -> None:
        """Kill it at once, whatever it does, and start it anew."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self.start()

    @property
    def alive(self) -> bool:
        """Whether it runs, or is being started."""
        with self._lock:
            return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End it."""
        self._stack.close()


@contextmanager
def kept(settings: Mapping[str, str], *, log: Path) -> Iterator[Kept]:
    """A bot that runs as long as the block does, killed and started anew in between where somebody wants that."""
    bot = Kept(settings, log=log)
    try:
        bot.start()
        yield bot
    finally:
        bot.close()


def levers(house: House, bot: Kept, data: Path) -> list[Lever]:
    """What may be broken in a demo whose bot has that data folder."""

    def limit() -> None:
        for method in _OF_SLACK:
            house.slack.rate_limit(method, times=TIMES, retry_after=CALM)

    return [
        Lever("Kill the bot", "It ends at once and begins anew; jobs go on, and nothing is told twice.", bot.kill),
        Lever(
            "Take the machine back",
            "Running programs are killed; threads say so, and Retry runs them again.",
            lambda: end(data),
        ),
        Lever(
            "Break Slack",
            f"Slack refuses each kind of call {TIMES} times, for {CALM} seconds each; messages come later, in order.",
            limit,
        ),
        Lever(
            "Break BOSS",
            f"BOSS fails {TIMES} times; a form is taken unchecked, and its job is checked before it runs.",
            lambda: house.boss.fail_next(TIMES),
        ),
        Lever(
            "Break mail",
            f"The mail server puts {TIMES} mails off; they come later, once each.",
            lambda: house.mail.put_off(TIMES),
        ),
    ]


def end(data: Path) -> None:
    """Kill the programs of jobs whose results lie in that folder."""
    mine = f"{data.resolve().as_uri()}/".encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # it has ended, or is somebody else's
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"--results-uri" in words and any(word.startswith(mine) for word in words):
                os.kill(int(process.name), signal.SIGKILL)
