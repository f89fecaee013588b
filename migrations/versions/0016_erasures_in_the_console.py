"""Let the console search for a person, ask, and erase in the background."""

from alembic import op

revision = "0016"
down_revision = "0015"
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
    op.execute("DELETE FROM erasures WHERE status IN ('searching', 'found', 'cancelled')")
    op.execute(
        "ALTER TABLE erasures DROP COLUMN background, DROP COLUMN advanced_at, DROP COLUMN problem,"
        " DROP CONSTRAINT erasures_status"
    )
    op.execute(
        "ALTER TABLE erasures ADD CONSTRAINT erasures_status"
        " CHECK (status IN ('erasing', 'finished'))"
    )
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
ALTER TABLE erasures
    ADD COLUMN background boolean DEFAULT false NOT NULL,
    ADD COLUMN advanced_at timestamptz,
    ADD COLUMN problem text,
    DROP CONSTRAINT erasures_status;
ALTER TABLE erasures ADD CONSTRAINT erasures_status
    CHECK (status IN ('searching', 'found', 'erasing', 'finished', 'cancelled'));
COMMENT ON COLUMN erasures.background IS 'the console runs it; otherwise a command does';
COMMENT ON COLUMN erasures.advanced_at IS 'its last batch ended';
COMMENT ON COLUMN erasures.problem IS 'why it waits, or was cancelled';
"""
