"""Boxes of voxels: half-open ranges `(start, stop)` along z, y, x."""

from __future__ import annotations

import math

Triple = tuple[int, int, int]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def shape(box: Box) -> Triple:
    """The box's extent."""
    z, y, x = (high - low for low, high in box)
    return z, y, x


def voxels(box: Box) -> int:
    """How many voxels the box holds."""
    return math.prod(shape(box))


def grown(box: Box, margin: Triple, bounds: Box) -> Box:
    """The box and so many voxels beyond each of its faces, as far as the bounds go."""
    z, y, x = (
        (max(first, low - more), min(last, high + more))
        for (low, high), more, (first, last) in zip(box, margin, bounds, strict=True)
    )
    return z, y, x


def intersection(one: Box, other: Box) -> Box | None:
    """What both boxes hold; None where that is nothing."""
    z, y, x = ((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return (z, y, x) if all(low < high for low, high in (z, y, x)) else None


def union(one: Box, other: Box) -> Box:
    """The smallest box that holds both."""
    z, y, x = ((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return z, y, x


def placed(box: Box, within: Box) -> tuple[Triple, Triple]:
    """The box's two corners, `(start, stop)`, counted from the first corner of another box."""
    (z, deep), (y, high), (x, wide) = (
        (low - first, high - first) for (low, high), (first, _) in zip(box, within, strict=True)
    )
    return (z, y, x), (deep, high, wide)


def relative(part: Box, whole: Box) -> Box:
    """A part of a box, from the box's corner."""
    z, y, x = ((low - first, high - first) for (low, high), (first, _) in zip(part, whole, strict=True))
    return z, y, x


def absolute(part: Box, whole: Box) -> Box:
    """A part of a box that is told from the box's corner, in the coordinates in which the box is told."""
    z, y, x = ((low + first, high + first) for (low, high), (first, _) in zip(part, whole, strict=True))
    return z, y, x


def said(box: Box) -> str:
    """The box in words, as people type it: x first."""
    z, y, x = box
    return f"x {x[0]}, {x[1]} · y {y[0]}, {y[1]} · z {z[0]}, {z[1]}"
