"""Checks and estimates of a request, from what was typed and from what BOSS says of the data.

Pure functions. Axes are z, y, x; ranges are half-open, in voxels at resolution 0.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bot.domain import words
from bot.domain.catalog import LARGEST_BOX, Pipeline
from bot.domain.job import Expected
from bot.domain.volume import Box, Channel, Experiment, Range
from contract import channels
from contract.masking import is_token
from contract.names import quoted, short
from contract.program import BLOCK_VOXELS
from contract.units import READABLE

WIDEST = 8
"""Bytes of the deepest voxel that programs read."""
ENOUGH = 5
"""Runs of this installation from which estimates are learned; with fewer, the catalogue estimates."""
LONGEST = 1e10
"""Seconds, three centuries: an estimate of more is told as that."""
NAMES = 6
"""Channels that an error names, whatever they are called."""

NAME_THEM = "Name channels in the address: channels://PSD95=ADDRESS#c=0;Synapsin=ADDRESS#c=1."
"""What to do where a volume by address has channels of other names, or of none."""
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
"""The options of a request that leaves all of them at their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much jobs may read."""

    bytes: int
    """The most that one program may read."""
    block: int = BLOCK_VOXELS
    """Voxels of a block, where the pipeline names no other number."""
    voxels: int = 10**12
    """The most voxels of a job in blocks."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of an hour of one virtual processor, and of 10^9 bytes of memory; both 0: costs are not told."""

    cpu_hour: float = 0
    gb_hour: float = 0
    currency: str = "$"


def token_problem(token: str) -> str:
    """Why the text cannot be a BOSS token, in words for a person; empty where it can."""
    if not token.strip():
        return "Paste your BOSS token."
    if not is_token(token):
        return "This is not a BOSS token: it has spaces, line breaks or letters that no token has, or is too long."
    return ""


def too_large(
    pipeline: Pipeline,
    box: Box,
    *,
    per_voxel: int,
    sizes: Sizes,
    experiment: Experiment | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
) -> dict[str, str]:
    """The error of a box that is larger than a job may read, at `per_voxel` bytes a voxel, by field; empty if it fits.

    The error's field is the longest side. Where the experiment is known, the text names the largest box inside it that
    fits, from the same corner if that lies inside.
    """
    in_blocks = pipeline.block_for(box, options, usual=sizes.block)
    readable = sizes.voxels if in_blocks else sizes.bytes // per_voxel
    most = min(readable, pipeline.limits.voxels or readable)
    if box.voxels <= most:
        return {}
    limit = f"a job may have {words.voxels(sizes.voxels)}" if in_blocks else f"a job may read {words.size(sizes.bytes)}"
    if most == pipeline.limits.voxels:
        limit = f"this pipeline takes {words.voxels(pipeline.limits.voxels)} at most"
    elif pipeline.blocks and (setting := pipeline.not_in_blocks(options)):
        name, _, value = setting.partition("=")
        limit += f" (with {name} {value or 'left out'}, it could go in blocks)"
    longest = max("xyz", key=lambda axis: len(getattr(box, axis)))
    return {
        longest: f"This box is {words.size(box.voxels * per_voxel)}:"
        f" {words.voxels(box.voxels)} in {channels_read(pipeline, options)} channels; {limit}."
        f" {_fitting(box, most, experiment)}"
    }


def _fitting(box: Box, most: int, experiment: Experiment | None) -> str:
    inside = box.inside(experiment.bounds) if experiment else None
    if inside is None or experiment is None:
        return f"Choose a box of {words.voxels(most)} at most."
    fits = inside.largest_within(most)
    same = all(inside.sides[axis].start == side.start for axis, side in box.sides.items())
    which = "The largest box from this corner that fits" if same else f"A box of this {experiment.noun} that fits"
    return f"{which}: x {fits.x}; y {fits.y}; z {fits.z}."


def channels_read(pipeline: Pipeline, options: Mapping[str, str]) -> int:
    """How many channels a run with these options reads, as far as that is known without the experiment."""
    return pipeline.channels + len(_named(pipeline, options))


def bytes_per_voxel(
    pipeline: Pipeline, experiment: Experiment | None, options: Mapping[str, str] = NO_OPTIONS
) -> tuple[int, bool]:
    """Bytes a run reads for each voxel of its box, and whether every data type is known; an unknown one counts 1."""
    if experiment is None:
        return channels_read(pipeline, options), False
    types = [channel.bytes for channel in _read(pipeline, experiment, options)]
    return max(1, sum(size or 1 for size in types)), all(types)


def against(
    sides: Mapping[str, Range],
    pipeline: Pipeline | None,
    experiment: Experiment,
    *,
    sizes: Sizes,
    options: Mapping[str, str] = NO_OPTIONS,
) -> dict[str, str]:
    """Every mistake that the experiment shows, by field or option; empty where a run on the box of these sides fits it.

    `sides` are the ranges by axis, as far as they are known, and `pipeline` is None where it is not known: what is not
    known is not checked. `options` are the request's.
    """
    errors: dict[str, str] = {}
    for axis, (start, stop) in zip("zyx", experiment.bounds, strict=True):
        if (side := sides.get(axis)) and (side.start < start or side.stop > stop):
            errors[axis] = f"This {experiment.noun} has {axis} {start}, {stop}; choose a range within that."
    if pipeline is None:
        return errors
    if problem := _channels_problem(pipeline, experiment):
        errors["experiment"] = problem
    errors |= _options_problems(pipeline, experiment, options)
    if len(sides) == len(experiment.bounds):
        per_voxel, _ = bytes_per_voxel(pipeline, experiment, options)
        found = too_large(
            pipeline,
            Box(**sides),
            per_voxel=per_voxel,
            sizes=sizes,
            experiment=experiment,
            options=options,
        )
        if errors.keys().isdisjoint(sides) or Box(**sides).voxels <= LARGEST_BOX:  # else its size says nothing
            errors |= {axis: f"{errors[axis]} {text}" if axis in errors else text for axis, text in found.items()}
    return errors


