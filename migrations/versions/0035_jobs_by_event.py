"""Let bulk actions go through jobs in the order of their events."""

from alembic import op

revision = "0035"
down_revision = "0034"
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
    op.execute("ALTER TABLE replays DROP COLUMN after_jobs_of")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


# Code of the release before goes by `after_job`, which stays as it is; both may take turns.
SCHEMA = """
ALTER TABLE replays
    ADD COLUMN after_jobs_of uuid DEFAULT '00000000-0000-0000-0000-000000000000' NOT NULL;
COMMENT ON COLUMN replays.after_jobs_of IS 'the jobs of events up to this one are done';
"""
