"""The ways to run programs, by the name that NOMADS_COMPUTE gives them: a new one is a folder and a line here.

docs/adding-a-backend.md walks through it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

BACKENDS = {
    "local": "bot.local.backend",
    "aws": "bot.aws.backend",
    "slurm": "bot.slurm.backend",
}
"""Modules, by name. Each has `backend(…)`, which makes a `bot.application.ports.Backend`, and `SERVED_BY_THE_BOT`:
whether people reach results at the bot's own address. One with settings of its own has `SETTINGS`, their class, which
is read together with the others. A module is imported when needed, since SDKs are slow to load."""


def load(name: str) -> ModuleType:
    """Import the module of the backend of that name."""
    return import_module(BACKENDS[name])