def _channels_problem(pipeline: Pipeline, experiment: Experiment) -> str:
    names = [channel.name for channel in experiment.channels]
    chosen = pipeline.choose(names)
    if missing := [role for role in pipeline.roles if role not in chosen]:
        wanted = words.listed([channels.wanted(role, pipeline.roles[role]) for role in missing])
        there = _there(names, [part for role in missing for part in pipeline.roles[role]])
        how = f" {NAME_THEM}" if experiment.noun == "volume" else ""
        return f"{pipeline.name} needs a {wanted}; this {experiment.noun} has {there}.{how}"
    if channels.shared(chosen):
        there = _there(names, [part for parts in pipeline.roles.values() for part in parts])
        own = f"{pipeline.name} needs a channel of its own for each of {words.listed(list(chosen))}"
        return f"{own}; this {experiment.noun} has {there}."
    return _unreadable(_read(pipeline, experiment, NO_OPTIONS))


def _unreadable(read: Sequence[Channel]) -> str:
    for channel in read:
        if channel.datatype and channel.bytes is None:
            return f"The channel {channel.name} is {channel.datatype}; {READABLE}."
    return ""


def _options_problems(pipeline: Pipeline, experiment: Experiment, options: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with the channels that options name, by the option's name."""
    there = {channel.name: channel for channel in experiment.channels}
    chosen = pipeline.choose(list(there))
    errors: dict[str, str] = {}
    for option in pipeline.options:
        named = option.channels(options.get(option.name, ""))
        missing = next((name for name in named if name not in there), None)
        if missing is not None:
            near = words.alike(missing, there)
            meant = f"did you mean {' or '.join(quoted(name) for name in near)}?" if near else ""
            has = f"it has {_there(list(there), named)}."
            errors[option.name] = f"This experiment has no channel {quoted(missing)}; {meant or has}"
        elif role := next((role for role in option.not_roles if chosen.get(role) in named), None):
            errors[option.name] = f"{short(chosen[role])} is the {role} channel; name another one here."
        elif problem := _unreadable([there[name] for name in named]):
            errors[option.name] = problem
    return errors


def _there(names: Sequence[str], parts: Sequence[str]) -> str:
    """The channels in words: all where they are few, else those that are like the parts that a role's channel has."""
    if len(names) <= NAMES:
        return words.listed([short(name) for name in names])
    spelled = {word: name for name in names for word in (name, *re.split("[_-]", name))}
    alike = list(dict.fromkeys(spelled[word] for part in parts for word in words.alike(part, spelled)))
    like = f"the most similar: {words.listed([short(name) for name in alike])}" if alike else "none of a similar name"
    return f"{words.count(len(names))} channels, {like}"


def _named(pipeline: Pipeline, options: Mapping[str, str]) -> set[str]:
    """The channels that the options name."""
    return {name for option in pipeline.options for name in option.channels(options.get(option.name, ""))}


def _read(pipeline: Pipeline, experiment: Experiment, options: Mapping[str, str]) -> list[Channel]:
    chosen = set(pipeline.choose([channel.name for channel in experiment.channels]).values())
    chosen |= _named(pipeline, options)
    return [channel for channel in experiment.channels if channel.name in chosen]


def expected(
    pipeline: Pipeline, box: Box, runs: Sequence[tuple[int, float]], prices: Prices, *, block: int | None = None
) -> Expected | None:
    """The estimate for a run on the box: learned from `runs` (voxels and seconds of each), else the catalogue's.

    Learned are median and 90th percentile of seconds per voxel. Of a job in blocks of so many voxels, the seconds are
    those of all its programs together, about one for each block. None where nothing is known.
    """
    gigavoxels = box.voxels / 1e9
    rates = [seconds / voxels * 1e9 for voxels, seconds in runs if voxels]
    if len(rates) >= ENOUGH:
        seconds = statistics.median(rates) * gigavoxels
        longest = statistics.quantiles(rates, n=10, method="inclusive")[-1] * gigavoxels
    else:
        programs = -(-box.voxels // block) if block else 1
        seconds = longest = programs * pipeline.seconds + pipeline.seconds_per_gigavoxel * gigavoxels
    if not seconds:
        return None
    seconds, longest = min(seconds, LONGEST), min(longest, LONGEST)
    memory = pipeline.memory_for(block or box.voxels) * 2**20 / 1e9
    of_memory = memory * prices.gb_hour
    price = pipeline.cpu * prices.cpu_hour + of_memory
    together = block is not None
    return Expected(seconds, longest, price or None, prices.currency, together=together, of_memory=of_memory)
