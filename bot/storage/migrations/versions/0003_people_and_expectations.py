"""people's tokens and last requests; what a run is, how large, and what it was expected to take"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "people",
        sa.Column("person", sa.String(255), nullable=False),
        sa.Column("token_ref", sa.String(64), nullable=True),
        sa.Column("token_end", sa.String(8), nullable=True),
        sa.Column("token_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_request", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("person", name="pk_people"),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pipeline", sa.String(255), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("voxels", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("work", sa.String(64), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("size", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("checked", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("expected", sa.JSON(none_as_null=True), nullable=True))
    connection = op.get_bind()
    table = sa.table("jobs", sa.column("id"), sa.column("request", sa.JSON), sa.column("pipeline"), sa.column("voxels"))
    for row in connection.execute(sa.select(table.c.id, table.c.request)).all():
        request = json.loads(row.request) if isinstance(row.request, str) else row.request
        sides = [request[axis]["stop"] - request[axis]["start"] for axis in "zyx"]
        connection.execute(
            table.update()
            .where(table.c.id == row.id)
            .values(pipeline=request["pipeline"], voxels=sides[0] * sides[1] * sides[2])
        )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        for name in ("pipeline", "voxels", "work", "checked"):
            batch_op.alter_column(name, server_default=None)
        batch_op.create_index("ix_jobs_work", ["work", "accepted_at"])
        batch_op.create_index("ix_jobs_pipeline", ["pipeline", "state", "finished_at"])


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_pipeline")
        batch_op.drop_index("ix_jobs_work")
        for name in ("pipeline", "voxels", "work", "size", "checked", "expected"):
            batch_op.drop_column(name)
    op.drop_table("people")
