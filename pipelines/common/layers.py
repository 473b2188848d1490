"""A run's results as layers of Neuroglancer: `segmentation/`, `annotations/`, and `image/` for each role's channel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contract.program import BLOCK_VOXELS
from pipelines.common.annotations import Points, write_annotations
from pipelines.common.boxes import voxels
from pipelines.common.channels import Channel
from pipelines.common.copies import CORES
from pipelines.common.precomputed import Frame, write_image, write_segmentation
from pipelines.common.results import Results

if TYPE_CHECKING:
    from pipelines.common.run import Found


def write_voxels(results: Results, found: Found, frame: Frame) -> None:
    """Write the voxels of what was found, under the ids of synapses.csv. Raises Failure."""
    write_segmentation(
        results,
        "segmentation",
        found.labels,
        frame,
        title="Segmentation",
        about="The synapses' voxels under their ids, as a Neuroglancer precomputed volume.",
        copies=CORES if found.labels.size > BLOCK_VOXELS else 1,
    )


def write_centres(results: Results, found: Found, kind: NDArray[np.int64], frame: Frame) -> None:
    """Write the centres of what was found, under the ids of synapses.csv.

    `kind` is each object's class, as an index into `found.kinds`.
    """
    points = Points(
        centres=found.centres,
        scores=found.scores,
        sizes=(found.voxels * math.prod(frame.voxel_nm) / 1e9).astype(np.float32),
        kind=kind,
        kinds=found.kinds,
    )
    about = "The synapses' centres with score, size and class, as Neuroglancer precomputed annotations."
    write_annotations(results, "annotations", points, frame, title="Annotations", about=about)


def image_size(channels: Sequence[Channel]) -> int:
    """Bytes of all voxels of the channels, in full resolution and uncompressed."""
    return sum(voxels(channel.box) * channel.dtype.itemsize for channel in channels)


def write_images(results: Results, channels: Mapping[str, Channel], frame: Frame) -> None:
    """Write each role's channel as it was read. Raises Failure."""
    for role, channel in channels.items():
        write_image(
            results,
            f"image/{role.replace(' ', '-')}",  # a witness has a number
            channel.read,
            channel.dtype,
            frame,
            title=f"Image: {role}",
            about=f"The channel {channel.name} as it was read, as a Neuroglancer precomputed volume.",
        )
