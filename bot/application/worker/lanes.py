"""Performs the effects of the outbox, each lane for itself.

An effect is leased, and then finished, postponed with back-off, or given up. An effect whose earlier attempt may have
gone through is in doubt: its handler looks for the outcome of that attempt before repeating the effect.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta

from bot.application.ledger import LeaseLost
from bot.application.worker.handling import EffectHandlers, Handler, attempt
from bot.domain import words
from bot.domain.errors import Busy, Refused, TooSoon, Unavailable
from bot.domain.job import now
from bot.domain.outbox import Effect, Kind, Lane
from bot.storage.engine import Database

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
"""Seconds: the back-off's first step, before jitter."""
LONGEST_DELAY = 300.0
"""Seconds: the back-off's ceiling, before jitter."""
IDLE = 0.5
"""Seconds between two looks at an outbox in which nothing is due: other processes enqueue effects too."""
AT_ONCE = 20
"""Effects of a lane that `drain` claims at once; it performs them one after the other."""
UNFORESEEN = "Something that nobody foresaw went wrong inside NOMADS ({error}); the log of NOMADS says where."
"""Why an effect is given up after unforeseen failures, in words for a person."""
THREADS = {Lane.COMPUTE: 4, Lane.CHAT: 4, Lane.EDIT: 2, Lane.HOME: 1, Lane.MAIL: 2}
"""Effects performed at once in each lane, so that a dead mail server holds back nothing but mail."""


