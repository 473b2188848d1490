"""A link that shows the box in Neuroglancer."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from urllib.parse import quote

from contract.program import MAX_VIEWER
from pipelines.common.program import Request

NEUROGLANCER = "https://neuroglancer.bossdb.io/"
_SHADER = "void main(){float v=toNormalized(getDataValue());emitRGBA(vec4(1,.9,.3,v*.6));}"
"""Shader: detections in yellow, and transparent where there are none."""


def link(
    request: Request,
    *,
    channels: Sequence[str],
    voxel_nm: tuple[float, float, float],
    detections: str | None = None,
) -> str | None:
    """The address; None for a volume by address, and where a browser elsewhere cannot reach this BOSS.

    A viewer that is configured may reach a BOSS that others cannot.

    `voxel_nm` is (z, y, x); `detections` is `collection/experiment/channel` of detections that were written back. Where
    all channels make the link too long, only the first ones are shown.
    """
    if request.address:
        return None
    if not request.viewer and (request.protocol != "https" or not _public(request.host)):
        return None
    for shown in range(len(channels), -1, -1):
        address = _link(request, channels[:shown], voxel_nm, detections)
        if len(address) <= MAX_VIEWER:
            return address
    return None


def _link(
    request: Request, channels: Sequence[str], voxel_nm: tuple[float, float, float], detections: str | None
) -> str:
    middle = {axis: (a + b) / 2 for axis, (a, b) in zip("zyx", (request.z, request.y, request.x), strict=True)}
    host = f"boss://{request.protocol}://{request.host}"
    layers = [
        {"type": "image", "name": name, "source": f"{host}/{request.collection}/{request.experiment}/{name}"}
        for name in channels
    ]
    if detections:
        layers.append({"type": "image", "name": "detections", "source": f"{host}/{detections}", "shader": _SHADER})
    state = {
        "dimensions": {
            axis: [round(size * 1e-9, 15), "m"] for axis, size in zip("xyz", reversed(voxel_nm), strict=True)
        },
        "position": [middle["x"], middle["y"], middle["z"]],
        "crossSectionScale": 1,
        "layers": layers,
        "layout": "xy",
    }
    return f"{request.viewer or NEUROGLANCER}#!{quote(json.dumps(state, separators=(',', ':')), safe='')}"


def _public(host: str) -> bool:
    """Whether the host's name or address looks public. No look-up is made."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_global
    except ValueError:
        return "." in name and not name.endswith((".local", ".internal", ".localhost", ".test", ".lan"))
