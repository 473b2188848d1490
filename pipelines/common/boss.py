"""BOSS through intern: descriptions, voxels, and writing detections back. Arrays have the axes z, y, x.

By itself, intern waits for ever, does not retry, forks for large boxes and fails on a null time_step_unit. Here calls
have deadlines, are repeated where that can help, read in one process, and descriptions are read as plain JSON.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

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

from contract.names import short
from contract.retries import Transient, patiently
from contract.units import READABLE, VOXEL_BYTES, nanometres
from pipelines.common import arrays
from pipelines.common.boxes import Box, Triple, shape
from pipelines.common.program import BossFailure, BossRefusal, Failure, Request, WrongRequest
from pipelines.common.volume import CUBOID, DESCRIBE, PAUSES, Volume, check_box, listing
from volumes import precomputed
from volumes.address import Address, Location
from volumes.describe import describe
from volumes.described import Sizes
from volumes.documents import Fetched
from volumes.errors import VolumeError, VolumeRefused, WrongVolume

if TYPE_CHECKING:
    from volumes.reading import Array as StoredArray

T = TypeVar("T")
Array = NDArray[Any]

CONNECT = 5
"""Seconds to wait for a connection."""
READ = 60
"""Seconds to wait for the next bytes."""
TILE: Triple = (16, 1024, 1024)
"""Extent of the largest cutout, (z, y, x): whole cuboids, far below BOSS's 520 MiB. Voxels over 2 bytes: one CUBOID."""
UNFINISHED = "NOMADS is writing here, or was stopped while it did: not to be trusted."
"""Description of the detections' channel while it is written."""
FINISHED = "Written by NOMADS: 255 where a synapse was found, else 0."
"""Description of the detections' channel once it is written."""
_ADVICE = {
    404: "; the channel is not there any more: see what the experiment has.",
    413: "; ask for a smaller box.",
}
"""What to do where BOSS refuses voxels, by status."""


