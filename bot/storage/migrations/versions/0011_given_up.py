"""effects that were given up say so, and jobs why their card could not be posted"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("effects", sa.Column("given_up", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("unposted", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.execute(
        "UPDATE effects SET given_up = true WHERE done_at IS NOT NULL AND error IS NOT NULL "
        "AND kind NOT IN ('check', 'submit', 'cancel')"
    )
    where = sa.text("given_up")
    op.create_index("ix_effects_given_up", "effects", ["job_id", "id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("ix_effects_given_up", "effects")
    op.drop_column("jobs", "unposted")
    op.drop_column("effects", "given_up")
