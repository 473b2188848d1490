"""The volume by address of one request, asked as pipelines.common.boss asks BOSS. Arrays have the axes z, y, x."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipelines.common import arrays
from pipelines.common.boxes import Box
from pipelines.common.program import Request
from pipelines.common.volume import DESCRIBE, PAUSES, Volume, check_box
from volumes.address import Address
from volumes.describe import describe
from volumes.documents import Fetched

if TYPE_CHECKING:
    from volumes.reading import Array


class Store:
    """A volume by address. Construction and methods raise WrongRequest and BossFailure, as Boss's methods do."""

    def __init__(self, request: Request, address: Address, *, pauses: tuple[float, ...] = PAUSES) -> None:
        self._request = request
        self._pauses = pauses
        self._documents = Fetched(request.roots, time.monotonic() + DESCRIBE)
        with arrays.failures():
            self._volume = describe(address, self._documents)

    def describe(self) -> Volume:
        """Bounds, voxel size and channels."""
        found = self._volume
        names = [channel.name for channel in found.channels]
        return Volume(bounds=found.bounds, voxel_nm=found.voxel_nm, channels=names)

    def check_box(self, volume: Volume) -> None:
        """Raise WrongRequest with the real bounds unless the box lies within the volume."""
        check_box(self._request, volume, where="the volume")

    def channel(self, name: str, box: Box) -> Array:
        """As Boss.channel. All channels of a volume by address hold every box within its bounds."""
        found = next(channel for channel in self._volume.channels if channel.name == name)
        return arrays.opened(found, self._documents, pauses=self._pauses)

    def read(self, channel: Array, box: Box, *, told: Callable[[int], None]) -> NDArray[Any]:
        """As Boss.read."""
        return arrays.read(channel, box, told=told)
