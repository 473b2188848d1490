"""jobs have followers, and the end mentions its owner unless they say no"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "followers",
        sa.Column("job_id", sa.String(16), sa.ForeignKey("jobs.id", name="fk_followers_job_id_jobs"), nullable=False),
        sa.Column("person", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "person", name="pk_followers"),
    )
    _mention(sa.true())
    # Whoever has changed a preference keeps them all: mention and mail are stored together.
    op.execute("UPDATE people SET mention = true WHERE mail = true AND steps = 'all'")


def downgrade() -> None:
    _mention(sa.false())
    op.drop_table("followers")


def _mention(default: sa.ColumnElement[bool]) -> None:
    with op.batch_alter_table("people") as people:
        people.alter_column("mention", existing_type=sa.Boolean(), existing_nullable=False, server_default=default)
