"""A stand-in of BOSS v1 on this machine: what the unmodified `intern` needs to list, describe, read and write.

It answers as BOSS does, error bodies and oddities included: lists have a double slash, a list under an unknown parent
is a 500, a refused token is a 401 with `detail`, everything else has `status`, `code` and `message`.
It listens on 127.0.0.1 only and never logs a token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import blosc
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.volumes import Bricks, Synthetic, Triple, cortex

LOG = logging.getLogger("sandbox.boss")

DEMO_TOKEN = "demo-token"
"""The token the stand-in takes unless it is told others."""
PREDICTIONS = "collman_nomads", "nomads_predictions"
"""Collection and experiment that programs write their detections to, unless the settings say another place."""
MAX_CUTOUT = 520 * 2**20
"""The most bytes of a cutout, uncompressed, as in BOSS."""
NAME = re.compile(r"[a-zA-Z0-9_-]{1,255}")

# BOSS's own numbers for its errors (django/bosscore/error.py), with the HTTP status each goes out under.
INVALID_CUTOUT = 400, 1001
TYPE_ERROR = 400, 1002
INVALID_POST = 400, 1003
TOO_LARGE = 413, 2000
WRONG_DATATYPE = 400, 2001
WRONG_DIMENSIONS = 400, 2002
MISSING_PERMISSION = 403, 3001
NO_SUCH_RESOURCE = 404, 4000
NO_SUCH_GROUP = 404, 4001
STILL_IN_USE = 404, 4003
NO_SUCH_KEY = 404, 4004
GROUP_EXISTS = 404, 6001


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who a token belongs to, and the collections it opens beyond the public ones; `*` is every collection."""

    user: str
    read: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()

    def may(self, permission: str, collection: str) -> bool:
        """Whether that token has `read` or `write` on the collection; who may write may read."""
        names = self.write if permission == "write" else self.read | self.write
        return "*" in names or collection in names


@dataclass(frozen=True)
class Served:
    """A request that was answered."""

    method: str
    path: str
    status: int


class Hold:
    """Requests that are kept waiting. `reached` is set when the first one arrives."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Let them go on."""
        self._released.set()

    def wait(self) -> None:
        """What a held request does."""
        self.reached.set()
        self._released.wait()


@dataclass
class _Fault:
    """Something that goes wrong with the next `left` requests whose path begins with `prefix`."""

    prefix: str
    left: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    hold: Hold | None = None


@dataclass
class _Channel:
    about: dict[str, Any]
    bricks: Bricks


@dataclass
class _Experiment:
    about: dict[str, Any]
    channels: dict[str, _Channel] = field(default_factory=dict)


@dataclass
class _Collection:
    about: dict[str, Any]
    public: bool = False
    experiments: dict[str, _Experiment] = field(default_factory=dict)


