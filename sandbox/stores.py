"""Volumes in the formats that NOMADS reads by address, written into folders for demonstrations and tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

Triple = tuple[int, int, int]
Sizes = tuple[float, float, float]
Arrays = Mapping[str, NDArray[Any]]

CHUNK: Triple = (16, 64, 64)
"""Extent of the chunks, (z, y, x)."""


def precomputed(
    folder: Path,
    channels: Arrays,
    *,
    voxel_nm: Sizes = (50, 96, 96),
    offset: Triple = (0, 0, 0),
    chunk: Triple = CHUNK,
    sharded: bool = False,
    encoding: str = "raw",
) -> str:
    """Write a dataset for each channel, as Neuroglancer reads them; returns the volume's address. Axes are z, y, x."""
    for name, data in channels.items():
        scale: dict[str, Any] = {
            "key": "full",
            "size": data.shape[::-1],
            "voxel_offset": offset[::-1],
            "resolution": voxel_nm[::-1],
            "chunk_size": chunk[::-1],
            "encoding": encoding,
        }
        if sharded:
            scale["sharding"] = {
                "@type": "neuroglancer_uint64_sharded_v1",
                "hash": "murmurhash3_x86_128",
                "preshift_bits": 2,
                "minishard_bits": 2,
                "shard_bits": 2,
                "data_encoding": "gzip",
                "minishard_index_encoding": "gzip",
            }
        store = _made(
            "neuroglancer_precomputed",
            folder / name,
            multiscale_metadata={"type": "image", "data_type": str(data.dtype), "num_channels": 1},
            scale_metadata=scale,
        )
        store[..., 0] = data.transpose(2, 1, 0)
    return f"precomputed://{folder.as_uri()}"


def ome_zarr(
    folder: Path,
    channels: Arrays,
    *,
    version: str = "0.4",
    voxel_nm: Sizes = (50, 96, 96),
    offset: Triple = (0, 0, 0),
    chunk: Triple = CHUNK,
    axes: str = "czyx",
    unit: str | None = "nanometer",
    dtype: str = "",
) -> str:
    """Write one image whose `c` axis is the channels; returns its address. `version` is 0.4 (Zarr 2) or 0.5 (Zarr 3).

    `axes` gives the order, and may have a `t` of length 1; `dtype` is Zarr 2's, such as `>u2`. Without `c`, there is
    one channel.
    """
    data = np.stack(list(channels.values())) if "c" in axes else next(iter(channels.values()))
    there = "czyx" if "c" in axes else "zyx"
    data = data.transpose([there.index(axis) for axis in axes if axis in there])
    sides = dict(zip("zyx", chunk, strict=True))
    if "t" in axes:
        data = np.expand_dims(data, axes.index("t"))
    chunks = [sides.get(axis, 1) for axis in axes]
    sizes, starts = dict(zip("zyx", voxel_nm, strict=True)), dict(zip("zyx", offset, strict=True))
    if version == "0.4":
        zarr: dict[str, Any] = {"shape": data.shape, "chunks": chunks, "dtype": dtype or np.dtype(data.dtype).str}
        zarr |= {"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}, "dimension_separator": "/"}
        store = _made("zarr", folder / "0", metadata=zarr)
    else:
        inner: dict[str, Any] = {
            "chunk_shape": chunks,
            "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}],
        }
        outer = [n * 2 if axis in "yx" else n for axis, n in zip(axes, chunks, strict=True)]
        metadata: dict[str, Any] = {
            "shape": data.shape,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
            "data_type": str(data.dtype),
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        }
        store = _made("zarr3", folder / "0", metadata=metadata)
    store[...] = data
    described: list[dict[str, Any]] = []
    for axis in axes:
        about: dict[str, Any] = {"name": axis, "type": {"c": "channel", "t": "time"}.get(axis, "space")}
        described.append(about | ({"unit": unit} if axis in "zyx" and unit else {}))
    placed = [
        {"type": "scale", "scale": [sizes.get(axis, 1) for axis in axes]},
        {"type": "translation", "translation": [sizes.get(axis, 1) * starts.get(axis, 0) for axis in axes]},
    ]
    image: dict[str, Any] = {"axes": described, "datasets": [{"path": "0", "coordinateTransformations": placed}]}
    attributes: dict[str, Any] = {
        "multiscales": [image | ({"version": "0.4"} if version == "0.4" else {})],
        "omero": {"channels": [{"label": name} for name in channels]},
    }
    if version == "0.4":
        _write(folder / ".zgroup", {"zarr_format": 2})
        _write(folder / ".zattrs", attributes)
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **attributes}}}
        _write(folder / "zarr.json", group)
    return f"zarr://{folder.as_uri()}"


def n5(
    folder: Path,
    channels: Arrays,
    *,
    voxel_nm: Sizes = (50, 96, 96),
    offset: Triple = (0, 0, 0),
    chunk: Triple = CHUNK,
) -> str:
    """Write a group with one level for each channel; returns the volume's address."""
    for name, data in channels.items():
        metadata = {
            "dimensions": data.shape[::-1],
            "blockSize": chunk[::-1],
            "dataType": str(data.dtype),
            "compression": {"type": "gzip", "level": 1},
        }
        store = _made("n5", folder / name / "s0", metadata=metadata)
        store[...] = data.transpose(2, 1, 0)
        placed = {
            "axes": ["x", "y", "z"],
            "units": ["nm"] * 3,
            "scale": voxel_nm[::-1],
            "translate": [n * size for n, size in zip(offset[::-1], voxel_nm[::-1], strict=True)],
        }
        attributes = folder / name / "s0" / "attributes.json"
        _write(attributes, {**json.loads(attributes.read_text()), "transform": placed})
    return f"n5://{folder.as_uri()}"


DOORS: Mapping[str, Callable[..., str]] = {
    "precomputed": precomputed,
    "sharded": lambda folder, channels, **about: precomputed(folder, channels, sharded=True, **about),
    "ome-zarr-0.4": ome_zarr,
    "ome-zarr-0.5": lambda folder, channels, **about: ome_zarr(folder, channels, version="0.5", **about),
    "n5": n5,
}
"""The ways to write one volume, by name; each takes a folder and the channels, and returns an address."""


def _made(driver: str, folder: Path, **metadata: object) -> Any:
    store = {"driver": "file", "path": f"{folder}/"}
    return ts.open({"driver": driver, "kvstore": store, "create": True, **metadata}).result()


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
