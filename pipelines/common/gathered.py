"""A channel whose voxels other programs have read."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box
from pipelines.common.channels import Channel
from pipelines.common.program import Failure
from pipelines.common.seen import Seen

Array = NDArray[Any]


class Gathered(Channel):
    """What was seen of a channel in many blocks; its voxels are not here.

    `near` is all that was read, in the experiment's voxels. Blocks are put together by `gather`, in order.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], *, box: Box, near: Box) -> None:
        Seen.__init__(self, box, dtype)
        self.name, self.near = name, near
        self.means: NDArray[np.float64] = np.zeros(0)
        """The mean brightness of each object."""
        self._digest = hashlib.sha256()
        self._missing = False

    def gather(self, seen: Seen | None, *, digest: str, missing: bool) -> None:
        """Add a block: what was `seen` of it in the box, the digest of its voxels, whether some are not stored."""
        if seen:
            self.add(seen)
        self._digest.update(digest.encode())
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
        """Whether another channel, gathered from the same blocks, has the same voxels."""
        return self.alike(other) and self.digest() == other.digest()

    def cut(self, box: Box) -> Array:
        """Raises Failure: voxels are not here."""
        raise Failure("A job in blocks has no voxels of its own.")

    def fetch(self) -> None:
        """Nothing is to be read."""

    def close(self) -> None:
        """Nothing is held."""
