"""report.html: one page about a run, without scripts and external files, so that it opens anywhere.

`templates/report.html` escapes every value. The same content gives the same bytes. Charts are drawn for a telephone's
width, and take their colours from the page, which is light or dark as the reader prefers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 24
# Extent of a chart and margins of its axes, in pixels at full size.
_WIDE, _HIGH = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 12, 40


@dataclass(frozen=True, kw_only=True)
class Series:
    """One distribution of a chart: a value for each bin."""

    label: str
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One or two distributions over the same bins; `edges` has one number more than each series has values."""

    title: str
    across: str
    """What the horizontal axis shows, with its unit."""
    up: str
    edges: NDArray[np.float64]
    series: Sequence[Series]
    logarithmic: bool = False
    """Whether the horizontal axis is logarithmic."""
    said: str = ""
    """What the chart shows, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a header; the first column names the rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    shades: Sequence[Sequence[float]] | None = None
    """Colour of the cells after the first column, from -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    text: str = ""
    parts: Sequence[Chart | Table] = ()

    @property
    def tables(self) -> list[Table]:
        """The tables among the parts, in order; they stand before the charts."""
        return [part for part in self.parts if isinstance(part, Table)]

    @property
    def charts(self) -> list[Chart]:
        """The charts among the parts, in order."""
        return [part for part in self.parts if isinstance(part, Chart)]


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows, from top to bottom."""

    title: str
    about: str
    numbers: Sequence[tuple[str, str]]
    """Label and value, the first the most important."""
    notes: Sequence[str]
    picture: bytes
    """The picture, a PNG."""
    picture_said: str
    """What the picture shows, for readers who cannot see it."""
    key: Sequence[tuple[tuple[int, int, int], str]]
    """The picture's colours and what they mean."""
    sections: Sequence[Section]
    facts: Mapping[str, str]


def histogram(
    values: ArrayLike, *, title: str, across: str, up: str, unit: str = "", logarithmic: bool | None = None
) -> Chart:
    """The distribution of values, on a logarithmic axis where they spread over more than a factor of 30.

    `unit` follows the numbers in the chart's sentence. No values give an empty chart.
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
    """At most BINS + 1 whole edges in equal steps, from low to beyond high: each bin holds equally many integers."""
    step = max(1, -(-int(high - low + 1) // BINS))
    return np.arange(int(low), int(high) + step + 1, step, dtype=np.float64)


def bins(low: float, high: float, *, logarithmic: bool = False) -> NDArray[np.float64]:
    """BINS + 1 edges from low to high, or around a single value."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
        logarithmic = False
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # rounding must leave no value outside
    return edges


def render(page: Page) -> bytes:
    """The page's HTML, in UTF-8."""
    picture = base64.b64encode(page.picture).decode()
    return _template().render(page=page, picture=picture).encode()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["draw"] = _draw
    return environment.get_template("report.html")


@dataclass(frozen=True, kw_only=True)
class _Label:
    """A number beside an axis; `anchor` is SVG's text-anchor."""

    x: str
    y: str
    anchor: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """A chart for SVG, in pixels at full size, and its numbers as text."""

    wide: int = _WIDE
    high: int = _HIGH
    middle: str = f"{(_LEFT + _WIDE - _RIGHT) / 2:.0f}"
    """Middle of the horizontal axis."""
    labels: Sequence[_Label]
    lines: Sequence[str]
    """Paths of the horizontal lines."""
    outlines: Sequence[str]
    """A path for each series."""
    rows: Sequence[tuple[str, Sequence[str]]]
    """The bins: the edges as text, and each series' value."""


def _draw(chart: Chart) -> _Drawing:
    bottom, right = _HIGH - _BOTTOM, _WIDE - _RIGHT
    largest = max((float(series.values.max(initial=0)) for series in chart.series), default=0) or 1.0
    edges = np.log(chart.edges) if chart.logarithmic else chart.edges
    across = _LEFT + (edges - edges[0]) / (edges[-1] - edges[0]) * (right - _LEFT)

    def height(value: float) -> float:
        return bottom - value / largest * (bottom - _TOP)

    def outline(series: Series) -> str:
        steps = "".join(
            f"L{left:.1f} {height(value):.1f}L{end:.1f} {height(value):.1f}"
            for left, end, value in zip(across[:-1], across[1:], series.values, strict=True)
        )
        return f"M{across[0]:.1f} {bottom}{steps}L{across[-1]:.1f} {bottom}Z"

    last = len(chart.edges) - 1
    labels = [
        _Label(
            x=f"{across[place]:.1f}",
            y=str(bottom + 15),
            anchor={0: "start", last: "end"}.get(place, "middle"),
            text=_short(chart.edges[place]),
        )
        for place in ((0, last // 2, last) if last > 1 else (0, last))
    ]
    marks = (0.0, largest)
    labels += [
        _Label(x=str(_LEFT - 5), y=f"{height(value) + 4:.1f}", anchor="end", text=_short(value)) for value in marks
    ]
    return _Drawing(
        labels=labels,
        lines=[f"M{_LEFT} {height(value):.1f}H{right}" for value in marks],
        outlines=[outline(series) for series in chart.series],
        rows=[
            (f"{_short(low)} to {_short(high)}", [_short(series.values[i]) for series in chart.series])
            for i, (low, high) in enumerate(zip(chart.edges[:-1], chart.edges[1:], strict=True))
        ],
    )


def _short(number: float) -> str:
    """A number as people write it: three digits that count."""
    number = float(number)
    if number == 0:
        return "0"
    if 1e-3 <= abs(number) < 1e5:
        return f"{round(number):,}" if abs(number) >= 1000 else f"{number:.3g}"
    return f"{number:.1e}"
