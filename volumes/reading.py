"""Voxels of volumes by address, through tensorstore, within deadlines. Arrays have the axes z, y, x.

By itself tensorstore waits for ever and tries again for minutes. Here every wait ends, what may pass is tried a few
times, and what does not is told in a sentence. Chunks that are not stored hold the fill value, and are counted.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from contract.retries import Transient, patiently
from volumes.described import Bounds, Channel, Source
from volumes.documents import PASSING, Fetched
from volumes.errors import VolumeDamaged, VolumeError, VolumeRefused, VolumeUnavailable, WrongVolume, untrusted
from volumes.packed import Blosc, TooLarge
from volumes.roots import addresses, path_of
from volumes.sharded import Cell, Shards, most_stored

T = TypeVar("T")

READ = 60.0
"""Seconds that one piece may take, and some more for its size; then it is given up, and tried again."""
SLOWEST = 10**6
"""Bytes a second, as unpacked, for which a large piece gets more time."""
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further try."""
TOGETHER = 16
"""Chunks that are read from disk or network at the same time."""
UNPACKED = 2**30
"""Bytes of chunks that are unpacked at the same time, if a single one does not have more."""
PRECOMPUTED = "neuroglancer_precomputed"
"""The driver whose arrays have the volume's own coordinates; those of the others begin at 0."""
Triple = tuple[int, int, int]
_OF_CHUNKS = (404, 410, 416)
"""Statuses that tell of what is stored: not there, not there any more, shorter than is said."""


class _Missing(Exception):
    """A chunk is not stored."""


