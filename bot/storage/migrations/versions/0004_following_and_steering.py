"""who cancelled and when, attempts, why a job waits; preferences and the home tab; lists by key"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("retry_of", sa.String(16), nullable=True))
        batch_op.add_column(sa.Column("retried_as", sa.String(16), nullable=True))
        batch_op.add_column(sa.Column("runnable_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("waiting", sa.Text(), nullable=False, server_default=""))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        for name in ("attempt", "waiting"):
            batch_op.alter_column(name, server_default=None)
        batch_op.drop_index("ix_jobs_state_id")
        batch_op.create_index("ix_jobs_state", ["state", "accepted_at", "id"])
        batch_op.create_index("ix_jobs_actor", ["actor", "state", "accepted_at", "id"])
    with op.batch_alter_table("messages", schema=None) as batch_op:
        batch_op.add_column(sa.Column("edited_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE jobs SET runnable_at = (SELECT at FROM transitions WHERE transitions.job_id = jobs.id "
        "AND transitions.state = 'RUNNABLE') WHERE state = 'RUNNABLE'"
    )
    # A card that is there is edited in a lane of its own.
    op.execute(
        "UPDATE effects SET kind = 'edit', lane = 'edit' WHERE kind = 'card' AND done_at IS NULL "
        "AND EXISTS (SELECT 1 FROM messages WHERE messages.job_id = effects.job_id AND messages.subject = 'card')"
    )
    with op.batch_alter_table("people", schema=None) as batch_op:
        batch_op.add_column(sa.Column("steps", sa.String(16), nullable=False, server_default="all"))
        batch_op.add_column(sa.Column("mention", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("mail", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("home_opened_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("home_shown_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM effects WHERE kind = 'home'")
    op.execute("UPDATE effects SET kind = 'card', lane = 'chat' WHERE kind = 'edit'")
    with op.batch_alter_table("people", schema=None) as batch_op:
        for name in ("steps", "mention", "mail", "home_opened_at", "home_shown_at"):
            batch_op.drop_column(name)
    with op.batch_alter_table("messages", schema=None) as batch_op:
        batch_op.drop_column("edited_at")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_actor")
        batch_op.drop_index("ix_jobs_state")
        batch_op.create_index("ix_jobs_state_id", ["state", "id"])
        for name in ("cancelled_at", "attempt", "retry_of", "retried_as", "runnable_at", "waiting"):
            batch_op.drop_column(name)