class _Refusal(Exception):
    """An answer that is an error, in BOSS's form."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.status, self.code = kind


class BossStandIn:
    """A BOSS in a thread: `with BossStandIn() as boss: … boss.url …`.

    `tokens` maps a token to what it opens; `public` always opens the public collections and nothing else.
    `port` 0 takes a free one. With `demo`, the synthetic `demo/cortex` is there (public), as `boss.cortex`, and an
    experiment of the same frame for detections (see PREDICTIONS).
    """

    def __init__(self, *, port: int = 0, tokens: Mapping[str, Access] | None = None, demo: bool = True) -> None:
        everything = frozenset({"*"})
        self._as_made = dict({DEMO_TOKEN: Access(user="demo", write=everything)} if tokens is None else tokens), demo
        self.requests: deque[Served] = deque(maxlen=10_000)
        """What was answered, oldest first; without headers, so without tokens."""
        self.cortex: Synthetic | None = None
        self._lock = threading.RLock()
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""
        self._furnish()

    def _furnish(self) -> None:
        tokens, demo = self._as_made
        self.tokens: dict[str, Access] = {"public": Access(user="public")} | tokens
        self._collections: dict[str, _Collection] = {}
        self._frames: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, dict[str, Any]] = {}
        self._permissions: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
        self._meta: dict[tuple[str, ...], dict[str, str]] = {}
        self._faults: list[_Fault] = []
        self._holds: list[Hold] = []
        if demo:
            self.cortex = self.cortex or cortex()
            self.add(
                "demo",
                "cortex",
                shape=self.cortex.shape,
                voxel_nm=self.cortex.voxel_nm,
                channels={name: self.cortex.bricks(name) for name in self.cortex.channels},
                public=True,
            )
            # where detections are written back to, as in 2018
            collection, experiment = PREDICTIONS
            self.add(collection, experiment, shape=self.cortex.shape, voxel_nm=self.cortex.voxel_nm, channels={})

    def reset(self) -> None:
        """Be as when it was made, at the same address: only what it began with is there, and nothing goes wrong."""
        with self._lock:
            for hold in self._holds:
                hold.release()
            self._furnish()
            self.requests.clear()

    # ── what is there ──────────────────────────────────────────────────────────────────────────────────────────────

    def add(
        self,
        collection: str,
        experiment: str,
        *,
        shape: Triple,
        channels: Mapping[str, Bricks],
        voxel_nm: tuple[float, float, float] = (50, 96, 96),
        offset: Triple = (0, 0, 0),
        public: bool = False,
        **about: Any,
    ) -> None:
        """Add an experiment, its collection if need be, and a frame `[offset, offset + shape)`; axes z, y, x.

        `about` overrides fields of the experiment, such as `time_step_unit=None`. Bricks are addressed in the frame's
        coordinates, offset included.
        """
        with self._lock:
            home = self._collections.setdefault(
                collection, _Collection({"name": collection, "description": "", "creator": "demo"}, public=public)
            )
            frame = f"{collection}_{experiment}"
            self._frames[frame] = {"name": frame, "description": "", "voxel_unit": "nanometers"} | {
                f"{axis}_{what}": value
                for axis, start, n, size in zip("zyx", offset, shape, voxel_nm, strict=True)
                for what, value in (("start", start), ("stop", start + n), ("voxel_size", size))
            }
            there = _Experiment(_experiment_about(experiment, {"coord_frame": frame} | about, "demo"))
            home.experiments[experiment] = there
            for name, bricks in channels.items():
                described = _channel_about(name, {"datatype": str(bricks.dtype)}, "demo")
                there.channels[name] = _Channel(described, bricks)

    @property
    def experiments(self) -> list[str]:
        """Every `collection/experiment` with its channels, for people to read."""
        return [
            f"{c}/{e}: {', '.join(experiment.channels) or 'no channels yet'}"
            for c, collection in self._collections.items()
            for e, experiment in collection.experiments.items()
        ]

    # ── what goes wrong ────────────────────────────────────────────────────────────────────────────────────────────

    def fail_next(
        self, count: int = 1, *, status: int = 503, prefix: str = "/", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the next `count` requests under the path prefix with that status."""
        self._faults.append(_Fault(prefix, count, status=status, headers=headers or {}))

    def cut_next(self, count: int = 1, *, prefix: str = "/") -> None:
        """Break the connection in the middle of the next `count` answers under the path prefix."""
        self._faults.append(_Fault(prefix, count, cut=True))

    @contextmanager
    def hanging(self, *, prefix: str = "/") -> Iterator[Hold]:
        """Keep every request under the path prefix waiting until the block ends or the hold is released."""
        fault = _Fault(prefix, 2**31, hold=self._new_hold())
        self._faults.append(fault)
        assert fault.hold is not None
        try:
            yield fault.hold
        finally:
            self._faults.remove(fault)
            fault.hold.release()

    def _new_hold(self) -> Hold:
        hold = Hold()
        self._holds.append(hold)
        return hold

    def _next_fault(self, path: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.left > 0 and path.startswith(fault.prefix):
                    fault.left -= 1
                    return fault
        return None

    # ── running ────────────────────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> BossStandIn:
        listening = self.listen()
        self._thread = threading.Thread(target=self._make().run, args=([listening],), name="boss", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for hold in self._holds:
            hold.release()
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def serve(self, listening: socket.socket) -> None:
        """Serve in this thread until SIGINT or SIGTERM, on what `listen` gave."""
        self._make().run([listening])

    def listen(self) -> socket.socket:
        """Take the port; `url` is known from then on. Raises OSError where the port is taken."""
        listening = socket.create_server(("127.0.0.1", self._port))
        # asyncio does so only for sockets it makes itself; else every answer but a connection's first waits 40 ms
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return listening

    def _make(self) -> uvicorn.Server:
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app(),
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="critical",  # a cut connection is on purpose; requests are logged by the middleware
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        return self._server

    def app(self) -> Starlette:
        """The ASGI application, for a server of one's own."""
        table = (
            ("/v1/collection/", self._list_collections, "GET"),
            ("/v1/collection//", self._list_collections, "GET"),
            ("/v1/collection/{c}/experiment/", self._list_experiments, "GET"),
            ("/v1/collection/{c}/experiment/{e}/channel/", self._list_channels, "GET"),
            ("/v1/coord/", self._list_frames, "GET"),
            ("/v1/coord//", self._list_frames, "GET"),
            ("/v1/collection/{c}", self._collection, "GET POST PUT DELETE"),
            ("/v1/collection/{c}/experiment/{e}", self._experiment, "GET POST PUT DELETE"),
            ("/v1/collection/{c}/experiment/{e}/channel/{ch}", self._channel, "GET POST PUT DELETE"),
            ("/v1/coord/{f}", self._frame, "GET POST PUT DELETE"),
            ("/v1/cutout/to_black/{c}/{e}/{ch}/{res}/{x}/{y}/{z}/", self._blacken, "PUT"),
            ("/v1/cutout/to_black/{c}/{e}/{ch}/{res}/{x}/{y}/{z}/{t}/", self._blacken, "PUT"),
            ("/v1/cutout/{c}/{e}/{ch}/{res}/{x}/{y}/{z}/", self._cutout, "GET POST"),
            ("/v1/cutout/{c}/{e}/{ch}/{res}/{x}/{y}/{z}/{t}/", self._cutout, "GET POST"),
            ("/v1/meta/{c}", self._metadata, "GET POST PUT DELETE"),
            ("/v1/meta/{c}/{e}", self._metadata, "GET POST PUT DELETE"),
            ("/v1/meta/{c}/{e}/{ch}", self._metadata, "GET POST PUT DELETE"),
            ("/v1/permissions/", self._permission_sets, "GET POST PATCH DELETE"),
            ("/v1/groups/", self._list_groups, "GET"),
            ("/v1/groups/{g}/", self._group, "GET POST DELETE"),
            ("/v1/groups/{g}/{role}/", self._group_people, "GET"),
            ("/v1/groups/{g}/{role}/{user}", self._group_person, "GET POST DELETE"),
        )
        routes = [Route(path, self._answer(handler), methods=methods.split()) for path, handler, methods in table]
        routes += [  # BOSS takes these with and without the slash at the end
            Route(path + "/", self._answer(handler), methods=methods.split())
            for path, handler, methods in table
            if not path.endswith("/")
        ]
        app = Starlette(routes=routes, middleware=[Middleware(_Faults, boss=self)])
        app.router.redirect_slashes = False
        return app

    def _answer(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            body = await request.body()
            return await run_in_threadpool(self._respond, handler, request, body)

        return answer

    def _respond(self, handler: Any, request: Request, body: bytes) -> Response:
        """Check the token, call the handler, and give errors BOSS's form."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Token" or not token:
            return JSONResponse({"detail": "Authentication credentials were not provided."}, status_code=401)
        access = self.tokens.get(token)
        if access is None:
            return JSONResponse({"detail": "Invalid token."}, status_code=401)
        try:
            answer: Response = handler(_Call(request, access, body))
        except _Refusal as refusal:
            return JSONResponse(
                {"status": refusal.status, "code": refusal.code, "message": str(refusal)}, status_code=refusal.status
            )
        return answer

    # ── finding things, with permission ────────────────────────────────────────────────────────────────────────────

    def _readable(self, call: _Call, collection: str) -> bool:
        return self._collections[collection].public or call.access.may("read", collection)

    def _find_collection(self, call: _Call, permission: str = "read") -> _Collection:
        name = call.path["c"]
        found = self._collections.get(name)
        if found is None:
            raise _Refusal(NO_SUCH_RESOURCE, f"{name} does not exist.")
        self._check(call, permission, name, name)
        return found

    def _find_experiment(self, call: _Call, permission: str = "read") -> _Experiment:
        name = call.path["e"]
        if call.path["c"] not in self._collections:
            raise _Refusal(NO_SUCH_RESOURCE, f"{call.path['c']} does not exist.")
        found = self._collections[call.path["c"]].experiments.get(name)
        if found is None:
            raise _Refusal(NO_SUCH_RESOURCE, f"{name} does not exist.")
        self._check(call, permission, call.path["c"], name)
        return found

    def _find_channel(self, call: _Call, permission: str = "read") -> _Channel:
        name = call.path["ch"]
        found = self._find_experiment(call, permission).channels.get(name)
        if found is None:
            raise _Refusal(NO_SUCH_RESOURCE, f"{name} does not exist.")
        return found

    def _check(self, call: _Call, permission: str, collection: str, resource: str) -> None:
        allowed = self._readable(call, collection) if permission == "read" else call.access.may("write", collection)
        if not allowed:
            raise _Refusal(MISSING_PERMISSION, f"Missing {permission} permissions on the resource {resource}")

    def _may_make(self, call: _Call, resource: str) -> None:
        """Writers make resources; BOSS calls it a role."""
        if not call.access.may("write", call.path.get("c", resource)):
            raise _Refusal((403, 3000), "User does not have the resource-manager role")
        if not NAME.fullmatch(resource):
            raise _Refusal(INVALID_POST, "{'name': ['Enter a valid value.']}")

    # ── the project service ────────────────────────────────────────────────────────────────────────────────────────

    def _list_collections(self, call: _Call) -> Response:
        return JSONResponse({"collections": [name for name in self._collections if self._readable(call, name)]})

    def _list_experiments(self, call: _Call) -> Response:
        if call.path["c"] not in self._collections:
            return _server_error()
        return JSONResponse({"experiments": list(self._find_collection(call).experiments)})

    def _list_channels(self, call: _Call) -> Response:
        collection = self._collections.get(call.path["c"])
        if collection is None or call.path["e"] not in collection.experiments:
            return _server_error()
        return JSONResponse({"channels": list(self._find_experiment(call).channels)})

    def _list_frames(self, call: _Call) -> Response:
        return JSONResponse({"coords": list(self._frames)})

    def _collection(self, call: _Call) -> Response:
        name = call.path["c"]
        with self._lock:
            if call.method == "POST":
                self._may_make(call, name)
                if name in self._collections:
                    raise _Refusal(INVALID_POST, "{'name': ['This field must be unique.']}")
                about = {"name": name, "description": call.json().get("description", ""), "creator": call.access.user}
                self._collections[name] = _Collection(about)
                return JSONResponse(about, status_code=201)
            found = self._find_collection(call, "read" if call.method == "GET" else "write")
            if call.method == "DELETE":
                if found.experiments:
                    raise _Refusal(STILL_IN_USE, f"Collection {name} has experiments that reference it.")
                del self._collections[name]
                return Response(status_code=204)
            if call.method == "PUT":
                changes = call.json()
                found.public = changes.pop("public", found.public)
                _change(found.about, changes, self._collections, found)
            return JSONResponse(found.about | {"experiments": list(found.experiments), "public": found.public})

    def _experiment(self, call: _Call) -> Response:
        name = call.path["e"]
        with self._lock:
            if call.method == "POST":
                self._may_make(call, name)
                home = self._find_collection(call, "write")
                given = call.json()
                if name in home.experiments:
                    raise _Refusal(INVALID_POST, "{'non_field_errors': ['The name must be unique.']}")
                if given.get("coord_frame") not in self._frames:
                    raise _Refusal(NO_SUCH_RESOURCE, f"{given.get('coord_frame')} does not exist.")
                home.experiments[name] = _Experiment(_experiment_about(name, given, call.access.user))
                return JSONResponse(self._describe(call, home.experiments[name]), status_code=201)
            found = self._find_experiment(call, "read" if call.method == "GET" else "write")
            siblings = self._collections[call.path["c"]].experiments
            if call.method == "DELETE":
                if found.channels:
                    raise _Refusal(STILL_IN_USE, f"Experiment {name} has channels that reference it.")
                del siblings[name]
                return Response(status_code=204)
            if call.method == "PUT":
                _change(found.about, call.json(), siblings, found)
            return JSONResponse(self._describe(call, found))

    def _describe(self, call: _Call, experiment: _Experiment) -> dict[str, Any]:
        public = self._collections[call.path["c"]].public
        return experiment.about | {
            "collection": call.path["c"],
            "channels": list(experiment.channels),
            "public": public,
        }

    def _channel(self, call: _Call) -> Response:
        name = call.path["ch"]
        with self._lock:
            if call.method == "POST":
                self._may_make(call, name)
                home = self._find_experiment(call, "write")
                about = _channel_about(name, call.json(), call.access.user)
                if name in home.channels:
                    raise _Refusal(INVALID_POST, "{'non_field_errors': ['The name must be unique.']}")
                if about["datatype"] not in ("uint8", "uint16", "uint32", "uint64"):
                    raise _Refusal(INVALID_POST, f"Invalid datatype {about['datatype']}")
                home.channels[name] = _Channel(about, Bricks(about["datatype"]))
                return JSONResponse(about | {"experiment": call.path["e"]}, status_code=201)
            found = self._find_channel(call, "read" if call.method == "GET" else "write")
            siblings = self._collections[call.path["c"]].experiments[call.path["e"]].channels
            if call.method == "DELETE":
                del siblings[name]
                return Response(status_code=204)
            if call.method == "PUT":
                _change(found.about, call.json(), siblings, found)
            return JSONResponse(found.about | {"experiment": call.path["e"]})

    def _frame(self, call: _Call) -> Response:
        name = call.path["f"]
        with self._lock:
            if call.method == "POST":
                self._may_make(call, name)
                if name in self._frames:
                    raise _Refusal(INVALID_POST, "{'name': ['This field must be unique.']}")
                given = call.json()
                self._frames[name] = {
                    "name": name,
                    "description": given.get("description", ""),
                    "voxel_unit": given.get("voxel_unit", "nanometers"),
                } | {
                    f"{axis}_{what}": given.get(f"{axis}_{what}", default)
                    for axis in "xyz"
                    for what, default in (("start", 0), ("stop", 1), ("voxel_size", 1))
                }
                return JSONResponse(self._frames[name], status_code=201)
            if name not in self._frames:
                raise _Refusal(NO_SUCH_RESOURCE, f"{name} does not exist.")
            if call.method != "GET":
                self._may_make(call, name)
            if call.method == "DELETE":
                users = (e for c in self._collections.values() for e in c.experiments.values())
                if any(e.about["coord_frame"] == name for e in users):
                    raise _Refusal(STILL_IN_USE, f"Coordinate frame {name} has experiments that reference it.")
                del self._frames[name]
                return Response(status_code=204)
            if call.method == "PUT":
                self._frames[name]["description"] = call.json().get("description", "")
            return JSONResponse(self._frames[name])

    # ── the volume service ─────────────────────────────────────────────────────────────────────────────────────────

    def _box(self, call: _Call, channel: _Channel) -> tuple[Triple, Triple, bool]:
        """Start and stop (z, y, x) of the cutout asked for, and whether it is at the native resolution."""
        experiment = self._collections[call.path["c"]].experiments[call.path["e"]]
        frame = self._frames[experiment.about["coord_frame"]]
        asked = "/".join(call.path[part] for part in ("res", "x", "y", "z"))
        base = channel.about["base_resolution"]
        if not re.fullmatch(r"[0-9]{1,3}(/[0-9]{1,19}:[0-9]{1,19}){3}", asked):
            raise _Refusal(TYPE_ERROR, f"Type error in cutout argument {asked}")
        resolution = int(call.path["res"])
        if not base <= resolution < base + experiment.about["num_hierarchy_levels"]:
            raise _Refusal(TYPE_ERROR, f"Invalid resolution {resolution}.")
        if call.path.get("t", "0:1") != "0:1":
            raise _Refusal(INVALID_CUTOUT, f"Invalid time range {call.path['t']}.")
        spans = []
        for axis in "zyx":
            low, high = (int(end) for end in call.path[axis].split(":"))
            if low >= high or low < frame[f"{axis}_start"] or high > frame[f"{axis}_stop"]:
                raise _Refusal(INVALID_CUTOUT, f"Incorrect cutout arguments {asked}")
            spans.append((low, high))
        (z0, z1), (y0, y1), (x0, x1) = spans
        start, stop = (z0, y0, x0), (z1, y1, x1)
        voxels = (stop[0] - start[0]) * (stop[1] - start[1]) * (stop[2] - start[2])
        if voxels * channel.bricks.dtype.itemsize > MAX_CUTOUT:
            raise _Refusal(TOO_LARGE, "Cutout request is over 500MB when uncompressed. Reduce cutout dimensions.")
        return start, stop, resolution == base

    def _cutout(self, call: _Call) -> Response:
        channel = self._find_channel(call, "read" if call.method == "GET" else "write")
        start, stop, native = self._box(call, channel)
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        if call.method == "POST":
            try:
                data = np.frombuffer(blosc.decompress(call.body), channel.bricks.dtype)
            except Exception:  # whatever blosc or numpy found wrong with it, BOSS says the same
                raise _Refusal(WRONG_DATATYPE, "Failed to decompress data. Verify the datatype.") from None
            if data.size != np.prod(shape):
                raise _Refusal(WRONG_DIMENSIONS, "Failed to unpack data. Verify the datatype and dimensions.")
            if native:  # what lies under a zero stays, as in BOSS: only to_black erases
                data = data.reshape(shape)
                channel.bricks.write(start, np.where(data == 0, channel.bricks.read(start, stop), data))
            return Response(status_code=201)
        # lower resolutions exist but were never made, and read as zero
        data = channel.bricks.read(start, stop) if native else np.zeros(shape, channel.bricks.dtype)
        return Response(blosc.compress(data, typesize=data.dtype.itemsize, clevel=1), media_type="application/blosc")

    def _blacken(self, call: _Call) -> Response:
        channel = self._find_channel(call, "write")
        start, stop, native = self._box(call, channel)
        if native:
            shape = [b - a for a, b in zip(start, stop, strict=True)]
            channel.bricks.write(start, np.zeros(shape, channel.bricks.dtype))
        return Response(status_code=200)

    # ── metadata, permissions and groups ───────────────────────────────────────────────────────────────────────────

    def _metadata(self, call: _Call) -> Response:
        permission = "read" if call.method == "GET" else "write"
        find = {1: self._find_collection, 2: self._find_experiment, 3: self._find_channel}[len(call.path)]
        find(call, permission)
        with self._lock:
            pairs = self._meta.setdefault(tuple(call.path.values()), {})
            key = call.query.get("key")
            if key is None:
                return JSONResponse({"keys": list(pairs)})
            if call.method == "POST":
                pairs[key] = call.query.get("value", "")
                return Response(status_code=201)
            if key not in pairs:
                raise _Refusal(NO_SUCH_KEY, f"The key {key} does not exist.")
            if call.method == "PUT":
                pairs[key] = call.query.get("value", "")
                return Response(status_code=200)
            if call.method == "DELETE":
                del pairs[key]
                return Response(status_code=204)
            return JSONResponse({"key": key, "value": pairs[key]})

    def _permission_sets(self, call: _Call) -> Response:
        given: dict[str, Any] = dict(call.query) if call.method in ("GET", "DELETE") else call.json()
        group = given.pop("group", None)
        permissions: list[str] = given.pop("permissions", [])
        with self._lock:
            if group is not None and group not in self._known_groups():
                raise _Refusal(NO_SUCH_GROUP, f"{group} does not exist.")
            if call.method == "GET":
                self._check_there(given)
                return JSONResponse(
                    {
                        "permission-sets": [
                            {"group": g, **dict(resource), "permissions": held}
                            for (g, resource), held in (self._implied(call, given) | self._permissions).items()
                            if group in (None, g) and (not given or dict(resource) == given)
                        ]
                    }
                )
            self._check(call, "write", given.get("collection", ""), given.get("collection", ""))
            key = (group or "", tuple(given.items()))
            if call.method == "DELETE":
                self._permissions.pop(key, None)
                return Response(status_code=204)
            before = self._permissions.get(key, []) if call.method == "POST" else []
            self._permissions[key] = sorted({*before, *permissions})
            return Response(status_code=201 if call.method == "POST" else 200)

    def _check_there(self, asked: Mapping[str, str]) -> None:
        """Refuse what is asked about where there is none of it; BOSS checks that and no right to read."""
        if "collection" not in asked:
            return
        collection = self._collections.get(asked["collection"])
        if collection is None:
            raise _Refusal(NO_SUCH_RESOURCE, f"{asked['collection']} does not exist.")
        if "experiment" in asked and asked["experiment"] not in collection.experiments:
            raise _Refusal(NO_SUCH_RESOURCE, f"{asked['experiment']} does not exist.")

    def _implied(self, call: _Call, asked: Mapping[str, str]) -> dict[Any, list[str]]:
        """What the token opens, as permissions of its owner's own group."""
        held = {}
        for name in self._collections:
            resource = {"collection": name}
            if asked and asked.get("collection") == name:
                resource = dict(asked)
            if call.access.may("write", name):
                permissions = ["add", "add_volumetric_data", "assign_group", "delete", "read", "read_volumetric_data"]
                permissions += ["remove_group", "update"]
            elif self._readable(call, name):
                permissions = ["read", "read_volumetric_data"]
            else:
                continue
            held[(f"{call.access.user}-primary", tuple(resource.items()))] = permissions
        return held

    def _known_groups(self) -> dict[str, dict[str, Any]]:
        own = {
            f"{access.user}-primary": {"owner": access.user, "members": [access.user], "maintainers": [access.user]}
            for access in self.tokens.values()
        }
        return own | self._groups

    def _list_groups(self, call: _Call) -> Response:
        roles = {"member": ["members"], "maintainer": ["maintainers"]}.get(
            call.query.get("filter", ""), ["members", "maintainers"]
        )
        groups = self._known_groups().items()
        mine = [name for name, about in groups if any(call.access.user in about[role] for role in roles)]
        return JSONResponse({"groups": mine})

    def _find_group(self, name: str) -> dict[str, Any]:
        found = self._known_groups().get(name)
        if found is None:
            raise _Refusal(NO_SUCH_GROUP, f"{name} does not exist.")
        return found

    def _group(self, call: _Call) -> Response:
        name = call.path["g"]
        with self._lock:
            if call.method == "POST":
                if name in self._known_groups():
                    raise _Refusal(GROUP_EXISTS, f"The group {name} exists already.")
                user = call.access.user
                self._groups[name] = {"owner": user, "members": [user], "maintainers": [user]}
                return Response(status_code=201)
            found = self._find_group(name)
            if call.method == "DELETE":
                self._groups.pop(name, None)
                return Response(status_code=204)
            return JSONResponse({"name": name, "owner": found["owner"], "resources": []})

    def _group_people(self, call: _Call) -> Response:
        role = call.path["role"]
        if role not in ("members", "maintainers"):
            return _not_found()
        return JSONResponse({role: self._find_group(call.path["g"])[role]})

    def _group_person(self, call: _Call) -> Response:
        role, user = call.path["role"], call.path["user"]
        if role not in ("members", "maintainers"):
            return _not_found()
        with self._lock:
            people: list[str] = self._find_group(call.path["g"])[role]
            if call.method == "GET":
                return JSONResponse({"result": user in people})
            if call.method == "POST" and user not in people:
                people.append(user)
            elif call.method == "DELETE" and user in people:
                people.remove(user)
            return Response(status_code=204)


class _Call:
    """One request, as the handlers see it."""

    def __init__(self, request: Request, access: Access, body: bytes) -> None:
        self.method = request.method
        self.path: dict[str, str] = dict(request.path_params)
        self.query = request.query_params
        self.access = access
        self.body = body

    def json(self) -> dict[str, Any]:
        """The body. Raises BOSS's refusal where it is no JSON object."""
        try:
            given = json.loads(self.body or b"{}")
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise _Refusal(INVALID_POST, "JSON parse error")
        return given


class _Faults:
    """ASGI middleware: counts and logs requests, and lets go wrong what was asked to."""

    def __init__(self, app: ASGIApp, boss: BossStandIn) -> None:
        self._app = app
        self._boss = boss

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._boss._next_fault(scope["path"])
        answered: list[int] = []
        if fault and fault.hold:
            await asyncio.to_thread(fault.hold.wait)

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])
                LOG.info("%s %s %d", scope["method"], scope["path"], message["status"])
                self._boss.requests.append(Served(scope["method"], scope["path"], message["status"]))
            if fault and fault.cut and message["type"] == "http.response.body":
                half = message.get("body", b"")[: len(message.get("body", b"")) // 2]
                await send({"type": "http.response.body", "body": half, "more_body": True})
                raise ConnectionResetError("cut on purpose")
            await send(message)

        if fault and fault.status:
            response = HTMLResponse(f"<h1>{fault.status}</h1>", status_code=fault.status, headers=dict(fault.headers))
            await response(scope, receive, record)
            return
        await self._app(scope, receive, record)


def _experiment_about(name: str, given: Mapping[str, Any], creator: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": given.get("description", ""),
        "creator": creator,
        "coord_frame": given.get("coord_frame"),
        "num_hierarchy_levels": given.get("num_hierarchy_levels", 1),
        "hierarchy_method": given.get("hierarchy_method", "anisotropic"),
        "num_time_samples": given.get("num_time_samples", 1),
        "time_step": given.get("time_step", 0),
        "time_step_unit": given.get("time_step_unit", "seconds"),
    }


def _channel_about(name: str, given: Mapping[str, Any], creator: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": given.get("description", ""),
        "creator": creator,
        "type": given.get("type", "image"),
        "datatype": given.get("datatype", "uint8"),
        "base_resolution": given.get("base_resolution", 0),
        "default_time_sample": given.get("default_time_sample", 0),
        "sources": given.get("sources", []),
        "related": given.get("related", []),
        "downsample_status": "NOT_DOWNSAMPLED",
        "storage_type": "spdb",
        "bucket": None,
        "cv_path": None,
    }


def _change(about: dict[str, Any], changes: Mapping[str, Any], siblings: dict[str, Any], item: Any) -> None:
    """Apply a PUT: the fields that are known, and a new name."""
    old = about["name"]
    about.update({key: value for key, value in changes.items() if key in about})
    if about["name"] != old:
        if not NAME.fullmatch(about["name"]) or about["name"] in siblings:
            about["name"] = old
            raise _Refusal(INVALID_POST, "{'name': ['Enter a valid value.']}")
        siblings[about["name"]] = item
        del siblings[old]


def _server_error() -> Response:
    return HTMLResponse("<h1>Server Error (500)</h1>", status_code=500)


def _not_found() -> Response:
    return HTMLResponse("<h1>Not Found</h1>", status_code=404)


def serve(port: int, *, tokens: Sequence[str] = (DEMO_TOKEN,)) -> int:
    """Serve BOSS alone until it is interrupted, having said on stdout where it is and what is there.

    Returns an exit code: 2 where the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    boss = BossStandIn(port=port, tokens={token: Access(user="demo", write=frozenset({"*"})) for token in tokens})
    try:
        listening = boss.listen()
    except OSError as error:
        print(f"Port {port} cannot be taken: {error.strerror}.")
        return 2
    print(f"BOSS stand-in at {boss.url} (Ctrl-C ends it)")
    print(f"token: {', '.join(tokens)} (reads and writes), public (reads what is public)")
    for line in boss.experiments:
        print(line)
    assert boss.cortex is not None
    z, y, x = boss.cortex.shape
    print(f"demo/cortex has x 0, {x} · y 0, {y} · z 0, {z} and {len(boss.cortex.truth)} true synapses", flush=True)
    boss.serve(listening)
    return 0
