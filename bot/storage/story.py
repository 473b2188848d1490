"""The tables of a job's story: the states the job entered, and its messages in chat."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.domain.job import Transition
from bot.domain.states import JobState
from bot.storage.tables import Utc, messages, transitions

_TRANSITIONS = (
    sa.select(
        transitions.c.state,
        transitions.c.at,
        transitions.c.text,
        transitions.c.reply,
        transitions.c.note,
        transitions.c.number,
    )
    .where(transitions.c.job_id == sa.bindparam("job"))
    .order_by(transitions.c.number)
)
_theirs = transitions.alias("theirs")
_NEXT = (
    sa.select(sa.func.coalesce(sa.func.max(_theirs.c.number), 0) + 1)
    .where(_theirs.c.job_id == sa.bindparam("job"))
    .scalar_subquery()
)
_ENTER = transitions.insert().values(
    job_id=sa.bindparam("job"),
    number=_NEXT,
    state=sa.bindparam("entered"),
    at=sa.bindparam("when", type_=Utc),
    text=sa.bindparam("words"),
    reply=sa.bindparam("told_in"),
    note=sa.bindparam("noted"),
)
_MESSAGE = sa.select(messages.c.timestamp, messages.c.edited_at).where(
    messages.c.job_id == sa.bindparam("job"), messages.c.subject == sa.bindparam("what")
)
_EDITED = messages.update().where(messages.c.job_id == sa.bindparam("job"), messages.c.subject == sa.bindparam("what"))
# Statements are made once: to build one takes longer than to execute it.


class Story:
    """Transitions within one transaction. Whoever writes holds the job's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, job_id: str) -> list[Transition]:
        """The job's transitions, oldest first."""
        rows = self._connection.execute(_TRANSITIONS, {"job": job_id})
        return [Transition(JobState(state), *rest) for state, *rest in rows]

    def enter(self, job_id: str, transition: Transition) -> None:
        """Record a transition after all others of the job."""
        self._connection.execute(
            _ENTER,
            {
                "job": job_id,
                "entered": transition.state.value,
                "when": transition.at,
                "words": transition.text,
                "told_in": transition.reply,
                "noted": transition.note,
            },
        )

    def tell(self, job_id: str, number: int, text: str, *, reply: int | None = None) -> None:
        """Change a transition's text and, where `reply` is given, the number of the reply that tells it."""
        values = {"text": text} | ({} if reply is None else {"reply": reply})
        self._connection.execute(
            transitions.update().where(transitions.c.job_id == job_id, transitions.c.number == number).values(**values)
        )


class Messages:
    """A job's messages in chat within one transaction. The subjects are `card`, `reply-1` and so on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def timestamp(self, job_id: str, subject: str) -> str | None:
        """The timestamp that identifies the message in chat; None until it is posted."""
        row = self._connection.execute(_MESSAGE, {"job": job_id, "what": subject}).one_or_none()
        return row.timestamp if row else None

    def edited_at(self, job_id: str, subject: str) -> datetime | None:
        """When the message was last posted or edited; None until it is posted."""
        row = self._connection.execute(_MESSAGE, {"job": job_id, "what": subject}).one_or_none()
        return row.edited_at if row else None

    def posted(self, job_id: str, subject: str, timestamp: str, *, at: datetime) -> None:
        """Record that the message was posted at that time."""
        values = {"job_id": job_id, "subject": subject, "timestamp": timestamp, "edited_at": at}
        self._connection.execute(messages.insert(), values)

    def edited(self, job_id: str, subject: str, *, at: datetime) -> None:
        """Record that the message was edited at that time."""
        self._connection.execute(_EDITED, {"job": job_id, "what": subject, "edited_at": at})
