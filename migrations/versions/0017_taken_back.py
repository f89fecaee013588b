"""Let a replay that is paused or cancelled take back what has not begun, and count its jobs."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased."""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '30min'")  # the index reads all jobs once
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute("DROP TABLE taken_back")
    op.execute("DROP INDEX replays_taking_back")
    op.execute("ALTER TABLE replays DROP COLUMN taken_back, DROP COLUMN taking_back")
    op.execute("DROP INDEX jobs_replayed")
    op.execute("ALTER TABLE jobs DROP COLUMN requeued_from")
    op.execute("COMMENT ON COLUMN jobs.replay IS 'the last replay that put it back'")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE taken_back (
    replay bigint NOT NULL,
    event uuid NOT NULL,
    job bigint NOT NULL,
    CONSTRAINT taken_back_pkey PRIMARY KEY (replay, event, job)
);
COMMENT ON COLUMN taken_back.job IS '0: it had none yet';
ALTER TABLE replays
    ADD COLUMN taken_back bigint DEFAULT 0 NOT NULL,
    ADD COLUMN taking_back boolean DEFAULT false NOT NULL;
COMMENT ON COLUMN replays.taken_back IS 'jobs and events that a pause or cancel took back';
COMMENT ON COLUMN replays.taking_back IS 'there may be more to take back';
CREATE INDEX replays_taking_back ON replays (id) WHERE taking_back;
ALTER TABLE jobs ADD COLUMN requeued_from jsonb;
COMMENT ON COLUMN jobs.requeued_from IS 'what it was before the replay `by` put it back';
COMMENT ON COLUMN jobs.replay IS 'the last replay that put it back, or discard';
CREATE INDEX jobs_replayed ON jobs (replay, state, event) INCLUDE (id, discarded_at)
    WHERE replay IS NOT NULL;
"""