def back_off(attempts: int) -> float:
    """Seconds to wait after that many attempts: doubling, with jitter so that workers do not return all at once."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts - 1, 16)) * random.uniform(0.7, 1.3)  # noqa: S311 - jitter


class LaneRunner:
    """Performs one process's share of the outbox. Any number of processes may share a database."""

    def __init__(
        self,
        *,
        database: Database,
        effects: Sequence[EffectHandlers],
        lease: timedelta,
        clock: Callable[[], datetime] = now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Lanes of which `effects` handle no kind are left to other processes.

        A dead worker's effects stay leased for the time `lease`; a living worker renews its leases in time.
        Without the chat lane, jobs that belong to a channel are left to other processes too; `Outbox.claim` says which.
        """
        self._database = database
        self._handlers = _by_kind(effects)
        self._lanes = [lane for lane in Lane if any(kind.lane is lane for kind in self._handlers)]
        self._of_chat = Lane.CHAT in self._lanes
        self._lease = lease
        self._clock = clock
        self._ticks = ticks
        self._ahead, self._unsteady = clock() - timedelta(seconds=ticks()), ticks()
        self._held: dict[int, Effect] = {}
        self._wake = {lane: threading.Event() for lane in self._lanes}
        self._stop = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        """Perform due effects until `stop()`; effects under way are finished first."""
        leases = threading.Thread(target=self._keep_leases, name="leases")
        threads = [threading.Thread(target=self._serve, args=(lane,), name=f"lane-{lane}") for lane in self._lanes]
        for thread in (leases, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        self._over.set()  # not before: effects under way need their leases renewed
        leases.join()

    def stop(self) -> None:
        """Let `run()` return."""
        self._stop.set()
        self.wake()

    def wake(self, lanes: Collection[Lane] = tuple(Lane)) -> None:
        """Look at these lanes of the outbox now: an effect may be due."""
        for lane in lanes:
            if event := self._wake.get(lane):
                event.set()

    def drain(self, *, job_id: str | None = None) -> int:
        """Perform due effects (of that job, where named) in this thread until none is due. Returns their number."""
        done = 0
        while effects := [e for lane in self._lanes for e in self._claim(lane, AT_ONCE, job_id)]:
            for effect in effects:
                self._perform(effect)
            done += len(effects)
        return done

    def turn(self, lane: Lane) -> bool:
        """Perform one due effect of the lane in this thread. Returns whether there was one."""
        effects = self._claim(lane, 1)
        for effect in effects:
            self._perform(effect)
        return bool(effects)

    def _serve(self, lane: Lane) -> None:
        wake, free = self._wake[lane], threading.Semaphore(THREADS[lane])
        with ThreadPoolExecutor(THREADS[lane], thread_name_prefix=lane.value) as pool:
            while not self._stop.is_set():
                wake.clear()
                slots = 0
                while free.acquire(blocking=False):
                    slots += 1
                effects = (attempt(self._claim, lane, slots) or []) if slots else []
                for _ in range(slots - len(effects)):
                    free.release()

                def over(_future: Future[None]) -> None:
                    free.release()
                    wake.set()

                for effect in effects:
                    pool.submit(self._perform, effect).add_done_callback(over)
                if not effects:
                    wake.wait(IDLE)

    def _claim(self, lane: Lane, limit: int, job_id: str | None = None) -> list[Effect]:
        at, leased = self._clock(), self._is_steady()
        if self._database.single_writer:  # an idle worker never takes the only write lock
            with self._database.read() as transaction:
                due = transaction.outbox.due(lane, at=at, job_id=job_id, of_chat=self._of_chat, leased=leased)
                if not due:
                    return []
        with self._database.begin() as transaction:
            claimed = transaction.outbox.claim(
                lane, limit=limit, lease_for=self._lease, at=at, job_id=job_id, of_chat=self._of_chat, leased=leased
            )
        self._held |= {effect.id: effect for effect in claimed}
        return claimed

    def _is_steady(self) -> bool:
        """Whether a lease that is out by the clock is out; not where the clock was put forward a moment ago.

        Then every lease seems to be out, those of living workers among them, until they are renewed.
        """
        ticks = self._ticks()
        ahead = self._clock() - timedelta(seconds=ticks)
        if ahead > self._ahead + self._lease / 3:
            log.warning("The clock was put forward; effects of others are left to them for %s.", self._lease)
            self._unsteady = ticks + self._lease.total_seconds()
        self._ahead = ahead
        return ticks >= self._unsteady

    def _keep_leases(self) -> None:
        while not self._over.wait(self._lease.total_seconds() / 3):
            attempt(self.keep_leases)

    def keep_leases(self) -> None:
        """Renew the leases of effects under way, and see to it that a clock that went back stalls nothing."""
        held = list(self._held.values())
        if held:
            with self._database.begin() as transaction:
                transaction.outbox.renew(held, lease_for=self._lease, at=self._clock())
        with self._database.read() as transaction:
            ahead = transaction.outbox.set_ahead_of(self._clock())
        self._database.scrub()
        if not ahead:
            return
        with self._database.begin() as transaction:
            number = transaction.outbox.rewind(self._clock)
        if number:
            log.warning("The clock has gone back; the times of %d effects were set anew.", number)
            self.wake()

    def _perform(self, effect: Effect) -> None:
        handler = self._handlers[effect.kind]
        try:
            with self._database.read() as transaction:
                job = transaction.jobs.get(effect.job_id)
            handler.perform(effect, job)
        except LeaseLost as lost:
            log.info("%s", lost)
        except Unavailable as error:
            self._put_off(handler, effect, error)
        except Refused as error:
            log.warning("Job %s: %s was refused: %s", effect.job_id, effect.kind, error)
            self._give_up(handler.refused or handler.give_up, effect, str(error))
        except Exception as error:
            log.error("Job %s: %s failed: %s", effect.job_id, effect.kind, words.where(error))
            said = UNFORESEEN.format(error=type(error).__name__)
            if effect.faults + 1 >= handler.faults:
                log.error("Job %s: %s is given up after %d faults", effect.job_id, effect.kind, effect.faults + 1)
                self._give_up(handler.give_up, effect, said)
            else:
                self._postpone_by(back_off(effect.faults + 1), effect, said, fault=True)
        finally:
            self._held.pop(effect.id, None)

    def _put_off(self, handler: Handler, effect: Effect, error: Unavailable) -> None:
        if effect.attempts >= handler.attempts:
            log.error(
                "Job %s: %s is given up after %d attempts: %s", effect.job_id, effect.kind, effect.attempts, error
            )
            self._give_up(handler.give_up, effect, f"{handler.exhausted} {error}".strip())
        else:
            wait, busy = error.retry_after, isinstance(error, Busy)
            # A service that did its work may name a time that is too short for three days of attempts.
            delay = wait if busy and wait is not None else max(back_off(effect.attempts), wait or 0)
            level = logging.DEBUG if isinstance(error, TooSoon) else logging.INFO
            self._postpone_by(delay, effect, str(error), undone=busy, counted=not busy or wait is None, level=level)

    def _give_up(self, last_resort: Callable[[Effect, str], None], effect: Effect, error: str) -> None:
        """The last resort; where even that fails, it is tried again later, as often as it takes."""
        try:
            last_resort(effect, words.printable(error))
        except LeaseLost as lost:
            log.info("%s", lost)
        except Exception as fault:
            log.error("Job %s: %s could not be given up: %s", effect.job_id, effect.kind, words.where(fault))
            self._postpone_by(back_off(effect.attempts), effect, error, fault=not isinstance(fault, Unavailable))

    def _postpone_by(
        self,
        delay: float,
        effect: Effect,
        error: str,
        *,
        undone: bool = False,
        counted: bool = True,
        fault: bool = False,
        level: int = logging.INFO,
    ) -> None:
        """Put the effect off. `undone`: the service said that it did nothing; `counted`: an attempt is spent."""
        log.log(level, "Job %s: %s again in %.1f s: %s", effect.job_id, effect.kind, delay, error)
        attempt(self._postpone, effect, error, delay=delay, undone=undone, counted=counted, fault=fault)

    def _postpone(self, effect: Effect, error: str, *, delay: float, undone: bool, counted: bool, fault: bool) -> None:
        with self._database.begin() as transaction:
            transaction.outbox.postpone(
                effect,
                delay=timedelta(seconds=delay),
                # Only a service that is Busy has done nothing, whatever Retry-After another failure comes with.
                in_doubt=effect.in_doubt or not undone,
                counted=counted,
                fault=fault,
                error=error,
                at=self._clock(),
            )


def _by_kind(effects: Sequence[EffectHandlers]) -> dict[Kind, Handler]:
    """The handler of each kind. Raises ValueError where a kind has two, or where one of a served lane has none."""
    found: dict[Kind, Handler] = {}
    for handlers in (some.handlers() for some in effects):
        if twice := handlers.keys() & found.keys():
            raise ValueError(f"Two handlers are registered for {', '.join(sorted(twice))}.")
        found |= handlers
    served = {kind.lane for kind in found}
    if missing := [kind for kind in Kind if kind.lane in served and kind not in found]:
        raise ValueError(f"No handler is registered for {', '.join(missing)}.")
    return found
