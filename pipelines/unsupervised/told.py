"""What a run says of chance, registration and witnesses: notes, parts of results.json and of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.common import report
from pipelines.common.run import Found
from pipelines.common.words import counted, joined, listed
from pipelines.unsupervised.chance import MERGE_NM, SHIFT_NM
from pipelines.unsupervised.driver import MOST
from pipelines.unsupervised.paired import THRESHOLD
from pipelines.unsupervised.registration import Warp
from pipelines.unsupervised.witness import witness

if TYPE_CHECKING:
    from pipelines.common.channels import Plane
    from pipelines.common.run import Run
    from pipelines.unsupervised.alignment import Alignment
    from pipelines.unsupervised.driver import Options
    from pipelines.unsupervised.found import Synapses

OF_2018 = (
    "nomads2018 takes every bright spot of the presynaptic channel for a synapse: all that it finds is there by chance."
)
NOTHING = "Nothing beyond chance was found."
SMALL = f"in so small a volume, of less than {2 * SHIFT_NM / 1000:g} µm along y and x, chance cannot be told"
FIXED = f"The false discovery rate was not used, since {SMALL}; the threshold is a score of {THRESHOLD:g}."
ROWS = 200
"""Sections in a table, at most."""
_EDGES = np.linspace(0, 0.9, 19)


def fields(synapses: Synapses, options: Options) -> dict[str, dict[str, float] | None]:
    """For results.json: how many are there by chance, and between what shares; None where `synapses.chance` is.

    Of nomads2018 nothing is said where it was not measured: a note says that all of it is chance.
    """
    told = synapses.chance
    if told is None:
        return {} if options.method == "nomads2018" else {"chance": None}
    count = min(len(synapses), round(told.count))
    shares = {name: round(getattr(told, name), 4) for name in ("share", "low", "high")}
    return {"chance": {"count": count, **shares}}


def facts(synapses: Synapses, options: Options, *, further: bool = False) -> dict[str, str]:
    """What the synapses were found with; `further` channels are registered whatever the method."""
    said: dict[str, str] = {"Method": options.method}
    if options.method != "paired":
        return said | ({"Registration": options.register} if further else {})
    rate = {"False discovery rate": f"{options.false_discovery:g}"}
    fixed = {"False discovery rate": "not used: the volume is too small", "Threshold": f"a score of {THRESHOLD:g}"}
    return said | (rate if synapses.tells else fixed) | {"Registration": options.register}


def numbers(synapses: Synapses, options: Options) -> list[tuple[str, str]]:
    """For the head of the report."""
    told = synapses.chance
    if not len(synapses):
        return []
    if told is None:
        return [("By chance", "all of them" if options.method == "nomads2018" else "cannot be told")]
    return [("By chance, about", f"{told.count:,.0f} ({told.share:.0%}, {told.low:.0%} to {told.high:.0%})")]


def nothing(synapses: Synapses, options: Options) -> str:
    """What is said where nothing was found, and at which rate something would be."""
    if options.method != "paired":
        return Found.nothing
    if not synapses.tells:
        return f"Nothing was found, and {SMALL}."
    rates = synapses.curve[:, 3]
    least = math.ceil(round(100 * rates.min(initial=1), 6))
    if least == 100:
        return NOTHING
    count = int(synapses.curve[rates <= least / 100, 1].max())
    ask = f" Ask for {least} % or more." if least <= 100 * MOST else ""
    return (
        f"No threshold has a false discovery rate of {100 * options.false_discovery:g} % or less: the lowest here is "
        f"{least} %, with {counted(count, 'synapse')}.{ask}"
    )


def notes(
    run: Run,
    synapses: Synapses,
    options: Options,
    aligned: Alignment | None,
    lies: Mapping[str, Mapping[int, Plane]],
    *,
    beyond: int,
) -> list[str]:
    """Sentences for thread and report; `lies` says which sections of a role's channel are moved back.

    So many sections `beyond` the box are looked at, too.
    """
    said = []
    if options.method == "nomads2018":
        said.append(OF_2018)
    elif options.method == "paired" and len(synapses) and not synapses.tells:
        said.append(FIXED)
    if aligned:
        said += _moved(run, aligned, options, beyond=beyond)
    for name in options.witnesses:
        role = next(role for role, channel in run.names.items() if channel == name)
        said.append(_witnessed(run, synapses, role, lies.get(role)))
    return said


def _off(run: Run, aligned: Alignment, beyond: int) -> dict[tuple[tuple[int, ...], str, str], list[str]]:
    """The channels of which a shift above a pixel is sure, by the sections where it is, the turn and how far it is."""
    start, stop = run.request.z
    off: dict[tuple[tuple[int, ...], str, str], list[str]] = {}
    for role in aligned.warps:
        moved = {aligned.sections(n): warp for n, warp in aligned.moved(role).items()}
        some = {z[0]: warp for z, warp in moved.items() if start - beyond < z.stop and z.start < stop + beyond}
        if some:
            turn = max(abs(warp.degrees) for warp in some.values())
            turned = f", turned by {turn:.1f} degrees," if turn >= 0.1 else ""
            far = f"up to {counted(round(max(warp.farthest(aligned.plane) for warp in some.values())), 'pixel')}"
            off.setdefault((tuple(some), turned, far), []).append(run.names[role])
    return off


def _moved(run: Run, aligned: Alignment, options: Options, *, beyond: int) -> list[str]:
    """One line where a shift above a pixel is sure in a section looked at, with each channel of which it is."""
    off = _off(run, aligned, beyond)
    if not off:
        return []
    moved, psd = options.register == "auto", run.names["postsynaptic"]
    names = [name for some in off.values() for name in some]
    if len(names) == 1:
        ((where, turned, far),) = off
        done = "it was moved back" if moved else "it was left there"
        said = f"In {listed(where)} {psd} lies{turned} {far} off {names[0]}; {done}."
    else:
        parts = [
            f"{joined(some)}{turned} {far} in {listed(where) if len(off) < 3 else counted(len(where), 'section')}"
            for (where, turned, far), some in off.items()
        ]
        done = "were moved back" if moved else "were left there"
        said = f"Off {psd} lie {'; '.join(parts)}. They {done}."
    if moved and options.method != "paired" and run.names["presynaptic"] in names:
        said += f" The method {options.method} took them as they lie."
    return [said]


def _witnessed(run: Run, synapses: Synapses, role: str, lies: Mapping[int, Plane] | None) -> str:
    name = run.names[role]
    seen = witness(
        run.channels[role].part(run.box, lies).read,
        run.request.shape,
        synapses.centres,
        voxel_nm=run.volume.voxel_nm,
    )
    if seen is None:
        return f"Whether {name} is at the synapses cannot be told: there are none, or the box is too small."
    times = f"{seen.enrichment:.1f} times as often" if seen.elsewhere else "never there"
    return (
        f"{name} stands out at {seen.there:.0%} of the synapses, and at {seen.elsewhere:.0%} of the same places "
        f"shifted away: {times}."
    )


def sections(run: Run, synapses: Synapses, options: Options, aligned: Alignment | None) -> list[report.Section]:
    """Of the report: found against chance, and registration."""
    made = []
    if len(synapses.curve):
        made.append(_curve(synapses, options))
    if aligned:
        made.append(_registration(run, aligned, moved=options.register == "auto"))
    return made


def _curve(synapses: Synapses, options: Options) -> report.Section:
    curve = synapses.curve
    found = [float(curve[curve[:, 3] <= edge, 1].max(initial=0)) for edge in _EDGES[1:]]
    text = (
        "A shifted channel shows what is found by chance. Each step is what a false discovery rate up to its right end "
        "would find; synapses.csv has for each synapse found the rate from which on it is found."
    )
    found_here = f"{counted(len(synapses), 'synapse')} {'was' if len(synapses) == 1 else 'were'} found in this run"
    if options.method == "paired":
        once = "."
    else:
        once = f"; the curve counts those within {MERGE_NM:g} nm of one another once, which leaves {len(curve):,}."
    chart = report.Chart(
        title="Found, by false discovery rate",
        across="false discovery rate",
        up="synapses",
        edges=_EDGES,
        series=[report.Series(label="synapses", values=np.array(found))],
        said=found_here + once,
    )
    return report.Section(title="Chance", text=text, parts=[chart])


def _registration(run: Run, aligned: Alignment, *, moved: bool) -> report.Section:
    psd = run.names["postsynaptic"]
    numbers = sorted({n for warps in aligned.warps.values() for n in warps})
    columns = [(run.names[role], warps) for role, warps in aligned.warps.items()]
    columns += [(f"{psd} on the section before", aligned.along)]
    sure = {run.names[role]: {n: aligned.warp(role, n) for n in warps} for role, warps in aligned.warps.items()}

    def far(warps: Mapping[int, Warp | None]) -> NDArray[np.float64]:
        some = [warps.get(n) for n in numbers]
        return np.array([warp.farthest(aligned.plane) if warp and warp.sure else 0.0 for warp in some])

    rows = [
        (str(aligned.sections(n)[0]), *(_cell(warps.get(n), aligned) for _, warps in columns)) for n in numbers[:ROWS]
    ]
    if aligned.together:
        rows.append(("together", *(_cell(aligned.together.get(role), aligned) for role in aligned.warps), "–"))
    edges = np.array([aligned.sections(n).start for n in numbers] + [aligned.sections(numbers[-1]).stop], np.float64)
    charts = [
        report.Chart(
            title=f"Sure shifts: {name}",
            across="section (z)",
            up="pixels",
            edges=edges,
            series=[report.Series(label="at the section's farthest corner", values=far(sure.get(name, warps)))],
            said="Sections that are not sure have 0.",
        )
        for name, warps in columns
        if warps
    ]
    text = (
        f"How each channel lies on {psd}, the postsynaptic one, and how each section of {psd} lies on the one before: "
        "the shift (y, x) in pixels, in the middle of the section; the turn; and whether enough tiles agree (their "
        "part) for it to be sure. Where a section is not sure, what all sections together say counts, if that is. "
        f"{'Sure shifts were moved back.' if moved else 'Nothing was moved.'} Synapses lie where {psd} has them."
    )
    table = report.Table(title="Section by section", header=("Section", *(name for name, _ in columns)), rows=rows)
    return report.Section(title="Registration", text=text, parts=[table, *charts])


def _cell(warp: Warp | None, aligned: Alignment) -> str:
    if warp is None:
        return "–"
    if not warp.agree:
        return "not known"
    y, x = warp.middle(aligned.plane)
    return f"{y:z.1f}, {x:z.1f}; {warp.degrees:z.2f}°; {'sure' if warp.sure else 'not sure'} ({warp.agree:.0%})"
