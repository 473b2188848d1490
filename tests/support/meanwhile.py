"""Letting something happen in the middle of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def meanwhile(monkeypatch: pytest.MonkeyPatch, owner: object, call: str, happens: Callable[[], object]) -> None:
    """Let something happen each time that this is called, and before it answers."""
    answer = getattr(owner, call)

    def called(*args: Any, **more: Any) -> Any:
        happens()
        return answer(*args, **more)

    monkeypatch.setattr(owner, call, called)
