"""A failing run, made smaller: fewer people's actions, and fewer incidents, that break a promise all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from simulation.installation import Record
from simulation.judge import judged
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

    if first.others and fails(replace(plan, workspaces=1)):
        plan, first = replace(plan, workspaces=1), best
    elif first.others:  # what the people of both do cannot be left out one by one
        return plan, first
    plan = replace(plan, actions=list(first.actions), only=sorted(set(first.happened)))
    if not fails(plan):  # incidents have a part in who acts next; then nothing can be left out
        return replace(plan, actions=None, only=None), first
    if fails(replace(plan, disturbed=False)):
        plan = replace(plan, disturbed=False)
    incidents = reduced(list(plan.only or ()), lambda some: fails(replace(plan, only=some)))
    plan = replace(plan, only=incidents)
    actions = reduced(list(plan.actions or ()), lambda some: fails(replace(plan, actions=some)))
    return replace(plan, actions=actions), best


def reduced(all_of_them: Sequence[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """A part of a list, in its order, that still fails, of which no single one can be left out."""
    found, size = list(all_of_them), max(1, len(all_of_them) // 2)
    while found:
        at = 0
        while at < len(found):
            fewer = found[:at] + found[at + size :]
            if fails(fewer):
                found = fewer
            else:
                at += size
        if size == 1:
            break
        size = max(1, size // 2)
    return found
