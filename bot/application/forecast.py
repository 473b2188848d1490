"""Estimates of runs, learned from this installation's own, and which runs a person confirms first."""

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
"""A pipeline's last runs from which its next one is estimated."""
RUNS_KEPT = timedelta(seconds=30)
"""How long a pipeline's runs are cached: so long, runs that another process finished may be unknown here."""
PIPELINES = 1000
"""Pipelines whose runs are cached."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """A run above one of these limits is confirmed first; 0: no limit. `cost` is in the currency of Prices."""

    bytes: int = 0
    seconds: float = 0
    cost: float = 0


class Forecast:
    """Estimates runs, and decides which runs are confirmed first."""

    def __init__(self, *, ledger: Ledger, prices: checks.Prices | None = None, confirm: Confirm | None = None) -> None:
        self._database = ledger.database
        self._prices = prices or checks.Prices()
        self._confirm = confirm or Confirm()
        self._known: TTLCache[str, list[tuple[int, float]]] = TTLCache(PIPELINES, RUNS_KEPT, timer=ledger.steady)  # type: ignore[arg-type]
        self._lock = Lock()

    def expected(self, pipeline: Pipeline, box: Box, *, block: int | None = None) -> Expected | None:
        """The estimate for a run on the box, in blocks of so many voxels; None where nothing is known.

        Raises Unavailable.
        """
        return checks.expected(pipeline, box, self._runs(pipeline.name), self._prices, block=block)

    def heavy(self, size: int, expected: Expected | None) -> bool:
        """Whether a run that reads `size` bytes is confirmed first."""
        seconds, cost = (expected.seconds, expected.cost or 0) if expected else (0, 0)
        values = ((size, self._confirm.bytes), (seconds, self._confirm.seconds), (cost, self._confirm.cost))
        return any(limit and value > limit for value, limit in values)

    def ended(self, pipeline: str) -> None:
        """Drop the pipeline's runs from the cache, since one has ended."""
        with self._lock:
            self._known.pop(pipeline, None)

    @cachedmethod(lambda self: self._known, key=lambda _, name: name, lock=lambda self: self._lock)
    def _runs(self, pipeline: str) -> list[tuple[int, float]]:
        with self._database.read() as transaction:
            return transaction.jobs.runs(pipeline, most=RUNS)
