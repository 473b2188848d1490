"""requests may have options, which earlier releases do not read"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: a request without options is stored as before."""


def downgrade() -> None:
    for table, key, column in (("jobs", "id", "request"), ("people", "person", "last_request")):
        rows = sa.table(table, sa.column(key, sa.String), sa.column(column, sa.JSON))
        stored = rows.c[column]
        held = sa.select(rows.c[key], stored).where(sa.cast(stored, sa.Text).like('%"options"%'))
        for name, request in op.get_bind().execute(held).all():
            kept = {field: value for field, value in request.items() if field != "options"}
            op.get_bind().execute(rows.update().where(rows.c[key] == name).values({column: kept}))
