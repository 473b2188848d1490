"""Neuroglancer's precomputed format: one JSON document, `info`, with a scale for each level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volumes.address import Location
from volumes.described import Dataset, Sizes, Source, check_chunk, check_sizes, literal
from volumes.metadata import Documents, check_word, document, finest, no_level, numbers, strange, whole

AXES = ("x", "y", "z", "channel")
"""The axes of an array, as tensorstore has them."""
ENCODINGS = ("raw", "jpeg", "png", "compressed_segmentation")
"""The encodings that tensorstore reads."""
_SHARDED = "neuroglancer_uint64_sharded_v1"
MAX_SCALES = 64
"""Scales that are looked at."""


def dataset(documents: Documents, place: Location, level: str) -> Dataset | None:
    """The dataset at the place; None where there is none of this format. Raises VolumeError."""
    info = document(documents, place.child("info"))
    if info is None:
        return None
    scales = info.get("scales")
    if not isinstance(scales, list) or not all(isinstance(scale, dict) for scale in scales) or not scales:
        raise strange("its info has no scales")
    index, scale = _scale(scales[:MAX_SCALES], level)
    dz, dy, dx = _voxel_nm(scale)
    size = whole(scale.get("size"), "a scale has no size")
    offset = whole(scale.get("voxel_offset", [0, 0, 0]), "a scale's voxel_offset")
    chunks, count = scale.get("chunk_sizes"), info.get("num_channels")
    key, sharded = scale.get("key"), scale.get("sharding") is not None
    if not isinstance(key, str):
        raise strange("a scale has no key")
    if key.startswith("/") or not key.strip("/"):
        raise strange("the key of a scale is no folder's name")
    place.child(key)  # raises for one that leads elsewhere
    check_word(scale.get("encoding"), ENCODINGS, "encoding")
    _check_sharding(scale.get("sharding"))
    if not isinstance(chunks, list) or not chunks or {len(size), len(offset)} != {3}:
        raise strange("a scale has not three axes, or no chunk_sizes")
    if type(count) is not int or not 0 < count < 10_000:
        raise strange("num_channels")
    datatype = str(info.get("data_type"))
    check_chunk([*whole(chunks[0], "chunk_sizes"), count], datatype)
    check_sizes((dz, dy, dx), size)
    x, y, z = ((start, start + n) for start, n in zip(offset, size, strict=True))
    sources = tuple(
        Source(
            driver="neuroglancer_precomputed",
            location=place,
            axes=AXES,
            fixed={"channel": number},
            corner=(offset[2], offset[1], offset[0]),
            chunks=f"{literal(key)}/" + ("" if sharded else "{x0}-{x1}_{y0}-{y1}_{z0}-{z1}"),
            options={"scale_index": index},
        )
        for number in range(count)
    )
    labels = tuple(f"channel_{number}" for number in range(count)) if count > 1 else ()
    return Dataset(bounds=(z, y, x), voxel_nm=(dz, dy, dx), datatype=datatype, labels=labels, sources=sources)


def scales(documents: Documents, place: Location) -> dict[str, Sizes]:
    """The size of a voxel in nm, (z, y, x), of each scale by its key; empty where there is no dataset."""
    found = (document(documents, place.child("info")) or {}).get("scales")
    listed = [scale for scale in found if isinstance(scale, dict)] if isinstance(found, list) else []
    return {str(scale.get("key")): _voxel_nm(scale) for scale in listed[:MAX_SCALES]}


def _scale(scales: list[dict[str, Any]], level: str) -> tuple[int, dict[str, Any]]:
    """The named scale, by its key or its number, or the finest."""
    if level:
        for index, scale in enumerate(scales):
            if level in (scale.get("key"), str(index)):
                return index, scale
        raise no_level(level, [str(scale.get("key")) for scale in scales])
    index = finest([_voxel_nm(scale) for scale in scales])
    return index, scales[index]


def _voxel_nm(scale: Mapping[str, Any]) -> Sizes:
    """The size of a scale's voxels, (z, y, x)."""
    sizes = numbers(scale.get("resolution"), "a scale has no resolution")
    if len(sizes) != 3:
        raise strange("a scale has not three axes")
    return sizes[2], sizes[1], sizes[0]


def _check_sharding(sharding: object) -> None:
    if sharding is None:
        return
    bits = ("preshift_bits", "minishard_bits", "shard_bits")
    known = isinstance(sharding, dict) and sharding.get("@type") == _SHARDED
    if not known or not all(type(sharding.get(name)) is int for name in bits):  # type: ignore[attr-defined]
        raise strange(f"the sharding of a scale is not {_SHARDED}")
