"""What a program says in its results.json, and what of it is taken."""

from __future__ import annotations

import json

import pytest

from bot.domain import words
from bot.domain.summary import Summary, Unreadable


@pytest.mark.parametrize("density", ["1" + "0" * 400, "1e999", "-1", "true", '"x"'])
def test_a_number_that_can_be_no_density_costs_no_counts(density: str) -> None:
    summary = Summary.read(f'{{"counts": {{"synapses": 3}}, "density_per_um3": {density}}}'.encode())
    assert (summary.counts, summary.density_per_um3) == ({"synapses": 3}, None)


def test_a_density_of_minus_nothing_is_nothing() -> None:
    summary = Summary.read(b'{"counts": {"synapses": 0}, "density_per_um3": -0.0}')
    assert summary.found == "0 synapses, 0 per \u00b5m\u00b3"


@pytest.mark.parametrize("name", ["\u3164", "\u2800", "\u115f\u1160", "\uffa0"])
def test_a_count_whose_name_shows_nothing_is_not_taken(name: str) -> None:
    with pytest.raises(Unreadable, match="a count is a name and a number"):
        Summary.read(json.dumps({"counts": {name: 1}}).encode())


def test_a_line_that_a_program_printed_makes_nothing_bold_italic_or_code_in_slack() -> None:
    shown = words.unmarked("*bold* _it_ ~gone~ ```code``` <!here> ac4_demo")
    assert "`" not in shown
    assert "<" not in shown
    assert "ac4_demo" in shown, "a name can be copied"
    assert shown.replace("\u2060", "") == "*bold* _it_ ~gone~ '''code''' &lt;!here&gt; ac4_demo"
    assert all(f"\u2060{mark}\u2060" in shown for mark in "*_~")
