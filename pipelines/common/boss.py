"""Reading BOSS through intern: what there is, and its voxels. Arrays have the axes z, y, x.

intern waits for ever, does not retry, forks for large boxes and fails on a null time_step_unit; here it gets deadlines,
is tried again where that can help, reads in one process, and is asked for plain descriptions.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import requests
from intern.remote.boss import BossRemote
from intern.resource.boss.resource import (
    BossResource,
    ChannelResource,
    CollectionResource,
    CoordinateFrameResource,
    ExperimentResource,
)
from numpy.typing import NDArray

from pipelines.common.program import BossFailure, Request, WrongRequest

T = TypeVar("T")
Array = NDArray[Any]
Triple = tuple[int, int, int]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

CONNECT, READ = 5, 60
"""Seconds to wait for a connection, and for the next bytes."""
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further try."""
TILE: Triple = (16, 1024, 1024)
"""The most asked for at once, z, y, x: whole BOSS cuboids of 16 x 512 x 512, and far below its limit of 520 MiB."""
NANOMETRES = {"nanometers": 1.0, "micrometers": 1e3, "millimeters": 1e6, "centimeters": 1e7}


class _Transient(Exception):
    """It may work the next time. The text says what happened."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An experiment: its bounds `(start, stop)` along z, y, x in voxels, its voxels' size, and its channels' names."""

    bounds: Box
    voxel_nm: tuple[float, float, float]
    channels: list[str]


