"""What is seen of a channel is what all of its voxels have, however it is cut into what is read together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common import seen
from pipelines.common.seen import Seen


@given(
    corner=st.tuples(*[st.integers(0, 40)] * 3),
    extent=st.tuples(*[st.integers(1, 30)] * 3),
    walls=st.tuples(*[st.sets(st.integers(1, 29), max_size=3)] * 3),
    largest=st.integers(1, 40),
    kind=st.sampled_from([np.uint8, np.uint16, np.uint64]),
)
def test_extremes_and_projection_are_those_of_all_voxels(
    corner: tuple[int, ...],
    extent: tuple[int, ...],
    walls: tuple[set[int], ...],
    largest: int,
    kind: type[np.unsignedinteger],
) -> None:
    data = np.random.default_rng(sum(extent)).integers(0, 250, extent).astype(kind)
    z, y, x = ((low, low + side) for low, side in zip(corner, extent, strict=True))
    cuts = [
        list(itertools.pairwise([0, *sorted(wall for wall in some if wall < side), side]))
        for some, side in zip(walls, extent, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "LARGEST", largest)
        found = Seen((z, y, x), np.dtype(kind))

    for part in itertools.product(*cuts):
        box = [(low + first, low + stop) for low, (first, stop) in zip(corner, part, strict=True)]
        found.look(data[tuple(slice(*side) for side in part)], (box[0], box[1], box[2]))

    pixel = -(-max(extent[1:]) // largest)
    tall, wide = (-(-side // pixel) for side in extent[1:])
    brightest = np.zeros((tall * pixel, wide * pixel), kind)
    brightest[: extent[1], : extent[2]] = data.max(axis=0)
    assert np.array_equal(found.projection, brightest.reshape(tall, pixel, wide, pixel).max(axis=(1, 3)))
    assert (found.lowest, found.highest) == (data.min(), data.max())
    assert found.blank == [z[0] + n for n, section in enumerate(data) if section.min() == section.max()]
