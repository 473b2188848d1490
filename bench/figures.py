"""A measured figure, the line it is printed as, and whether it meets its goal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value, its goal `at_least` or `at_most`, and `floor`, a value of the same run to compare it with.

    `ratio_at_least` and `ratio_at_most` bound `value / floor`. A figure without any of the four is information.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    ratio_at_least: float | None = None
    ratio_at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value in units of its floor; None without one."""
        return self.value / self.floor if self.floor else None

    @property
    def has_goal(self) -> bool:
        """Whether the figure has a goal, and is more than information."""
        return bool(self._goals())

    @property
    def missed(self) -> bool:
        """Whether a goal is missed. A ratio that cannot be computed is a missed goal as well."""
        bounds = ((self.value, self.at_least, self.at_most), (self.ratio, self.ratio_at_least, self.ratio_at_most))
        for value, least, most in bounds:
            if least is not None and not (value is not None and value >= least):
                return True
            if most is not None and not (value is not None and value <= most):
                return True
        return False

    def __str__(self) -> str:
        """`name: value unit (floor F, ratio R, goal G)`, as far as there is a floor and a goal."""
        notes = []
        if self.floor is not None:
            notes.append(f"floor {_number(self.floor)}")
        if self.ratio is not None:
            notes.append(f"ratio {self.ratio:.2f}")
        if goals := self._goals():
            notes.append(f"goal {' and '.join(goals)}{': MISSED' if self.missed else ''}")
        return f"{self.name}: {_number(self.value)} {self.unit}" + (f" ({', '.join(notes)})" if notes else "")

    def _goals(self) -> list[str]:
        bounds = (
            ("≥ ", self.at_least),
            ("≤ ", self.at_most),
            ("ratio ≥ ", self.ratio_at_least),
            ("ratio ≤ ", self.ratio_at_most),
        )
        return [f"{sign}{_number(bound)}" for sign, bound in bounds if bound is not None]


def _number(value: float) -> str:
    """The value with three significant digits, and no exponent."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"


def summary(measured: Mapping[str, Sequence[Figure]]) -> str:
    """The missed goals by name, and how to measure them again; `measured` has the figures of each benchmark."""
    goals = [figure for figures in measured.values() for figure in figures if figure.has_goal]
    missed = [figure for figure in goals if figure.missed]
    if not missed:
        return f"No goal is missed: {len(goals)} of {len(goals)} are met."
    again = " ".join(name for name, figures in measured.items() if any(figure.missed for figure in figures))
    lines = [f"Missed goals: {len(missed)} of {len(goals)}.", *(f"- {figure}" for figure in missed)]
    return "\n".join([*lines, f'Measure again: make bench NAME="{again}"'])


def exit_code(figures: Iterable[Figure]) -> int:
    """1 if any goal is missed, else 0."""
    return int(any(figure.missed for figure in figures))
