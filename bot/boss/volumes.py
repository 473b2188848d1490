"""Volumes: collections, experiments and permissions of BOSS, over the detail GETs of its API, with a cache.

A caller waits as long as the caller chooses; the request goes on in a thread of its own until it has an answer or times
out, and its outcome is cached for the next caller. For a token and a path, one request at a time is under way.
What BOSS sends is data from outside: checked, bounded, and never repeated in an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from bot.domain import words
from bot.domain.errors import NomadsError, Refused, Unavailable
from bot.domain.urls import origin
from bot.domain.volume import (
    Channel,
    Experiment,
    NotAllowed,
    TokenRefused,
    UnknownCollection,
    UnknownExperiment,
    Unusable,
)
from contract.masking import is_token
from contract.names import PATTERN, is_name
from contract.units import nanometres

if TYPE_CHECKING:
    from bot.boss.http import BossHttp


LOG = logging.getLogger(__name__)

WORKERS = 8
"""Requests, and connections, at once."""
WAITING = 64
"""Requests that may wait for a worker; a further request fails at once."""
MAX_LIST = 4 * 2**20
"""Bytes of the largest list of collections that is read."""
MAX_DETAIL = 2**20
"""Bytes of the largest other answer that is read."""
MAX_NAMES = 20_000
"""Entries of the longest list that is understood."""
MAX_KEPT = 4096
"""Answers in the cache; the least recently used are dropped first."""
MAX_KEPT_BYTES = 32 * 2**20
"""Bytes, as received, of all answers in the cache."""
LATE = 1.0
"""Seconds: an answer that takes longer makes BOSS late, until the first quicker answer."""
SHORTLY = 0.05
"""Seconds that a form waits while BOSS is late. The request goes on; so a slow BOSS delays one form, not every form."""
PATIENT = 2.5
"""Seconds: a caller that waits so long or longer is no form, and is not cut to SHORTLY."""
LONGEST_TROUBLE = 60.0
"""Seconds for which a failure is cached at most, whatever Retry-After asks for: forms would stay without names."""
_CLOSING_SECONDS = 1.0

_COLLECTIONS = "/v1/collection//"  # two slashes, as BOSS's own client asks


# ── what BOSS sends ───────────────────────────────────────────────────────────────────────────────────────────────────


def _names(value: Any) -> tuple[str, ...]:
    """The names in a list, without entries outside BOSS's alphabet. Raises ValueError for anything else."""
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise ValueError("not a list of names")
    return tuple(dict.fromkeys(name for name in value if isinstance(name, str) and is_name(name)))


def _word(value: Any) -> str:
    """A data type's name; empty for anything else, so that one odd channel does not spoil the others."""
    return value if isinstance(value, str) and re.fullmatch(r"[a-z0-9]{1,32}", value) else ""


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Said(BaseModel):
    """An answer. Strict: no string or bool is taken for a number."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Collections(_Said):
    collections: Names


class _Collection(_Said):
    experiments: Names


class _Experiment(_Said):
    coord_frame: Annotated[str, Field(pattern=f"^{PATTERN}$")]
    channels: Names


class _Frame(_Said):
    z_start: Int64
    z_stop: Int64
    y_start: Int64
    y_stop: Int64
    x_start: Int64
    x_stop: Int64
    z_voxel_size: Size
    y_voxel_size: Size
    x_voxel_size: Size
    voxel_unit: Annotated[float, BeforeValidator(nanometres)] = 1.0

    @model_validator(mode="after")
    def _has_an_inside(self) -> _Frame:
        if any(start >= stop for start, stop in self.bounds) or not all(0 < size < math.inf for size in self.voxel_nm):
            raise ValueError("no volume")
        return self

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return (self.z_start, self.z_stop), (self.y_start, self.y_stop), (self.x_start, self.x_stop)

    @property
    def voxel_nm(self) -> tuple[float, float, float]:
        unit = self.voxel_unit
        return self.z_voxel_size * unit, self.y_voxel_size * unit, self.x_voxel_size * unit


class _Channel(_Said):
    datatype: Annotated[str, BeforeValidator(_word)] = ""


class _PermissionSet(_Said):
    collection: str = ""
    experiment: str = ""
    permissions: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()


class _Permissions(_Said):
    sets: Annotated[list[_PermissionSet], Field(alias="permission-sets", max_length=MAX_NAMES)]


S = TypeVar("S", bound=_Said)


# ── asking, once ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Missing(Refused):
    """BOSS answered 404: there is no such thing."""


class _Forbidden(Refused):
    """BOSS answered 403: the token gives no right to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Seconds for which an answer is cached."""

    metadata: float = 300
    refusal: float = 10
    """For a 401, 403 or 404."""
    trouble: float = 2
    """For any other failure; or what Retry-After asks for if that is longer, up to a minute."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of a request: BOSS's answer, or a kind of failure and a text about it."""

    said: _Said | None = None
    failure: Literal["", "token", "forbidden", "missing", "unusable", "unavailable"] = ""
    text: str = ""
    retry_after: float | None = None

    def take(self) -> _Said:
        """BOSS's answer. Raises a new error each time: an error raised in two threads would have both traces."""
        if self.said is not None:
            return self.said
        if self.failure == "token":
            raise TokenRefused
        if self.failure == "unusable":
            raise Unusable(_STRANGE_EXPERIMENT)
        if self.failure in ("forbidden", "missing"):
            raise _Forbidden if self.failure == "forbidden" else _Missing
        raise Unavailable(self.text, retry_after=self.retry_after)


