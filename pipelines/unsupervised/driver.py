"""nomads-unsupervised: reads two channels of a box, detects synapses, and writes the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipelines.common.program import Request, WrongRequest, main

if TYPE_CHECKING:
    from pipelines.common.boxes import Box, Triple
    from pipelines.common.channels import Channel
    from pipelines.common.run import Found, Run
    from pipelines.common.volume import Volume
    from pipelines.unsupervised.alignment import Alignment
    from pipelines.unsupervised.detector import Method
    from pipelines.unsupervised.registration import Warp
    from pipelines.unsupervised.search import Laid, Register

ROLES = ("postsynaptic", "presynaptic")
OPTIONS = {
    "--method": "how synapses are found: paired (the default), probabilistic or nomads2018",
    "--false-discovery": "share of the synapses that may be there by chance, 0.01 to 0.9; for the method paired",
    "--register": "whether a channel that is shifted or turned is moved back: auto (the default), off or report; with "
    "another method than paired synapses are found in channels as they lie",
    "--witness": "further channels, with commas between, whose enrichment at the synapses is told",
}
LEAST, MOST = 0.01, 0.9
"""Of the false discovery rate; pipeline.toml says the same."""
WITNESSES = 4
"""Channels, at most; pipeline.toml says the same."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request asks of the detection."""

    method: Method
    false_discovery: float
    register: Register
    witnesses: tuple[str, ...]


def program(request: Request) -> None:
    """Do one run. Raises pipelines.common.program.Failure and its subclasses."""
    # imported here, so that wrong arguments are refused at once
    from pipelines.common.boxes import union
    from pipelines.common.run import Run

    entry = Path(__file__).with_name("pipeline.toml")
    if request.stage:
        from pipelines.unsupervised import whole
        from pipelines.unsupervised.extension import Extension

        whole.program(request, request.stage, entry=entry, extension=Extension())
        return
    options = chosen(request)

    def near(volume: Volume, roles: Collection[str]) -> dict[str, Box]:
        looked, further = searched(request, volume, options), set(roles) - set(ROLES)
        if not further:
            return dict.fromkeys(ROLES, looked)
        there = around(request, volume, options)
        return dict.fromkeys(ROLES, union(looked, there)) | dict.fromkeys(further, there)

    def aside(volume: Volume) -> Box:
        return registered(request, volume, options, further=bool(options.witnesses))

    with Run(request, entry=entry, near=near, witnesses=options.witnesses, aside=aside) as run:
        run.fetch()
        further = [role for role in run.channels if role not in ROLES]
        run.finish(detected(run, options, further=further))


def chosen(request: Request) -> Options:
    """What the request asks for. Raises WrongRequest for a value that is none."""
    from pipelines.unsupervised import detector, search

    given = request.options
    rate = given.get("false-discovery", str(detector.FALSE_DISCOVERY))
    try:
        false_discovery = float(rate)
    except ValueError:
        false_discovery = math.nan
    if not LEAST <= false_discovery <= MOST:
        raise WrongRequest(f"--false-discovery is a number from {LEAST} to {MOST}, such as 0.25.")
    asked = given.get("method", detector.DEFAULT)
    method = next((method for method in detector.METHODS if method == asked), None)
    if method is None:
        raise WrongRequest(f"There is no method of that name; --method is one of {', '.join(detector.METHODS)}.")
    moved = given.get("register", "auto")
    register = next((register for register in search.REGISTER if register == moved), None)
    if register is None:
        raise WrongRequest(f"--register is one of {', '.join(search.REGISTER)}.")
    witnesses = tuple(dict.fromkeys(name for name in given.get("witness", "").replace(" ", "").split(",") if name))
    if len(witnesses) > WITNESSES:
        raise WrongRequest(f"--witness takes {WITNESSES} channels at most, with commas between them.")
    return Options(method=method, false_discovery=false_discovery, register=register, witnesses=witnesses)


def searched(request: Request, volume: Volume, options: Options) -> Box:
    """The box in which the method looks for the synapses of the request's box: what has to be read of ROLES.

    The other methods than the default measure whole sections, so that any margin would change what they find.
    """
    from pipelines.unsupervised import search

    box = request.z, request.y, request.x
    return search.surroundings(box, volume.bounds, volume.voxel_nm) if options.method == "paired" else box


def around(request: Request, volume: Volume, options: Options, *, reach: Triple = (0, 0, 0)) -> Box:
    """What has to be read of the channels that are registered, of which the box and `reach` voxels beyond it are used.

    The postsynaptic channel, which they are registered on, has to be read there as well.
    """
    from pipelines.common.boxes import grown
    from pipelines.unsupervised import alignment

    box = request.z, request.y, request.x
    if options.register == "off":
        return grown(box, reach, volume.bounds)
    return alignment.surroundings(box, reach, volume.bounds, volume.voxel_nm)


def registered(request: Request, volume: Volume, options: Options, *, further: bool, reach: Triple = (0, 0, 0)) -> Box:
    """Where channels are registered, as `around` says; `further` ones, too. It may lie beyond what has to be read."""
    from pipelines.unsupervised import alignment

    sections = around(request, volume, options, reach=reach)
    if options.register == "off" or (options.method != "paired" and not further):
        return sections
    box = request.z, request.y, request.x
    return alignment.registered_in(box, sections, volume.bounds, volume.voxel_nm, stacks=further)


