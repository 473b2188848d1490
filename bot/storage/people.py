"""The table of people."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.domain.people import Person, Preferences, Steps
from bot.storage.dialect import insert
from bot.storage.tables import people

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

_PERSON = sa.select(people).where(people.c.person == sa.bindparam("wanted"))


class People:
    """People within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, person: str) -> Person:
        """The person's row; an empty Person where there is none."""
        row = self._connection.execute(_PERSON, {"wanted": person}).one_or_none()
        if row is None:
            return Person()
        return Person(
            token_ref=row.token_ref,
            token_end=row.token_end,
            token_at=row.token_at,
            last_request=row.last_request,
            preferences=Preferences(Steps(row.steps), row.mention, row.mail),
            home_opened_at=row.home_opened_at,
            home_shown_at=row.home_shown_at,
        )

    def change(self, person: str, **values: Any) -> None:
        """Set columns of the person's row, which is inserted where there is none."""
        statement = _upsert(self._connection.dialect.name, tuple(values))
        self._connection.execute(statement, {"person": person, **values})


@lru_cache  # to build a statement takes longer than to execute it
def _upsert(dialect: str, columns: tuple[str, ...]) -> Insert:
    made = insert(dialect, people)
    return made.on_conflict_do_update(
        index_elements=[people.c.person], set_={name: made.excluded[name] for name in columns}
    )
