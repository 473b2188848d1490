"""A stand-in of BOSS v1 on this machine: the parts that the bot, and the programs through unmodified `intern`, use.

The stand-in lists collections, describes resources, tells permissions, gives voxels, and takes detections. It answers
as BOSS does, error bodies and oddities included: the list of collections has a double slash, a refused token is a 401
with `detail`, every other refusal has `status`, `code` and `message`. Any other part of BOSS is a 404. Beside BOSS lie
buckets, as at an endpoint of S3, and in them the channels whose `storage_type` is `cloudvol`. The stand-in listens on
127.0.0.1 only and never logs a token.
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
from html import escape
from pathlib import Path
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

from contract.masking import PUBLIC_TOKEN
from contract.names import is_name
from sandbox.buckets import Buckets
from sandbox.volumes import Bricks, Synthetic, Triple, cortex

LOG = logging.getLogger("sandbox.boss")

DEMO_TOKEN = "demo-token"
"""The token that the stand-in accepts unless other tokens are given."""
PREDICTIONS = "collman_nomads", "nomads_predictions"
"""Collection and experiment that programs write their detections to, unless the settings say another place."""
VOLUMES = "volumes"
"""The bucket in which the demo volume lies beside BOSS, as `cortex`."""
MAX_CUTOUT = 520 * 2**20
"""Bytes of the largest cutout, uncompressed, as in BOSS."""

# BOSS's own numbers for its errors (django/bosscore/error.py), with the HTTP status each goes out under.
INVALID_CUTOUT = 400, 1001
TYPE_ERROR = 400, 1002
INVALID_POST = 400, 1003
TOO_LARGE = 413, 2000
WRONG_DATATYPE = 400, 2001
WRONG_DIMENSIONS = 400, 2002
MISSING_PERMISSION = 403, 3001
NO_SUCH_RESOURCE = 404, 4000


@dataclass(frozen=True, kw_only=True)
class Access:
    """A token's owner, and the collections that the token opens beyond the public ones; `*` is every collection."""

    user: str
    read: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()

    def may(self, permission: str, collection: str) -> bool:
        """Whether the token has the permission `read` or `write` on the collection; `write` includes `read`."""
        names = self.write if permission == "write" else self.read | self.write
        return "*" in names or collection in names


@dataclass(frozen=True)
class Served:
    """A request that was answered."""

    method: str
    path: str
    status: int


class Hold:
    """Requests that are held up. `reached` is set when the first one arrives."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Let the requests go on, and those that come later too."""
        self._released.set()

    def wait(self) -> None:
        """Note that a request has arrived, and block until `release`."""
        self.reached.set()
        self._released.wait()


