"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3): images with named axes, units and levels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.names import short
from volumes.address import Location
from volumes.described import Dataset, Source, check_chunk, check_sizes, nanometres
from volumes.errors import WrongVolume
from volumes.metadata import (
    Documents,
    by_axis,
    check_word,
    document,
    finest,
    no_level,
    no_unit,
    numbers,
    strange,
    whole,
)

_TYPES = {"b": "bool", "u": "uint", "i": "int", "f": "float", "c": "complex"}
"""NumPy's letters for kinds of types."""
_NUMBERED = re.compile(r"(channel|ch|c)?[ _:#-]*[0-9]*", re.IGNORECASE)
"""A label that names nothing."""
COMPRESSORS = ("blosc", "zlib", "gzip", "zstd", "bz2")
"""The ways to pack Zarr 2's chunks that tensorstore reads."""
CODECS = ("bytes", "transpose", "crc32c", "gzip", "zstd", "blosc", "sharding_indexed")
"""The codecs of Zarr 3 that tensorstore reads."""
MAX_LEVELS = 64
"""Levels that are looked at."""


@dataclass(frozen=True)
class _Array:
    driver: str
    shape: list[int]
    datatype: str
    prefix: str
    """What stands before the chunk's indices in its name."""
    separator: str


@dataclass(frozen=True)
class _Image:
    """A multiscale image's metadata, alike in both versions."""

    axes: tuple[str, ...]
    units: Mapping[str, Any]
    levels: Mapping[str, tuple[list[float], list[float]]]
    """Path to scale and translation, in the order of the axes, the finest first as the format has it."""
    labels: tuple[str, ...]


def dataset(documents: Documents, place: Location, level: str) -> Dataset | None:
    """The image at the place; None where there is none of this format. Raises VolumeError.

    The place is the image itself, or one of its levels.
    """
    attributes = _attributes(documents, place)
    if attributes is not None and "multiscales" in attributes:
        return _image(documents, place, _read(attributes), level)
    array = _array(documents, place)
    if array is None:
        return None
    for path in _ends(place):  # a level that is named by its path
        home = place.parent if "/" not in path else place.parent and place.parent.parent
        above = _attributes(documents, home) if home else None
        if home and above and "multiscales" in above and path in (image := _read(above)).levels:
            return _image(documents, home, image, path)
    raise WrongVolume(
        "This Zarr array has no OME-Zarr metadata (multiscales), so its axes and the size of its voxels are not known."
    )


def _ends(place: Location) -> list[str]:
    parts = place.path.split("/")
    return ["/".join(parts[-n:]) for n in (1, 2) if len(parts) > n]


def _attributes(documents: Documents, place: Location) -> dict[str, Any] | None:
    """The attributes of a group or an array, those of OME at the top; None where there are none."""
    if (group := document(documents, place.child("zarr.json"))) is not None:
        attributes = group.get("attributes")
        attributes = attributes if isinstance(attributes, dict) else {}
        ome = attributes.get("ome")
        return ome if isinstance(ome, dict) else attributes
    return document(documents, place.child(".zattrs"))


def _read(attributes: Mapping[str, Any]) -> _Image:
    multiscales = attributes["multiscales"]
    if not isinstance(multiscales, list) or not multiscales or not isinstance(multiscales[0], dict):
        raise strange("multiscales")
    about = multiscales[0]
    axes = about.get("axes")
    if not isinstance(axes, list) or not all(isinstance(axis, dict) for axis in axes):
        raise strange("its axes have no names and units (OME-Zarr 0.4 or newer has)")
    named = tuple(str(axis.get("name")).lower() for axis in axes)
    units = {name: axis.get("unit") for name, axis in zip(named, axes, strict=True)}
    whole_scale, whole_shift = _transform(about, len(named))
    levels = {}
    found = about.get("datasets")
    if not isinstance(found, list) or not found:
        raise strange("it has no levels (datasets)")
    for each in found[:MAX_LEVELS]:
        if not isinstance(each, dict) or not isinstance(each.get("path"), str):
            raise strange("a level has no path")
        if "coordinateTransformations" not in each and "coordinateTransformations" not in about:
            raise strange("a level has no scale")
        scale, shift = _transform(each, len(named))
        levels[each["path"].strip("/")] = (
            [a * b for a, b in zip(scale, whole_scale, strict=True)],
            [a * b + c for a, b, c in zip(shift, whole_scale, whole_shift, strict=True)],
        )
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = tuple(
        str(channel.get("label") or "") if isinstance(channel, dict) else ""
        for channel in (channels if isinstance(channels, list) else [])
    )
    return _Image(named, units, levels, labels)