def detected(run: Run, options: Options, *, further: Sequence[str], reach: Triple = (0, 0, 0)) -> Found:
    """The synapses in the box, and all that is told of them.

    Of a run's channels of ROLES, `searched` has to be read. `further` are the roles whose channels are registered
    beside what the method registers by itself; what is `around`, with the same `reach`, has to be read of them, and
    what is `registered` be `aside`.
    """
    from pipelines.common.boxes import placed
    from pipelines.common.run import Found
    from pipelines.unsupervised import detector, search, told
    from pipelines.unsupervised.witness import Witness, counted

    run.progress(0.65, "detecting")
    looked = searched(run.request, run.volume, options)
    where = registered(run.request, run.volume, options, further=bool(further), reach=reach)
    channels = [run.channels[role] for role in ROLES]
    psd, synapsin = (channel.part(looked) for channel in channels)
    # where sections are not wider than what is looked at, the method measures them by itself
    wider = options.method == "paired" and options.register != "off" and looked[1:] != where[1:]
    laid = laid_on(run.channels, run.volume, looked=looked, where=where) if wider else None
    synapses = detector.scan(
        lambda *place: (psd.read(*place), synapsin.read(*place)),
        psd.shape,
        method=options.method,
        inside=placed(run.box, looked),
        voxel_nm=run.volume.voxel_nm,
        false_discovery=options.false_discovery,
        register=options.register,
        laid=laid,
        pace=search.pace_for(run.box, looked, run.volume.voxel_nm, itemsize=max(c.dtype.itemsize for c in channels)),
        told=lambda part: run.progress(0.65 + 0.03 * part, "detecting"),
    )
    # where nothing is beyond chance, that is no reason to say that there is nothing
    reached = synapses.reached if not synapses.tells and math.isinf(synapses.threshold) else 0
    aligned = None
    if options.register != "off" and (synapses.across or further):
        aligned = aligned_on(
            run.channels,
            run.volume,
            looked=looked,
            where=where,
            across=synapses.across,
            along=synapses.along,
            further=further,
            told=lambda part: run.progress(0.68 + 0.02 * part, "registering"),
        )
    lies = {role: aligned.lies(role) for role in aligned.warps} if aligned and options.register == "auto" else {}
    witnesses = {}
    for role, name in witnessed(run.names, options):
        read = run.channels[role].part(run.box, lies.get(role)).read
        counts = counted(read, run.request.shape, synapses.centres, voxel_nm=run.volume.voxel_nm)
        witnesses[name] = Witness.of(counts)
    for note in told.notes(run, synapses, options, aligned, witnesses=witnesses, beyond=reach[0]):
        run.note(note)
    return Found(
        labels=synapses.labelled,
        centres=synapses.centres,
        voxels=synapses.voxels,
        scores=synapses.scores,
        nothing=told.nothing(synapses, options, reached=reached),
        columns={"false_discovery_rate": synapses.rates},
        numbers=told.numbers(synapses, options),
        sections=told.sections(run, synapses, options, aligned),
        told=told.fields(synapses, options),
        lies=lies,
        facts=told.facts(synapses, options, reached=reached, further=bool(further)),
    )


def laid_on(
    channels: Mapping[str, Channel],
    volume: Volume,
    *,
    looked: Box,
    where: Box,
    told: Callable[[float], None] = lambda part: None,
) -> Laid:
    """How the channels of ROLES lie in what is `looked` at, as their sections are registered `where`."""
    from pipelines.common.boxes import relative
    from pipelines.unsupervised import alignment
    from pipelines.unsupervised.paired import Grid

    markers, sections = [channels[role] for role in ROLES], (looked[0], *where[1:])
    laid = alignment.laid(
        lambda part: (channel.once(part) for channel in markers),
        sections,
        volume.voxel_nm,
        itemsize=max(channel.dtype.itemsize for channel in markers),
        told=told,
    )
    return laid.part(Grid.of(volume.voxel_nm).holding(relative(looked, sections)))


def witnessed(names: Mapping[str, str], options: Options) -> list[tuple[str, str]]:
    """Role and channel of each witness, in the order in which they were asked for, by the channels of the roles."""
    roles = {name: role for role, name in names.items()}
    return [(roles[name], name) for name in options.witnesses]


def aligned_on(
    channels: Mapping[str, Channel],
    volume: Volume,
    *,
    looked: Box,
    where: Box,
    across: Sequence[Warp],
    along: Sequence[Warp],
    further: Sequence[str],
    told: Callable[[float], None],
) -> Alignment:
    """How channels, by role, lie on the postsynaptic one, with what the method measured in what it `looked` at.

    The channels of the `further` roles are measured here. What of them is not there is read once.
    """
    from pipelines.unsupervised import alignment
    from pipelines.unsupervised.paired import Grid

    deep = Grid.of(volume.voxel_nm).bins[0]
    first = (looked[0][0] - where[0][0]) // deep

    return alignment.aligned(
        channels["postsynaptic"].once_or_cut,
        {role: channels[role].once_or_cut for role in further},
        where,
        known={"presynaptic": dict(enumerate(across, start=first))} if across else {},
        along=dict(enumerate(along, start=first + 1)),
        before=(where[0][0] - volume.bounds[0][0]) // deep,
        voxel_nm=volume.voxel_nm,
        itemsize=max(channel.dtype.itemsize for channel in channels.values()),
        told=told,
    )


def run() -> NoReturn:
    """Run the program as a process; never returns."""
    main(program, options=OPTIONS)


if __name__ == "__main__":
    run()
