"""What a run says of chance, registration and witnesses: notes, parts of results.json and of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.common import report
from pipelines.common.boxes import Box, shape
from pipelines.common.run import Found
from pipelines.common.words import counted, listed
from pipelines.unsupervised.chance import MERGE_NM, SHIFT_NM
from pipelines.unsupervised.driver import MOST
from pipelines.unsupervised.paired import THRESHOLD, Grid
from pipelines.unsupervised.registration import Warp
from pipelines.unsupervised.witness import witness

if TYPE_CHECKING:
    from pipelines.common.run import Run
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


def facts(synapses: Synapses, options: Options) -> dict[str, str]:
    """What the synapses were found with."""
    said: dict[str, str] = {"Method": options.method}
    if options.method != "paired":
        return said
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


def notes(run: Run, synapses: Synapses, options: Options, looked: Box) -> list[str]:
    """Sentences for thread and report; `looked` is the box that was searched, which holds the run's."""
    said = []
    if options.method == "nomads2018":
        said.append(OF_2018)
    elif options.method == "paired" and len(synapses) and not synapses.tells:
        said.append(FIXED)
    said += _moved(run, synapses.across, looked, moved=options.register == "auto")
    for name in options.witnesses:
        said.append(_witnessed(run, synapses, name, moved=options.register == "auto"))
    return said


def _moved(run: Run, across: Sequence[Warp], looked: Box, *, moved: bool) -> list[str]:
    """One line where a shift above a pixel is sure in a section of the box."""
    plane, first, deep = _plane(run, looked)
    start, stop = run.request.z
    some = [n for n, warp in enumerate(across) if warp.moves(plane) and start - deep < first + n * deep < stop]
    if not some:
        return []
    farthest = max(across[n].farthest(plane) for n in some)
    turn = max((across[n].degrees for n in some), key=abs)
    turned = f", turned by {abs(turn):.1f} degrees," if abs(turn) >= 0.1 else ""
    where = listed([first + n * deep for n in some])
    psd, synapsin = (run.names[role] for role in ("postsynaptic", "presynaptic"))
    done = "it was moved back" if moved else "it was left there"
    return [f"In {where} {psd} lies{turned} up to {counted(round(farthest), 'pixel')} off {synapsin}; {done}."]


def _plane(run: Run, looked: Box) -> tuple[tuple[int, int], int, int]:
    """A section's extent in pixels, the number of the first one, and voxels from a section of pixels to the next."""
    grid = Grid.of(run.volume.voxel_nm)
    _, high, wide = shape(looked)
    return (-(-high // grid.bins[1]), -(-wide // grid.bins[2])), looked[0][0], grid.bins[0]


def _witnessed(run: Run, synapses: Synapses, name: str, *, moved: bool) -> str:
    psd, other = run.channels["postsynaptic"], run.channel(name)
    seen = witness(
        lambda *place: (psd.read(*place), other.read(*place)),
        run.request.shape,
        synapses.centres,
        voxel_nm=run.volume.voxel_nm,
        moved=moved,
    )
    if seen is None:
        return f"Whether {name} is at the synapses cannot be told: there are none, or the box is too small."
    times = f"{seen.enrichment:.1f} times as often" if seen.elsewhere else "never there"
    return (
        f"{name} stands out at {seen.there:.0%} of the synapses, and at {seen.elsewhere:.0%} of the same places "
        f"shifted away: {times}."
    )


def sections(run: Run, synapses: Synapses, options: Options, looked: Box) -> list[report.Section]:
    """Of the report: found against chance, and registration."""
    made = []
    if len(synapses.curve):
        made.append(_curve(synapses, options))
    if options.method == "paired" and options.register != "off":
        made.append(_registration(run, synapses, looked, moved=options.register == "auto"))
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


def _registration(run: Run, synapses: Synapses, looked: Box, *, moved: bool) -> report.Section:
    plane, first, deep = _plane(run, looked)
    across, along = synapses.across, [None, *synapses.along]

    def cells(warp: Warp | None) -> tuple[str, ...]:
        if warp is None:
            return ("–", "–", "–")
        if not warp.agree:
            return ("not known", "–", "no")
        y, x = warp.middle(plane)
        return f"{y:z.1f}, {x:z.1f}", f"{warp.degrees:z.2f}", f"{'yes' if warp.sure else 'no'} ({warp.agree:.0%})"

    shown = list(zip(range(len(across)), across, along, strict=False))[:ROWS]
    table = report.Table(
        title="Section by section",
        header=(
            "Section",
            *("Shift of the presynaptic channel (y, x)", "Turn", "Sure"),
            *("Shift on the section before (y, x)", "Turn", "Sure"),
        ),
        rows=[(str(first + n * deep), *cells(one), *cells(other)) for n, one, other in shown],
    )
    edges = np.arange(len(across) + 1, dtype=np.float64) * deep + first
    far = [
        np.array([warp.farthest(plane) if warp is not None and warp.sure else 0.0 for warp in warps])
        for warps in (across, along[: len(across)])
    ]
    chart = report.Chart(
        title="Sure shifts",
        across="section (z)",
        up="pixels",
        edges=edges,
        series=[
            report.Series(label="presynaptic on postsynaptic, at its farthest corner", values=far[0]),
            report.Series(label="on the section before", values=np.pad(far[1], (0, len(across) - len(far[1])))),
        ],
        said="Sections that are not sure have 0.",
    )
    text = (
        "Shifts are in pixels, in the middle of the section, and turns in degrees; a shift is sure where enough tiles "
        f"agree (their part). {'Sure shifts were moved back.' if moved else 'Nothing was moved.'} Synapses lie where "
        f"{run.names['postsynaptic']}, the postsynaptic channel, has them."
    )
    return report.Section(title="Registration", text=text, parts=[table, chart])
