"""Trying again while trouble may pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from contract.retries import Transient, patiently


def failing(times: int) -> Callable[[], str]:
    """A call that fails so often before it answers."""
    left = iter(range(times))

    def attempt() -> str:
        if next(left, None) is not None:
            raise Transient("it gave no answer")
        return "an answer"

    return attempt


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def assert_about(slept: list[float], pauses: Sequence[float]) -> None:
    """Each pause is as long as it should be, or up to half as much longer, by chance."""
    assert all(1 <= long / pause <= 1.5 for long, pause in zip(slept, pauses, strict=True))


def test_many_programs_do_not_come_back_at_one_moment(slept: list[float]) -> None:
    for _ in range(20):
        patiently(failing(1), pauses=(1,), given_up=ValueError)
    assert len(set(slept)) > 15


@pytest.mark.parametrize("times", [0, 1, 3])
def test_it_tries_again_after_each_pause(slept: list[float], times: int) -> None:
    assert patiently(failing(times), pauses=(1, 2, 4), given_up=ValueError) == "an answer"
    assert_about(slept, [1, 2, 4][:times])


def test_after_the_last_try_it_says_how_often_it_failed_and_why(slept: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^failed 4 times in a row: it gave no answer\. Try again later\.$"):
        patiently(failing(4), pauses=(1, 2, 4), given_up=ValueError)
    assert_about(slept, [1, 2, 4])


def test_what_will_not_pass_is_raised_at_once(slept: list[float]) -> None:
    def refused() -> None:
        raise KeyError("the token")

    with pytest.raises(KeyError):
        patiently(refused, pauses=(1, 2, 4), given_up=ValueError)
    assert slept == []
