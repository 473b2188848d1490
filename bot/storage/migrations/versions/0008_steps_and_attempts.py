"""steps of a story in their order, so that a job may enter a state again; compute's attempts"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATES = ("ACCEPTED", "SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
"""States of which a job may enter several at once; each end comes after them."""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("compute_attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("transitions", sa.Column("number", sa.Integer(), nullable=True))
    op.add_column("transitions", sa.Column("note", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE transitions SET number = (SELECT count(*) FROM transitions AS other "  # noqa: S608 - no word from outside
        "WHERE other.job_id = transitions.job_id AND (other.at < transitions.at OR "
        f"(other.at = transitions.at AND {_rank('other')} <= {_rank('transitions')})))"
    )
    _key("number")


def downgrade() -> None:
    op.execute(
        "DELETE FROM transitions WHERE note OR EXISTS (SELECT 1 FROM transitions AS later "
        "WHERE later.job_id = transitions.job_id AND later.state = transitions.state "
        "AND later.number > transitions.number AND NOT later.note)"
    )
    _key("state")
    with op.batch_alter_table("transitions", schema=None) as batch_op:
        batch_op.drop_column("note")
        batch_op.drop_column("number")
    op.drop_column("jobs", "compute_attempt")


def _key(column: str) -> None:
    with op.batch_alter_table("transitions", schema=None) as batch_op:
        batch_op.drop_constraint("pk_transitions", type_="primary")
        batch_op.alter_column("number", existing_type=sa.Integer(), nullable=column != "number")
        batch_op.create_primary_key("pk_transitions", ["job_id", column])


def _rank(table: str) -> str:
    ranks = " ".join(f"WHEN '{state}' THEN {rank}" for rank, state in enumerate(STATES))
    return f"CASE {table}.state {ranks} ELSE {len(STATES)} END"
