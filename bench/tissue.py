"""What each method finds in real tissue: the table of `bench detection`, and the figures of docs/detection.md.

`python -m bench.tissue` draws the figures. `python -m bench.tissue constants` measures the default method again,
with each of its constants changed. Both read the data that tests/support/tissue.py names.
"""

from __future__ import annotations

import argparse
import html
import io
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.common.preview import draw
from pipelines.unsupervised import paired
from pipelines.unsupervised.detector import unsigned
from tests.support import tissue
from tests.support.tissue import CHANNELS, EXCESS, MARKED, PLAIN, SHARE, WAYS, Name, found, judged

Array = NDArray[Any]
DOCS = Path(__file__).parents[1] / "docs"
SECTION, TOP, LEFT, SIDE = 3, 700, 100, 192
"""The part of the array tomography that is shown."""
CONSTANTS = ("PUNCTUM_NM", "SURROUND_NM", "LOCAL_NM", "CLEFT_NM", "PATCH_NM")
CHANGES = (0.8, 1.25)
"""Factors by which each of the constants is changed, one at a time."""
WIDE, HIGH, TICKS = 300, 260, (10, 100, 1000, 10000)
"""Of one diagram: its sides, and the numbers at its lines."""
COLOURS = ("#b3006b", "#00705a", "#666666", "#b07000")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figures, or measure the constants. Returns the exit code: 1 where the data are not there."""
    parser = argparse.ArgumentParser(prog="python -m bench.tissue", description="Figures of docs/detection.md.")
    parser.add_argument("what", nargs="?", choices=["figures", "constants"], default="figures")
    what = parser.parse_args(argv).what
    if not tissue.there():
        print(missing())
        return 1
    if what == "constants":
        print("\n".join(constants()))
        return 0
    for name, drawn in (
        ("detection-tissue.png", of_tissue()),
        ("detection-marked.png", of_marked()),
        ("detection-curves.svg", of_curves().encode()),
    ):
        (DOCS / name).write_bytes(drawn)
        print(f"docs/{name}")
    return 0


def missing() -> str:
    """What is said where the data are not there."""
    return f"The real data are not on this machine ({tissue.FOLDER}): their figures are left out."


def table() -> Iterator[str]:
    """What every method finds, in Markdown."""
    yield from _rows(["real data", "goal", *WAYS])
    for name in CHANNELS:
        seen = [judged(name, way) for way in WAYS]
        yield _row(
            [
                f"{name}: beyond chance at a share of {SHARE:g}",
                f"{EXCESS[name]:,.0f}",
                *(f"{s.excess:,.0f}" for s in seen),
            ]
        )
        yield _row([f"{name}: found, chance share", "", *(f"{s.found:,}, {s.share:.2f}" for s in seen)])
    yield _row(
        [
            f"{MARKED}: F1",
            f"{tissue.F1:g}",
            *(f"{tissue.f1_of_marked(way):.2f}{' at best' * (way == PLAIN)}" for way in WAYS),
        ]
    )


def constants() -> Iterator[str]:
    """What the default method finds when one constant is changed, in Markdown."""
    yield from _rows(
        [
            "",
            *(f"beyond chance: {name}" for name in CHANNELS),
            "geometric mean of the thresholds",
            "F1 there",
            f"F1 at {paired.THRESHOLD:g}",
            "best F1",
        ]
    )
    yield _row(["as it is", *_measured()])
    for name in CONSTANTS:
        value = getattr(paired, name)
        for change in CHANGES:
            setattr(paired, name, value * change)
            yield _row([f"{name} {value * change:g}", *_measured()])
        setattr(paired, name, value)


def _measured() -> Iterator[str]:
    thresholds = []
    for name in CHANNELS:
        seen = found(*tissue.pictures(name), looks=tissue.LOOKS, voxel_nm=tissue.VOXEL_NM[name])
        thresholds.append(seen.threshold)
        assert seen.chance
        yield f"{len(seen) * (1 - seen.chance.share):,.0f}"
    psd, synapsin, marks = tissue.marked()
    seen = found(unsigned(psd), unsigned(synapsin), threshold=0.3, chance=False)

    def f1(threshold: float) -> float:
        return tissue.f1(seen.centres[seen.scores >= threshold, 1:], marks)

    mean = float(np.exp(np.mean(np.log(thresholds))))
    yield f"{mean:.2f}"
    yield from (f"{f1(threshold):.2f}" for threshold in (mean, paired.THRESHOLD))
    yield f"{max(map(f1, seen.scores)):.2f}"


def _rows(header: Sequence[str]) -> Iterator[str]:
    yield _row(header)
    yield _row(["---"] * len(header))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def of_tissue() -> bytes:
    """A PNG: a part of a section, PSD-95 in magenta and synapsin moved back in green; beside it what is found there."""
    psd, synapsin = tissue.pictures("array_tomography")
    seen = found(psd, synapsin)
    high, wide = psd.shape[1:]
    places = np.indices((high, wide)).reshape(2, -1).T
    there = (places - seen.across[SECTION].shift(places)).T.reshape(2, high, wide)
    moved = ndimage.map_coordinates(synapsin[SECTION].astype(np.float32), there, order=1)
    part = np.s_[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    labels = seen.labels[SECTION][part]  # whichever section holds an object's centre
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, np.unique(labels[labels > 0])))
    circles = np.insert(centres, 0, 0, axis=1)
    return _side_by_side(psd[SECTION][part], moved[part], [circles[:0], circles])


def of_marked() -> bytes:
    """A PNG: the marked crop with the person's marks, and with what is found."""
    psd, synapsin, marks = tissue.marked()
    seen = found(unsigned(psd), unsigned(synapsin))
    return _side_by_side(psd[0] * 255, synapsin[0] * 255, [np.insert(marks, 0, 0, axis=1), seen.centres])


