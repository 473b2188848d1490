"""Volumes: BOSS's as BOSS tells them, and those by address, whose metadata is read where they lie.

A caller waits as long as the caller chooses; the question goes on in a thread of its own, for PATIENCE at most, and its
outcome is kept for the next caller. For an address one question at a time is under way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from cachetools import TLRUCache
from pydantic import SecretStr

from bot.domain.errors import Unavailable
from bot.domain.volume import Channel, Experiment, UnusableAddress
from volumes.address import Address, is_address, parse
from volumes.describe import describe
from volumes.documents import Fetched
from volumes.errors import VolumeDamaged, VolumeError, VolumeRefused, WrongVolume
from volumes.roots import Roots

LOG = logging.getLogger(__name__)

WORKERS = 4
"""Volumes that are asked for at once."""
WAITING = 32
"""Questions that may be under way or wait; a further one fails at once."""
PATIENCE = 10.0
"""Seconds that a question may take."""
KEPT = 512
"""Outcomes that are kept."""
LIFETIME = 300.0
"""Seconds for which a description is kept."""
TROUBLE = 5.0
"""Seconds for which anything else is kept."""
_BUSY = "Too many volumes are asked for just now. Try again in a moment."
_LATE = "The volume's server did not answer in time. Try again in a moment."

Outcome = Experiment | UnusableAddress | Unavailable


class _Boss(Protocol):
    """What BOSS's adapter does of the port."""

    def collections(self, *, token: SecretStr, within: float) -> Sequence[str]: ...
    def experiments(self, collection: str, *, token: SecretStr, within: float) -> Sequence[str]: ...
    def describe(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> Experiment: ...
    def may_write(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> bool | None: ...
    def prepare(self) -> None: ...
    def close(self) -> None: ...


class AddressedVolumes:
    """The port's Volumes. In place of a collection's name an address may stand; no token is sent there."""

    def __init__(self, *, boss: _Boss, roots: Roots, clock: Callable[[], float] = time.monotonic) -> None:
        """`roots` are the places that may be asked; `clock` dates what is kept."""
        self.boss = boss
        self._roots = roots
        self._lock = threading.Lock()
        self._flights: dict[str, Future[Outcome]] = {}
        self._kept: TLRUCache[str, Outcome] = TLRUCache(KEPT, ttu=_until, timer=clock)
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def collections(self, *, token: SecretStr, within: float) -> Sequence[str]:
        """As the port; BOSS's alone."""
        return self.boss.collections(token=token, within=within)

    def experiments(self, collection: str, *, token: SecretStr, within: float) -> Sequence[str]:
        """As the port; an address has none."""
        return () if is_address(collection) else self.boss.experiments(collection, token=token, within=within)

    def may_write(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> bool | None:
        """As the port; BOSS's alone."""
        return self.boss.may_write(collection, experiment, token=token, within=within)

    def describe(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> Experiment:
        """As the port. For an address raises UnusableAddress and Unavailable."""
        if not is_address(collection):
            return self.boss.describe(collection, experiment, token=token, within=within)
        try:
            address = parse(collection)
        except WrongVolume as error:
            raise UnusableAddress(str(error)) from None
        if not isinstance(address, Address):
            raise UnusableAddress("This is an address of BOSS; write its collection and experiment.")
        outcome = self._outcome(address, within)
        if isinstance(outcome, Experiment):
            return outcome
        raise type(outcome)(str(outcome))  # a new one: an error raised in two threads would have both traces

    def prepare(self) -> None:
        """Load now what the first call would load. Nothing is sent."""
        self.boss.prepare()

    def close(self) -> None:
        """End BOSS's adapter, and take no more questions. Threads that wait for a server do not hold up the end."""
        with self._lock:
            self._closed = True
            threads = self._threads
        if threads:
            threads.shutdown(wait=False, cancel_futures=True)
        self.boss.close()

    def _outcome(self, address: Address, within: float) -> Outcome:
        key = str(address)
        with self._lock:
            if known := self._kept.get(key):
                return known
            flight = self._flights.get(key)
            if flight is None:
                if self._closed or len(self._flights) >= WAITING:
                    return Unavailable(_BUSY)
                self._threads = self._threads or ThreadPoolExecutor(WORKERS, thread_name_prefix="volumes")
                flight = self._flights[key] = self._threads.submit(self._ask, address)
        try:
            return flight.result(timeout=max(0.0, within))
        except TimeoutError:
            return Unavailable(_LATE)

    def _ask(self, address: Address) -> Outcome:
        try:
            outcome = self._asked(address)
        except Exception as error:  # the waiting callers must be told
            LOG.error("Unforeseen in a question about a volume: %s", type(error).__name__)
            outcome = Unavailable("NOMADS could not ask for this volume. Try again in a moment.")
        with self._lock:
            self._kept[str(address)] = outcome
            self._flights.pop(str(address), None)
        return outcome

    def _asked(self, address: Address) -> Outcome:
        try:
            found = describe(address, Fetched(self._roots, time.monotonic() + PATIENCE))
        except (WrongVolume, VolumeRefused, VolumeDamaged) as error:
            return UnusableAddress(str(error))
        except VolumeError as error:
            return Unavailable(str(error))
        return Experiment(
            collection=address.stem,
            name=address.digest,
            bounds=found.bounds,
            voxel_nm=found.voxel_nm,
            channels=tuple(Channel(name=channel.name, datatype=channel.datatype) for channel in found.channels),
            noun="volume",
        )


def _until(_: str, outcome: Outcome, now: float) -> float:
    return now + (LIFETIME if isinstance(outcome, Experiment) else TROUBLE)