class Boss:
    """BOSS for one request. Methods raise WrongRequest and BossFailure, neither of which holds the token."""

    def __init__(self, request: Request, *, pauses: tuple[float, ...] = PAUSES) -> None:
        self._request = request
        self._pauses = pauses
        self._voxel_nm: Sizes | None = None
        # the token is set afterwards: intern's config parser trips over a %
        self._remote = BossRemote({"protocol": request.protocol, "host": request.host, "token": "unset"})
        self._remote.token_project = request.token
        self._remote.token_volume = request.token
        for service in (self._remote.project_service, self._remote.volume_service):
            service.session.trust_env = False  # a netrc file would replace the token
            service.session_send_opts = {**service.session_send_opts, "timeout": (CONNECT, READ)}

    def describe(self, place: tuple[str, str] | None = None) -> Volume:
        """The request's experiment, or the one at `place`, which is a collection and an experiment.

        Raises WrongRequest where there is none, and BossFailure where BOSS's description of it cannot be used.
        """
        collection, name = place or (self._request.collection, self._request.experiment)
        experiment = self._get(ExperimentResource(name, collection))
        if experiment is None:
            home = self._get(CollectionResource(collection))
            if home is None:
                raise WrongRequest(f"BOSS has no collection “{collection}”; check its spelling.")
            there = listing(home.get("experiments"))
            raise WrongRequest(f"The collection “{collection}” has no experiment “{name}”; it has {there}.")
        frame = self._get(CoordinateFrameResource(str(experiment.get("coord_frame"))))
        if frame is None:
            raise BossFailure("BOSS does not find the coordinate frame of this experiment.")
        try:
            z, y, x = ((int(frame[f"{axis}_start"]), int(frame[f"{axis}_stop"])) for axis in "zyx")
            unit = nanometres(frame.get("voxel_unit", "nanometers"))
            dz, dy, dx = (float(frame[f"{axis}_voxel_size"]) * unit for axis in "zyx")
            channels = [str(name) for name in experiment["channels"]]
        except (KeyError, TypeError, ValueError):
            raise BossFailure("BOSS describes this experiment in a way that is not understood.") from None
        if not min(dz, dy, dx) > 0:
            raise BossFailure("BOSS says that this experiment's voxels have no size.")
        if place is None:
            self._voxel_nm = (dz, dy, dx)
        return Volume(bounds=(z, y, x), voxel_nm=(dz, dy, dx), channels=channels)

    def check_box(self, volume: Volume, *, where: str = "the experiment") -> None:
        """Raise WrongRequest with the real bounds unless the box lies within the experiment."""
        check_box(self._request, volume, where=where)

    def channel(self, name: str, box: Box) -> ChannelResource | StoredArray:
        """The channel of that name in the request's experiment, to `read` the box, or parts of it.

        A channel of BossDB's bulk data is read where it lies, if its bucket is among the request's roots and shows it;
        all others are read by intern. Raises WrongRequest where its data type cannot be read, and BossFailure where
        BOSS does not find the channel.
        """
        request = self._request
        about = self._get(ChannelResource(name, request.collection, request.experiment))
        if about is None:
            raise BossFailure(f"BOSS lists the channel “{name}” but does not find it.")
        if bulk := self._bulk(name, about, box):
            return bulk
        try:
            return ChannelResource(
                name, request.collection, request.experiment, datatype=str(about.get("datatype")), raw=about
            )
        except ValueError:
            raise WrongRequest(
                f"The channel “{name}” has the data type {short(str(about.get('datatype')))}; {READABLE}."
            ) from None

    def _bulk(self, name: str, about: Mapping[str, Any], box: Box) -> StoredArray | None:
        """The channel in the bucket that BOSS names; None where BOSS has to be asked for the box's voxels."""
        if about.get("storage_type") != "cloudvol":
            return None
        documents = Fetched(self._request.roots, time.monotonic() + DESCRIBE)
        try:
            place = Location.parse(f"s3://{about.get('bucket')}/{about.get('cv_path')}")
            level = self._scale(name, precomputed.scales(documents, place))
            found = describe(Address(format="precomputed", location=place, level=level), documents)
        except (WrongVolume, VolumeRefused):  # BOSS may read what this program may not
            return None
        except VolumeError as error:
            raise BossFailure(str(error)) from None
        channel = found.channels[0]
        inside = all(low <= a and b <= high for (a, b), (low, high) in zip(box, found.bounds, strict=True))
        if not inside or channel.datatype != about.get("datatype") or channel.datatype not in VOXEL_BYTES:
            return None
        return arrays.opened(replace(channel, name=name), documents, pauses=self._pauses)

    def _scale(self, name: str, scales: Mapping[str, Sizes]) -> str:
        """The scale of a channel in its bucket that has the experiment's voxels; empty where the bucket has no scales.

        Raises WrongRequest where all of them have other voxels.
        """
        voxel_nm = self._voxel_nm or self.describe().voxel_nm
        if not scales:
            return ""
        for key, sizes in scales.items():
            if all(_fits(*each) for each in zip(sizes, voxel_nm, strict=True)):
                return key
        there = "; ".join(_size(sizes) for sizes in list(scales.values())[:3])
        raise WrongRequest(
            f"BOSS says that the voxels of “{short(name)}” have {_size(voxel_nm)} nm (z, y, x), and its bucket has "
            f"them with {there} nm. Ask whoever looks after the experiment to put one of the two right."
        )

    def read(self, channel: ChannelResource | StoredArray, box: Box, *, told: Callable[[int], None]) -> Array:
        """The channel's voxels (z, y, x) in a box of the experiment.

        `told` is called after each piece with its number of voxels. Raises BossFailure.
        """
        if not isinstance(channel, ChannelResource):
            return arrays.read(channel, box, told=told)
        corner = tuple(low for low, _ in box)
        data = np.empty(shape(box), channel.datatype)
        for z, y, x in _tiles(corner, data.shape, TILE if data.itemsize <= 2 else CUBOID):
            piece = self._patiently(lambda z=z, y=y, x=x: self._cutout(channel, z, y, x))  # type: ignore[misc]
            data[tuple(slice(a - o, b - o) for (a, b), o in zip((z, y, x), corner, strict=True))] = piece
            told(piece.size)
        return data

    def write(self, place: tuple[str, str], name: str, detections: Array, *, told: Callable[[float], None]) -> None:
        """Write 255 into the box of a uint8 channel where `detections` (z, y, x) is not 0, and 0 elsewhere.

        `place` is collection and experiment, `name` the channel, which is made if it is missing; what an earlier run
        left in the box is erased. Until the end, the channel's description says UNFINISHED. `told` is called with the
        part that is done, from 0 to 1. Raises Failure, which says why the detections cannot be written.
        """
        collection, experiment = place
        where = f"{collection}/{experiment}"
        self.check_box(self.describe(place), where=where)
        channel = ChannelResource(
            name, collection, experiment, datatype="uint8", description=UNFINISHED, raw={"name": name}
        )
        about = self._get(channel)
        if about is None:
            self._write(lambda: self._make(channel), where)
        elif about.get("datatype") != "uint8":
            raise Failure(f"the channel {where}/{name} is not uint8.")
        else:
            self._write(lambda: self._remote.update_project(name, channel), where)
        tiles = list(_tiles(self._request.start, detections.shape))
        if about is not None:
            # BOSS leaves voxels as they are where a written cutout is 0: only this erases
            for done, (z, y, x) in enumerate(tiles):
                told(done / len(tiles) / 2)
                self._write(
                    lambda z=z, y=y, x=x: self._remote.create_cutout_to_black(channel, 0, list(x), list(y), list(z)),  # type: ignore[misc]
                    where,
                )
        for done, (z, y, x) in enumerate(tiles):
            told(0.5 + done / len(tiles) / 2)
            inside = tuple(slice(a - o, b - o) for (a, b), o in zip((z, y, x), self._request.start, strict=True))
            piece = (detections[inside] != 0) * np.uint8(255)
            self._write(
                lambda z=z, y=y, x=x, piece=piece: self._remote.create_cutout(  # type: ignore[misc]
                    channel,
                    0,
                    list(x),
                    list(y),
                    list(z),
                    piece,  # intern sends nothing where all is zero
                ),
                where,
            )
        channel.description = FINISHED
        self._write(lambda: self._remote.update_project(name, channel), where)

    def _make(self, channel: ChannelResource) -> None:
        try:
            self._remote.create_project(channel)
        except requests.HTTPError as error:  # an attempt whose answer was lost, or another run, has made it
            if error.response is None or error.response.status_code != 400 or self._get(channel) is None:
                raise

    def _write(self, attempt: Callable[[], object], where: str) -> None:
        def once() -> None:
            try:
                attempt()
            except requests.HTTPError as error:
                if error.response is None:
                    raise Transient("it gave no answer") from None
                self._judge(error.response, f"write to {where}")
                raise BossFailure(
                    f"BOSS refused it with status {error.response.status_code}{_message(error.response)}."
                ) from None
            except requests.RequestException as error:
                raise Transient(_network(error)) from None

        self._patiently(once)

    def _cutout(self, channel: ChannelResource, z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> Array:
        try:
            found: Array = self._remote.get_cutout(channel, 0, list(x), list(y), list(z), parallel=False)
        except requests.HTTPError as error:
            response = error.response
            if response is None:
                raise Transient("it gave no answer") from None
            self._judge(response)
            raise BossFailure(
                f"BOSS refused to give voxels (status {response.status_code}){_message(response)}"
                f"{_ADVICE.get(response.status_code, '.')}"
            ) from None
        except requests.RequestException as error:
            raise Transient(_network(error)) from None
        except Exception as error:  # blosc or numpy could not decode the answer
            raise Transient(f"it sent damaged data ({type(error).__name__})") from None
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
            raise Transient(_network(error)) from None
        if response.status_code == 404:
            return None
        place = [getattr(resource, part, None) for part in ("coll_name", "exp_name", "name")]
        self._judge(response, f"read {'/'.join(str(part) for part in place if part)}")
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

    def _judge(self, response: requests.Response, doing: str = "") -> None:
        """Raise BossFailure or Transient where the response's status means one; return on any other status.

        Only BOSS itself refuses for good (BossRefusal): a proxy that answers in its place may be gone the next time.
        """
        status = response.status_code
        no = BossRefusal if _from_boss(response) else BossFailure
        if status == 401:
            raise no("BOSS refused the token; make a new one on BOSS's token page and submit again.")
        if status == 403:
            doing = doing or f"read {self._request.collection}/{self._request.experiment}"
            raise no(f"BOSS does not let this token {doing}{_message(response)}.")
        if status == 429 or status >= 500:
            raise Transient(f"it answered with status {status}")

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """As `retries.patiently`. Raises BossFailure after the last try."""
        return patiently(
            attempt, pauses=self._pauses, given_up=lambda why: BossFailure(f"BOSS at {self._request.host} {why}")
        )


def _tiles(start: Sequence[int], shape: tuple[int, ...], tile: Triple = TILE) -> Iterator[Box]:
    """The box in pieces that end at multiples of `tile`, where BOSS's cuboids end."""
    axes = []
    for a, n, size in zip(start, shape, tile, strict=True):
        walls = [a, *range((a // size + 1) * size, a + n, size), a + n]
        axes.append(list(itertools.pairwise(walls)))
    yield from itertools.product(axes[0], axes[1], axes[2])


def _fits(stored: float, told: float) -> bool:
    """Whether a voxel's side in a bucket is what BOSS tells, within 1 % or rounded to whole nanometres."""
    return abs(stored - told) <= 0.01 * told or stored == round(told)


def _size(sizes: Sizes) -> str:
    return " × ".join(f"{size:g}" for size in sizes)


def _message(response: requests.Response) -> str:
    """BOSS's own message, for the end of a sentence; empty where there is none."""
    try:
        said = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {short(' '.join(str(said).split()), 200).rstrip('.')}"


def _from_boss(response: requests.Response) -> bool:
    """Whether BOSS itself said no: its errors are JSON objects of these fields."""
    try:
        said = response.json()
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and ("detail" in said or {"status", "code", "message"} <= said.keys())


def _network(error: requests.RequestException) -> str:
    """What happened to a connection, in words; the texts of requests hold addresses of memory and of hosts."""
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if re.search(r"resol|Name or service|getaddrinfo", str(error)):
        return "no host of that name is known"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "no connection could be made, or it broke"
