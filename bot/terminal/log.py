"""The process's log: what goes into it, and how often."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cachetools import LRUCache

OURS = ("bot", "handlers")
"""Packages whose lines are shown from the level on that a setting names; of others, warnings and errors."""
SAME_A_MINUTE = 20
"""Times that a line is logged in a minute; further ones are counted."""
LINES = 1000
"""Different lines that are remembered."""


class Sparing(logging.Filter):
    """Leaves out a line that was logged SAME_A_MINUTE times within a minute, and says how often it was left out.

    Whoever can cause a line over and over, such as a stranger with broken requests, must not fill the disk.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: LRUCache[tuple[str, int, str], tuple[float, int]] = LRUCache(LINES)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged. Logging calls this under the handler's lock."""
        line = record.getMessage()
        key = (record.name, record.levelno, line.partition("\n")[0])
        at = self._clock()
        since, times = self._seen.get(key, (at, 0))
        left_out = 0
        if at - since >= 60:
            since, times, left_out = at, 0, max(0, times - SAME_A_MINUTE)
        self._seen[key] = (since, times + 1)
        if left_out:
            record.msg, record.args = f"{line} (and {left_out:,} times more before)", ()
        elif times + 1 == SAME_A_MINUTE:
            record.msg, record.args = f"{line} (this line is now left out for a minute)", ()
        return times < SAME_A_MINUTE


def begin(level: str) -> None:
    """Log to stderr: our own packages from this level on, others from WARNING on."""
    # Slack's and AWS's libraries log whole requests at DEBUG, a submitted form's token among them.
    if not logging.getLogger().handlers:
        from bot.terminal.screen import StderrHandler

        handler = StderrHandler()
        handler.addFilter(Sparing())
        layout = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        logging.basicConfig(level="WARNING", format=layout, handlers=[handler])
    for ours in OURS:
        logging.getLogger(ours).setLevel(level)
