"""The folder of an array. The runs of its programs lie in it, each in a folder of its number.

| file        | says                                                                            |
|-------------|---------------------------------------------------------------------------------|
| `count`     | how many programs the array has; a single run has no such file                  |
| `spec.json` | what a run's says, for each of the programs; `results` lie in folders below it  |
| `cancel`    | end all of them                                                                 |
| `exit.json` | how the array ended; `children` counts its programs by state                    |
| `0`, `1`, … | the programs' runs; on this machine they are made as places become free         |
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from bot.domain.states import FINAL, JobState
from bot.domain.work import Observation
from bot.files import records
from bot.files.runs import SPOILED_RUN, ended


class Array:
    """What this process knows of one array: programs that have ended are looked at once.

    Threads may share it. At worst, one looks at something a second time.
    """

    def __init__(self, folder: Path, *, count: int) -> None:
        self.folder = folder
        self.count = count
        self._begun = 0
        self._ended: dict[int, JobState] = {}
        self._started: datetime | None = None
        self._stopped: datetime | None = None
        self._cancelled = False

    @classmethod
    def read(cls, folder: Path) -> Array | None:
        """The array in that folder; None: it is a single run. Raises OSError."""
        try:
            return cls(folder, count=int((folder / "count").read_bytes()))
        except FileNotFoundError:
            return None
        except ValueError:  # something else has written there: a single run, whose spec.json says nothing either
            return None

    def begun(self) -> int:
        """How many programs have a folder: those with the numbers below it."""
        number = self._begun
        while number < self.count and (self.folder / str(number)).is_dir():
            number += 1
        self._begun = number
        return number

    def spec(self, number: int) -> dict[str, object]:
        """The spec.json of one program. Raises ValueError or KeyError where the array's is spoiled."""
        spec = json.loads((self.folder / "spec.json").read_bytes())
        return {**spec, "index": number, "results": spec["results"] and f"{spec['results']}/{number}"}

    def unsettled(self, begun: int) -> list[int]:
        """The numbers below `begun` of those that have not been seen to end."""
        return [number for number in range(begun) if number not in self._ended]

    def may_be(self, number: int, state: frozenset[JobState]) -> bool:
        """Whether a program may be in one of the states, as far as is known without a look."""
        return number not in self._ended or self._ended[number] in state

    def waiting(self, why: str) -> Observation:
        """What is seen of a program that has no folder yet; `why` it waits."""
        if reason := records.cancelled(self.folder):
            return Observation(JobState.FAILED, reason)
        return Observation(JobState.RUNNABLE, why)

    def observe(self, seen: Mapping[int, Observation], *, begun: int, why: str) -> Observation:
        """What is seen of the array; of its unsettled programs below `begun`, each by its number, this is.

        An array that has ended says so in its exit.json from then on.
        """
        if end := ended(self.folder):
            return end
        reason = records.cancelled(self.folder)
        for number, one in seen.items():
            self._take(number, one, reason)
        children = dict.fromkeys(FINAL, 0)
        for state in [*self._ended.values(), *(one.state for one in seen.values() if one.state not in FINAL)]:
            children[state] = children.get(state, 0) + 1
        waiting = self.waiting(why).state
        children[waiting] = children.get(waiting, 0) + self.count - begun
        told = Observation.of_array(
            children,
            reason=reason if self._cancelled or begun < self.count else "",
            started_at=self._started,
            stopped_at=self._stopped,
        )
        if told.state in FINAL:
            self._end(told)
            return ended(self.folder) or SPOILED_RUN
        return replace(told, reason=why) if told.state is JobState.RUNNABLE else told

    def _take(self, number: int, seen: Observation, cancelled: str) -> None:
        if seen.started_at and (self._started is None or seen.started_at < self._started):
            self._started = seen.started_at
        if seen.state in FINAL:
            if seen.stopped_at and (self._stopped is None or seen.stopped_at > self._stopped):
                self._stopped = seen.stopped_at
            self._cancelled |= bool(cancelled) and seen.reason == cancelled
            self._ended[number] = seen.state

    def _end(self, told: Observation) -> None:
        records.write_exit(
            self.folder,
            code=told.exit_code,
            reason=told.reason,
            started=told.started_at.timestamp() if told.started_at else None,
            stopped=told.stopped_at.timestamp() if told.stopped_at else time.time(),
            cause=told.cause.value if told.cause else None,
            children={state.value: number for state, number in told.children.items()},
        )
