"""The channels of a run: read from where they lie once, in slabs, and then from this machine. Axes are z, y, x."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple, shape, union
from pipelines.common.copies import in_copies, memory_kept
from pipelines.common.program import Failure
from pipelines.common.seen import Seen
from pipelines.common.sparse import Share, Sparse, bands
from pipelines.common.volume import CUBOID, blocks

if TYPE_CHECKING:
    from intern.resource.boss.resource import ChannelResource

    from pipelines.common.boss import Boss
    from pipelines.common.stores import Store
    from volumes.reading import Array as StoredArray

Array = NDArray[Any]
Plane = NDArray[np.float64]
"""(3, 2): a shift along y and x (columns), in voxels: at the experiment's voxel 0, 0, and its slopes along y and x.

What belongs at a voxel is at that voxel minus the shift there, rounded.
"""

FETCH = 32 * 2**20
"""Bytes that are read at once, at most, but one row of blocks at least; as many are being kept meanwhile."""
PIECE = 2**21
"""Voxels that are measured together, about."""
STRIP = 2**18
"""Voxels that are moved back together, about: each takes some 50 bytes meanwhile."""


@dataclass(frozen=True, slots=True)
class Part:
    """A box of a channel, within what is read of it. Sections and rows count from the box's corner."""

    channel: Channel
    box: Box
    """In the experiment's voxels."""
    lies: Mapping[int, Plane] = field(default_factory=dict)
    """How sections of the experiment are shifted; they are moved back as they are read."""

    @property
    def shape(self) -> Triple:
        """The box's extent, (z, y, x)."""
        return shape(self.box)

    def read(self, start: int = 0, stop: int | None = None, top: int = 0, bottom: int | None = None) -> Array:
        """Rows `[top, bottom)` of the sections `[start, stop)`, as (z, y, x); by default all.

        Where a section is moved back from beyond what is read, it has the nearest voxel that is. Callers must not write
        to the array. Raises BossFailure, and Failure where this machine cannot store the voxels.
        """
        (z, deep), (y, low), x = self.box
        deep, low = (deep if stop is None else z + stop), (low if bottom is None else y + bottom)
        if not any(section in self.lies for section in range(z + start, deep)):
            return self.channel.cut(((z + start, deep), (y + top, low), x))
        found = np.empty((deep - z - start, low - y - top, x[1] - x[0]), self.channel.dtype)
        lines = max(1, STRIP // (x[1] - x[0]))
        for section, line in itertools.product(range(z + start, deep), range(y + top, low, lines)):
            rows = line, min(low, line + lines)
            found[section - z - start, rows[0] - y - top : rows[1] - y - top] = self._section(section, rows)
        return found

    def _section(self, z: int, rows: tuple[int, int]) -> Array:
        """Rows of a section, moved back; all in the experiment's voxels."""
        columns = self.box[2]
        if z not in self.lies:
            return np.asarray(self.channel.cut(((z, z + 1), rows, columns))[0])
        y, x = self._there(z, np.arange(*rows)[:, None], np.arange(*columns))
        _, *near = self.channel.near
        y, x = (np.clip(place, low, high - 1) for place, (low, high) in zip((y, x), near, strict=True))
        (top, bottom), (left, right) = ((int(place.min()), int(place.max()) + 1) for place in (y, x))
        return np.asarray(self.channel.cut(((z, z + 1), (top, bottom), (left, right)))[0][y - top, x - left])

    def _there(self, z: int, y: Array, x: Array) -> tuple[Array, Array]:
        """Where the channel has what belongs at voxels of a section."""
        down, right = (
            np.rint(at + y * along_y + x * along_x).astype(np.intp) for at, along_y, along_x in self.lies[z].T
        )
        return y - down, x - right

    def holds(self, places: NDArray[np.int64], reach: Triple) -> NDArray[np.bool_]:
        """(n,): whether the box holds all voxels within `reach` of places (n, 3), and what is moved there was read."""
        held = np.all((places >= reach) & (places + reach < self.shape), axis=1)
        z, y, x = places.T + np.array([[low] for low, _ in self.box])
        _, *near = self.channel.near
        for section in self.lies:
            some = np.flatnonzero(held & (np.abs(z - section) <= reach[0]))
            for down, right in itertools.product((-reach[1], reach[1]), (-reach[2], reach[2])):
                there = self._there(section, y[some] + down, x[some] + right)
                for place, (low, high) in zip(there, near, strict=True):
                    held[some] &= (place >= low) & (place < high)
        return np.asarray(held)


def digest_of(part: Part) -> str:
    """The SHA-256 of a part's voxels, in C order, little-endian. Raises as `Part.read`."""
    digest = hashlib.sha256()
    depth, high, wide = part.shape
    lines = max(1, PIECE // max(1, wide))
    for z in range(depth):
        for top in range(0, high, lines):
            rows = part.read(z, z + 1, top, min(high, top + lines))
            digest.update(_little(rows))
    return digest.hexdigest()


def _little(data: Array) -> memoryview:
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<")).data


class Channel(Seen):
    """One channel of the box, and of its surroundings where those are read too.

    Sections come from the volume when they are first read, and from this machine afterwards. What is measured
    (extremes, projection, sample) is the box's alone.
    """

    def __init__(
        self,
        store: Boss | Store,
        about: ChannelResource | StoredArray,
        *,
        box: Box,
        near: Box | None = None,
        whole: Box | None = None,
        told: Callable[[int], None],
    ) -> None:
        """`near`, which holds the box, is what is read, by default the box; both in the experiment's voxels.

        `whole` is the box of which this is a part, if it is one; `told` gets each piece's number of voxels.
        """
        self.name: str = about.name
        super().__init__(whole or box, np.dtype(about.datatype), part=box)
        self.near = near or box
        self._shape = shape(self.near)
        self._store, self._about, self._told = store, about, told
        self._corner = tuple(low for low, _ in self.near)
        self._origin, self._block = blocks(about)
        self._there, self._aside = 0, hashlib.sha256()
        self._beside = 0
        self._kept = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - close() closes it

    def part(self, box: Box, lies: Mapping[int, Plane] | None = None) -> Part:
        """A box within what is read; sections that lie shifted are moved back as they are read."""
        return Part(self, box, lies or {})

    def read(self, start: int = 0, stop: int | None = None, top: int = 0, bottom: int | None = None) -> Array:
        """As `Part.read`, of the box."""
        return self.part(self.box).read(start, stop, top, bottom)

    def cut(self, box: Box) -> Array:
        """The voxels (z, y, x) of a box within what is read. As `Part.read`."""
        (start, stop), (top, bottom), (left, right) = (
            (low - corner, high - corner) for (low, high), corner in zip(box, self._corner, strict=True)
        )
        _, high, wide = self._shape
        self._fetch_to(stop)
        if (bottom - top, right - left) == (high, wide):
            return self._rows(start * high, stop * high).reshape(-1, high, wide)
        found = np.empty((stop - start, bottom - top, right - left), self.dtype)
        for z in range(start, stop):
            found[z - start] = self._rows(z * high + top, z * high + bottom)[:, left:right]
        return found

    def once(self, box: Box) -> Array:
        """The voxels (z, y, x) of a box, read and not kept; they are part of `digest`. Raises BossFailure."""
        data = np.empty(shape(box), self.dtype)
        z, (top, bottom), x = box
        # of the blocks that a box touches, all voxels are held meanwhile
        deep = -(-(z[1] - z[0]) // self._block[0]) * self._block[0]
        for band in itertools.pairwise([top, *self._bands(top, bottom, FETCH // 4, deep * (x[1] - x[0])), bottom]):
            part = self._store.read(self._about, (z, band, x), told=lambda voxels: None)
            data[:, band[0] - top : band[1] - top] = part
        self._beside += data.size
        self._aside.update(_little(data))
        return data

    def once_or_cut(self, box: Box) -> Array:
        """The voxels (z, y, x) of a box: as `cut` where all that is near was read, and has it; else as `once`."""
        here = self._there == self._shape[0] and union(box, self.near) == self.near
        return self.cut(box) if here else self.once(box)

    def _bands(self, top: int, bottom: int, most: int, row: int) -> range:
        """Where rows of so many voxels end that are read at once, as at most so many bytes: where stored blocks do."""
        tall = self._block[1]
        lines = max(1, most // (row * self.dtype.itemsize * tall)) * tall
        return range(top + lines - (top - self._origin[1]) % tall, bottom, lines)

    def fetch(self) -> None:
        """Read all sections from the volume, unless they were read. Raises as `read`."""
        with memory_kept():
            self._fetch_to(self._shape[0])

    def _fetch_to(self, stop: int) -> None:
        while self._there < stop:
            self._fetch()

    def _rows(self, first: int, last: int) -> Array:
        rows = np.empty((last - first, self._shape[2]), self.dtype)
        left, place = rows.reshape(-1).view(np.uint8), first * self._shape[2] * self.dtype.itemsize
        while left.size:  # by place, since copies of the process share the file's position
            count = os.preadv(self._kept.fileno(), [left.data], place)
            if not count:
                raise Failure("What was read and kept on this machine has been cut off.")
            left, place = left[count:], place + count
        return rows

    def _fetch(self) -> None:
        """Read up to the next boundary of the stored blocks along z, in bands of rows that end at boundaries too."""
        depth, high, wide = self._shape
        z, y, x = self._corner
        first, row = self._there, wide * self.dtype.itemsize
        deep, tall = self._block[0] * max(1, CUBOID[0] // self._block[0]), self._block[1]
        most = max(FETCH, CUBOID[0] * CUBOID[1] * row)
        deep = min(deep, max(1, most // (tall * row)))  # blocks so large are read more than once
        stop = min(depth, first + deep - (z - self._origin[0] + first) % deep)
        walls = [wall - y for wall in self._bands(y, y + high, FETCH, (stop - first) * wide)]
        with ThreadPoolExecutor(2) as both:  # one band is kept and looked at while the next one is read
            kept: list[Future[None]] = []
            for top, bottom in itertools.pairwise([0, *walls, high]):
                box = ((z + first, z + stop), (y + top, y + bottom), (x, x + wide))
                data = self._store.read(self._about, box, told=self._told)
                _done(kept)
                kept = [both.submit(self._keep, data, first, top), both.submit(self.look, data, box)]
                if data.nbytes > FETCH:  # two bands of this size would be too much
                    _done(kept)
                    kept = []
                del data
            _done(kept)
        self._there = stop

    def _keep(self, data: Array, first: int, top: int) -> None:
        """Store rows, from `top` on, of the sections from `first` on. Raises Failure where they cannot be stored."""
        _, high, wide = self._shape
        row = wide * self.dtype.itemsize
        for z, section in enumerate(data, start=first):
            left, place = section.reshape(-1).view(np.uint8), (z * high + top) * row
            while left.size:
                try:
                    count = os.pwrite(self._kept.fileno(), left.data, place)
                except OSError as error:
                    raise Failure(f"What was read cannot be kept on this machine: {error.strerror}.") from None
                left, place = left[count:], place + count

    def close(self) -> None:
        """Discard the voxels."""
        self._kept.close()

    @property
    def stored(self) -> tuple[Triple, Triple]:
        """Where the blocks in which the channel is stored begin, in the experiment's voxels, and their extent."""
        return self._origin, self._block

    @property
    def digested(self) -> str:
        """What `digest` is of, in words."""
        own = "its voxels in C order (z, y, x), little-endian"
        if not self._beside:
            return own
        return (
            f"two SHA-256 as hexadecimal digits: of {own}; and of {self._beside:,} voxels of whole sections, by which "
            "they were registered"
        )

    def digest(self, own: str = "") -> str:
        """The SHA-256 that `digested` tells of. Raises as `read`.

        `own` is that of the voxels alone, where it is known already.
        """
        own = own or digest_of(self.part(self.near))
        return hashlib.sha256(f"{own}{self._aside.hexdigest()}".encode()).hexdigest() if self._beside else own

    @property
    def missing(self) -> bool:
        """Whether a part of what was read is not stored, and was taken for the fill value."""
        return bool(getattr(self._about, "missing", 0))

    def same(self, other: Channel) -> bool:
        """Whether another channel of this box has the same voxels in it; both must be read. Raises as `read`."""
        if not self.alike(other):
            return False
        depth, _, _ = shape(self.box)
        return all(np.array_equal(self.read(z, z + 1), other.read(z, z + 1)) for z in range(depth))

    def brightness(self, labels: Array | Sparse, count: int) -> NDArray[np.float64]:
        """The mean value within each of the objects 1 to `count` of an array of the box's shape, (count,)."""
        return brightness([self.part(self.box)], labels, count)[0]


def _done(kept: Iterable[Future[None]]) -> None:
    """Wait for all, and raise what one of them has raised."""
    for each in kept:
        each.result()


def brightness(
    parts: Sequence[Part], labels: Array | Sparse, count: int, *, copies: int = 1
) -> list[NDArray[np.float64]]:
    """(count,) for each part: its mean values within the objects 1 to `count` of an array of the parts' shape.

    So many copies of the process share the voxels of the objects; what they read of the parts has to be there. Raises
    as `Part.read`.
    """

    def sums(share: Share) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        voxels, totals = np.zeros(count + 1, np.int64), np.zeros((len(parts), count + 1))
        for (z, y, _), few in bands(labels, piece=PIECE, share=share):
            if not len(few.ids):
                continue
            deep, high, _ = few.extent
            least = int(few.ids.min())
            found = few.ids - np.uint32(least)
            counts = np.bincount(found)
            some = slice(least, least + len(counts))
            voxels[some] += counts
            for part, total in zip(parts, totals, strict=True):
                values = part.read(z, z + deep, y, y + high).reshape(-1)[few.places]
                total[some] += np.bincount(found, weights=values)
        return voxels, totals

    shares = [Share(number, copies) for number in range(copies)]
    voxels, totals = (sum(some) for some in zip(*in_copies(sums, shares, most=copies), strict=True))
    return list(totals[:, 1:] / np.maximum(voxels[1:], 1))