@dataclass
class _Fault:
    """A fault of the next `left` requests whose path begins with `prefix`."""

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

    `tokens` maps a token to its Access; `public` always opens the public collections only. `port` 0 takes a free port.
    With `demo`, there is the public synthetic `demo/cortex`, as `boss.cortex`, and an experiment of the same frame for
    detections (see PREDICTIONS). A volume of its own may be given instead of the usual one. With a `certificate`, a
    file that has its key too, it speaks TLS.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tokens: Mapping[str, Access] | None = None,
        demo: bool | Synthetic = True,
        certificate: Path | None = None,
    ) -> None:
        everything = frozenset({"*"})
        self._as_made = (
            dict({DEMO_TOKEN: Access(user="demo", write=everything)} if tokens is None else tokens),
            bool(demo),
        )
        self.requests: deque[Served] = deque(maxlen=10_000)
        """The answered requests, oldest first; without headers, so without tokens."""
        self.cortex: Synthetic | None = demo if isinstance(demo, Synthetic) else None
        self._lock = threading.RLock()
        self._port, self._certificate = port, certificate
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""
        self._furnish()

    def _furnish(self) -> None:
        tokens, demo = self._as_made
        self.tokens: dict[str, Access] = {PUBLIC_TOKEN: Access(user=PUBLIC_TOKEN)} | tokens
        self._collections: dict[str, _Collection] = {}
        self._frames: dict[str, dict[str, Any]] = {}
        self.buckets = Buckets()
        """Buckets at the same address, as an S3's endpoint has them; bulk channels lie in them."""
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
            for name in self.cortex.channels:  # the same voxels through another door
                self.buckets.add_channel(
                    VOLUMES,
                    f"cortex/{name}",
                    self.cortex.bricks(name),
                    start=(0, 0, 0),
                    shape=self.cortex.shape,
                    voxel_nm=self.cortex.voxel_nm,
                )
            # where detections are written back to, as in 2018
            collection, experiment = PREDICTIONS
            self.add(collection, experiment, shape=self.cortex.shape, voxel_nm=self.cortex.voxel_nm, channels={})

    def reset(self) -> None:
        """Return to the initial state, at the same address: initial resources only, and no faults."""
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
        bulk: str = "",
        **about: Any,
    ) -> None:
        """Add an experiment, its collection if need be, and a frame `[offset, offset + shape)`; axes z, y, x.

        `bulk` names a bucket: the channels are `cloudvol` then, and lie there as `collection/experiment/channel`.
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
            there = _Experiment(_EXPERIMENT | {"name": experiment, "coord_frame": frame} | about)
            home.experiments[experiment] = there
            for name, bricks in channels.items():
                described = _channel_about(name, {"datatype": str(bricks.dtype)}, "demo")
                if bulk:
                    path = f"{collection}/{experiment}/{name}"
                    self.buckets.add_channel(bulk, path, bricks, start=offset, shape=shape, voxel_nm=voxel_nm)
                    described |= {"storage_type": "cloudvol", "bucket": bulk, "cv_path": f"/{path}"}
                there.channels[name] = _Channel(described, bricks)

    @property
    def address(self) -> str:
        """The demo volume as a volume by address: precomputed, on a web server."""
        assert self.cortex is not None
        return f"precomputed://{self.url}/{VOLUMES}/cortex/{{{','.join(self.cortex.channels)}}}"

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
        """Hold up every request under the path prefix until the block ends or the hold is released."""
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
        """Serve in this thread until SIGINT or SIGTERM, on the socket from `listen`."""
        self._make().run([listening])

    def listen(self) -> socket.socket:
        """Bind the port; `url` is known from then on. Raises OSError where the port is taken."""
        listening = socket.create_server(("127.0.0.1", self._port))
        # TCP_NODELAY: asyncio sets it only on its own sockets; without it, answers but a connection's first wait 40 ms
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        scheme = "https" if self._certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        return listening

    def _make(self) -> uvicorn.Server:
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app(),
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="critical",  # connections are cut on purpose; the middleware logs requests
                access_log=False,
                timeout_graceful_shutdown=1,
                ssl_certfile=self._certificate,
            )
        )
        return self._server

    def app(self) -> Starlette:
        """The ASGI application, for a server of one's own."""
        table = (
            ("/v1/collection//", self._list_collections, "GET"),
            ("/v1/collection/{c}", self._collection, "GET"),
            ("/v1/collection/{c}/experiment/{e}", self._experiment, "GET"),
            ("/v1/collection/{c}/experiment/{e}/channel/{ch}", self._channel, "GET POST PUT"),
            ("/v1/coord/{f}", self._frame, "GET"),
            ("/v1/cutout/to_black/{c}/{e}/{ch}/{res}/{x}/{y}/{z}/", self._blacken, "PUT"),
            ("/v1/cutout/{c}/{e}/{ch}/{res}/{x}/{y}/{z}/", self._cutout, "GET POST"),
            ("/v1/permissions/", self._permission_sets, "GET"),
        )
        routes = [Route(path, self._answer(handler), methods=methods.split()) for path, handler, methods in table]
        routes.append(Route("/v1/mgmt/resources/{c}/{e}/{ch}", self._console))
        routes += [Route(path, self._object, methods=["GET"]) for path in ("/{bucket}", "/{bucket}/{key:path}")]
        app = Starlette(routes=routes, middleware=[Middleware(_Faults, boss=self)])
        app.router.redirect_slashes = False
        return app

    async def _object(self, request: Request) -> Response:
        return await run_in_threadpool(self.buckets.answer, request)

    def _console(self, request: Request) -> Response:
        """The management console's page of a channel, in little: BOSS asks people to sign in, the stand-in does not."""
        place = "/".join(request.path_params[part] for part in ("c", "e", "ch"))
        collection, experiment, channel = place.split("/")
        home = self._collections.get(collection)
        there = home and experiment in home.experiments and channel in home.experiments[experiment].channels
        said = f"The channel {place} of the stand-in for BOSS." if there else "There is no such channel."
        return HTMLResponse(f"<!doctype html><title>{escape(place)}</title><p>{escape(said)}", 200 if there else 404)

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

    def _find_collection(self, call: _Call) -> _Collection:
        name = call.path["c"]
        found = self._collections.get(name)
        if found is None:
            raise _Refusal(NO_SUCH_RESOURCE, f"{name} does not exist.")
        self._check(call, "read", name, name)
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

    # ── the project service ────────────────────────────────────────────────────────────────────────────────────────

    def _list_collections(self, call: _Call) -> Response:
        return JSONResponse({"collections": [name for name in self._collections if self._readable(call, name)]})

    def _collection(self, call: _Call) -> Response:
        found = self._find_collection(call)
        return JSONResponse(found.about | {"experiments": list(found.experiments), "public": found.public})

    def _experiment(self, call: _Call) -> Response:
        found, home = self._find_experiment(call), call.path["c"]
        return JSONResponse(
            found.about
            | {"collection": home, "channels": list(found.channels), "public": self._collections[home].public}
        )

    def _channel(self, call: _Call) -> Response:
        name, experiment = call.path["ch"], call.path["e"]
        with self._lock:
            if call.method == "POST":
                home = self._find_experiment(call, "write")
                about = _channel_about(name, call.json(), call.access.user)
                if not is_name(name):
                    raise _Refusal(INVALID_POST, "{'name': ['Enter a valid value.']}")
                if name in home.channels:
                    raise _Refusal(INVALID_POST, "{'non_field_errors': ['The name must be unique.']}")
                if about["datatype"] not in ("uint8", "uint16", "uint32", "uint64"):
                    raise _Refusal(INVALID_POST, f"Invalid datatype {about['datatype']}")
                home.channels[name] = _Channel(about, Bricks(about["datatype"]))
                return JSONResponse(about | {"experiment": experiment}, status_code=201)
            found = self._find_channel(call, "read" if call.method == "GET" else "write")
            if call.method == "PUT":
                found.about["description"] = call.json().get("description", "")
            return JSONResponse(found.about | {"experiment": experiment})

    def _frame(self, call: _Call) -> Response:
        name = call.path["f"]
        if name not in self._frames:
            raise _Refusal(NO_SUCH_RESOURCE, f"{name} does not exist.")
        return JSONResponse(self._frames[name])

    # ── the volume service ─────────────────────────────────────────────────────────────────────────────────────────

    def _box(self, call: _Call, channel: _Channel) -> tuple[Triple, Triple]:
        """Start and stop (z, y, x) of the requested cutout, in voxels at resolution 0, the only one here."""
        experiment = self._collections[call.path["c"]].experiments[call.path["e"]]
        frame = self._frames[experiment.about["coord_frame"]]
        asked = "/".join(call.path[part] for part in ("res", "x", "y", "z"))
        if not re.fullmatch(r"[0-9]{1,3}(/[0-9]{1,19}:[0-9]{1,19}){3}", asked):
            raise _Refusal(TYPE_ERROR, f"Type error in cutout argument {asked}")
        if int(call.path["res"]) != 0:
            raise _Refusal(TYPE_ERROR, f"Invalid resolution {call.path['res']}.")
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
        return start, stop

    def _cutout(self, call: _Call) -> Response:
        channel = self._find_channel(call, "read" if call.method == "GET" else "write")
        start, stop = self._box(call, channel)
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        if call.method == "POST":
            try:
                data = np.frombuffer(blosc.decompress(call.body), channel.bricks.dtype)
            except Exception:  # BOSS says the same for any error of blosc or numpy
                raise _Refusal(WRONG_DATATYPE, "Failed to decompress data. Verify the datatype.") from None
            if data.size != np.prod(shape):
                raise _Refusal(WRONG_DIMENSIONS, "Failed to unpack data. Verify the datatype and dimensions.")
            data = data.reshape(shape)  # voxels under a zero stay, as in BOSS: only to_black erases
            channel.bricks.write(start, np.where(data == 0, channel.bricks.read(start, stop), data))
            return Response(status_code=201)
        data = channel.bricks.read(start, stop)
        return Response(blosc.compress(data, typesize=data.dtype.itemsize, clevel=1), media_type="application/blosc")

    def _blacken(self, call: _Call) -> Response:
        channel = self._find_channel(call, "write")
        start, stop = self._box(call, channel)
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        channel.bricks.write(start, np.zeros(shape, channel.bricks.dtype))
        return Response(status_code=200)

    # ── permissions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _permission_sets(self, call: _Call) -> Response:
        """The permissions of the token's owner on an experiment, which must exist but need not be readable."""
        collection, experiment = (call.query.get(name, "") for name in ("collection", "experiment"))
        if collection not in self._collections:
            raise _Refusal(NO_SUCH_RESOURCE, f"{collection} does not exist.")
        if experiment not in self._collections[collection].experiments:
            raise _Refusal(NO_SUCH_RESOURCE, f"{experiment} does not exist.")
        if call.access.may("write", collection):
            permissions = ["add", "add_volumetric_data", "assign_group", "delete", "read", "read_volumetric_data"]
            permissions += ["remove_group", "update"]
        elif self._readable(call, collection):
            permissions = ["read", "read_volumetric_data"]
        else:
            return JSONResponse({"permission-sets": []})
        held = {"collection": collection, "experiment": experiment, "permissions": permissions}
        return JSONResponse({"permission-sets": [{"group": f"{call.access.user}-primary", **held}]})


class _Call:
    """One request, for the handlers."""

    def __init__(self, request: Request, access: Access, body: bytes) -> None:
        self.method = request.method
        self.path: dict[str, str] = dict(request.path_params)
        self.query = request.query_params
        self.access = access
        self.body = body

    def json(self) -> dict[str, Any]:
        """The body. Raises BOSS's refusal where the body is no JSON object."""
        try:
            given = json.loads(self.body or b"{}")
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise _Refusal(INVALID_POST, "JSON parse error")
        return given


class _Faults:
    """ASGI middleware: records and logs requests, and causes the ordered faults."""

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


_EXPERIMENT: dict[str, Any] = {
    "description": "",
    "creator": "demo",
    "num_hierarchy_levels": 1,
    "hierarchy_method": "anisotropic",
    "num_time_samples": 1,
    "time_step": 0,
    "time_step_unit": "seconds",
}
"""BOSS's fields of every experiment here, beside its name and frame."""


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


def serve(port: int, *, tokens: Sequence[str] = (DEMO_TOKEN,)) -> int:
    """Print the address and the experiments, and serve BOSS alone until interrupted.

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
