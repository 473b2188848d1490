"""How results are looked at in three dimensions: what a program tells of it, and the state of Neuroglancer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SEGMENTATION = "segmentation"
ANNOTATIONS = "annotations"
_LAYER = re.compile(rf"(?:{SEGMENTATION}|{ANNOTATIONS}|image/[a-z0-9-]{{1,40}})/")
_NM_PER_PIXEL = 25
"""How much of a section a pixel shows at first: some ten micrometres are in view."""
_ZOOM = (1 / 8, 4)
"""Voxels per pixel at first, at least and at most."""
MAGENTA, GREEN, GREY = "#ff00ff", "#00ff00", "#c0c0c0"
_IMAGE = """#uicontrol invlerp normalized(range=[{low:.9g}, {high:.9g}], window=[{low:.9g}, {high:.9g}])
#uicontrol vec3 color color(default="{color}")
void main() {{
  emitRGB(color * normalized());
}}
"""
# As in the preview: circles, in yellow, light blue, near white and orange by class.
_POINTS = """void main() {
  vec3 color = vec3(1.0, 0.9, 0.31);
  if (prop_class() == 1.0) color = vec3(0.31, 0.88, 1.0);
  if (prop_class() == 2.0) color = vec3(0.92, 0.92, 0.92);
  if (prop_class() > 2.0) color = vec3(1.0, 0.55, 0.24);
  setPointMarkerSize(13.0);
  setPointMarkerBorderWidth(2.5);
  setPointMarkerBorderColor(vec4(color, 1.0));
  setPointMarkerColor(vec4(color, 0.0));
}
"""

Length = Annotated[float, Field(gt=0, le=1e9)]
Place = Annotated[float, Field(ge=-1e12, le=1e12)]
Value = Annotated[float, Field(ge=-1e30, le=1e30)]


class Viewpoint(BaseModel):
    """The checked field `view` of a results.json; triples are z, y, x."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)
    voxel_nm: Annotated[list[Length], Field(min_length=3, max_length=3)]
    start: Annotated[list[int], Field(min_length=3, max_length=3)]
    """The box's first voxel."""
    shape: Annotated[list[Annotated[int, Field(ge=1, le=10**9)]], Field(min_length=3, max_length=3)]
    at: Annotated[list[Place], Field(min_length=3, max_length=3)]
    """Where a viewer begins, in voxels; the centre of the first voxel is 0."""
    ranges: dict[str, Annotated[list[Value], Field(min_length=2, max_length=2)]] = Field(default={}, max_length=30)
    """For each role the values that are shown as black and as full."""


def checked(value: Any) -> Viewpoint | None:
    """What a program says of the view. None, as if it said nothing, where that makes no sense."""
    try:
        return Viewpoint.model_validate(value) if value is not None else None
    except ValidationError:
        return None


def layers_of(folders: Collection[str]) -> list[str]:
    """Of folders that a program announces, with a slash at their end, those that a viewer shows; without the slash.

    Images come first, the postsynaptic and the presynaptic channel before others.
    """
    found = [folder.removesuffix("/") for folder in folders if _LAYER.fullmatch(folder)]
    first = ("image/postsynaptic", "image/presynaptic")
    images = sorted((name for name in found if name.startswith("image/")), key=lambda name: (name not in first, name))
    return [*images, *(name for name in (SEGMENTATION, ANNOTATIONS) if name in found)]


def colours(layers: Sequence[str]) -> dict[str, str]:
    """The colour of each image among the layers: magenta and green as in the preview, grey for others."""
    images = [name for name in layers if name.startswith("image/")]
    return {name: (MAGENTA, GREEN)[i] if i < 2 else GREY for i, name in enumerate(images)}


def limits(view: Viewpoint, layer: str) -> tuple[float, float]:
    """The values that an image shows as black and as full."""
    role = next((role for role in view.ranges if role.replace(" ", "-") == layer.removeprefix("image/")), "")
    low, high = view.ranges.get(role, (0, 255))
    return low, max(high, low + 1)


def neuroglancer(view: Viewpoint, layers: Sequence[str], *, title: str) -> dict[str, Any]:
    """The state of Neuroglancer: sections beside the box in three dimensions, at `view.at`.

    A layer's `source` is its folder's name, which has to be made an address.
    """
    finest = min(view.voxel_nm)
    colour = colours(layers)
    return {
        "title": title,
        "dimensions": {axis: [nm * 1e-9, "m"] for axis, nm in zip("xyz", reversed(view.voxel_nm), strict=True)},
        "position": [place + 0.5 for place in reversed(view.at)],  # here a voxel's first corner is whole
        "crossSectionScale": min(max(_NM_PER_PIXEL / finest, _ZOOM[0]), _ZOOM[1]),
        "projectionScale": 1.2 * max(n * nm for n, nm in zip(view.shape, view.voxel_nm, strict=True)) / finest,
        "layers": [_layer(view, name, colour) for name in layers],
        "layout": "xy-3d",
    }


def _layer(view: Viewpoint, name: str, colour: dict[str, str]) -> dict[str, Any]:
    if name == SEGMENTATION:
        # Nothing is picked, so every synapse is shown.
        return {"type": "segmentation", "name": "segmentation", "source": name, "selectedAlpha": 0.3}
    if name == ANNOTATIONS:
        return {"type": "annotation", "name": "synapses", "source": name, "shader": _POINTS}
    low, high = limits(view, name)
    return {
        "type": "image",
        "name": name.removeprefix("image/"),
        "source": name,
        "blend": "additive",
        "opacity": 1,
        "shader": _IMAGE.format(low=low, high=high, color=colour[name]),
        "visible": colour[name] != GREY,
    }
