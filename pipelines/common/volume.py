"""What every door tells of a volume, and which of its channels and boxes a request may have. Axes are z, y, x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.channels import choose, shared, wanted
from contract.names import short
from pipelines.common.boxes import Box, Triple, said
from pipelines.common.program import Request, WrongRequest

PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further try."""
DESCRIBE = 60.0
"""Seconds within which a bucket, a web server or a folder has to say what volume it holds."""
CUBOID: Triple = (16, 512, 512)
"""Extent of the cuboids in which BOSS stores voxels, (z, y, x)."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """What a program needs to know of an experiment. Axes are z, y, x."""

    bounds: Box
    """Half-open `(start, stop)` along each axis, in voxels at resolution 0."""
    voxel_nm: tuple[float, float, float]
    """A voxel's size in nanometres, above 0."""
    channels: list[str]
    """Names, in BOSS's order."""


def blocks(channel: Any) -> tuple[Triple, Triple]:
    """How a channel is stored: the coordinates at which its blocks begin, and their extent, (z, y, x)."""
    chunk: Triple | None = getattr(channel, "chunk", None)
    return (channel.origin, chunk) if chunk else ((0, 0, 0), CUBOID)


def check_box(request: Request, volume: Volume, *, where: str) -> None:
    """Raise WrongRequest with the real bounds unless the request's box lies within the volume, called `where`."""
    asked = (request.z, request.y, request.x)
    if any(a < low or b > high for (a, b), (low, high) in zip(asked, volume.bounds, strict=True)):
        raise WrongRequest(f"The box {said(asked)} is not within {where}; {where} has {said(volume.bounds)}.")


def pick(
    roles: Mapping[str, Sequence[str]], channels: Sequence[str], chosen: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The channel for each role, in the order of the roles: the one `chosen` for the role, or the best candidate.

    Raises WrongRequest where a role has no channel, or one channel has two roles; the text names the channels.
    """
    chosen = chosen or {}
    if unknown := [role for role in chosen if role not in roles]:
        raise WrongRequest(f"There is no role {short(unknown[0])}; the roles are {listing(list(roles))}.")
    if absent := [name for name in chosen.values() if name not in channels]:
        raise WrongRequest(f"The experiment has no channel {short(absent[0])}; its channels are {listing(channels)}.")
    found = {**choose(roles, channels), **chosen}
    if missing := [wanted(role, parts) for role, parts in roles.items() if role not in found]:
        raise WrongRequest(f"The experiment has no {' and no '.join(missing)}; its channels are {listing(channels)}.")
    found = {role: found[role] for role in roles}
    if twice := shared(found):
        one, other = twice
        raise WrongRequest(
            f"The channel {found[one]} cannot be {one} and {other} at once; name another one with "
            f"--channel {other}=NAME. The channels are {listing(channels)}."
        )
    return found


def listing(names: object, limit: int = 20) -> str:
    """Names with commas between, `limit` of them at most, for the end of a sentence; “none” where there are none."""
    if not isinstance(names, Sequence) or not names:
        return "none"
    said = ", ".join(short(str(name), 60) for name in names[:limit])
    return f"{said} and {len(names) - limit} more" if len(names) > limit else said
