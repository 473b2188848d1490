"""The volume that a request asks for, and which of its channels have which role. Axes are z, y, x."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contract.names import short
from pipelines.common.boxes import Box, union
from pipelines.common.channels import Channel
from pipelines.common.copies import one_heap
from pipelines.common.program import Request, WrongRequest
from pipelines.common.volume import pick

if TYPE_CHECKING:
    from pipelines.common.boss import Boss
    from pipelines.common.stores import Store

WITNESS = "witness"
"""How the roles of witnesses begin that have no other."""


class Source:
    """Construction raises WrongRequest or BossFailure where volume, box or channels are wrong; no voxel is read.

    `witnesses` are channels that are read beside those of the `roles`; their own roles begin with WITNESS.
    """

    def __init__(self, request: Request, *, roles: Mapping[str, Sequence[str]], witnesses: Sequence[str] = ()) -> None:
        # imported here: whoever reads from one of them does not need what the other one takes time to import
        self.boss: Boss | None = None
        self._store: Boss | Store
        one_heap()  # what libraries' threads read would take a hundred megabytes more
        if request.address:
            from pipelines.common.stores import Store

            self._store = Store(request, request.address)
        else:
            from pipelines.common.boss import Boss

            self._store = self.boss = Boss(request)
        self.volume = self._store.describe()
        """Bounds, voxel size in nm (z, y, x) and channels of the experiment."""
        self._store.check_box(self.volume)
        self.names = pick(roles, self.volume.channels, request.channels)
        """Role to channel name."""
        number = 0
        for name in witnesses:
            if name not in self.volume.channels:
                there = ", ".join(self.volume.channels[:20])
                raise WrongRequest(f"The experiment has no channel {short(name)} for a witness; it has {there}.")
            if name in [self.names.get(role) for role in ("postsynaptic", "presynaptic")]:
                raise WrongRequest(f"{name} cannot be a witness: it is what synapses are found in.")
            if name not in self.names.values():
                number += 1
                self.names[f"{WITNESS} {number}" if number > 1 else WITNESS] = name

    def channels(
        self,
        near: Mapping[str, Box],
        *,
        box: Box,
        whole: Box | None = None,
        aside: Box | None = None,
        told: Callable[[int], None] = lambda voxels: None,
    ) -> dict[str, Channel]:
        """Role to channel, with the voxels of a box, and of what is `near` it, by role.

        `whole` is the box of which that is a part, if it is one; parts of `aside` can be read `once`; `told` gets each
        piece's number of voxels.
        """
        reach = {role: near.get(role, box) for role in self.names}
        described = {
            role: self._store.channel(name, union(reach[role], aside) if aside else reach[role])
            for role, name in self.names.items()
        }
        return {
            role: Channel(self._store, about, box=box, near=near.get(role), whole=whole, told=told)
            for role, about in described.items()
        }

    @contextmanager
    def opened(
        self, near: Mapping[str, Box], *, box: Box, whole: Box | None = None, aside: Box | None = None
    ) -> Iterator[dict[str, Channel]]:
        """As `channels`; their voxels are discarded at the end."""
        channels = self.channels(near, box=box, whole=whole, aside=aside)
        try:
            yield channels
        finally:
            for channel in channels.values():
                channel.close()

    def digest(self, channels: Mapping[str, Channel]) -> str:
        """A digest of what is known of the volume before its voxels are read: it changes where the volume does."""
        said = [
            [self.volume.bounds, self.volume.voxel_nm],
            [[role, channel.name, channel.dtype.str, channel.stored] for role, channel in channels.items()],
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()
