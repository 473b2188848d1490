"""What BOSS measures voxels in: units of length and data types."""

from __future__ import annotations

_NANOMETRES = {"nanometers": 1.0, "micrometers": 1e3, "millimeters": 1e6, "centimeters": 1e7}
VOXEL_BYTES = {"uint8": 1, "uint16": 2, "uint64": 8}
"""Bytes of a voxel by the data types programs read: those of the field's BOSS client, which does not read uint32."""
READABLE = "only uint8, uint16 and uint64 can be read"
"""VOXEL_BYTES in words, for the end of a sentence."""


def nanometres(unit: object) -> float:
    """How many nanometres a unit of length of BOSS's has, such as `micrometers`, in any case of letters.

    Raises ValueError for anything that is not the name of such a unit.
    """
    found = _NANOMETRES.get(unit.lower()) if isinstance(unit, str) else None
    if found is None:
        raise ValueError("this is no unit of length that BOSS has")
    return found
