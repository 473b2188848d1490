"""A failing run, made smaller: fewer people's actions, and fewer incidents, that break a promise all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from simulation.installation import Record
from simulation.judge import judged
from simulation.people import Action
from simulation.run import Plan

T = TypeVar("T")
MOST = 300
"""Runs, at most, that a search takes."""


def smaller(plan: Plan, first: Record, play: Callable[[Plan], Record]) -> tuple[Plan, Record]:
    """The smallest plan that was found, and its run. `play` runs a plan; `first` is the failing run of `plan`."""
    left = [MOST]
    best = first

    def fails(tried: Plan) -> bool:
        nonlocal best
        if left[0] <= 0:
            return False
        left[0] -= 1
        record = play(tried)
        if judged(record):
            best = record
            return True
        return False

    people = [record.actions for record in (first, *first.others)]
    plan = replace(plan, actions=people, only=sorted(set(first.happened)))
    if first.others and fails(replace(plan, actions=people[:1])):
        plan = replace(plan, actions=people[:1])
    elif not fails(plan):  # incidents have a part in who acts next; then nothing can be left out
        return replace(plan, actions=None, only=None), first
    if fails(replace(plan, disturbed=False)):
        plan = replace(plan, disturbed=False)
    incidents = reduced(list(plan.only or ()), lambda some: fails(replace(plan, only=some)))
    plan = replace(plan, only=incidents)
    actions = reduced(_dealt(plan.actions or ()), lambda some: fails(replace(plan, actions=_of_each(some, plan))))
    return replace(plan, actions=_of_each(actions, plan)), best


def _dealt(people: Sequence[Sequence[Action]]) -> list[tuple[int, Action]]:
    """Each action with the number of its workspace."""
    return [(number, action) for number, actions in enumerate(people) for action in actions]


def _of_each(some: Sequence[tuple[int, Action]], plan: Plan) -> list[list[Action]]:
    """The actions of each workspace of the plan."""
    return [[action for number, action in some if number == here] for here in range(len(plan.actions or ()))]


def reduced(all_of_them: Sequence[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """A part of a list, in its order, that still fails, of which no single one can be left out."""
    found, size = list(all_of_them), max(1, len(all_of_them) // 2)
    while found:
        at, before = 0, len(found)
        while at < len(found):
            fewer = found[:at] + found[at + size :]
            if fails(fewer):
                found = fewer
            else:
                at += size
        if size == 1 and len(found) == before:  # one may go once a later one has gone
            break
        size = max(1, size // 2)
    return found
