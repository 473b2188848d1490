"""for which jobs compute does not answer, and outages, of which admins are told once"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("stalled_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("stalled", sa.Text(), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("stalled_told", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column("stalled", server_default=None)
    there = sa.text("stalled_since IS NOT NULL")
    op.create_index("ix_jobs_stalled", "jobs", ["stalled_since"], sqlite_where=there, postgresql_where=there)
    op.create_table(
        "outages",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(16), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("over_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_outages_job_id"),
        sa.PrimaryKeyConstraint("number", name="pk_outages"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM effects WHERE kind = 'notice'")
    op.drop_table("outages")
    op.drop_index("ix_jobs_stalled", "jobs")
    for name in ("stalled_told", "stalled", "stalled_since"):
        op.drop_column("jobs", name)