class Array:
    """A channel's voxels. Safe to read from several threads."""

    def __init__(
        self,
        channel: Channel,
        *,
        documents: Fetched,
        pauses: tuple[float, ...] = PAUSES,
        patience: float = READ,
    ) -> None:
        """`documents` are those with which the channel was described. Raises VolumeError where it cannot be opened."""
        self.name = channel.name
        self.dtype = np.dtype(channel.datatype)
        self.missing = 0
        """Pieces read so far in which a chunk was not stored."""
        self.datatype = channel.datatype
        self._pauses, self._patience = pauses, patience
        self._source, self._roots = channel.source, documents.roots
        self._roots.check(channel.source.location)
        self._documents, self._shown = documents, False
        self._lock = threading.Lock()
        spec = _spec(channel.source, documents)
        self._whole = self._patiently(lambda: self._opened(spec, _context(), missing=False))
        chunk = max(1, prod(self._whole.chunk_layout.read_chunk.shape) * self.dtype.itemsize)
        context = _context()
        self.at_once = 0
        """Chunks that are unpacked at the same time, where they are large; 0: one for each core."""
        if chunk > UNPACKED // TOGETHER:
            self.at_once = max(1, UNPACKED // chunk)
            context = _context(unpacking=self.at_once)
            self._whole = self._patiently(lambda: self._opened(spec, context, missing=False))
        self._filled = self._patiently(lambda: self._opened(spec, context, missing=True))
        self._blosc = Blosc.of(self._whole, context)
        self._shards = Shards.of(self._whole, together=TOGETHER, room=UNPACKED)
        if self._whole.dtype.numpy_dtype != self.dtype:
            raise WrongVolume(f"The channel {self.name} is stored as {self._whole.dtype.name}, not as it says.")
        self._layout = self._whole.chunk_layout
        self.chunk = _by_axis(channel.source.axes, self._layout.read_chunk.shape)
        """Extent of the chunks that are read as a whole, (z, y, x)."""
        first = _by_axis(channel.source.axes, self._layout.grid_origin)
        far = (0, 0, 0) if channel.source.driver == PRECOMPUTED else channel.source.corner
        self.origin: Triple = (first[0] + far[0], first[1] + far[1], first[2] + far[2])
        """The volume's coordinates (z, y, x) at which chunks begin."""
        self._folders: set[str] = set()
        """Folders of chunks that were checked."""

    def read(self, box: Bounds) -> NDArray[Any]:
        """The voxels of a box, (z, y, x), in the volume's coordinates, within its bounds. Raises VolumeError."""
        if self._source.location.scheme == "file":
            self._check_files(box)
        try:
            found = self._patiently(lambda: self._read(self._whole, box))
        except _Missing:
            self._check_packed(box)
            with self._lock:
                self.missing += 1
            return self._patiently(lambda: self._read(self._filled, box))
        except VolumeRefused:
            if not self._hides:
                raise
            return self._read_what_is_shown(box)
        self._shown = True
        return found

    @cached_property
    def _hides(self) -> bool:
        """Whether the channel is in a bucket that is not listed: such a bucket refuses what it does not have."""
        if self._source.location.scheme not in ("s3", "gs"):
            return False
        documents = replace(self._documents, deadline=time.monotonic() + self._patience, refused=False)
        with suppress(VolumeError):
            documents.names(self._source.location)
        return documents.refused

    def _read_what_is_shown(self, box: Bounds) -> NDArray[Any]:
        """The box, with the fill value where chunks are refused. Raises VolumeRefused where none was ever shown."""

        def one(piece: Bounds) -> NDArray[Any] | VolumeRefused:
            try:
                return self._patiently(lambda: self._read(self._filled, piece))
            except VolumeRefused as refusal:
                return refusal

        found, pieces = self._nothing(box), self._pieces(box)
        refusals = []
        with ThreadPoolExecutor(TOGETHER) as threads:
            for piece, read in zip(pieces, threads.map(one, pieces), strict=True):
                if isinstance(read, VolumeRefused):
                    refusals.append(read)
                else:
                    found[_within(_corner(box), piece)] = read
        if len(refusals) == len(pieces) and not self._shown:
            raise refusals[0]
        self._shown = True
        if refusals:
            with self._lock:
                self.missing += 1
        return found

    def _read(self, store: Any, box: Bounds) -> NDArray[Any]:
        view = self._view(store, box)
        more = view.size * self.dtype.itemsize / SLOWEST
        with self._told():
            if self._shards:
                ends = time.monotonic() + self._patience + more
                return self._out_of(self._shards, box, ends, filled=store is self._filled)
            if self._blosc:
                self._blosc.check(self._chunks(box), self._waited)
            return np.ascontiguousarray(self._waited(view.read(order="C"), more=more))

    def _out_of(self, shards: Shards, box: Bounds, ends: float, *, filled: bool) -> NDArray[Any]:
        """The box, read until `ends` on the monotonic clock. Raises _Missing unless `filled`."""
        found, number = self._nothing(box), self._source.fixed["channel"]
        pieces = {self._cell(piece): piece for piece in self._pieces(box)}

        def take(cell: Cell, chunk: NDArray[Any] | None) -> None:
            if chunk is not None:
                piece = pieces[cell]
                corner = [o + at * side for o, at, side in zip(self.origin, reversed(cell), self.chunk, strict=True)]
                found[_within(_corner(box), piece)] = chunk[number][_within(corner, piece)]
            elif not filled:
                raise _Missing

        shards.each(pieces, take, lambda future: self._waited(future, until=ends))
        return found

    def _nothing(self, box: Bounds) -> NDArray[Any]:
        """The box as it is where none of its chunks is stored."""
        fill = self._whole.fill_value
        return np.full([stop - start for start, stop in box], 0 if fill is None else fill, self.dtype)

    def _pieces(self, box: Bounds) -> list[Bounds]:
        """The box in pieces, each of which lies in one chunk."""
        sides = zip(box, self.origin, self.chunk, strict=True)
        z, y, x = (_cut(span, origin, chunk) for span, origin, chunk in sides)
        return list[Bounds](itertools.product(z, y, x))

    def _cell(self, piece: Bounds) -> Cell:
        """Where the chunk is in the grid that has a piece, (x, y, z)."""
        sides = zip(piece, self.origin, self.chunk, strict=True)
        z, y, x = ((start - origin) // chunk for (start, _), origin, chunk in sides)
        return x, y, z

    def _opened(self, spec: dict[str, Any], context: Any, *, missing: bool) -> Any:
        with self._told(opening=True):
            future = ts.open({**spec, "fill_missing_data_reads": missing}, read=True, open=True, context=context)
            return self._waited(future)

    def _view(self, store: Any, box: Bounds) -> Any:
        """The box of a store, with the axes z, y, x."""
        source = self._source
        index = tuple(
            source.fixed[axis] if axis in source.fixed else slice(*self._span(axis, box)) for axis in source.axes
        )
        left = [axis for axis in source.axes if axis not in source.fixed]
        return store[index].transpose([left.index(axis) for axis in "zyx"])

    def _waited(self, future: Any, *, more: float = 0, until: float | None = None) -> Any:
        """A future's result, waited for until then on the monotonic clock, by default patiently and `more` seconds."""
        left = self._patience + more if until is None else max(0.0, until - time.monotonic())
        try:
            return future.result(timeout=left)
        except TimeoutError:
            future.cancel()
            raise Transient("it did not answer in time") from None

    @contextmanager
    def _told(self, *, opening: bool = False) -> Iterator[None]:
        """Give what tensorstore raises its meaning."""
        try:
            yield
        except TooLarge:
            raise self._judged("", opening=False) from None
        except (ValueError, OSError, RuntimeError) as error:  # tensorstore's statuses are texts
            raise self._judged(str(error), opening=opening) from None

    def _judged(self, said: str, *, opening: bool) -> Exception:
        """The error that a status of tensorstore's means."""
        code = said.partition(":")[0]
        if status := re.search(r"(?:HTTP (?:code|response code)[: ]+|http_response_code=')(\d{3})", said):
            number = int(status[1])
            if number in (401, 403):
                return VolumeRefused(f"{self._where} refuses to show the channel {self.name} (status {number}).")
            if 300 <= number < 400:
                return WrongVolume(f"{self._where} sends NOMADS to another address, where it does not go.")
            if number in PASSING or number >= 500:
                return Transient(f"it answered with status {number}")
            if number not in _OF_CHUNKS:
                return WrongVolume(
                    f"{self._where} answered with status {number} when asked for the channel {self.name}."
                )
        if "SSL peer certificate" in said:
            return untrusted(self._where)
        if code == "NOT_FOUND" and "is missing" in said:
            return _Missing()
        if (
            code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "RESOURCE_EXHAUSTED")
            or "CURL error" in said
        ):
            return Transient("the connection failed, or broke")
        if code == "PERMISSION_DENIED":
            return VolumeRefused(f"{self._where} refuses to show the channel {self.name}.")
        if code == "NOT_FOUND":
            return WrongVolume(f"The channel {self.name} is not there any more.")
        if "was ignored by server" in said:
            return WrongVolume(
                f"{self._where} sends files as a whole. The channel {self.name} is stored in shards, which need a "
                "server that answers requests for a range of bytes."
            )
        if opening:
            return WrongVolume(
                f"The metadata of the channel {self.name} ask for a codec, a data type or a layout that NOMADS cannot "
                "read, or have a mistake: have the channel written in another way."
            )
        return VolumeDamaged(
            f"A chunk of the channel {self.name} is damaged: it cannot be unpacked to what it should hold. Have it "
            "written again, or choose a box without it."
        )

    @property
    def _where(self) -> str:
        return self._source.location.host or "This machine"

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """As `retries.patiently`. Raises VolumeUnavailable after the last try."""
        return patiently(attempt, pauses=self._pauses, given_up=lambda why: VolumeUnavailable(f"{self._where} {why}"))

    def _check_files(self, box: Bounds) -> None:
        """Check that no chunk of the box is a link that leads out of the allowed folders, or longer than it may be.

        Raises WrongVolume, and VolumeDamaged.
        """
        top = str(path_of(self._source.location))
        file, chunk = prod(self._layout.write_chunk.shape), prod(self._layout.read_chunk.shape)
        longest = None if self._shards else most_stored(file * self.dtype.itemsize, file // chunk)
        for name in self._files(box):
            folder, _, _ = name.rpartition("/")
            if folder not in self._folders:
                self._roots.check(self._source.location.child(folder))
                self._folders.add(folder)
            if os.path.islink(f"{top}/{name}"):
                self._roots.check(self._source.location.child(name))
            with suppress(OSError):  # where it is not there, it is missing
                if longest and os.path.getsize(f"{top}/{name}") > longest:
                    raise self._judged("", opening=False)

    def _check_packed(self, box: Bounds) -> None:
        """Check that no chunk of the box lies there as a `.gz` file, which is not read. Raises WrongVolume."""
        top = path_of(self._source.location)
        if self._source.location.scheme == "file" and any((top / f"{name}.gz").exists() for name in self._files(box)):
            raise WrongVolume(f"The chunks of the channel {self.name} are files packed one by one (.gz): unpack them.")

    def _files(self, box: Bounds) -> Iterator[str]:
        """The files that hold the chunks of a box, whether or not they are there, below the array's folder."""
        chunks = self._source.chunks
        if chunks.endswith("/"):  # shards, whose names are hashes
            with suppress(OSError):
                yield from (chunks + name for name in os.listdir(path_of(self._source.location.child(chunks))))
            return
        yield from (name for name, _ in self._chunks(box))

    def _chunks(self, box: Bounds) -> Iterator[tuple[str, list[range]]]:
        """For each file of a chunk, or of a shard, of a box: its name, and which of its voxels the box has, by axis."""
        source = self._source
        axes = []
        for axis, low, high, origin, chunk in zip(
            source.axes,
            self._whole.domain.inclusive_min,
            self._whole.domain.exclusive_max,
            self._layout.grid_origin,
            self._layout.write_chunk.shape,
            strict=True,
        ):
            start, stop = (
                (source.fixed[axis], source.fixed[axis] + 1) if axis in source.fixed else self._span(axis, box)
            )
            first, last = (start - origin) // chunk, (stop - 1 - origin) // chunk
            along = []
            for i in range(first, last + 1):
                begin, end = origin + i * chunk, origin + (i + 1) * chunk
                name = {axis: i, f"{axis}0": max(low, begin), f"{axis}1": min(high, end)}
                along.append((name, range(max(start, begin) - begin, min(stop, end) - begin)))
            axes.append(along)
        for each in itertools.product(*axes):
            yield source.chunks.format_map(ChainMap(*(name for name, _ in each))), [part for _, part in each]

    def _span(self, axis: str, box: Bounds) -> tuple[int, int]:
        """Start and stop of a box along an axis, in the store's coordinates."""
        far = 0 if self._source.driver == PRECOMPUTED else self._source.corner["zyx".index(axis)]
        start, stop = box["zyx".index(axis)]
        return start - far, stop - far


def _cut(span: tuple[int, int], origin: int, chunk: int) -> list[tuple[int, int]]:
    """A range in pieces that end where chunks do."""
    start, stop = span
    walls = range(start + chunk - (start - origin) % chunk, stop, chunk)
    return list(itertools.pairwise([start, *walls, stop]))


def _within(corner: Iterable[int], piece: Bounds) -> tuple[slice, ...]:
    """Where a piece lies in an array that begins at a corner, (z, y, x)."""
    return tuple(slice(start - low, stop - low) for (start, stop), low in zip(piece, corner, strict=True))


def _corner(box: Bounds) -> Triple:
    (z, _), (y, _), (x, _) = box
    return z, y, x


def _by_axis(axes: tuple[str, ...], shape: tuple[int, ...]) -> Triple:
    z, y, x = (int(shape[axes.index(axis)]) for axis in "zyx")
    return z, y, x


@lru_cache(maxsize=TOGETHER)
def _context(unpacking: int = 0) -> Any:
    """The limits of tensorstore; `unpacking` is how many chunks are unpacked at the same time, 0: one for each core."""
    limit = {"limit": TOGETHER}
    retries = {"max_retries": 2, "initial_delay": "100ms", "max_delay": "500ms"}
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            **({"data_copy_concurrency": {"limit": unpacking}} if unpacking else {}),
            "file_io_concurrency": limit,
            "http_request_concurrency": limit,
            "http_request_retries": retries,
            "s3_request_concurrency": limit,
            "s3_request_retries": retries,
        }
    )


def _spec(source: Source, documents: Fetched) -> dict[str, Any]:
    """What tensorstore opens."""
    place = source.location
    store: object
    if place.scheme == "file":
        store = {"driver": "file", "path": f"{path_of(place)}/"}
    elif place.scheme == "s3" and documents.bucket(place.host).signed:
        own = documents.own_endpoint
        store = {
            "driver": "s3",
            "bucket": place.host,
            "path": f"{place.path}/",
            "aws_region": documents.bucket(place.host).region or "us-east-1",
            **({"endpoint": own} if own else {}),
        }
    else:
        url = urlsplit(documents.url(place))
        addresses(url.hostname or "", url.port or 443)  # names are looked up again, and hosts are the admin's choice
        # the driver encodes the path itself
        store = {"driver": "http", "base_url": f"{url.scheme}://{url.netloc}", "path": f"{unquote(url.path)}/"}
    return {"driver": source.driver, "kvstore": store, **source.options}
