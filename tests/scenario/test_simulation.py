"""The simulated lab: its seeds keep every promise, tell the same history again, and its judge notices broken code."""

from __future__ import annotations

import ast
import inspect
import itertools
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from bot.settings import ROOT
from simulation import crashes
from simulation.__main__ import TENTH, many, one
from simulation.incidents import What
from simulation.installation import Record
from simulation.judge import judged
from simulation.mutations import MUTATIONS, Mutation
from simulation.outside import CASTS, Workspace
from simulation.people import Action, Answer, People, form
from simulation.places import Emptied, Files
from simulation.run import Plan, run
from simulation.smaller import reduced, smaller
from tests.support.databases import Postgres
from tests.support.memory import (
    MemoryChat,
    MemoryCompute,
    MemoryEvents,
    MemoryMailer,
    MemoryResults,
    MemorySecrets,
    MemoryVolumes,
)

SEEDS, PARTS = 300, 6
FOUND = {
    128: "what blocks with twice the memory lost was told at the usual price",
    605: "who had stood still took what others did meanwhile for what lies ahead",
}
"""Seeds that have shown defects, and which. What happens in a seed changes with the code, so a mutation, with a seed of
its own, holds each defect that the lab has shown."""
SEARCH = 150
"""Seeds among which one has to notice a mutation."""
PORTS = {
    "chat": MemoryChat,
    "compute": MemoryCompute,
    "events": MemoryEvents,
    "mailer": MemoryMailer,
    "results": MemoryResults,
    "secrets": MemorySecrets,
    "volumes": MemoryVolumes,
    "workspace": Workspace,
}
CALLS = re.compile(r"_(?:call|asked)\(\"(\w+)\"")
FOR_OTHERS = ("Ledger.change", "Ledger.done")
"""What commits for the method that calls it, whose name the commit has."""
COMMITS = re.compile(r"(\w+\.)*(_?database\.(begin|write)|_?ledger\.(change|finish|done|replay))")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def emptied(_postgres: Postgres) -> Iterator[Emptied]:
    with _postgres.database(migrated=True) as url:
        yield Emptied(url)


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Sequence[crashes.Point]]:
    """The calls and commits of each way."""
    places = Files(tmp_path_factory.mktemp("ways"))
    return {way: crashes.points(way, places) for way in crashes.WAYS}


@pytest.fixture(scope="session")
def ways(points: Mapping[str, Sequence[crashes.Point]]) -> Mapping[str, Sequence[str]]:
    """The ways in which each name is met, in the order of the ways."""
    found: dict[str, list[str]] = {}
    for way, there in points.items():
        for name in dict.fromkeys(point.name for point in there):
            found.setdefault(name, []).append(way)
    return found


def played(seed: int, places: crashes.Places, plan: Plan | None = None) -> Record:
    with places() as urls:
        return run(seed, urls=urls, plan=plan)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_goes_wrong_every_promise_is_kept(part: int, files: Files, ways: Mapping[str, Sequence[str]]) -> None:
    for seed in range(1 + part, SEEDS + 1, PARTS):
        record = played(seed, files)
        assert judged(record) == [], f"python -m simulation --seed {seed}"
        assert set(record.points) <= ways.keys() | crashes.EXCEPTIONS.keys()


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_has_shown_a_defect_keeps_every_promise(seed: int, files: Files) -> None:
    assert judged(played(seed, files)) == [], FOUND[seed]


def test_three_bots_on_postgresql_keep_every_promise(emptied: Emptied) -> None:
    for seed in range(TENTH, SEEDS + 1, TENTH):
        assert judged(played(seed, emptied, Plan(bots=3))) == [], f"python -m simulation --seed {seed}"


