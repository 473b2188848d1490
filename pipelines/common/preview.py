"""The picture of a run: projections of two channels, circles round the detections, a scale bar."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]

LARGEST = 1024
"""Pixels of a picture's longer side, at most."""
SMALLEST = 384
"""Pixels of a picture's longer side, at least."""
MAX_MARKS = 5000
"""Circles in a picture, at most: more would cover it."""
COLOURS = ((255, 230, 80), (80, 225, 255), (235, 235, 235), (255, 140, 60))
"""Colours of circles, by kind: yellow, light blue, near white, orange; distinct from magenta and from green."""


def draw(
    magenta: Array,
    green: Array,
    *,
    shape: tuple[int, int],
    centres: NDArray[np.float64],
    radius: float,
    voxel_nm: tuple[float, float, float],
    kinds: Sequence[int] | None = None,
) -> bytes:
    """A PNG: projections (y, x) of two channels, a circle round each centre, and a scale bar.

    `shape` is the extent of the projections, (y, x) in voxels; a pixel may cover several voxels. `centres` is (n, 3):
    z, y, x in voxels from the box's corner. `radius` is in voxels along x; `kinds` are indices into COLOURS, modulo its
    length. `voxel_nm` is (z, y, x); a nanometre is as long along y as along x. The same arguments give the same bytes.
    """
    high, wide = shape
    _, nm_y, nm_x = voxel_nm
    # pixels per voxel along x, such that the voxels' true proportions fit
    zoom = min(max(1.0, SMALLEST / max(high * nm_y / nm_x, wide)), LARGEST / max(high * nm_y / nm_x, wide))
    along = zoom * nm_y / nm_x, zoom
    size = max(1, round(wide * along[1])), max(1, round(high * along[0]))
    first, second = _stretch(magenta), _stretch(green)
    filtering = Image.Resampling.BOX if zoom < 1 else Image.Resampling.NEAREST
    picture = Image.fromarray(np.stack([first, second, first], axis=-1)).resize(size, filtering)

    pen = ImageDraw.Draw(picture)
    reach = max(4.0, radius * zoom)
    for number, (y, x) in enumerate(centres[:MAX_MARKS, 1:]):
        left, top = (x + 0.5) * along[1], (y + 0.5) * along[0]
        colour = COLOURS[(kinds[number] if kinds is not None else 0) % len(COLOURS)]
        pen.ellipse((left - reach, top - reach, left + reach, top + reach), outline=colour)
    _scale_bar(pen, size, nm_per_pixel=nm_x / along[1])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def shown_range(projection: Array) -> tuple[float, float]:
    """The values that are shown as black and as full: below them lie one per cent of all, and 99.9 per cent."""
    low, high = np.percentile(projection, (1, 99.9))
    return float(low), float(high)


def _stretch(plane: Array) -> NDArray[np.uint8]:
    """Grey levels of that range, as 0 to 255."""
    low, high = shown_range(plane)
    scaled = (plane.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1))
    stretched: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return stretched


def round_length(most: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is at most `most`, which is above 0."""
    most *= 1 + 1e-9  # a third of a picture may be a rounding error below such a length
    tens = 10 ** math.floor(math.log10(most))
    return float(next(step * tens for step in (5, 2, 1, 0.5) if step * tens <= most))


def _scale_bar(pen: ImageDraw.ImageDraw, size: tuple[int, int], *, nm_per_pixel: float) -> None:
    """Draw a bar of a round length, at most a third of the width, in the lower right corner."""
    length = round_length(size[0] / 3 * nm_per_pixel)
    text = f"{length / 1000:g} um" if length >= 1000 else f"{length:g} nm"  # the built-in font has no micro sign
    right, bottom = size[0] - 10, size[1] - 10
    left = right - length / nm_per_pixel
    font = ImageFont.load_default(14)
    pen.rectangle((left - 6, bottom - 26, right + 5, bottom + 6), fill=(0, 0, 0))
    pen.rectangle((left, bottom - 3, right, bottom), fill=(255, 255, 255))
    pen.text(((left + right) / 2, bottom - 6), text, fill=(255, 255, 255), font=font, anchor="ms")
