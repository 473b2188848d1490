"""What a run says of chance, registration and witnesses: notes, parts of results.json and of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contract.chance import about, interval, percent
from contract.program import MAX_NOTE
from pipelines.common import report
from pipelines.common.notes import Note
from pipelines.common.run import Found
from pipelines.common.words import counted, fitting, joined, listed
from pipelines.unsupervised.alignment import STACK
from pipelines.unsupervised.chance import MERGE_NM, SHIFT_NM, TEST_NM, Chance
from pipelines.unsupervised.driver import MOST
from pipelines.unsupervised.paired import THRESHOLD
from pipelines.unsupervised.registration import Warp

if TYPE_CHECKING:
    from pipelines.common.run import Run
    from pipelines.unsupervised.alignment import Alignment
    from pipelines.unsupervised.driver import Options
    from pipelines.unsupervised.found import Synapses
    from pipelines.unsupervised.witness import Witness

OF_2018 = (
    "nomads2018 takes every bright spot of the presynaptic channel for a synapse: all that it finds is there by chance."
)
NOTHING = "Nothing beyond chance was found."
_LEAST_UM = 2 * SHIFT_NM / 1000
SMALL = f"in so small a volume, of less than {_LEAST_UM:g} µm along y and x, chance cannot be told"
FIXED = f"The false discovery rate was not used, since {SMALL}; the threshold is a score of {THRESHOLD:g}."
ROWS = 200
"""Sections in a table, at most."""
_EDGES = np.linspace(0, 0.9, 19)


def fields(synapses: Synapses, options: Options) -> dict[str, dict[str, float] | None]:
    """For results.json: how many are there by chance, and between what shares; None where that cannot be told."""
    told = _chance(synapses, options)
    if told is None:
        return {"chance": None}
    shares = {name: round(getattr(told, name), 4) for name in ("share", "low", "high")}
    return {"chance": {"count": _count(synapses, told), **shares}}


def _chance(synapses: Synapses, options: Options) -> Chance | None:
    """How many are there by chance; of nomads2018 all, whatever shifted channels show."""
    if options.method == "nomads2018" and len(synapses):
        return Chance(count=len(synapses), share=1, low=1, high=1)
    return synapses.chance


def _count(synapses: Synapses, told: Chance) -> int:
    return min(len(synapses), round(told.count))


def facts(synapses: Synapses, options: Options, *, reached: int = 0, further: bool = False) -> dict[str, str]:
    """What the synapses were found with; `further` channels are registered whatever the method.

    `reached` is as in `nothing`.
    """
    said: dict[str, str] = {"Method": options.method}
    if options.method != "paired":
        measured = synapses.chance if options.method == "nomads2018" else None
        shifted = {"Found in shifted channels": interval(*_shares(measured))} if measured else {}
        return said | shifted | ({"Registration": options.register} if further else {})
    rate = {"False discovery rate": f"{options.false_discovery:g}"}
    score = f"a score of {THRESHOLD:g}"
    fixed = {
        "False discovery rate": "not used: the volume is too small",
        "Threshold": f"none: what reaches {score} is not beyond chance" if reached else score,
    }
    return said | (rate if synapses.tells else fixed) | {"Registration": options.register}


def _shares(told: Chance) -> tuple[float, float, float]:
    return told.share, told.low, told.high


def numbers(synapses: Synapses, options: Options) -> list[tuple[str, str]]:
    """For the head of the report."""
    told = _chance(synapses, options)
    if not len(synapses):
        return []
    if told is None:
        return [("By chance", "cannot be told")]
    if told.low == 1:
        return [("By chance", "all of them")]
    return [("By chance", f"{about(_count(synapses, told))} ({interval(*_shares(told))})")]


def nothing(synapses: Synapses, options: Options, *, reached: int = 0) -> str:
    """What is said where nothing was found, and at which rate something would be.

    In a volume that is too small for a rate, `reached` objects have the score that is used there, though they are not
    beyond chance.
    """
    if options.method != "paired":
        return Found.nothing
    if not synapses.tells:
        return _nothing_in_small(reached)
    best, rates = synapses.curve[:, 0], synapses.curve[:, 3]
    least = math.ceil(round(100 * rates.min(initial=1), 6))
    asked = f"{100 * options.false_discovery:g} %"
    count = int(synapses.curve[rates <= least / 100, 1].max(initial=0))
    ask = f" Ask for {least} % or more." if least <= 100 * MOST else ""
    if math.isfinite(synapses.threshold):
        there = f"Round the box there are synapses at a false discovery rate of {asked}, from a score of "
        there += f"{synapses.threshold:.4g} on. Nothing in the box has it"
        if not len(best):
            return f"{there}: there is no candidate."
        lowest = f": {counted(count, 'synapse')} would be found at {least} %.{ask}" if least < 100 else "."
        return f"{there}; the best has {best[0]:.4g}{lowest}"
    if least == 100:
        return NOTHING
    return (
        f"No threshold has a false discovery rate of {asked} or less: the lowest here is {least} %, with "
        f"{counted(count, 'synapse')}.{ask}"
    )


def _nothing_in_small(reached: int) -> str:
    used = f"the score of {THRESHOLD:g} that is used in so small a volume, of less than {_LEAST_UM:g} µm along y and x"
    if not reached:
        return f"Nothing here has {used}, where chance cannot be told."
    have = "has" if reached == 1 else "have"
    return (
        f"{counted(reached, 'object')} {have} {used}, but too few more than where the channels are shifted by "
        f"{TEST_NM / 1000:g} µm or more, which shows chance: nothing here is beyond chance."
    )


def notes(
    run: Run,
    synapses: Synapses,
    options: Options,
    aligned: Alignment | None,
    *,
    witnesses: Mapping[str, Witness | None],
    beyond: int,
) -> list[Note]:
    """Sentences for thread and report; `witnesses` are by channel.

    So many sections `beyond` the box are looked at, too.
    """
    said = []
    if doubt := _doubt(synapses, options):
        said.append(Note(text=doubt, first=True))
    if options.method == "paired" and len(synapses) and not synapses.tells:
        said.append(Note(text=FIXED))
    if aligned:
        said += _moved(run, aligned, options, beyond=beyond)
    return said + [Note(text=_witnessed(name, seen)) for name, seen in witnesses.items()]


def _doubt(synapses: Synapses, options: Options) -> str:
    """Why what was found is worth little or nothing; empty where it is beyond chance, or that cannot be told."""
    if options.method == "nomads2018":
        return OF_2018
    rates = synapses.rates
    if synapses.chance and synapses.chance.share == 1 and not (rates == 1).any():
        # what was looked at round the box has the rate, and the box does not
        return "Nothing in this box is beyond chance: as much is found in it where the channels are shifted."
    if not len(rates) or rates.max() < 1 or np.isnan(rates).any():
        return ""
    good = rates[rates < 1]
    if not len(good):
        return f"{NOTHING[:-1]}: at no score is clearly more found than where the channels are shifted."
    are = "is" if len(good) == 1 else "are"
    return (
        f"What was found is, all in all, not beyond chance: the {counted(len(good), 'best one')} {are}, at a false "
        f"discovery rate of {100 * good.max():.3g} %."
    )


def _off(run: Run, aligned: Alignment, beyond: int) -> dict[tuple[tuple[int, ...], str, str], list[str]]:
    """The channels of which a shift above a pixel is sure, by the sections where it is, the turn and how far it is.

    Sections and pixels are the experiment's, whatever was put together to find it.
    """
    start, stop = run.request.z
    off: dict[tuple[tuple[int, ...], str, str], list[str]] = {}
    for role in aligned.warps:
        moved = {z: warp for n, warp in aligned.moved(role).items() for z in aligned.sections(n)}
        near = {z: warp for z, warp in moved.items() if start - beyond <= z < stop + beyond}
        # in a box that is a small part of its sections, shifts may be as small
        far_off = {z: aligned.farthest(warp, run.box) for z, warp in near.items()}
        some = {z: warp for z, warp in near.items() if far_off[z] > 1}
        if some:
            turn = max(abs(aligned.in_voxels(warp).degrees(aligned.voxel_nm[1:])) for warp in some.values())
            turned = f", turned by {turn:.1f} degrees," if turn >= 0.1 else ""
            far = f"up to {counted(round(max(far_off[z] for z in some)), 'pixel')}"
            off.setdefault((tuple(some), turned, far), []).append(run.names[role])
    return off


def _moved(run: Run, aligned: Alignment, options: Options, *, beyond: int) -> list[Note]:
    """One line where a shift above a pixel is sure in a section looked at, with each channel of which it is."""
    off = _off(run, aligned, beyond)
    if not off:
        return []
    moved, psd = options.register == "auto", run.names["postsynaptic"]
    names = [name for some in off.values() for name in some]
    as_they_lie = moved and options.method != "paired" and run.names["presynaptic"] in names
    ends = f" The method {options.method} took them as they lie." if as_they_lie else ""
    if len(names) == 1:
        ((where, turned, far),) = off
        done = "it was moved back" if moved else "it was left there"
        return [Note(text=f"In {listed(where)} {psd} lies{turned} {far} off {names[0]}; {done}.{ends}")]

    def said(most: int) -> str:
        """The line, with so many of the channels named."""
        parts, left = [], most
        for (where, turned, far), some in off.items():
            if left > 0:
                place = listed(where) if len(off) < 3 else counted(len(where), "section")
                parts.append(f"{joined(some, left)}{turned} {far} in {place}")
            left -= len(some)
        rest = sum(len(some) for some in list(off.values())[len(parts) :])
        parts += [counted(rest, "further channel")] if rest else []
        done = "were moved back" if moved else "were left there"
        return f"Off {psd} lie {'; '.join(parts)}. They {done}.{ends}"

    return [Note(text=said(len(names)), brief=fitting(said, len(names), MAX_NOTE))]


def _witnessed(name: str, seen: Witness | None) -> str:
    if seen is None:
        return f"Whether {name} is at the synapses cannot be told: there are none, or the box is too small."
    there, elsewhere = (
        f"{percent(share.part)} % {of} ({percent(share.low)} to {percent(share.high)})"
        for share, of in ((seen.there, "of the synapses"), (seen.elsewhere, "of the same places shifted away"))
    )
    said = f"{name} stands out at {there}, and at {elsewhere}"
    if not seen.sure:
        return f"{said}: no sure difference."
    return f"{said}: {seen.enrichment:.1f} times as often." if seen.elsewhere.part else f"{said}."


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
        return np.array(
            [aligned.in_voxels(warp).farthest(aligned.extent) if warp and warp.sure else 0 for warp in some]
        )

    rows = [
        (_place(aligned.sections(n)), *(_cell(warps.get(n), aligned) for _, warps in columns)) for n in numbers[:ROWS]
    ]
    together = [aligned.together.get(role, {}) for role in aligned.warps]
    if any(together):
        rows += [
            (f"{_place(aligned.stacked(n))} together", *(_cell(some.get(n), aligned) for some in together), "–")
            for n in sorted({n for some in together for n in some})
        ]
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
        "the shift (y, x) in pixels of the experiment, in the middle of the section; the turn; and whether enough "
        f"tiles agree (their part) for it to be sure. Where a section is not sure, what {STACK} sections together say "
        "counts, if that is. "
        f"{'Sure shifts were moved back.' if moved else 'Nothing was moved.'} Synapses lie where {psd} has them."
    )
    table = report.Table(title="Section by section", header=("Section", *(name for name, _ in columns)), rows=rows)
    return report.Section(title="Registration", text=text, parts=[table, *charts])


def _cell(warp: Warp | None, aligned: Alignment) -> str:
    if warp is None:
        return "–"
    if not warp.agree:
        return "not known"
    seen = aligned.in_voxels(warp)
    y, x = seen.middle(aligned.extent)
    turn = seen.degrees(aligned.voxel_nm[1:])
    return f"{y:z.1f}, {x:z.1f}; {turn:z.2f}°; {'sure' if warp.sure else 'not sure'} ({percent(warp.agree)} %)"


def _place(sections: range) -> str:
    """The sections that were put together: 3; 4 to 5."""
    return f"{sections[0]} to {sections[-1]}" if len(sections) > 1 else f"{sections[0]}"
