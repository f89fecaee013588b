"""Record what a processor says of itself, and how long its retries wait."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased."""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE processors DROP COLUMN about, DROP COLUMN retry_base_s,"
        " DROP COLUMN retry_max_delay_s"
    )
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


# A worker of the release before registers its processors without these: they stay null.
SCHEMA = """
ALTER TABLE processors
    ADD COLUMN about text,
    ADD COLUMN retry_base_s double precision,
    ADD COLUMN retry_max_delay_s double precision;
COMMENT ON COLUMN processors.about IS 'the first line of its docstring';
COMMENT ON COLUMN processors.retry_base_s IS 'longest wait after the first failure';
COMMENT ON COLUMN processors.retry_max_delay_s IS 'longest wait after any failure';
"""
