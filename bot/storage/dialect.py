"""What the two databases say differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert


def insert(dialect: str, table: sa.Table) -> Insert:
    """An insert that may say what to do about a row that is there."""
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:  # the one that is not used costs a tenth of a second at start
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    return insert(table)
