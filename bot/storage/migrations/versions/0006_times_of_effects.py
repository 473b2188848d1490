"""effects know since when they are open, and as of when their times were set"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("enqueued_at", "as_of"):
        op.add_column("effects", sa.Column(name, sa.DateTime(timezone=True)))


def downgrade() -> None:
    for name in ("enqueued_at", "as_of"):
        op.drop_column("effects", name)
