"""Find the oldest unadmitted delivery of a type by an index: what jobs with an order wait for."""

from alembic import op

revision = "0032"
down_revision = "0028"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased."""


def upgrade() -> None:
    op.execute("CREATE INDEX unadmitted_types ON unadmitted (type, delivery) WHERE replay IS NULL")
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute("DROP INDEX unadmitted_types")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
