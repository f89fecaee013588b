"""Keep when periodic processors are due."""

from alembic import op

revision = "0027"
down_revision = "0026"
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
    op.execute("DROP TABLE schedules")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE schedules (
    processor text NOT NULL,
    expression text NOT NULL,
    zone text NOT NULL,
    missed text NOT NULL,
    overlap boolean NOT NULL,
    next_due_at timestamptz NOT NULL,
    skipped integer DEFAULT 0 NOT NULL,
    last_due_at timestamptz,
    last_event uuid,
    CONSTRAINT schedules_pkey PRIMARY KEY (processor),
    CONSTRAINT schedules_missed CHECK (missed IN ('latest', 'all', 'none'))
);
COMMENT ON COLUMN schedules.expression IS 'cron, five fields';
COMMENT ON COLUMN schedules.missed IS 'which missed due times get a run';
COMMENT ON COLUMN schedules.overlap IS 'whether runs may overlap';
COMMENT ON COLUMN schedules.next_due_at IS 'nothing is decided from then on';
COMMENT ON COLUMN schedules.skipped IS 'due times since the last run that have none';
COMMENT ON COLUMN schedules.last_due_at IS 'of the last run that was due by the schedule';
COMMENT ON COLUMN schedules.last_event IS 'the event of the last run';
"""
