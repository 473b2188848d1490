"""The features of each synapse: cubes of every channel round its centre, projected. Axes are z, y, x.

A section is read a few times at most, memory holds a slab of one channel, and no loop runs over synapses. The
projections do not depend on where slabs and batches end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.classifier.model import NOT_CLASSIFIED, Triple, Weights, label

Array = NDArray[Any]

SLAB = 16
"""Sections whose synapses are projected together."""
_BATCH = 256
_VOXELS = 2**21


class Sections(Protocol):
    """A channel of the box, read by sections."""

    def read(self, start: int, stop: int) -> Array:
        """The sections `[start, stop)` counted from the box's first: unsigned integers, (stop - start, y, x)."""


def classify(
    weights: Weights,
    centres: NDArray[np.float64],
    channels: Mapping[str, Sections],
    *,
    shape: Triple,
    slab: int = SLAB,
    told: Callable[[float], None] = lambda part: None,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Each synapse's label (n,), and the probability of GABA (n,); NaN where the synapse is not classified.

    `centres` is (n, 3), in voxels from the box's corner, and is rounded down to whole voxels, as in 2018. `channels`
    has a channel for each of the model's roles; `shape` is the box's, (z, y, x). A synapse whose cube would leave the
    box is NOT_CLASSIFIED. `told` is called with the part that is done. Raises KeyError where a role has no channel.
    """
    whole = np.floor(centres).astype(np.int64).reshape(-1, 3)
    half = np.array(weights.cube) // 2
    inside = np.all((whole >= half) & (whole + half < shape), axis=1)
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
    told: Callable[[float], None] = lambda part: None,
) -> NDArray[np.float64]:
    """Projections (n, components) of the cubes round whole voxels (n, 3); every cube must lie within the box.

    `components` is (components, roles x voxels of the cube), the roles in the order of `roles`.
    """
    features = np.zeros((len(whole), len(components)))
    rows = components.reshape(len(components), len(roles), -1)
    order = np.argsort(whole[:, 0], kind="stable")
    walls = np.searchsorted(whole[order, 0], range(0, shape[0] + slab, slab))
    corners = whole - np.array(cube) // 2
    for number, role in enumerate(roles):
        kernels = np.ascontiguousarray(rows[:, number])
        for step, start in enumerate(range(0, shape[0], slab)):
            told((number + start / shape[0]) / len(roles))
            here = order[walls[step] : walls[step + 1]]
            if not here.size:
                continue
            low, high = int(corners[here, 0].min()), int(corners[here, 0].max()) + cube[0]
            windows = np.lib.stride_tricks.sliding_window_view(_bytes(channels[role], low, high, shape[1:]), cube)
            for first in range(0, len(here), _BATCH):
                batch = here[first : first + _BATCH]
                z, y, x = corners[batch].T
                cubes = windows[z - low, y, x].reshape(len(batch), 1, -1).astype(np.float64)
                # one dot product each: a matrix product's sums depend on the number of rows
                features[batch] += np.vecdot(cubes, kernels)
    return features


def painted(labels: Array, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each object's value in its voxels: `values[labels]`, in pieces, as one go takes eight times the memory."""
    out = np.empty(labels.shape, np.uint8)
    to, of = out.reshape(-1), labels.reshape(-1)
    for start in range(0, len(of), _VOXELS):
        to[start : start + _VOXELS] = values[of[start : start + _VOXELS]]
    return out


def _bytes(channel: Sections, start: int, stop: int, plane: tuple[int, int]) -> NDArray[np.uint8]:
    """Sections `[start, stop)` as grey levels 0 to 255; deeper data are scaled by their type, as in 2018."""
    out = np.empty((stop - start, *plane), np.uint8)
    for z in range(start, stop):  # one by one: scaling takes eight bytes a voxel
        section = channel.read(z, z + 1)[0]
        out[z - start] = section if section.dtype == np.uint8 else section / np.iinfo(section.dtype).max * 255
    return out
