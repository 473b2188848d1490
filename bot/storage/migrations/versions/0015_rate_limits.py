"""rate limits of all processes together, and jobs by their compute ids"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("used_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rate_limits"),
    )
    op.create_index("ix_jobs_compute_id", "jobs", ["compute_id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_compute_id", table_name="jobs")
    op.drop_table("rate_limits")