def _transform(about: Mapping[str, Any], axes: int) -> tuple[list[float], list[float]]:
    """Scale and translation of a list of transformations."""
    scale, shift = [1.0] * axes, [0.0] * axes
    listed = about.get("coordinateTransformations", [])
    for each in listed if isinstance(listed, list) else []:
        kind = each.get("type") if isinstance(each, dict) else None
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise strange("it is placed by something else than scales and translations")
        values = numbers(each.get(kind), f"a {kind} of a level")
        if len(values) != axes:
            raise strange(f"a {kind} of a level has not one number for each axis")
        if kind == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        else:
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    return scale, shift


def _image(documents: Documents, place: Location, image: _Image, level: str) -> Dataset:
    axes = image.axes
    if not {"z", "y", "x"} <= {*axes} or len({*axes}) < len(axes):
        raise WrongVolume(f"This image has the axes {short(', '.join(axes))}; a volume has z, y and x.")
    if level and level not in image.levels:
        raise no_level(level, [*image.levels])
    paths = list(image.levels)
    chosen = level or paths[finest([by_axis(axes, image.levels[path][0]) for path in paths])]
    scale, shift = image.levels[chosen]
    array = _array(documents, place.child(chosen))
    if array is None:
        raise WrongVolume(f"The level {short(chosen)} of this volume is not there.")
    if len(array.shape) != len(axes):
        raise strange(f"its level {short(chosen)} has {len(array.shape)} axes, and not {len(axes)}")
    for axis, side in zip(axes, array.shape, strict=True):
        if axis not in ("c", "z", "y", "x") and side != 1:
            what = "points in time" if axis == "t" else f"places along its axis {short(axis)}"
            raise WrongVolume(f"This volume has {side} {what}; NOMADS reads volumes that have one.")
    sizes = {}
    for axis in "zyx":
        unit = nanometres(image.units.get(axis))
        if unit is None:
            raise no_unit(image.units.get(axis), axis)
        sizes[axis] = unit
    voxel_nm = by_axis(axes, [n * sizes.get(axis, 1) for axis, n in zip(axes, scale, strict=True)])
    shape = [int(n) for n in by_axis(axes, array.shape)]
    check_sizes(voxel_nm, shape)
    start = [round(a / b) for a, b in zip(by_axis(axes, shift), by_axis(axes, scale), strict=True)]
    count = array.shape[axes.index("c")] if "c" in axes else 1
    z, y, x = ((a, a + n) for a, n in zip(start, shape, strict=True))
    sources = tuple(
        Source(
            driver=array.driver,
            location=place.child(chosen),
            axes=axes,
            fixed={axis: number if axis == "c" else 0 for axis in axes if axis not in "zyx"},
            corner=(start[0], start[1], start[2]),
            chunks=array.prefix + array.separator.join(f"{{{axis}}}" for axis in axes),
            options={},
        )
        for number in range(count)
    )
    labels = tuple(image.labels[i] if i < len(image.labels) else "" for i in range(count))
    if count == 1 and _NUMBERED.fullmatch(labels[0]):
        labels = ()  # the file's name says more
    labels = tuple(label or f"channel_{i}" for i, label in enumerate(labels))
    return Dataset(bounds=(z, y, x), voxel_nm=voxel_nm, datatype=array.datatype, labels=labels, sources=sources)