def test_a_seed_tells_the_same_history_in_every_process(files: Files) -> None:
    here = played(6, files).history
    said = [
        subprocess.run(
            [sys.executable, "-m", "simulation", "--seed", "6", "--sqlite"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashing in ("1", "2")
    ]
    assert said[0] == said[1]
    assert said[0].splitlines()[:-1] == here
    assert len(here) > 10


def test_a_seed_on_postgresql_is_printed_and_leaves_its_server_in_order() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "simulation", "--seed", "10"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stderr == ""
    assert told.stdout.endswith("seed 10: every promise was kept\n")


def test_the_judge_notices_steps_that_stand_in_another_order(files: Files) -> None:
    seed = next(seed for seed in range(1, SEARCH) if _tells_three_steps(played(seed, files)))
    record = played(seed, files)
    [card] = record.outside.chat.cards
    first, second, *_ = [m for m in record.outside.chat.replies if m.thread == card.timestamp]
    first.steps, second.steps = second.steps, first.steps

    assert any(said.startswith("each step is told once and in order: ") for said in judged(record))


def _tells_three_steps(record: Record) -> bool:
    chat = record.outside.chat
    return record.calm and not record.others and len(chat.cards) == 1 and len(chat.replies) > 2


def test_a_second_click_is_on_the_card_of_the_first_one() -> None:
    people = People((), CASTS[0])
    click = Action(1, 5.0, (0.0, 0.3), "U1ADA", "retry", {"of": 0})
    submit = Action(0, 1.0, (0.0,), "U1ADA", "submit", form("V0"))
    people.answers.append(Answer(submit, 1.0, job="first"))
    assert people._target(click) == "first"

    people.answers.append(Answer(click, 5.0, job="second", said="retried first"))

    assert people._target(click) == "first"
    assert people._target(Action(2, 9.0, (0.0,), "U1ADA", "cancel", {"of": 0})) == "second"


def test_things_go_wrong_in_most_seeds(files: Files) -> None:
    records = [played(seed, files) for seed in range(1, 21)]
    assert sum(len(record.happened) > 0 for record in records) > 10
    assert sum(record.calm for record in records) < 10
    assert any("ends:" in line for record in records for line in record.history)


def test_who_asks_while_the_databases_process_is_away_hears_of_it_and_every_promise_is_kept(files: Files) -> None:
    records = [played(seed, files) for seed in (28, 29, 120, 121)]

    refused = [one for record in records for one in record.answers if one.said == "The database cannot be reached."]
    assert refused
    assert not any(one.acknowledged or one.job for one in refused)
    for record in records:
        there = [line for line in record.history if "the database" in line]
        assert [line.split(None, 2)[2].split(",")[0] for line in there] == [
            "the database ends",
            "the database is there again",
        ]
        assert judged(record) == []


def test_two_workspaces_share_an_account_and_the_judge_notices_what_crosses_between_them(files: Files) -> None:
    record = next(record for record in (played(seed, files) for seed in range(1, 60)) if _both_have_jobs(record))
    assert judged(record) == []

    [other] = record.others
    other.outside.chat.messages.append(record.outside.chat.cards[0])

    assert any(said.startswith("workspaces are apart: ") for said in judged(record))


def _both_have_jobs(record: Record) -> bool:
    return bool(record.others and record.outside.chat.cards and record.others[0].jobs)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_the_judge_notices_code_that_is_broken(mutation: Mutation, files: Files) -> None:
    for seed in (mutation.seed, *range(1, SEARCH)):
        with mutation.applied():
            broken = judged(played(seed, files, mutation.plan))
        if broken:
            assert judged(played(seed, files, mutation.plan)) == [], "or the mutation would have no part in it"
            return
    pytest.fail(f"no seed of {SEARCH} notices that {mutation.name}")


def test_the_judge_is_tested_in_forty_ways() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) >= 40


@pytest.mark.parametrize("way", crashes.WAYS)
def test_a_process_may_end_at_each_call_and_commit_of_each_way(
    way: str, files: Files, points: Mapping[str, Sequence[crashes.Point]], ways: Mapping[str, Sequence[str]]
) -> None:
    """In the first way in which a name is met everything is tried; in the other ones of MAIN, the worst two.

    In those of RARE nothing else is tried: `python -m simulation --crashes every` tries them whole.
    """
    assert judged(played(1, files, crashes.WAYS[way])) == []
    worst = (What.CRASH_AFTER, What.LOST) if way in crashes.MAIN else ()
    once = list({point.name: point for point in points[way]}.values())
    for point in once:
        for what in point.incidents if way == ways[point.name][0] else worst:
            assert crashes.broken(point, what, files) == [], f"{what} at call {point.number}, {point.name}"
    assert len(once) > (20 if way in crashes.MAIN else 15)


def test_the_table_of_crashes_names_every_call_and_commit_of_every_way_and_no_other(
    ways: Mapping[str, Sequence[str]],
) -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    numbers = {way: number for number, way in enumerate(crashes.WAYS, 1)}
    table = page.partition("| call or commit | in the ways |\n|---|---|\n")[2].partition("\n\n")[0]
    assert sorted(table.splitlines()) == sorted(
        f"| `{name}` | {_spans([numbers[way] for way in there])} |" for name, there in ways.items()
    )
    assert [line for line in page.splitlines() if re.match(r"\d+\. ", line)] == [
        f"{number}. {way}" for way, number in numbers.items()
    ]
    assert all(f"`{name}`" in page for name in crashes.EXCEPTIONS)


def _spans(numbers: Sequence[int]) -> str:
    """Numbers in words: 1 to 3, 5."""
    groups = itertools.groupby(enumerate(numbers), lambda one: one[1] - one[0])
    found = [[number for _, number in group] for _, group in groups]
    return ", ".join(f"{some[0]} to {some[-1]}" if len(some) > 2 else ", ".join(map(str, some)) for some in found)


def test_every_call_of_a_port_and_every_method_that_commits_is_in_a_way_or_a_named_exception(
    ways: Mapping[str, Sequence[str]],
) -> None:
    calls = {f"{port}.{name}" for port, fake in PORTS.items() for name in CALLS.findall(inspect.getsource(fake))}
    application = ROOT / "bot" / "application"
    commits = {
        f"commit {name}"
        for path in application.rglob("*.py")
        for name in _committing(ast.parse(path.read_text(encoding="utf-8")))
        if name not in FOR_OTHERS
    }
    assert ways.keys() | crashes.EXCEPTIONS.keys() == calls | commits
    assert not ways.keys() & crashes.EXCEPTIONS.keys()


def _committing(tree: ast.AST, within: str = "") -> Iterator[str]:
    """The functions in which something is committed."""
    if isinstance(tree, ast.ClassDef | ast.FunctionDef):
        within = f"{within}.{tree.name}".lstrip(".")
    if isinstance(tree, ast.Call) and COMMITS.fullmatch(ast.unparse(tree.func)):
        yield within
    for node in ast.iter_child_nodes(tree):
        yield from _committing(node, within)


def test_a_failing_run_is_made_smaller_and_still_fails(files: Files) -> None:
    mutation = next(one for one in MUTATIONS if one.name == "a submission in doubt is not looked for")
    with mutation.applied():
        seed = next(seed for seed in range(1, SEARCH) if judged(played(seed, files)))
        first = played(seed, files)
        plan, small = smaller(Plan(), first, lambda tried: played(seed, files, tried))
    assert judged(small) != []
    assert plan.actions
    assert len(plan.actions[0]) <= len(first.actions)
    assert len(small.history) <= len(first.history)


def test_a_failing_run_of_two_workspaces_is_made_smaller_too(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(record: Record) -> list[str]:
        return ["both have jobs"] if _both_have_jobs(record) else []

    seed = next(seed for seed in range(1, 60) if both(played(seed, files)))
    first = played(seed, files)
    monkeypatch.setattr("simulation.smaller.judged", both)

    plan, small = smaller(Plan(), first, lambda tried: played(seed, files, tried))

    assert both(small)
    assert [len(actions) for actions in plan.actions or ()] == [1, 1], "somebody submits in each"
    assert plan.only == []


def test_of_a_list_the_smallest_part_that_fails_is_found() -> None:
    assert reduced(list(range(20)), lambda some: 3 in some and 17 in some) == [3, 17]
    assert reduced(list(range(20)), lambda some: True) == []
    assert reduced(["a", "b", "c"], lambda some: some in (["a", "b", "c"], ["a", "b"], ["b"])) == ["b"]


def test_a_seed_is_printed_with_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.manager.disable
    assert one(1, sqlite=True) == 0
    assert logging.root.manager.disable == before, "or later tests would see no log"
    out = capsys.readouterr().out
    assert "bot-1 begins" in out
    assert out.endswith("seed 1: every promise was kept\n")


@pytest.mark.parametrize("seeds", [one, lambda seed, sqlite: many(seed, 1, jobs=1, sqlite=sqlite)], ids=["one", "many"])
def test_a_seed_that_breaks_a_promise_is_printed_and_made_smaller(
    seeds: Callable[..., int], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    mutation = next(one for one in MUTATIONS if one.name == "a submission in doubt is not looked for")
    with mutation.applied():
        seed = next(seed for seed in range(1, SEARCH) if judged(played(seed, files)))
        assert seeds(seed, sqlite=True) == 1
    history, _, reduced = capsys.readouterr().out.partition("made smaller:\n")
    assert "bot-1 begins" in history
    assert f"seed {seed}: " in history
    assert "bot-1 begins" in reduced
    assert len(reduced) < len(history)


def test_a_crash_within_a_commit_undoes_it(files: Files) -> None:
    point = next(point for point in crashes.points("a job", files) if point.name == "commit Submission._take")
    plan = Plan(**{**vars(crashes.WAYS["a job"]), "crash": (point.number, What.CRASH_WITHIN)})
    record = played(1, files, plan)
    assert record.jobs == {}
    assert [answer.acknowledged for answer in record.answers if answer.action.what == "submit"] == [False]
