"""What runs will take, as this installation's own runs tell, and which runs are confirmed first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

from cachetools import TTLCache, cachedmethod

from bot.application.ledger import Ledger
from bot.domain import checks
from bot.domain.catalog import Pipeline
from bot.domain.job import Expected
from bot.domain.volume import Box

RUNS = 100
"""How many of a pipeline's last runs tell what the next one will take."""
RUNS_KEPT, PIPELINES = timedelta(seconds=30), 1000
"""For so long, and for so many pipelines, runs that another process has finished may be unknown to this one."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """What is confirmed before it is submitted: runs above one of these; 0: none for that reason."""

    bytes: int = 0
    seconds: float = 0
    cost: float = 0


class Forecast:
    """Expects, and says what is heavy."""

    def __init__(self, *, ledger: Ledger, prices: checks.Prices | None = None, confirm: Confirm | None = None) -> None:
        self._database = ledger.database
        self._prices = prices or checks.Prices()
        self._confirm = confirm or Confirm()
        self._known: TTLCache[str, list[tuple[int, float]]] = TTLCache(PIPELINES, RUNS_KEPT, timer=ledger.clock)  # type: ignore[arg-type]
        self._lock = Lock()

    def expected(self, pipeline: Pipeline, box: Box) -> Expected | None:
        """What a run on that box will take; None where nothing is known."""
        return checks.expected(pipeline, box, self._runs(pipeline.name), self._prices)

    def heavy(self, size: int, expected: Expected | None) -> bool:
        """Whether a run that reads `size` bytes is confirmed first."""
        seconds, cost = (expected.seconds, expected.cost or 0) if expected else (0, 0)
        values = ((size, self._confirm.bytes), (seconds, self._confirm.seconds), (cost, self._confirm.cost))
        return any(limit and value > limit for value, limit in values)

    def ended(self, pipeline: str) -> None:
        """A run of that pipeline has ended: look again, next time."""
        with self._lock:
            self._known.pop(pipeline, None)

    @cachedmethod(lambda self: self._known, key=lambda _, name: name, lock=lambda self: self._lock)
    def _runs(self, pipeline: str) -> list[tuple[int, float]]:
        with self._database.read() as transaction:
            return transaction.jobs.runs(pipeline, most=RUNS)
