"""What is known of a volume before a voxel is read. Axes are z, y, x; ranges are half-open, in voxels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from volumes.address import Location
from volumes.errors import WrongVolume

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Sizes = tuple[float, float, float]

MAX_CHUNK = 2**29
"""Bytes of the largest chunk, unpacked, that is read."""
MAX_CHANNELS = 256
"""Channels of a volume, at most."""
_NANOMETRES = {
    "angstrom": 0.1,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "micron": 1e3,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "mm": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
    "metre": 1e9,
    "m": 1e9,
}
"""Units of length, without a plural's s, as the formats write them."""
_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The array in which a channel is stored."""

    driver: str
    """tensorstore's: `neuroglancer_precomputed`, `zarr`, `zarr3` or `n5`."""
    location: Location
    axes: tuple[str, ...]
    """The array's axes, in its order: z, y and x, and others of which one index is read."""
    fixed: Mapping[str, int]
    """The index along every axis that is not z, y or x."""
    corner: tuple[int, int, int]
    """The volume's coordinates (z, y, x) of the array's first voxel."""
    chunks: str
    """The names of the chunks' files below `location`: a format of the chunk's index along each axis (`x`), or of its
    first voxel and the one after its last (`x0`, `x1`). Ends with a slash for a folder of shards with any names."""
    options: Mapping[str, object]
    """What the driver needs on top, such as the index of a scale."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel."""

    name: str
    """In BOSS's alphabet."""
    datatype: str
    """NumPy's name of the type, such as `uint8`."""
    source: Source


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume by address."""

    bounds: Bounds
    """Half-open `(start, stop)` of z, y and x, in voxels of the level that is read."""
    voxel_nm: Sizes
    """A voxel's size in nanometres, (z, y, x), finite and above 0."""
    channels: tuple[Channel, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One array or multiscale image, which has one channel or several."""

    bounds: Bounds
    voxel_nm: Sizes
    datatype: str
    labels: tuple[str, ...]
    """The channels' names, as the dataset says; empty: it has one channel without a name."""
    sources: tuple[Source, ...]
    """For each channel."""


def nanometres(unit: object) -> float | None:
    """How many nanometres a unit of length has; None for anything else, such as `pixel`."""
    if not isinstance(unit, str):
        return None
    word = unit.strip().lower()
    return _NANOMETRES.get(word) or _NANOMETRES.get(word.removesuffix("s"))


def names(labels: Sequence[str]) -> list[str]:
    """The labels as names in BOSS's alphabet, no two alike; a label without any letter gets its number."""
    found: list[str] = []
    for number, label in enumerate(labels):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", label)[:100].strip("_-") or f"channel_{number}"
        while name in found:
            name = f"{name}_{number}"
        found.append(name)
    return found


def literal(text: str) -> str:
    """A text for `Source.chunks`, in which it stands for itself."""
    return text.replace("{", "{{").replace("}", "}}")


def joined(datasets: Mapping[str, Dataset]) -> Volume:
    """A volume of datasets, by the names of their folders. Raises WrongVolume where they do not fit together."""
    first, one = next(iter(datasets.items()))
    labels, channels = list[str](), list[tuple[str, Source]]()
    for name, dataset in datasets.items():
        if dataset.bounds != one.bounds or not _alike(dataset.voxel_nm, one.voxel_nm):
            raise WrongVolume(f"The datasets {first} and {name} have different bounds or voxel sizes.")
        labels += dataset.labels if len(dataset.sources) > 1 or (len(datasets) == 1 and dataset.labels) else [name]
        channels += [(dataset.datatype, source) for source in dataset.sources]
    for axis, (start, stop) in zip("zyx", one.bounds, strict=True):
        if stop <= 0:
            raise WrongVolume(
                f"This volume lies at {axis} {start} to {stop}. Coordinates are asked for from 0 on, so none of it can "
                "be read: have it written with another offset."
            )
    if len(channels) > MAX_CHANNELS:
        raise WrongVolume(f"This volume has {len(channels)} channels; {MAX_CHANNELS} is the most.")
    return Volume(
        bounds=one.bounds,
        voxel_nm=(_plain(one.voxel_nm[0]), _plain(one.voxel_nm[1]), _plain(one.voxel_nm[2])),
        channels=tuple(
            Channel(name=name, datatype=datatype, source=source)
            for name, (datatype, source) in zip(names(labels), channels, strict=True)
        ),
    )


def check_chunk(shape: Sequence[int], datatype: str) -> None:
    """Check the size of a chunk. Raises WrongVolume where it is none, or larger than may be unpacked."""
    size = _BYTES.get(datatype, 8)
    for side in shape:
        if side <= 0:
            raise WrongVolume("This volume's chunks have no size: its metadata is damaged.")
        size *= side
    if size > MAX_CHUNK:
        raise WrongVolume(
            f"A chunk of this volume unpacks to {size / 2**20:,.0f} MiB; {MAX_CHUNK / 2**20:,.0f} MiB is the most."
        )


def check_sizes(voxel_nm: Sizes, shape: Sequence[int]) -> None:
    """Check that voxels have a size and the volume voxels. Raises WrongVolume."""
    if not all(0 < size < 1e12 for size in voxel_nm):
        raise WrongVolume("This volume's metadata gives its voxels no size.")
    if not all(0 < side < 2**40 for side in shape):
        raise WrongVolume("This volume's metadata gives it no voxels.")


def _plain(size: float) -> float:
    """A size without the noise that another unit leaves in its last digits: 3.9 µm is 3900 nm in every format."""
    return float(f"{size:.10g}")


def _alike(one: Sizes, other: Sizes) -> bool:
    return all(abs(a - b) <= 1e-6 * max(a, b) for a, b in zip(one, other, strict=True))
