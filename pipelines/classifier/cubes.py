"""The features of each synapse: cubes of every channel round its centre, projected. Axes are z, y, x.

A section is read a few times at most, memory holds a slab of one channel, and no loop runs over synapses. The
projections do not depend on where slabs and batches end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.classifier.model import NOT_CLASSIFIED, Weights, label
from pipelines.common.boxes import Triple

Array = NDArray[Any]

SLAB = 16
"""Sections whose synapses are projected together."""
BYTES = 2**25
"""Of a slab that is held at a time, about: so many rows of it."""
_BATCH = 256


class Sections(Protocol):
    """A channel, read by sections and rows."""

    def read(self, start: int, stop: int, top: int, bottom: int) -> Array:
        """The rows `[top, bottom)` of the sections `[start, stop)`: unsigned integers, (stop - start, y, x)."""


class Bounded(Sections, Protocol):
    """A channel that ends somewhere."""

    def holds(self, places: NDArray[np.int64], reach: Triple) -> NDArray[np.bool_]:
        """(n,): whether all voxels within `reach` of places (n, 3) are there."""


def classify(
    weights: Weights,
    centres: NDArray[np.float64],
    channels: Mapping[str, Bounded],
    *,
    shape: Triple,
    slab: int = SLAB,
    told: Callable[[float], None] = lambda part: None,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Each synapse's label (n,), and the probability of GABA (n,); NaN where the synapse is not classified.

    `centres` is (n, 3), in voxels of the channels, and is rounded down to whole voxels, as in 2018. `channels` has a
    channel for each of the model's roles; `shape` is theirs, (z, y, x). A synapse whose cube would leave one is
    NOT_CLASSIFIED. `told` is called with the part that is done. Raises KeyError where a role has no channel.
    """
    whole = np.floor(centres).astype(np.int64).reshape(-1, 3)
    z, y, x = (side // 2 for side in weights.cube)
    inside = np.all([channels[role].holds(whole, (z, y, x)) for role in weights.roles], axis=0)
    labels = np.full(len(whole), NOT_CLASSIFIED, np.uint8)
    gaba = np.full(len(whole), np.nan)
    probabilities = weights.probabilities(
        project(
            weights.components,
            whole[inside],
            channels,
            roles=weights.roles,
            cube=weights.cube,
            shape=shape,
            slab=slab,
            told=told,
        )
    )
    labels[inside] = label(probabilities)
    gaba[inside] = probabilities[:, 1]
    return labels, gaba


def project(
    components: NDArray[np.float64],
    whole: NDArray[np.int64],
    channels: Mapping[str, Sections],
    *,
    roles: Sequence[str],
    cube: Triple,
    shape: Triple,
    slab: int = SLAB,
    held: int = BYTES,
    told: Callable[[float], None] = lambda part: None,
) -> NDArray[np.float64]:
    """Projections (n, components) of the cubes round whole voxels (n, 3); every cube must lie within the channels.

    `components` is (components, roles x voxels of the cube), the roles in the order of `roles`. About `held` bytes of a
    slab are held at a time.
    """
    features = np.zeros((len(whole), len(components)))
    rows = components.reshape(len(components), len(roles), -1)
    lines = max(cube[1], held // (shape[2] * (slab + cube[0])))
    bands = -(-shape[1] // lines)
    pieces = -(-shape[0] // slab) * bands
    piece = whole[:, 0] // slab * bands + whole[:, 1] // lines
    order = np.argsort(piece, kind="stable")
    walls = np.searchsorted(piece[order], range(pieces + 1))
    corners = whole - np.array(cube) // 2
    for number, role in enumerate(roles):
        kernels = np.ascontiguousarray(rows[:, number])
        for step in range(pieces):
            told((number + step / pieces) / len(roles))
            here = order[walls[step] : walls[step + 1]]
            if not here.size:
                continue
            (low, top), (high, bottom) = corners[here, :2].min(axis=0), corners[here, :2].max(axis=0) + cube[:2]
            seen = _bytes(channels[role], (int(low), int(high)), (int(top), int(bottom)), shape[2])
            windows = np.lib.stride_tricks.sliding_window_view(seen, cube)
            for first in range(0, len(here), _BATCH):
                batch = here[first : first + _BATCH]
                z, y, x = corners[batch].T
                cubes = windows[z - low, y - top, x].reshape(len(batch), 1, -1).astype(np.float64)
                # one dot product each: a matrix product's sums depend on the number of rows
                features[batch] += np.vecdot(cubes, kernels)
    return features


def _bytes(channel: Sections, sections: tuple[int, int], rows: tuple[int, int], wide: int) -> NDArray[np.uint8]:
    """Rows of sections as grey levels 0 to 255; deeper data are scaled by their type, as in 2018."""
    out = np.empty((sections[1] - sections[0], rows[1] - rows[0], wide), np.uint8)
    for z in range(*sections):  # one by one: scaling takes eight bytes a voxel
        section = channel.read(z, z + 1, *rows)[0]
        out[z - sections[0]] = section if section.dtype == np.uint8 else section / np.iinfo(section.dtype).max * 255
    return out
