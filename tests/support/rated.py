"""Compute that takes so many submissions a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from bot.aws.backend import SUBMISSIONS
from bot.domain.work import Work, at_once
from bot.storage.engine import Database
from tests.support.memory import MemoryCompute
from tests.support.world import Clock, World


class Timed(MemoryCompute):
    """Notes when it was asked to run something."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: Clock
        self.times: list[datetime] = []

    def submit(self, work: Work, *, turn: Callable[[], None] = at_once) -> str:
        compute_id = super().submit(work, turn=turn)
        self.times.append(self.clock())
        return compute_id

    @property
    def most(self) -> int:
        """The most submissions within any second."""
        window, most = deque[datetime](), 0
        for at in self.times:
            window.append(at)
            while window[0] <= at - timedelta(seconds=1):
                window.popleft()
            most = max(most, len(window))
        return most

    @property
    def took(self) -> float:
        """Seconds from the first submission to the last."""
        return (self.times[-1] - self.times[0]).total_seconds()


def rated(store: Database) -> tuple[World, Timed]:
    """A world whose compute takes as many submissions a second as AWS Batch, with that compute."""
    compute = Timed()
    world = World(store, compute=compute, submissions=SUBMISSIONS, mails=False)
    compute.clock = world.clock
    return world, compute
