"""the table leader_leases, in place of duties"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("duties")  # a lease lasts seconds: its holder acquires it again
    _make("leader_leases")


def downgrade() -> None:
    op.drop_table("leader_leases")
    _make("duties")


def _make(name: str) -> None:
    op.create_table(
        name,
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=f"pk_{name}"),
    )
