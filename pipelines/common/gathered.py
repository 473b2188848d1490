"""A channel whose voxels other programs have read."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box
from pipelines.common.channels import Channel
from pipelines.common.seen import Seen

Array = NDArray[Any]


class Gathered(Channel):
    """What was seen of a channel in many blocks; its voxels are read again if they are asked for.

    `near` is all that was read, in the experiment's voxels. Blocks are put together by `gather`, in order.
    """

    def __init__(self, channel: Channel, *, near: Box, missing: bool) -> None:
        """`channel` reads the box again; `close` closes it. `missing`: not all is stored that was read earlier."""
        Seen.__init__(self, channel.box, channel.dtype)
        self.name, self.near, self._again = channel.name, near, channel
        self.means: NDArray[np.float64] = np.zeros(0)
        """The mean brightness of each object."""
        self._digest, self._inside = hashlib.sha256(), hashlib.sha256()
        self._missing = missing

    def gather(self, seen: Seen | None, *, digest: str, inside: str, missing: bool) -> None:
        """Add a block: what was `seen` of it in the box, the digests of its voxels, and of those in the box.

        And whether some of what was read for it is not stored.
        """
        if seen:
            self.add(seen)
        self._digest.update(digest.encode())
        self._inside.update(inside.encode())
        self._missing |= missing

    @property
    def missing(self) -> bool:
        """Whether a part of what was read is not stored, and was taken for the fill value."""
        return self._missing

    @property
    def digested(self) -> str:
        """What `digest` is of, in words."""
        return "the SHA-256 of each block's voxels, as hexadecimal digits, in the order of the blocks"

    def digest(self, own: str = "") -> str:
        """A digest of the digests of all blocks, in order."""
        return self._digest.hexdigest()

    def same(self, other: Channel) -> bool:
        """Whether another channel, gathered from the same blocks, has the same voxels in the box."""
        assert isinstance(other, Gathered)
        return self.alike(other) and self._inside.digest() == other._inside.digest()

    def cut(self, box: Box) -> Array:
        """As `Channel.cut`, of the box."""
        return self._again.cut(box)

    def fetch(self) -> None:
        """Nothing is read before it is asked for."""

    def close(self) -> None:
        """Discard what was read again."""
        self._again.close()
