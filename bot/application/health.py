"""Whether this process can take a request and keep it."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path

from cachetools import TTLCache, cached

from bot.application.ledger import Ledger
from bot.domain import words
from bot.domain.errors import Unavailable
from bot.domain.health import Health

LEAST_FREE = 200 * 10**6
"""Bytes free on the data folder's disk below which the process is not ready."""
OLD = timedelta(minutes=5)
"""Age of an open effect from which an admin is told of it."""
KEPT = 1.0
"""Seconds for which an answer serves: whoever asks more often causes no more writes."""


class Readiness:
    """Says whether the database takes a write, and whether there is space on the disk."""

    def __init__(self, *, ledger: Ledger, folder: Path) -> None:
        """`folder` is where this machine stores its data."""
        self._ledger = ledger
        self._folder = folder
        kept: TTLCache[object, Health] = TTLCache(1, KEPT, timer=time.monotonic)
        self.now = cached(kept, lock=threading.Lock())(self._now)
        """The health as of a second ago at most."""

    def _now(self) -> Health:
        try:
            oldest = self._ledger.database.probe(at=self._ledger.clock())
            free = shutil.disk_usage(self._folder).free
        except Unavailable as error:
            return Health(problem=str(error))
        except OSError as error:
            return Health(problem=f"The data folder cannot be used: {error.strerror}.")
        if free < LEAST_FREE:
            return Health(problem=f"The disk of the data folder is nearly full: {words.size(free)} are left.")
        if oldest and (age := self._ledger.ages.of("oldest effect", oldest)) > OLD:
            return Health(note=f"the oldest open effect has waited {words.duration(age)}; `nomads doctor` says more")
        return Health()