class Boss:
    """BOSS, as one request may see it. Raises WrongRequest and BossFailure, neither of which holds the token."""

    def __init__(self, request: Request, *, pauses: tuple[float, ...] = PAUSES) -> None:
        self._request = request
        self._pauses = pauses
        # the token is set afterwards: intern puts the settings through a config parser, which trips over a %
        self._remote = BossRemote({"protocol": request.protocol, "host": request.host, "token": "unset"})
        self._remote.token_project = request.token
        self._remote.token_volume = request.token
        for service in (self._remote.project_service, self._remote.volume_service):
            service.session.trust_env = False  # or a netrc file would replace the token
            service.session_send_opts = {**service.session_send_opts, "timeout": (CONNECT, READ)}

    def describe(self) -> Volume:
        """The experiment asked for."""
        request = self._request
        experiment = self._get(ExperimentResource(request.experiment, request.collection))
        if experiment is None:
            collection = self._get(CollectionResource(request.collection))
            if collection is None:
                raise WrongRequest(f"BOSS has no collection “{request.collection}”; check its spelling.")
            there = _listing(collection.get("experiments"))
            raise WrongRequest(
                f"The collection “{request.collection}” has no experiment “{request.experiment}”; it has {there}."
            )
        frame = self._get(CoordinateFrameResource(str(experiment.get("coord_frame"))))
        if frame is None:
            raise BossFailure("BOSS does not find the coordinate frame of this experiment.")
        try:
            z, y, x = ((int(frame[f"{axis}_start"]), int(frame[f"{axis}_stop"])) for axis in "zyx")
            unit = NANOMETRES[str(frame.get("voxel_unit", "nanometers")).lower()]
            dz, dy, dx = (float(frame[f"{axis}_voxel_size"]) * unit for axis in "zyx")
            channels = [str(name) for name in experiment["channels"]]
        except (KeyError, TypeError, ValueError):
            raise BossFailure("BOSS describes this experiment in a way that is not understood.") from None
        return Volume(bounds=(z, y, x), voxel_nm=(dz, dy, dx), channels=channels)

    def check_box(self, volume: Volume) -> None:
        """Raise WrongRequest with the real bounds unless the box lies within the experiment."""
        asked = (self._request.z, self._request.y, self._request.x)
        if any(a < low or b > high for (a, b), (low, high) in zip(asked, volume.bounds, strict=True)):
            raise WrongRequest(
                f"The box {_box(asked)} is not within the experiment; the experiment has {_box(volume.bounds)}."
            )

    def channel(self, name: str) -> ChannelResource:
        """A channel, ready for reading."""
        request = self._request
        about = self._get(ChannelResource(name, request.collection, request.experiment))
        if about is None:
            raise BossFailure(f"BOSS lists the channel “{name}” but does not find it.")
        try:
            return ChannelResource(
                name, request.collection, request.experiment, datatype=str(about.get("datatype")), raw=about
            )
        except ValueError:
            raise WrongRequest(
                f"The channel “{name}” has the data type {_short(str(about.get('datatype')))}; "
                "only uint8, uint16 and uint64 can be read."
            ) from None

    def read(self, channel: ChannelResource, *, told: Callable[[float], None]) -> Array:
        """The channel's voxels in the box; `told` hears after each piece which part of them is there."""
        start, shape = self._request.start, self._request.shape
        data = np.empty(shape, channel.datatype)
        done = 0
        for z, y, x in _tiles(start, shape):
            piece = self._patiently(lambda z=z, y=y, x=x: self._cutout(channel, z, y, x))  # type: ignore[misc]
            data[tuple(slice(a - o, b - o) for (a, b), o in zip((z, y, x), start, strict=True))] = piece
            done += piece.size
            told(done / data.size)
        return data

    def _cutout(self, channel: ChannelResource, z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> Array:
        try:
            found: Array = self._remote.get_cutout(channel, 0, list(x), list(y), list(z), parallel=False)
        except requests.HTTPError as error:
            response = error.response
            if response is None:
                raise _Transient("it gave no answer") from None
            self._judge(response)
            raise BossFailure(f"BOSS refused to give voxels{_message(response)}.") from None
        except requests.RequestException as error:
            raise _Transient(_network(error)) from None
        except Exception as error:  # blosc or numpy: what came is no such array
            raise _Transient(f"it sent damaged data ({type(error).__name__})") from None
        return found

    def _get(self, resource: BossResource) -> dict[str, Any] | None:
        """BOSS's description of a resource; None where there is none."""
        return self._patiently(lambda: self._get_once(resource))

    def _get_once(self, resource: BossResource) -> dict[str, Any] | None:
        service = self._remote.project_service
        asked = service.service.get_request(
            resource, "GET", "application/json", service.url_prefix, self._request.token
        )
        try:
            response = service.session.send(service.session.prepare_request(asked), **service.session_send_opts)
        except requests.RequestException as error:
            raise _Transient(_network(error)) from None
        if response.status_code == 404:
            return None
        self._judge(response)
        try:
            about = response.json()
        except ValueError:
            about = None
        if response.status_code != 200 or not isinstance(about, dict):
            raise BossFailure(
                f"{self._request.host} does not answer as BOSS does (status {response.status_code})"
                f"{_message(response)}; check the host."
            )
        return about

    def _judge(self, response: requests.Response) -> None:
        """Raise what a status of refusal or trouble means; return on any other."""
        status = response.status_code
        if status == 401:
            raise BossFailure("BOSS refused the token; make a new one on BOSS's token page and submit again.")
        if status == 403:
            where = f"{self._request.collection}/{self._request.experiment}"
            raise BossFailure(f"BOSS does not let this token read {where}{_message(response)}.")
        if status == 429 or status >= 500:
            raise _Transient(f"it answered with status {status}")

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try again after each pause while the trouble may pass. Raises BossFailure when patience ends."""
        for pause in self._pauses:
            try:
                return attempt()
            except _Transient:
                time.sleep(pause)
        try:
            return attempt()
        except _Transient as trouble:
            tries = len(self._pauses) + 1
            raise BossFailure(
                f"BOSS at {self._request.host} failed {tries} times in a row: {trouble}. Try again later."
            ) from None


def pick(roles: dict[str, list[str]], channels: list[str]) -> dict[str, str]:
    """The channel for each role: the first, in BOSS's order, whose lower-cased name holds one of the role's parts.

    Raises WrongRequest that names the roles nobody fills and the channels there are.
    """
    found = {
        role: next((name for name in channels if any(part in name.lower() for part in parts)), None)
        for role, parts in roles.items()
    }
    missing = [
        f"{role} channel (with {' or '.join(roles[role])} in its name)" for role, name in found.items() if not name
    ]
    if missing:
        raise WrongRequest(f"The experiment has no {' and no '.join(missing)}; its channels are {_listing(channels)}.")
    return {role: name for role, name in found.items() if name}


def _tiles(start: Triple, shape: Triple) -> Iterator[Box]:
    """The box in pieces that end where BOSS's cuboids do."""
    axes = []
    for a, n, size in zip(start, shape, TILE, strict=True):
        walls = [a, *range((a // size + 1) * size, a + n, size), a + n]
        axes.append(list(itertools.pairwise(walls)))
    yield from itertools.product(axes[0], axes[1], axes[2])


def _box(box: Box) -> str:
    z, y, x = box
    return f"x {x[0]}, {x[1]} · y {y[0]}, {y[1]} · z {z[0]}, {z[1]}"


def _listing(names: object, limit: int = 20) -> str:
    if not isinstance(names, list) or not names:
        return "none"
    said = ", ".join(_short(str(name), 60) for name in names[:limit])
    return f"{said} and {len(names) - limit} more" if len(names) > limit else said


def _message(response: requests.Response) -> str:
    """BOSS's own words, if it used any, for the end of a sentence."""
    try:
        said = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {_short(str(said), 200).rstrip('.')}"


def _network(error: requests.RequestException) -> str:
    """What happened to a connection, in words; requests' own hold addresses of memory and of hosts."""
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if re.search(r"resol|Name or service|getaddrinfo", str(error)):
        return "no host of that name is known"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "no connection could be made, or it broke"


def _short(text: str, limit: int = 40) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
