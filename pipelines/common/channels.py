"""The channels of a run: read from BOSS once, in slabs, and looked at as often as a method likes. Axes are z, y, x."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from intern.resource.boss.resource import ChannelResource
from numpy.typing import NDArray

from pipelines.common.boss import TILE, Boss
from pipelines.common.program import Failure

Array = NDArray[Any]

IN_MEMORY = 16 * 2**20
"""Bytes of a channel that are kept in memory; a larger one goes to a file, which nobody else can open."""
SAMPLE = 2**18
"""About how many voxels stand for a channel where its brightness is described."""


class Channel:
    """One channel of the box. Sections come from BOSS when they are first read, and from this machine afterwards."""

    def __init__(
        self,
        boss: Boss,
        about: ChannelResource,
        *,
        start: tuple[int, int, int],
        shape: tuple[int, int, int],
        told: Callable[[int], None],
    ) -> None:
        """`start` and `shape` are the box's in voxels; `told` hears how many voxels came from BOSS, piece by piece."""
        self.name: str = about.name
        self.dtype = np.dtype(about.datatype)
        self.shape = shape
        self._boss, self._about, self._told = boss, about, told
        self._first = start[0]
        self._there = 0
        self._kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - close() closes it
        self._step = max(1, round(math.sqrt(math.prod(shape) / SAMPLE)))
        self._sample: list[Array] = []
        self.lowest = self.highest = 0
        """The least and the greatest value seen."""
        self.projection: Array = np.zeros(shape[1:], self.dtype)
        """The brightest voxel along z of the sections read so far, (y, x)."""

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """The sections `[start, stop)`, counted from the box's first; by default all. Not to be written to.

        Raises BossFailure, and Failure where this machine cannot keep what was read.
        """
        stop = self.shape[0] if stop is None else stop
        while self._there < stop:
            self._fetch()
        section = self.shape[1] * self.shape[2] * self.dtype.itemsize
        self._kept.seek(start * section)
        return np.frombuffer(self._kept.read((stop - start) * section), self.dtype).reshape(-1, *self.shape[1:])

    def _fetch(self) -> None:
        """Read on, to the next wall of BOSS's cuboids."""
        wall = TILE[0] - (self._first + self._there) % TILE[0]
        stop = min(self.shape[0], self._there + wall)
        data = self._boss.read(self._about, self._there, stop, told=self._told)
        try:
            self._kept.seek(0, 2)
            self._kept.write(data.data)
        except OSError as error:
            raise Failure(f"What BOSS sent cannot be kept on this machine: {error.strerror}.") from None
        low, high = int(data.min()), int(data.max())
        self.lowest = low if not self._there else min(self.lowest, low)
        self.highest = max(self.highest, high)
        np.maximum(self.projection, data.max(axis=0), out=self.projection)
        self._sample.append(data[:, :: self._step, :: self._step].copy())
        self._there = stop

    def close(self) -> None:
        """Forget the voxels."""
        self._kept.close()

    @property
    def sample(self) -> Array:
        """Voxels of a regular grid through all sections read so far, (n,): they stand for the channel's brightness."""
        return np.concatenate([part.reshape(-1) for part in self._sample]) if self._sample else self.projection[:0, 0]

    @property
    def constant(self) -> bool:
        """Whether all that was read has one value."""
        return self.lowest == self.highest

    def brightness(self, labels: Array, count: int) -> NDArray[np.float64]:
        """The mean value within each of the objects 1 to `count` of an array of the box's shape, (count,)."""
        total, voxels = np.zeros(count + 1), np.zeros(count + 1, np.int64)
        for start in range(0, self.shape[0], TILE[0]):
            stop = min(self.shape[0], start + TILE[0])
            part = labels[start:stop]
            inside = part != 0
            found = part[inside].astype(np.int64)
            if found.size:
                total += np.bincount(found, weights=self.read(start, stop)[inside], minlength=count + 1)
                voxels += np.bincount(found, minlength=count + 1)
        mean: NDArray[np.float64] = total[1:] / np.maximum(voxels[1:], 1)
        return mean
