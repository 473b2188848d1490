"""Counts the SQL statements of lists, status and home tab."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bench.processes import questions, say
from bot.app import build_core
from bot.application.queries import Queries, Which
from bot.domain.errors import UnknownJob
from bot.domain.people import TERMINAL
from bot.settings import Settings

ADMIN = f"{TERMINAL}bench"
"""Somebody who may see every job, without a question to chat."""


def main() -> None:
    """Count, for every question: an `actor`, a `job`, a job far `down` the list and a `wrong` name."""
    core = build_core(Settings(_env_file=None))
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):  # PostgreSQL's driver begins transactions by itself
            statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    say()
    for question in questions():
        counts = {}
        for name, look in _looks(core.queries, **question).items():
            statements.clear()
            look()
            counts[name] = len(statements)
        say(**counts)
    core.close()


def _looks(queries: Queries, *, actor: str, job: str, down: str, wrong: str) -> dict[str, Any]:
    def unknown() -> None:
        try:
            queries.named(wrong, actor=ADMIN)
        except UnknownJob:
            return
        raise RuntimeError(f"there is a job {wrong}")

    return {
        "a page of 1": lambda: queries.page(Which.ALL, actor=ADMIN, most=1),
        "a page": lambda: queries.page(Which.ALL, actor=ADMIN),
        "a page of one's own": lambda: queries.page(Which.MINE, actor=actor),
        "a page far down": lambda: queries.page(Which.ALL, actor=ADMIN, before=down),
        "home": lambda: queries.home(actor),
        "status": lambda: queries.named(job, actor=ADMIN),
        "a wrong name": unknown,
    }


if __name__ == "__main__":
    main()
