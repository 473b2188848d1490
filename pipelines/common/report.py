"""report.html: one page that shows a run by itself. No script and nothing from elsewhere, so it opens anywhere.

The same content gives the same bytes. Charts are drawn for a column of a telephone's width, and take their colours from
the page, which is light or dark as the reader likes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 24
_WIDE, _HIGH = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 12, 40
"""Of a chart, and the margins of its axes, in pixels at full size."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One distribution of a chart: how much lies between each two edges."""

    label: str
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One or two distributions over the same edges, of which there is one more than values."""

    title: str
    across: str
    """What the horizontal axis counts, with its unit."""
    up: str
    edges: NDArray[np.float64]
    series: Sequence[Series]
    logarithmic: bool = False
    """The edges stand at equal ratios."""
    said: str = ""
    """What the chart shows, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a header; the first column names the rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    shades: Sequence[Sequence[float]] | None = None
    """From -1 to 1, how much the cells after the first column are coloured."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    text: str = ""
    parts: Sequence[Chart | Table] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows, from top to bottom."""

    title: str
    about: str
    numbers: Sequence[tuple[str, str]]
    """Label and value, the first the most important."""
    notes: Sequence[str]
    picture: bytes
    """A PNG."""
    picture_said: str
    """What the picture shows, for who cannot see it."""
    key: Sequence[tuple[tuple[int, int, int], str]]
    """The picture's colours and what they mean."""
    sections: Sequence[Section]
    facts: Mapping[str, str]


