"""N5: arrays with the axes x, y, z unless they say otherwise, alone or as levels `s0`, `s1` … of a group.

N5 itself says nothing of a voxel's size. Read are `pixelResolution` (as its viewers write it), `resolution` with
`units`, and `transform`, at the array or, for the finest level times `downsamplingFactors`, at the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract.names import short
from volumes.address import Location
from volumes.described import Dataset, Source, check_chunk, check_sizes, nanometres
from volumes.errors import WrongVolume
from volumes.metadata import Documents, by_axis, check_word, document, no_level, no_unit, numbers, strange, whole

FILE = "attributes.json"
"""The document of a group or an array."""
_PIXEL = "pixelResolution"
COMPRESSIONS = ("raw", "gzip", "bzip2", "xz", "blosc", "zstd")
"""The compressions that tensorstore reads."""
_USUAL = ("x", "y", "z", "c", "t")


def dataset(documents: Documents, place: Location, level: str) -> Dataset | None:
    """The dataset at the place; None where there is none of this format. Raises VolumeError."""
    found = document(documents, place.child(FILE))
    if found is not None and "dimensions" in found:
        above = place.parent
        group = document(documents, above.child(FILE)) if above and not _measured(found) else None
        return _array(place, found, group or {})
    if found is None and level == "" and document(documents, place.child(f"s0/{FILE}")) is None:
        return None
    chosen = level or "s0"
    array = document(documents, place.child(f"{chosen}/{FILE}"))
    if array is None and level:
        raise no_level(level, [name for name in documents.names(place) or ["s0"] if name.startswith("s")])
    if array is None or "dimensions" not in array:
        return None
    return _array(place.child(chosen), array, found or {})


def _array(place: Location, array: Mapping[str, Any], group: Mapping[str, Any]) -> Dataset:
    shape = whole(array.get("dimensions"), "an array's dimensions")
    axes = _axes(array.get("axes", group.get("axes")), len(shape))
    blocks, datatype = whole(array.get("blockSize"), "an array's blockSize"), str(array.get("dataType"))
    if len(blocks) != len(shape):
        raise strange("an array's blockSize has not one number for each axis")
    check_chunk(blocks, datatype)
    _check_compression(array.get("compression"))
    for axis, side in zip(axes, shape, strict=True):
        if axis == "t" and side != 1:
            raise WrongVolume(f"This volume has {side} points in time; NOMADS reads volumes that have one.")
    factors = whole(array.get("downsamplingFactors", [1, 1, 1]), "downsamplingFactors")
    at_array = _measured(array)
    scale, shift = at_array or _measured(group) or ({}, {})
    if not scale and (isinstance(array.get(_PIXEL), list) or isinstance(group.get(_PIXEL), list)):
        raise WrongVolume(
            f"This N5 volume's {_PIXEL} gives its voxels a size and no unit; write it such as "
            '{"unit": "nm", "dimensions": [96, 96, 50]}.'
        )
    if not {"z", "y", "x"} <= scale.keys():
        raise WrongVolume(
            "This N5 volume says nothing of the size of its voxels; its attributes.json needs pixelResolution, such as "
            '{"unit": "nm", "dimensions": [96, 96, 50]}.'
        )
    if not at_array:
        for axis, factor in zip("xyz", factors[:3], strict=False):
            scale = {**scale, axis: scale[axis] * factor}
    voxel_nm = (scale["z"], scale["y"], scale["x"])
    sides = [int(n) for n in by_axis(axes, shape)]
    check_sizes(voxel_nm, sides)
    start = [round(shift.get(axis, 0) / scale[axis]) for axis in "zyx"]
    count = shape[axes.index("c")] if "c" in axes else 1
    z, y, x = ((a, a + n) for a, n in zip(start, sides, strict=True))
    sources = tuple(
        Source(
            driver="n5",
            location=place,
            axes=axes,
            fixed={axis: number if axis == "c" else 0 for axis in axes if axis not in "zyx"},
            corner=(start[0], start[1], start[2]),
            chunks="/".join(f"{{{axis}}}" for axis in axes),
            options={},
        )
        for number in range(count)
    )
    labels = tuple(f"channel_{number}" for number in range(count)) if count > 1 else ()
    return Dataset(bounds=(z, y, x), voxel_nm=voxel_nm, datatype=datatype, labels=labels, sources=sources)


def _check_compression(compression: object) -> None:
    if isinstance(compression, dict):
        check_word(compression.get("type"), COMPRESSIONS, "compression")
        if compression.get("type") == "gzip" and compression.get("useZlib"):
            raise WrongVolume(
                "This volume's compression is gzip with useZlib, which NOMADS cannot read; use plain gzip."
            )


def _axes(named: object, count: int) -> tuple[str, ...]:
    if isinstance(named, list) and len(named) == count and all(isinstance(axis, str) for axis in named):
        axes = tuple(axis.lower() for axis in named)
    else:
        axes = _USUAL[:count]
    if len(axes) != count or not {"z", "y", "x"} <= {*axes} or not {*axes} <= {*_USUAL}:
        raise WrongVolume(f"This array has the axes {short(', '.join(axes))}; a volume has x, y and z.")
    return axes


def _measured(about: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]] | None:
    """Size of a voxel and place of the first one by axis, in nm; None where nothing is said of them."""
    axes: list[str] = ["x", "y", "z"]
    if isinstance(placed := about.get("transform"), dict):
        named, units = placed.get("axes"), placed.get("units")
        axes = [str(axis).lower() for axis in named] if isinstance(named, list) else axes
        sizes = numbers(placed.get("scale"), "the scale of transform")
        shifts = numbers(placed.get("translate", [0] * len(sizes)), "the translate of transform")
    elif isinstance(pixel := about.get(_PIXEL), dict):
        sizes, units = numbers(pixel.get("dimensions"), "pixelResolution"), pixel.get("unit")
        shifts = [0.0] * len(sizes)
    elif isinstance(about.get("resolution"), list):
        sizes, units = numbers(about["resolution"], "resolution"), about.get("units")
        shifts = numbers(about.get("offset", [0] * len(sizes)), "offset")
    else:
        return None
    units = units if isinstance(units, list) else [units] * len(sizes)
    if not len(axes) >= len(sizes) == len(shifts) == len(units):
        raise strange("sizes, units and axes of its voxels do not go together")
    scale, shift = {}, {}
    for axis, size, far, unit in zip(axes, sizes, shifts, units, strict=False):
        if axis not in ("x", "y", "z"):
            continue
        factor = nanometres(unit)
        if factor is None:
            raise no_unit(unit, axis)
        scale[axis], shift[axis] = size * factor, far * factor
    return scale, shift
