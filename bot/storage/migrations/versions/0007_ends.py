"""why a job failed, whether its time is known, and how often an effect failed in a way that nobody foresaw"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("effects", sa.Column("faults", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("cause", sa.String(16), nullable=False, server_default="unknown"))
    op.add_column("jobs", sa.Column("timed", sa.Boolean(), nullable=False, server_default=sa.true()))
    names = ("state", "exit_code", "cause")
    jobs = sa.table("jobs", *(sa.column(name) for name in names), sa.column("checked", sa.Boolean))
    failed = jobs.update().where(jobs.c.state == "FAILED")
    op.execute(failed.where(jobs.c.exit_code.between(1, 127)).values(cause="program"))
    op.execute(failed.where(jobs.c.exit_code == 3).values(cause="volume"))
    op.execute(failed.where(sa.or_(jobs.c.exit_code == 2, ~jobs.c.checked)).values(cause="request"))


def downgrade() -> None:
    op.drop_column("jobs", "timed")
    op.drop_column("jobs", "cause")
    op.drop_column("effects", "faults")