def _side_by_side(magenta: Array, green: Array, circles: Sequence[Array]) -> bytes:
    shape = magenta.shape[0], magenta.shape[1]
    drawn = [
        Image.open(io.BytesIO(draw(magenta, green, shape=shape, centres=centres, radius=4, voxel_nm=(70, 100, 100))))
        for centres in circles
    ]
    wide, high = drawn[0].size
    both = Image.new("RGB", (2 * wide + 8, high), (255, 255, 255))
    for n, picture in enumerate(drawn):
        both.paste(picture, (n * (wide + 8), 0))
    out = io.BytesIO()
    both.save(out, "PNG", optimize=True)
    return out.getvalue()


def of_curves() -> str:
    """An SVG: found against chance share, a diagram for each data set and a line for each method."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDE + 20} {HIGH + 60}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for n, name in enumerate(CHANNELS):
        parts += [f'<g transform="translate({n * WIDE} 0)">', *_diagram(name), "</g>"]
    for n, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
        parts.append(f'<circle cx="{60 + 170 * n}" cy="{HIGH + 42}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{72 + 170 * n}" y="{HIGH + 46}">{html.escape(way)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _diagram(name: Name) -> Iterator[str]:
    def across(share: float) -> float:
        return 50 + share * (WIDE - 70)

    def up(count: float) -> float:
        return HIGH - 30 - (math.log10(count) - 1) / 3.4 * (HIGH - 60)

    yield f'<text x="{WIDE / 2}" y="18" text-anchor="middle" font-weight="bold">{name.replace("_", " ")}</text>'
    for tick in TICKS:
        yield f'<path d="M50 {up(tick):.1f}H{WIDE - 20}" stroke="#ddd"/>'
        yield f'<text x="46" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:,}</text>'
    for share in (0, 0.25, 0.5, 0.75, 1):
        dashes = ' stroke-dasharray="4 3"' if share == SHARE else ""
        yield f'<path d="M{across(share)} 30V{HIGH - 30}" stroke="{"#888" if dashes else "#ddd"}"{dashes}/>'
        yield f'<text x="{across(share)}" y="{HIGH - 14}" text-anchor="middle">{share:g}</text>'
    yield f'<text x="{WIDE / 2 + 15}" y="{HIGH + 4}" text-anchor="middle">chance share</text>'
    for way, colour in zip(WAYS, COLOURS, strict=True):
        curve = judged(name, way).curve
        points = [(across(min(1.05, chance / count)), up(count)) for _, count, chance, _ in curve if count >= TICKS[0]]
        drawn = dict.fromkeys(f"{x:.0f} {y:.0f}" for x, y in points)
        yield f'<path d="M{"L".join(drawn)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{points[-1][0]:.0f}" cy="{points[-1][1]:.0f}" r="3" fill="{colour}"/>'


if __name__ == "__main__":
    sys.exit(main())