def histogram(
    values: ArrayLike, *, title: str, across: str, up: str, unit: str = "", logarithmic: bool | None = None
) -> Chart:
    """The distribution of values, on a logarithmic axis where they spread over more than a factor of 30.

    `unit` follows numbers in the sentence that says it. No values give an empty chart.
    """
    values = np.asarray(values, np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if logarithmic is None:
        logarithmic = low > 0 and high > 30 * low
    edges = bins(low, high, logarithmic=logarithmic)
    counts = np.histogram(values, edges)[0].astype(np.float64)
    if values.size:
        below, middle, above = np.percentile(values, (5, 50, 95))
        said = f"Median {middle:.3g}{unit}; nine in ten lie between {below:.3g} and {above:.3g}{unit}."
    else:
        said = "There is nothing to count."
    return Chart(
        title=title,
        across=across,
        up=up,
        edges=edges,
        series=[Series(label=up, values=counts)],
        logarithmic=logarithmic,
        said=said,
    )


def whole_bins(low: float, high: float) -> NDArray[np.float64]:
    """At most BINS + 1 whole numbers in equal steps, from low to beyond high: bins that each hold as many values."""
    step = max(1, -(-int(high - low + 1) // BINS))
    return np.arange(int(low), int(high) + step + 1, step, dtype=np.float64)


def bins(low: float, high: float, *, logarithmic: bool = False) -> NDArray[np.float64]:
    """BINS + 1 edges from low to high, or round about a single value."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
        logarithmic = False
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # rounding must leave no value outside
    return edges


def render(page: Page) -> bytes:
    """The page as UTF-8."""
    first, *others = page.numbers
    numbers = "".join(f"<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>" for label, value in others)
    notes = "".join(f"<li>{_text(note)}</li>" for note in page.notes)
    key = "".join(
        f"<li><span class='spot' style='background:rgb{colour}'></span>{_text(meaning)}</li>"
        for colour, meaning in page.key
    )
    facts = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in page.facts.items())
    picture = base64.b64encode(page.picture).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(page.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{_text(page.title)}</h1>
<p>{_text(page.about)}</p>
</header>
<dl class="numbers"><div class="first"><dt>{_text(first[0])}</dt><dd>{_text(first[1])}</dd></div>{numbers}</dl>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
<section>
<h2>Preview</h2>
<figure class="picture">
<img src="data:image/png;base64,{picture}" alt="{_text(page.picture_said)}">
<figcaption><ul class="key">{key}</ul></figcaption>
</figure>
</section>
{"".join(_section(section) for section in page.sections)}
<section>
<h2>How this was made</h2>
<dl class="facts">{facts}</dl>
</section>
</main>
</body>
</html>
""".encode()


def _text(text: str) -> str:
    return escape(text, quote=True)


def _section(section: Section) -> str:
    charts = [part for part in section.parts if isinstance(part, Chart)]
    tables = [part for part in section.parts if isinstance(part, Table)]
    drawn = f'<div class="charts">{"".join(map(_chart, charts))}</div>' if charts else ""
    said = f"<p>{_text(section.text)}</p>" if section.text else ""
    return f"<section>\n<h2>{_text(section.title)}</h2>\n{said}{''.join(map(_table, tables))}{drawn}\n</section>\n"


def _table(table: Table) -> str:
    header = "".join(f"<th scope='col'>{_text(name)}</th>" for name in table.header)
    rows = ""
    for number, (name, *cells) in enumerate(table.rows):
        rows += f"<tr><th scope='row'>{_text(name)}</th>"
        for column, cell in enumerate(cells):
            shade = table.shades[number][column] if table.shades else 0.0
            colour = "var(--one)" if shade >= 0 else "var(--two)"
            style = (
                f" style='background:color-mix(in srgb,{colour} {abs(shade) * 45:.0f}%,transparent)'" if shade else ""
            )
            rows += f"<td{style}>{_text(cell)}</td>"
        rows += "</tr>"
    return (
        f"<h3>{_text(table.title)}</h3>"
        f"<div class='wide' tabindex='0' role='region' aria-label='{_text(table.title)}'>"
        f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _chart(chart: Chart) -> str:
    """A figure: the drawing, what it shows in words, and its numbers for who would rather read them."""
    bottom, right = _HIGH - _BOTTOM, _WIDE - _RIGHT
    largest = max((float(series.values.max(initial=0)) for series in chart.series), default=0) or 1.0
    edges = np.log(chart.edges) if chart.logarithmic else chart.edges
    across = _LEFT + (edges - edges[0]) / (edges[-1] - edges[0]) * (right - _LEFT)

    def height(value: float) -> float:
        return bottom - value / largest * (bottom - _TOP)

    shapes = []
    for number, series in enumerate(chart.series):
        outline = [f"M{across[0]:.1f} {bottom}"]
        outline += [
            f"L{left:.1f} {height(value):.1f}L{end:.1f} {height(value):.1f}"
            for left, end, value in zip(across[:-1], across[1:], series.values, strict=True)
        ]
        shapes.append(f"<path class='series{number}' d='{''.join(outline)}L{across[-1]:.1f} {bottom}Z'/>")
    ticks = ""
    last = len(chart.edges) - 1
    for place in (0, last // 2, last) if last > 1 else (0, last):
        anchor = {0: "start", last: "end"}.get(place, "middle")
        at = f"x='{across[place]:.1f}' y='{bottom + 15}' text-anchor='{anchor}'"
        ticks += f"<text {at}>{_short(chart.edges[place])}</text>"
    for value in (0.0, largest):
        ticks += f"<text x='{_LEFT - 5}' y='{height(value) + 4:.1f}' text-anchor='end'>{_short(value)}</text>"
        ticks += f"<path class='line' d='M{_LEFT} {height(value):.1f}H{right}'/>"
    key = ""
    if len(chart.series) > 1:
        key = "".join(
            f"<li><span class='spot series{n}'></span>{_text(series.label)}</li>"
            for n, series in enumerate(chart.series)
        )
        key = f"<ul class='key'>{key}</ul>"
    names = "".join(f"<th scope='col'>{_text(series.label)}</th>" for series in chart.series)
    rows = "".join(
        f"<tr><th scope='row'>{_short(a)} to {_short(b)}</th>"
        + "".join(f"<td>{_short(series.values[i])}</td>" for series in chart.series)
        + "</tr>"
        for i, (a, b) in enumerate(zip(chart.edges[:-1], chart.edges[1:], strict=True))
    )
    return f"""<figure>
<h3>{_text(chart.title)}</h3>
<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{_text(f"{chart.title}. {chart.said}")}">
{ticks}{"".join(shapes)}
<text x="{(_LEFT + right) / 2:.0f}" y="{_HIGH - 8}" text-anchor="middle">{_text(chart.across)}</text>
</svg>
<figcaption>{key}{_text(chart.said)}
<details><summary>Numbers</summary><div class="wide" tabindex="0" role="region" aria-label="{_text(chart.title)}">
<table><thead><tr><th scope="col">{_text(chart.across)}</th>{names}</tr></thead>
<tbody>{rows}</tbody></table></div></details></figcaption>
</figure>
"""


def _short(number: float) -> str:
    """A number as people write it: three digits that count."""
    number = float(number)
    if number == 0:
        return "0"
    if 1e-3 <= abs(number) < 1e5:
        return f"{round(number):,}" if abs(number) >= 1000 else f"{number:.3g}"
    return f"{number:.1e}"


_STYLE = """
:root{--ink:#1b1f24;--soft:#555e68;--paper:#fff;--card:#f3f5f7;--line:#d5dae0;--one:#1f6fb2;--two:#c2571a}
@media (prefers-color-scheme:dark){
:root{--ink:#e8ebee;--soft:#aab3bd;--paper:#14171a;--card:#1f2429;--line:#3a424a;--one:#6cb4ee;--two:#f0a06a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1rem 0 .25rem}
figure h3{margin-top:0}
header p,figcaption,.facts dt,.numbers dt{color:var(--soft)}
dl,dd,figure,ul{margin:0;padding:0}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.5rem;margin:1rem 0}
.numbers div,figure{background:var(--card);border-radius:.5rem;padding:.75rem}
.numbers dt{font-size:.85rem}
.numbers dd{font-size:1.25rem;font-weight:600;overflow-wrap:anywhere}
.numbers .first dd{font-size:1.75rem}
.notes{padding-left:1.2rem;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18.5rem),1fr));gap:1rem;margin-top:1rem}
.picture img{display:block;max-width:100%;height:auto;margin:0 auto .5rem}
svg{display:block;width:100%;height:auto;max-width:30rem}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.line{stroke:var(--line);fill:none}
path.series0{fill:var(--one)}
path.series1{fill:none;stroke:var(--two);stroke-width:2}
span.series0{background:var(--one)}
span.series1{background:var(--two)}
figcaption{font-size:.9rem}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin-bottom:.25rem}
.spot{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em;border:1px solid var(--soft)}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left}
th{font-weight:500}
summary{cursor:pointer;padding:.25rem 0}
.facts div{display:flex;flex-wrap:wrap;gap:0 1rem;padding:.2rem 0;border-bottom:1px solid var(--line)}
.facts dt{flex:0 0 11rem}
.facts dd{flex:1 1 12rem;overflow-wrap:anywhere}
a:focus-visible,summary:focus-visible,.wide:focus-visible{outline:2px solid var(--one);outline-offset:2px}
"""
