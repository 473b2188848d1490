"""Where SQLite's and PostgreSQL's SQL differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert


def insert(dialect: str, table: sa.Table) -> Insert:
    """An INSERT that may say what to do about a row that exists (ON CONFLICT)."""
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:  # the dialect that is not used costs a tenth of a second at start
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    return insert(table)
