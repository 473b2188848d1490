"""A link that shows the box in Neuroglancer, for volumes the internet can reach."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from urllib.parse import quote

from pipelines.common.program import Request

NEUROGLANCER = "https://neuroglancer.bossdb.io/#!"
LONGEST = 3000
"""The longest link results.json may hold."""


def link(request: Request, *, channels: Sequence[str], voxel_nm: tuple[float, float, float]) -> str | None:
    """The address, or None where a browser elsewhere cannot reach this BOSS."""
    if request.protocol != "https" or not _public(request.host):
        return None
    middle = {axis: (a + b) / 2 for axis, (a, b) in zip("zyx", (request.z, request.y, request.x), strict=True)}
    where = f"boss://https://{request.host}/{request.collection}/{request.experiment}"
    state = {
        "dimensions": {axis: [size * 1e-9, "m"] for axis, size in zip("xyz", reversed(voxel_nm), strict=True)},
        "position": [middle["x"], middle["y"], middle["z"]],
        "crossSectionScale": 1,
        "layers": [{"type": "image", "name": name, "source": f"{where}/{name}"} for name in channels],
        "layout": "xy",
    }
    address = NEUROGLANCER + quote(json.dumps(state, separators=(",", ":")), safe="")
    return address if len(address) <= LONGEST else None


def _public(host: str) -> bool:
    """Whether the host's name or address is one of the internet. No look-up is made."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_global
    except ValueError:
        return "." in name and not name.endswith((".local", ".internal", ".localhost", ".test", ".lan"))
