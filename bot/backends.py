"""The ways to run programs, by the name that NOMADS_COMPUTE gives them: a new one is a folder and a line here.

docs/adding-a-backend.md walks through it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

BACKENDS = {
    "local": "bot.local.backend",
    "aws": "bot.aws.backend",
}
"""Each module has `backend(…)`, which makes a `bot.application.ports.Backend`, and `SERVED_BY_THE_BOT`, which says
whether people reach results at the bot's own address. It is imported when it is needed: an SDK takes its time."""


def load(name: str) -> ModuleType:
    """The backend's module."""
    return import_module(BACKENDS[name])