def _array(documents: Documents, place: Location) -> _Array | None:
    """The array at the place; None where there is none."""
    if (found := document(documents, place.child("zarr.json"))) is not None:
        if found.get("node_type") != "array":
            return None
        datatype = found.get("data_type")
        grid = found.get("chunk_grid")
        options = grid.get("configuration") if isinstance(grid, dict) else None
        chunks = options.get("chunk_shape") if isinstance(options, dict) else None
        datatype = datatype if isinstance(datatype, str) else "an extension"
        naming = found.get("chunk_key_encoding")
        naming = naming if isinstance(naming, dict) else {}
        own = naming.get("configuration")
        prefix, separator = ("", ".") if naming.get("name") == "v2" else ("c/", "/")
        separator = "." if isinstance(own, dict) and own.get("separator") == "." else separator
        separator = "/" if isinstance(own, dict) and own.get("separator") == "/" else separator
        prefix = prefix and f"c{separator}"
        outer = _Array("zarr3", whole(found.get("shape"), "an array's shape"), datatype, prefix, separator)
        codecs = found.get("codecs")
        _check_codecs(codecs)
        for codec in codecs if isinstance(codecs, list) else []:  # a shard is read chunk by chunk
            inner = codec.get("configuration") if isinstance(codec, dict) else None
            if isinstance(inner, dict) and codec.get("name") == "sharding_indexed":
                chunks = inner.get("chunk_shape")
        check_chunk(whole(chunks, "an array's chunks"), datatype)
        return outer
    if (found := document(documents, place.child(".zarray"))) is None:
        return None
    datatype = _datatype(found.get("dtype"))
    _check_zarr2(found)
    check_chunk(whole(found.get("chunks"), "an array's chunks"), datatype)
    separator = "/" if found.get("dimension_separator") == "/" else "."
    return _Array("zarr", whole(found.get("shape"), "an array's shape"), datatype, "", separator)


def _check_codecs(codecs: object, *, within: bool = False) -> None:
    """Check that chunks of Zarr 3 can be unpacked. `within`: in a shard. Raises WrongVolume."""
    if not isinstance(codecs, list) or not codecs or not all(isinstance(codec, dict) for codec in codecs):
        raise strange("an array's codecs")
    named = [codec.get("name") for codec in codecs]
    for name in named:
        check_word(name, CODECS, "codec")
    packing = [name for name in named if name in ("gzip", "zstd", "blosc")]
    if len(packing) > 1:
        raise WrongVolume(f"This volume's chunks are packed twice, with {' and '.join(packing)}; NOMADS reads one.")
    for codec in codecs:
        options = codec.get("configuration")
        if codec["name"] == "sharding_indexed":
            if within:
                raise WrongVolume("This volume has shards in its shards, which NOMADS does not read.")
            _check_codecs(options.get("codecs") if isinstance(options, dict) else None, within=True)


def _check_zarr2(about: Mapping[str, Any]) -> None:
    """Check that an array of Zarr 2 can be read as it is stored. Raises WrongVolume."""
    if about.get("zarr_format") != 2:
        raise strange("zarr_format of a .zarray is not 2")
    compressor = about.get("compressor")
    if compressor is not None:
        check_word(compressor.get("id") if isinstance(compressor, dict) else None, COMPRESSORS, "compressor")
    if about.get("filters"):
        raise WrongVolume("This volume's chunks go through filters, which NOMADS does not read: write it without.")
    if about.get("dimension_separator", ".") not in (".", "/"):
        raise strange("dimension_separator is neither . nor /")
    fill = about.get("fill_value")
    if not (fill is None or isinstance(fill, int | float) or fill in ("NaN", "Infinity", "-Infinity")):
        raise strange("fill_value is no number")


def _datatype(dtype: object) -> str:
    """NumPy's name for a type as Zarr 2 writes it, such as `<u2`, in either order of bytes."""
    if isinstance(dtype, str) and len(dtype) == 3 and dtype[1] in _TYPES and dtype[2] in "1248":
        return f"{_TYPES[dtype[1]]}{int(dtype[2]) * 8}" if dtype[1] != "b" else "bool"
    return "a structure" if isinstance(dtype, list) else short(str(dtype), 20)
