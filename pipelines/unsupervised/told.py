"""What a run says of chance, registration and witnesses: notes, parts of results.json and of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.common import report
from pipelines.unsupervised.chance import rates_of
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
ROWS = 200
"""Sections in a table, at most."""
_EDGES = np.linspace(0, 0.9, 19)


def chance(synapses: Synapses) -> dict[str, float] | None:
    """For results.json: how many are there by chance, and between what shares; None where that cannot be told."""
    told = synapses.chance
    if told is None:
        return None
    count = min(len(synapses), round(told.count))
    return {"count": count, "share": round(told.share, 4), "low": round(told.low, 4), "high": round(told.high, 4)}


def numbers(synapses: Synapses) -> list[tuple[str, str]]:
    """For the head of the report."""
    told = synapses.chance
    if told is None:
        return [("By chance", "cannot be told")] if len(synapses) else []
    if not len(synapses):
        return []
    return [("By chance, about", f"{told.count:,.0f} ({told.share:.0%}, {told.low:.0%} to {told.high:.0%})")]


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
            far = f"up to {max(warp.farthest(aligned.plane) for warp in some.values()):.0f} pixels"
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
        said = f"In {_listed(where)} {psd} lies{turned} {far} off {names[0]}; {done}."
    else:
        parts = [
            f"{_and(some)}{turned} {far} in {_listed(where) if len(off) < 3 else _counted(where)}"
            for (where, turned, far), some in off.items()
        ]
        done = "were moved back" if moved else "were left there"
        said = f"Off {psd} lie {'; '.join(parts)}. They {done}."
    if moved and options.method != "paired" and run.names["presynaptic"] in names:
        said += f" The method {options.method} took them as they lie."
    return [said]


def _counted(sections: Sequence[int]) -> str:
    return f"{len(sections)} sections" if len(sections) > 1 else _listed(sections)


def _and(words: Sequence[str]) -> str:
    """One; one and two; one, two and three."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _listed(sections: Sequence[int]) -> str:
    """Section 3; sections 1, 3 and 5; sections 0 to 7."""
    if len(sections) == 1:
        return f"section {sections[0]}"
    if len(sections) > 2 and sections[-1] - sections[0] == len(sections) - 1:
        return f"sections {sections[0]} to {sections[-1]}"
    if len(sections) > 10:
        return f"{len(sections)} sections from {sections[0]} to {sections[-1]}"
    return f"sections {_and([str(section) for section in sections])}"


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
        made.append(_curve(synapses))
    if aligned:
        made.append(_registration(run, aligned, moved=options.register == "auto"))
    return made


def _curve(synapses: Synapses) -> report.Section:
    curve = synapses.curve
    rates = rates_of(curve)
    found = [float(curve[rates <= edge, 1].max(initial=0)) for edge in _EDGES[1:]]
    text = (
        "A shifted channel shows what is found by chance. Each step is what a false discovery rate up to its right end "
        "would find; synapses.csv has for each synapse found the rate from which on it is found."
    )
    chart = report.Chart(
        title="Found, by false discovery rate",
        across="false discovery rate",
        up="synapses",
        edges=_EDGES,
        series=[report.Series(label="synapses", values=np.array(found))],
        said=f"{len(synapses):,} were found in this run.",
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
    return f"{y:.1f}, {x:.1f}; {warp.degrees:.2f}°; {'sure' if warp.sure else 'not sure'} ({warp.agree:.0%})"
