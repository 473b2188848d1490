"""Channels that are read where they are stored, through `volumes`, rather than asked of BOSS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from contract.names import short
from contract.units import READABLE, VOXEL_BYTES
from pipelines.common.boxes import Box
from pipelines.common.program import BossFailure, BossRefusal, WrongRequest
from volumes.described import Channel
from volumes.documents import Fetched
from volumes.errors import VolumeError, VolumeRefused, WrongVolume

if TYPE_CHECKING:
    from volumes.reading import Array


def opened(channel: Channel, documents: Fetched, *, pauses: tuple[float, ...]) -> Array:
    """A described channel, to be read. Raises WrongRequest, also where its data type is none that programs read."""
    from volumes.reading import Array  # tensorstore, which takes its time, and BOSS's cutouts do not need

    if channel.datatype not in VOXEL_BYTES:
        raise WrongRequest(f"The channel “{channel.name}” has the data type {short(channel.datatype)}; {READABLE}.")
    with failures():
        return Array(channel, documents=documents, pauses=pauses)


def read(channel: Array, box: Box, *, told: Callable[[int], None]) -> NDArray[Any]:
    """The channel's voxels in a box of the volume, as Boss.read. Raises as `failures`."""
    with failures():
        found = channel.read(box)
    told(found.size)
    return found


@contextmanager
def failures() -> Iterator[None]:
    """Give errors of volumes the program's exit codes: WrongRequest, BossRefusal, or BossFailure."""
    try:
        yield
    except WrongVolume as error:
        raise WrongRequest(str(error)) from None
    except VolumeRefused as error:
        raise BossRefusal(str(error)) from None
    except VolumeError as error:
        raise BossFailure(str(error)) from None
