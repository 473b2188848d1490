"""The tables, as the code uses them; `migrations/` makes them, and a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

MIGRATIONS = Path(__file__).parent / "migrations"
REVISION = "0016"
"""The newest migration."""


SKEW = timedelta(seconds=15)
"""Difference between two readings of the clock, on two machines, that is no sign of a clock that went back."""


class Utc(sa.TypeDecorator[datetime]):
    """An aware time in UTC, also where the database stores no time zone (SQLite)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """The time to store, in UTC."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """The stored time, in UTC."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("key", sa.String(255), nullable=False, unique=True),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("actor", sa.String(255), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("cause", sa.String(16), nullable=False, server_default="unknown"),
    sa.Column("compute_id", sa.String(255)),
    sa.Column("token_ref", sa.String(2048)),
    sa.Column("log", sa.String(1024)),
    sa.Column("log_tail", sa.JSON, nullable=False, default=list),
    sa.Column("exit_code", sa.Integer),
    sa.Column("summary", sa.JSON(none_as_null=True)),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("cancelled_by", sa.String(255)),
    sa.Column("cancelled_at", Utc),
    sa.Column("unposted", sa.Text, nullable=False, default="", server_default=sa.text("''")),
    sa.Column("attempt", sa.Integer, nullable=False, default=1),
    sa.Column("compute_attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("lasting", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("retry_of", sa.String(16)),
    sa.Column("retried_as", sa.String(16)),
    sa.Column("runnable_at", Utc),
    sa.Column("waiting", sa.Text, nullable=False, default=""),
    sa.Column("stalled_since", Utc),
    sa.Column("stalled", sa.Text, nullable=False, default=""),
    sa.Column("stalled_told", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("accepted_at", Utc, nullable=False),
    sa.Column("submitted_at", Utc),
    sa.Column("started_at", Utc),
    sa.Column("finished_at", Utc),
    sa.Column("timed", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("pipeline", sa.String(255), nullable=False),  # pipeline and voxels repeat the request, for queries
    sa.Column("voxels", sa.BigInteger, nullable=False),
    sa.Column("work", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger),
    sa.Column("checked", sa.Boolean, nullable=False),
    sa.Column("expected", sa.JSON(none_as_null=True)),
    sa.Column("blocks", sa.JSON(none_as_null=True)),
    sa.Index("ix_jobs_state", "state", "accepted_at", "id"),
    sa.Index("ix_jobs_actor", "actor", "state", "accepted_at", "id"),
    sa.Index(
        "ix_jobs_stalled",
        "stalled_since",
        sqlite_where=sa.text("stalled_since IS NOT NULL"),
        postgresql_where=sa.text("stalled_since IS NOT NULL"),
    ),
    sa.Index("ix_jobs_work", "work", "accepted_at"),
    sa.Index("ix_jobs_compute_id", "compute_id"),
    sa.Index("ix_jobs_pipeline", "pipeline", "state", "finished_at"),
)

people = sa.Table(
    "people",
    metadata,
    sa.Column("person", sa.String(255), primary_key=True),
    sa.Column("token_ref", sa.String(64)),
    sa.Column("token_end", sa.String(8)),
    sa.Column("token_at", Utc),
    sa.Column("last_request", sa.JSON(none_as_null=True)),
    sa.Column("steps", sa.String(16), nullable=False, server_default="all"),
    sa.Column("mention", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("mail", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("home_opened_at", Utc),
    sa.Column("home_shown_at", Utc),
)

followers = sa.Table(
    "followers",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("person", sa.String(255), primary_key=True),
)

transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # in the order of the story
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("at", Utc, nullable=False),
    sa.Column("text", sa.Text, nullable=False, default=""),
    sa.Column("reply", sa.Integer),  # which reply tells it; null: none does
    sa.Column("note", sa.Boolean, nullable=False, server_default=sa.false()),  # told in the state, not entered then
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("subject", sa.String(32), primary_key=True),  # card, reply-1, …
    sa.Column("timestamp", sa.String(32), nullable=False),
    sa.Column("edited_at", Utc),
)

effects = sa.Table(
    "effects",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(32), nullable=False, default=""),
    sa.Column("due_at", Utc, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("in_doubt", sa.Boolean, nullable=False, default=False),
    # Given up, and not to be deleted: it may be tried again, as an admin is told.
    sa.Column("given_up", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("faults", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease", sa.String(32)),
    sa.Column("leased_until", Utc),
    sa.Column("done_at", Utc),
    sa.Column("error", sa.Text),
    sa.Column("enqueued_at", Utc),  # null: enqueued before this column was
    sa.Column("as_of", Utc),  # the clock when due_at and leased_until were set
    sa.Index(
        "ix_effects_open",
        "lane",
        "due_at",
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    ),
    sa.Index(
        "ix_effects_given_up",
        "job_id",
        "id",
        sqlite_where=sa.text("given_up"),
        postgresql_where=sa.text("given_up"),
    ),
    sa.Index(
        "ix_effects_order",
        "job_id",
        "lane",
        "id",
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    ),
)

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("reference", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
)

outages = sa.Table(
    "outages",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("began_at", Utc, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("over_at", Utc),  # null: it lasts
)

leader_leases = sa.Table(
    "leader_leases",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("holder", sa.String(32), nullable=False),
    sa.Column("until", Utc, nullable=False),
)

rate_limits = sa.Table(
    "rate_limits",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("used_until", Utc, nullable=False),  # the turns up to this time are taken
)

mail_refusals = sa.Table(
    "mail_refusals",
    metadata,
    sa.Column("digest", sa.String(32), primary_key=True),  # of an address; the address itself is not stored
    sa.Column("at", Utc, nullable=False),
)
