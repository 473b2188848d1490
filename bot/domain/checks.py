"""Checks and estimates of a request, from what was typed and from what BOSS says of the data.

Pure functions. Axes are z, y, x; ranges are half-open, in voxels at resolution 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bot.domain import words
from bot.domain.catalog import Pipeline
from bot.domain.job import Expected
from bot.domain.volume import Box, Channel, Experiment, Range
from contract import channels
from contract.masking import is_token
from contract.units import READABLE

WIDEST = 8
"""Bytes of the deepest voxel that programs read."""
ENOUGH = 5
"""Runs of this installation from which estimates are learned; with fewer, the catalogue estimates."""
NAMES = 12
"""Channels that an error names."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of an hour of one virtual processor, and of 10^9 bytes of memory; both 0: costs are not told."""

    cpu_hour: float = 0
    gb_hour: float = 0
    currency: str = "$"


def token_problem(token: str) -> str:
    """Why the text cannot be a BOSS token, in words for a person; empty where it can."""
    if not token.strip():
        return "Paste your BOSS token; public data is read with the word public."
    if not is_token(token):
        return "This is not a BOSS token: it has spaces, line breaks or letters that no token has, or is too long."
    return ""


def too_large(pipeline: Pipeline, box: Box, *, per_voxel: int, max_bytes: int) -> dict[str, str]:
    """The error of a box that is larger than a job may read, at `per_voxel` bytes a voxel, by field; empty if it fits.

    The error's field is the longest side; its text names the largest box from the same corner that fits.
    """
    readable = max_bytes // per_voxel
    most = min(readable, pipeline.limits.voxels or readable)
    if box.voxels <= most:
        return {}
    fits, limit = box.largest_within(most), f"a job may read {words.size(max_bytes)}"
    if most == pipeline.limits.voxels:
        limit = f"this pipeline takes {words.count(pipeline.limits.voxels)} voxels at most"
    longest = max("xyz", key=lambda axis: len(getattr(box, axis)))
    return {
        longest: f"This box is {words.size(box.voxels * per_voxel)}:"
        f" {words.count(box.voxels)} voxels in {pipeline.channels} channels; {limit}."
        f" The largest box from this corner that fits: x {fits.x}; y {fits.y}; z {fits.z}."
    }


def bytes_per_voxel(pipeline: Pipeline, experiment: Experiment | None) -> tuple[int, bool]:
    """Bytes a run reads for each voxel of its box, and whether every data type is known; an unknown one counts 1."""
    if experiment is None:
        return pipeline.channels, False
    types = [channel.bytes for channel in _read(pipeline, experiment)]
    return max(1, sum(size or 1 for size in types)), all(types)


def against(box: Box, pipeline: Pipeline, experiment: Experiment, *, max_bytes: int) -> dict[str, str]:
    """Every mistake that the experiment shows, by field; empty where a run on the box fits it."""
    errors: dict[str, str] = {}
    for axis, (start, stop) in zip("zyx", experiment.bounds, strict=True):
        side: Range = getattr(box, axis)
        if side.start < start or side.stop > stop:
            errors[axis] = f"This experiment has {axis} {start}, {stop}; choose a range within that."
    if problem := _channels_problem(pipeline, experiment):
        errors["experiment"] = problem
    per_voxel, _ = bytes_per_voxel(pipeline, experiment)
    return too_large(pipeline, box, per_voxel=per_voxel, max_bytes=max_bytes) | errors


def _channels_problem(pipeline: Pipeline, experiment: Experiment) -> str:
    names = [channel.name for channel in experiment.channels]
    chosen = pipeline.choose(names)
    there = words.listed(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")
    if missing := [role for role in pipeline.roles if role not in chosen]:
        wanted = words.listed([channels.wanted(role, pipeline.roles[role]) for role in missing])
        return f"{pipeline.name} needs a {wanted}; this experiment has {there}."
    if channels.shared(chosen):
        return f"{pipeline.name} needs a channel of its own for each of {words.listed(list(chosen))}; there is {there}."
    for channel in _read(pipeline, experiment):
        if channel.datatype and channel.bytes is None:
            return f"The channel {channel.name} is {channel.datatype}; {READABLE}."
    return ""


def _read(pipeline: Pipeline, experiment: Experiment) -> list[Channel]:
    chosen = set(pipeline.choose([channel.name for channel in experiment.channels]).values())
    return [channel for channel in experiment.channels if channel.name in chosen]


def expected(pipeline: Pipeline, box: Box, runs: Sequence[tuple[int, float]], prices: Prices) -> Expected | None:
    """The estimate for a run on the box: learned from `runs` (voxels and seconds of each), else the catalogue's.

    Learned are median and 90th percentile of seconds per voxel. None where nothing is known.
    """
    gigavoxels = box.voxels / 1e9
    rates = [seconds / voxels * 1e9 for voxels, seconds in runs if voxels]
    if len(rates) >= ENOUGH:
        seconds = statistics.median(rates) * gigavoxels
        longest = statistics.quantiles(rates, n=10, method="inclusive")[-1] * gigavoxels
    else:
        seconds = longest = pipeline.seconds + pipeline.seconds_per_gigavoxel * gigavoxels
    if not seconds:
        return None
    memory = pipeline.memory_for(box) * 2**20 / 1e9
    price = pipeline.cpu * prices.cpu_hour + memory * prices.gb_hour
    return Expected(seconds, longest, price or None, prices.currency)