class Deadline(NamedTuple):
    """When a caller goes on without an answer."""

    at: float
    patient: bool


Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    future: Future[_Outcome]
    until: float
    size: int


@dataclass(frozen=True, slots=True)
class _Task:
    key: Key
    token: SecretStr
    model: type[_Said]
    limit: int
    deadline: float
    future: Future[_Outcome]


class BossVolumes:
    """The Volumes of one BOSS. Threads, connections and httpx itself wait for the first call.

    A refusal is a 401, 403 or 404 of BOSS's own: a JSON object with `detail`, or with `status`, `code` and `message`.
    With anything else they come from a proxy on the way. That and all the rest are no refusal: Unavailable.
    """

    def __init__(
        self,
        *,
        host: str,
        hosts: Sequence[str] = (),
        patience: float = 5,
        connect: float = 2,
        lifetimes: Lifetimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an adapter for one BOSS. Raises NomadsError where `host` is no address, or is not allowed.

        `host` is a host name, which is asked over https, or `http://host:port`. `hosts` are the allowed hosts, written
        alike; empty: `host` only.

        A request ends after `patience` seconds, waiting for a worker included; connecting ends after `connect` seconds.
        `clock` dates the answers in the cache.
        """
        self._base = _origin(host)
        if hosts and self._base not in map(_origin, hosts):
            raise NomadsError(f"NOMADS_BOSS_HOST: {self._base} is not among the hosts that are allowed.")
        self._patience = patience
        self._connect = connect
        self._lifetimes = lifetimes or Lifetimes()
        self._clock = clock
        self._salt = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._flights: dict[Key, Future[_Outcome]] = {}
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._http: BossHttp | None = None
        self._http_lock = threading.Lock()
        self._closed = False
        self._late = False

    # ── the port ───────────────────────────────────────────────────────────────────────────────────────────────────

    def collections(self, *, token: SecretStr, within: float) -> Sequence[str]:
        """The names of the collections the token may read, in BOSS's order.

        Returns or raises within about `within` seconds, like every call here. Raises TokenRefused and Unavailable.
        """
        try:
            return self._said(_Collections, _COLLECTIONS, token, _after(within), limit=MAX_LIST).collections
        except (_Missing, _Forbidden):
            raise Unavailable(
                f"{self._base} lists no collections; whoever runs NOMADS checks that it is BOSS."
            ) from None

    def experiments(self, collection: str, *, token: SecretStr, within: float) -> Sequence[str]:
        """The names of the collection's experiments, in BOSS's order.

        Raises TokenRefused, UnknownCollection, NotAllowed and Unavailable.
        """
        return self._experiments(collection, token, _after(within))

    def describe(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> Experiment:
        """Bounds, voxel size and channels. A channel whose data type does not come in time has none.

        Raises TokenRefused, UnknownCollection, UnknownExperiment, NotAllowed, Unusable and Unavailable.
        """
        deadline = _after(within)
        if not _are_names(collection):
            raise UnknownCollection(collection)
        if not _are_names(experiment):
            raise UnknownExperiment(collection, experiment)
        path = _path(collection, experiment)
        try:
            said = self._said(_Experiment, path, token, deadline)
        except _Forbidden:
            raise NotAllowed(collection, experiment) from None
        except _Missing:
            raise self._unknown(collection, experiment, token, deadline) from None
        frame = self._ask(_Frame, f"/v1/coord/{quote(said.coord_frame, safe='')}", token)
        channels = [_path(collection, experiment, name) for name in said.channels]
        for channel in channels[: WORKERS - 1]:  # beside the frame
            self._ask(_Channel, channel, token)
        try:
            about = self._wait(frame, deadline)
        except (_Missing, _Forbidden):
            raise Unusable("BOSS does not show this experiment's coordinate frame; tell whoever runs it.") from None
        assert isinstance(about, _Frame)
        types = self._datatypes(channels, token, deadline)
        return Experiment(
            collection=collection,
            name=experiment,
            bounds=about.bounds,
            voxel_nm=about.voxel_nm,
            channels=tuple(
                Channel(name=name, datatype=types.get(path, ""))
                for name, path in zip(said.channels, channels, strict=True)
            ),
        )

    def may_write(self, collection: str, experiment: str, *, token: SecretStr, within: float) -> bool | None:
        """Whether the token may add channels; False for an unknown experiment, None where BOSS does not say.

        Raises TokenRefused, and nothing else.
        """
        if not _are_names(collection, experiment):
            return False
        path = f"/v1/permissions/?collection={quote(collection, safe='')}&experiment={quote(experiment, safe='')}"
        try:
            said = self._said(_Permissions, path, token, _after(within))
        except _Missing:
            return False
        except (_Forbidden, Unavailable):
            return None
        held = [s.permissions for s in said.sets if (s.collection, s.experiment) == (collection, experiment)]
        return any("add" in permissions for permissions in held)

    def prepare(self) -> None:
        """Load now what the first call would load: a few tenths of a second. Nothing is sent."""
        self._connections()

    def close(self) -> None:
        """Answer every waiting caller with Unavailable, and end requests and threads within about a second.

        A thread that is still looking up a host's name is left behind; it does not hold up the process's end. Later
        calls raise Unavailable.
        """
        with self._lock:
            self._closed = True
            flights, self._flights = list(self._flights.values()), {}
            threads = list(self._threads)
        for future in flights:
            _settle(future, _STOPPED)
        for _ in threads:
            self._tasks.put(None)
        with self._http_lock:
            http = self._http
        if http:
            http.abort()
        deadline = time.monotonic() + _CLOSING_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if http:
            http.close()

    # ── what the port is made of ───────────────────────────────────────────────────────────────────────────────────

    def _experiments(self, collection: str, token: SecretStr, deadline: Deadline) -> tuple[str, ...]:
        if not _are_names(collection):
            raise UnknownCollection(collection)
        try:
            return self._said(_Collection, _path(collection), token, deadline).experiments
        except _Forbidden:
            raise NotAllowed(collection) from None
        except _Missing:
            raise UnknownCollection(collection, near=self._near_collections(collection, token)) from None

    def _unknown(self, collection: str, experiment: str, token: SecretStr, deadline: Deadline) -> Refused:
        """The error that a 404 for an experiment means: BOSS answers 404 for an unknown collection as well."""
        try:
            names = self._experiments(collection, token, deadline)
        except (UnknownCollection, NotAllowed) as error:
            return error
        except Unavailable:
            names = ()
        return UnknownExperiment(collection, experiment, near=words.alike(experiment, names))

    def _near_collections(self, collection: str, token: SecretStr) -> list[str]:
        """Names of collections that resemble it, where the list is in the cache."""
        known = self._known(_COLLECTIONS, token)
        return words.alike(collection, known.said.collections) if known and isinstance(known.said, _Collections) else []

    def _datatypes(self, paths: Sequence[str], token: SecretStr, deadline: Deadline) -> dict[str, str]:
        """The data types that are in the cache or arrive in time, by path.

        At most WORKERS are asked for at once, and no further one after BOSS failed or was late.
        """
        found: dict[str, str] = {}
        asked: deque[tuple[str, Future[_Outcome]]] = deque()
        known = {path: outcome for path in paths if (outcome := self._known(path, token))}
        left = iter([path for path in paths if path not in known])
        while True:
            asked += [(path, self._ask(_Channel, path, token)) for path in islice(left, WORKERS - len(asked))]
            if not asked:
                break
            path, future = asked.popleft()
            try:
                known[path] = _Outcome(self._wait(future, deadline))
            except Refused:
                continue
            except Unavailable:
                left = iter(())
        for path, outcome in known.items():
            if isinstance(outcome.said, _Channel):
                found[path] = outcome.said.datatype
        return found

    def _wait(self, future: Future[_Outcome], deadline: Deadline) -> _Said:
        """The answer, once it is there. While BOSS is late, a form waits only SHORTLY. Raises as `take`."""
        patience = max(0.0, deadline.at - time.monotonic())
        try:
            outcome = future.result(min(patience, SHORTLY) if self._late and not deadline.patient else patience)
        except TimeoutError:
            self._late = self._late or patience >= LATE
            raise Unavailable("BOSS did not answer in time. Try again in a moment.") from None
        return outcome.take()

    def _known(self, path: str, token: SecretStr) -> _Outcome | None:
        """The cached outcome, if it has not expired; None where there is none."""
        with self._lock:
            kept = self._fresh(self._key(token, path))
        return kept.result() if kept else None

    def _fresh(self, key: Key) -> Future[_Outcome] | None:
        kept = self._kept.get(key)
        if kept is None or self._clock() >= kept.until:
            return None
        self._kept.move_to_end(key)
        return kept.future

    def _said(self, model: type[S], path: str, token: SecretStr, deadline: Deadline, *, limit: int = MAX_DETAIL) -> S:
        """BOSS's answer for the path. Raises TokenRefused, Unusable, _Missing, _Forbidden or Unavailable."""
        said = self._wait(self._ask(model, path, token, limit=limit), deadline)
        assert isinstance(said, model)
        return said

    def _ask(self, model: type[_Said], path: str, token: SecretStr, *, limit: int = MAX_DETAIL) -> Future[_Outcome]:
        """The outcome of a request: cached, or of the request that is under way, or of a new one."""
        if not is_token(token.get_secret_value()):  # a header cannot hold it, and h11's error would quote it
            return _done(_Outcome(failure="token"))
        key = self._key(token, path)
        with self._lock:
            if self._closed:
                return _done(_STOPPED)
            if known := self._fresh(key) or self._flights.get(key):
                return known
            if len(self._flights) >= WORKERS + WAITING:
                return _done(_BUSY)
            future = self._flights[key] = Future[_Outcome]()
            deadline = time.monotonic() + self._patience
            self._tasks.put(_Task(key, token, model, limit, deadline, future))
            if len(self._threads) < min(WORKERS, len(self._flights)):
                thread = threading.Thread(target=self._work, name=f"boss-{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
        return future

    def _key(self, token: SecretStr, path: str) -> Key:
        return hashlib.blake2b(token.get_secret_value().encode(), key=self._salt, digest_size=16).digest(), path

    # ── in the threads ─────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while task := self._tasks.get():
            if self._closed:
                continue
            began = time.monotonic()
            try:
                outcome, size = self._fetch(task)
            except Unavailable as trouble:
                outcome, size = _Outcome(None, "unavailable", str(trouble), trouble.retry_after), 0
            except Exception as error:  # the waiting callers must be told
                LOG.error("Unforeseen in a request to BOSS: %s", type(error).__name__)
                outcome, size = _Outcome(None, "unavailable", "NOMADS could not ask BOSS. Try again in a moment."), 0
            if outcome.failure == "unavailable":
                LOG.info("BOSS, %s: %s", task.key[1], outcome.text)
            self._late = time.monotonic() - began >= LATE
            self._keep(task, outcome, size)
            _settle(task.future, outcome)

    def _fetch(self, task: _Task) -> tuple[_Outcome, int]:
        """The outcome, and the size of the answer in bytes. Raises Unavailable."""
        http = self._connections()
        if time.monotonic() >= task.deadline:  # no caller waits any more
            raise Unavailable(_BUSY.text)
        answer = http.get(task.key[1], token=task.token.get_secret_value(), limit=task.limit, deadline=task.deadline)
        match answer.status:
            case 200:
                try:
                    return _Outcome(task.model.model_validate_json(answer.body)), len(answer.body)
                except ValidationError as error:
                    damaged = error.errors(include_input=False, include_url=False)[0]["type"] == "json_invalid"
                    an_experiment = task.model in (_Experiment, _Frame) and not damaged
                    if an_experiment:
                        return _Outcome(failure="unusable"), 0
                    raise Unavailable(_STRANGE) from None
            case 401 | 403 | 404 if not _is_refusal(answer.body):
                raise Unavailable(
                    f"An answer with status {answer.status} was not BOSS's own. Try again in a moment; if it stays so, "
                    "whoever runs NOMADS looks at what lies between it and BOSS."
                )
            case 401:
                return _Outcome(failure="token"), 0
            case 403:
                return _Outcome(failure="forbidden"), 0
            case 404:
                return _Outcome(failure="missing"), 0
            case status if 300 <= status < 400:
                raise Unavailable(
                    "BOSS sends NOMADS to another address, and it does not go; whoever runs it checks NOMADS_BOSS_HOST."
                )
            case status:
                raise Unavailable(
                    f"BOSS answered with status {status}. Try again in a moment.", retry_after=answer.retry_after
                )

    def _connections(self) -> BossHttp:
        with self._http_lock:
            if self._closed:
                raise Unavailable(_STOPPED.text)
            if self._http is None:
                from bot.boss.http import BossHttp

                self._http = BossHttp(base=self._base, connections=WORKERS, connect=self._connect)
            return self._http

    def _keep(self, task: _Task, outcome: _Outcome, size: int) -> None:
        lifetimes = self._lifetimes
        if outcome.said is not None:
            lifetime = lifetimes.metadata
        elif outcome.failure == "unavailable":
            lifetime = max(lifetimes.trouble, min(outcome.retry_after or 0, LONGEST_TROUBLE))
        else:
            lifetime = lifetimes.refusal
        with self._lock:
            self._flights.pop(task.key, None)
            before = self._kept.pop(task.key, None)
            self._kept[task.key] = _Kept(_done(outcome), self._clock() + lifetime, size)
            self._kept_bytes += size - (before.size if before else 0)
            while len(self._kept) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
                _, forgotten = self._kept.popitem(last=False)
                self._kept_bytes -= forgotten.size


_BUSY = _Outcome(None, "unavailable", "Too many questions to BOSS wait for an answer. Try again in a moment.")
_STOPPED = _Outcome(None, "unavailable", "NOMADS is stopping, and asks BOSS nothing more.")
_STRANGE = "BOSS's answer cannot be understood. Try again in a moment."
_STRANGE_EXPERIMENT = (
    "BOSS describes this experiment in a way NOMADS does not understand; tell whoever looks after it in BOSS."
)


def _is_refusal(body: bytes) -> bool:
    """Whether BOSS itself said no: its errors are JSON objects of these fields, a proxy's are pages."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and ("detail" in said or {"status", "code", "message"} <= said.keys())


def _done(outcome: _Outcome) -> Future[_Outcome]:
    future = Future[_Outcome]()
    future.set_result(outcome)
    return future


def _settle(future: Future[_Outcome], outcome: _Outcome) -> None:
    """Set the outcome for waiting callers, unless close() has set one."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(outcome)


def _after(within: float) -> Deadline:
    return Deadline(time.monotonic() + within, within >= PATIENT)


def _are_names(*names: str) -> bool:
    return all(map(is_name, names))


def _path(collection: str, *within: str) -> str:
    """The API's path of a collection, an experiment or a channel."""
    parts = ["/v1/collection", collection]
    for kind, name in zip(("experiment", "channel"), within, strict=False):
        parts += [kind, name]
    return "/".join([parts[0], *(quote(part, safe="") for part in parts[1:])])


def _origin(host: str) -> str:
    try:
        return origin(host)
    except ValueError as error:
        raise NomadsError(f"NOMADS_BOSS_HOST: {error}.") from None
