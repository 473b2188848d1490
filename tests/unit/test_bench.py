"""What `make bench` prints, and when it fails; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from slack_sdk.signature import SignatureVerifier

from bench import detection
from bench.__main__ import main
from bench.figures import Figure, exit_code, summary
from bench.parts.load import signed
from bench.tissue import main as draw_figures
from bench.tissue import missing, table
from tests.support import tissue


def test_a_figure_is_a_line_with_its_floor_ratio_and_goal() -> None:
    figure = Figure(name="modals", value=467.2, unit="/s", floor=549, ratio_at_least=0.5)
    assert str(figure) == "modals: 467 /s (floor 549, ratio 0.85, goal ratio ≥ 0.5)"


def test_a_figure_without_floor_or_goal_is_its_name_and_value() -> None:
    assert str(Figure(name="accepting", value=1.274, unit="ms")) == "accepting: 1.27 ms"


def test_a_missed_goal_says_so_in_its_line() -> None:
    assert str(Figure(name="help", value=0.5, unit="s", at_most=0.4)) == "help: 0.5 s (goal ≤ 0.4: MISSED)"


@pytest.mark.parametrize(
    ("figure", "missed"),
    [
        (Figure(name="a", value=200, unit="/s", at_least=200), False),
        (Figure(name="a", value=199.9, unit="/s", at_least=200), True),
        (Figure(name="a", value=250, unit="ms", at_most=250), False),
        (Figure(name="a", value=250.1, unit="ms", at_most=250), True),
        (Figure(name="a", value=50, unit="/s", floor=100, ratio_at_least=0.5), False),
        (Figure(name="a", value=49, unit="/s", floor=100, ratio_at_least=0.5), True),
        (Figure(name="a", value=121, unit="s", floor=100, ratio_at_most=1.2), True),
        (Figure(name="a", value=210, unit="/s", floor=300, at_least=200, ratio_at_least=0.83), True),
        (Figure(name="a", value=50, unit="/s", ratio_at_least=0.5), True),
        (Figure(name="a", value=float("nan"), unit="/s", at_least=1), True),
        (Figure(name="a", value=1, unit="/s"), False),
    ],
)
def test_a_goal_is_met_at_its_bound_and_missed_beyond_it_or_without_its_floor(figure: Figure, missed: bool) -> None:
    assert figure.missed is missed
    assert exit_code([figure]) == missed


def slow() -> Iterator[Figure]:
    """One goal missed, one figure without a goal."""
    yield Figure(name="slow", value=3, unit="s", at_most=2)
    yield Figure(name="slow, memory", value=80, unit="MB")


def quick() -> Iterator[Figure]:
    """One goal met."""
    yield Figure(name="quick", value=1, unit="s", at_most=2)


def test_every_figure_is_printed_and_then_the_missed_goals_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {"slow": slow, "quick": quick}) == 1
    machine, *lines = capsys.readouterr().out.splitlines()
    assert machine.startswith("machine: ")
    assert lines == [
        "slow: 3 s (goal ≤ 2: MISSED)",
        "slow, memory: 80 MB",
        "quick: 1 s (goal ≤ 2)",
        "",
        "Missed goals: 1 of 2.",
        "- slow: 3 s (goal ≤ 2: MISSED)",
        'Measure again: make bench NAME="slow"',
    ]


def test_named_benchmarks_alone_are_run_and_where_nothing_is_missed_the_end_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["quick", "quick"], {"slow": slow, "quick": quick}) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "quick: 1 s (goal ≤ 2)",
        "",
        "No goal is missed: 1 of 1 are met.",
    ]


def test_the_benchmarks_with_missed_goals_are_those_to_measure_again() -> None:
    measured = {"a": list(slow()), "b": list(quick()), "c": [*slow(), *slow()]}
    assert summary(measured).splitlines()[0] == "Missed goals: 3 of 4."
    assert summary(measured).splitlines()[-1] == 'Measure again: make bench NAME="a c"'


def test_a_benchmark_nobody_knows_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["nothing"], {})
    assert end.value.code == 2
    assert "there is no nothing" in capsys.readouterr().err


def test_the_load_generator_signs_as_slack_does_and_numbers_its_requests() -> None:
    requests = signed(url="http://127.0.0.1:1/slack/events", body="view=V##", count=2, secret="s", mark="##")
    bodies = [request.partition(b"\r\n\r\n")[2].decode() for request in requests]
    assert bodies == ["view=V00000000", "view=V00000001"]
    for request, body in zip(requests, bodies, strict=True):
        head = request.partition(b"\r\n\r\n")[0].decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert SignatureVerifier("s").is_valid_request(body, headers)


def test_where_the_real_data_are_not_there_the_benchmark_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tissue, "FOLDER", tmp_path)

    assert list(detection._tissue()) == []
    assert capsys.readouterr().out == f"{missing()}\n"
    assert str(tmp_path) in missing()


def test_no_figure_is_drawn_without_the_real_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tissue, "FOLDER", tmp_path)
    monkeypatch.setattr("bench.tissue.DOCS", tmp_path)

    assert draw_figures([]) == 1
    assert capsys.readouterr().out == f"{missing()}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_a_goal_and_a_column_for_each_method_and_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tissue.Judged(found=1234, share=0.25, excess=925, curve=np.zeros((0, 4)))
    monkeypatch.setattr("bench.tissue.judged", lambda name, way: seen)
    monkeypatch.setattr(tissue, "f1_of_marked", lambda way: 0.8)
    header, _, *rows = table()

    assert header == "| real data | goal | paired | probabilistic | nomads2018 | difference of Gaussians |"
    assert [row.split(" | ")[1] for row in rows] == ["3,500", "", "2,200", "", "600", "", "0.85"]
    assert rows[0] == "| cultures_excitatory: beyond chance at a share of 0.25 | 3,500 | 925 | 925 | 925 | 925 |"
    assert rows[1] == "| cultures_excitatory: found, chance share |  |" + " 1,234, 0.25 |" * 4
    assert {row.count("|") for row in rows} == {header.count("|")}
