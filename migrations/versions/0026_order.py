"""Keep the jobs of a processor in order per key: what is behind what, and the keys in work."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased. Older code keeps no order."""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '30min'")  # each index reads all jobs once
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute("UPDATE jobs SET next_attempt_at = now() WHERE next_attempt_at = 'infinity'")
    op.execute(
        """
        DROP TABLE ordered_jobs, keys_in_work;
        DROP INDEX jobs_held, jobs_behind;
        ALTER TABLE processors DROP COLUMN ordered_by, DROP COLUMN on_dead;
        COMMENT ON COLUMN jobs.next_attempt_at IS 'waiting: not before';
        """
    )
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE ordered_jobs (
    job bigint NOT NULL,
    processor text NOT NULL,
    event uuid NOT NULL,
    key uuid,
    placed boolean NOT NULL,
    CONSTRAINT ordered_jobs_pkey PRIMARY KEY (job)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX ordered_jobs_line ON ordered_jobs (key, event) WHERE placed;
CREATE INDEX ordered_jobs_unplaced ON ordered_jobs (processor, event) WHERE NOT placed;
COMMENT ON COLUMN ordered_jobs.event IS 'its place';
COMMENT ON COLUMN ordered_jobs.key IS 'digest of the processor and the key; null: not read yet';
COMMENT ON COLUMN ordered_jobs.placed IS 'all that was received before is placed';
CREATE TABLE keys_in_work (
    key uuid NOT NULL,
    job bigint NOT NULL,
    CONSTRAINT keys_in_work_pkey PRIMARY KEY (key)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE processors ADD COLUMN ordered_by text, ADD COLUMN on_dead text;
COMMENT ON COLUMN processors.ordered_by IS 'what its jobs are kept in order by; null: no order';
COMMENT ON COLUMN processors.on_dead IS
    'with an order: wait or skip, what is behind a dead letter';
CREATE INDEX jobs_held ON jobs (processor, queue) WHERE hinted_until = 'infinity';
CREATE INDEX jobs_behind ON jobs (processor) WHERE next_attempt_at = 'infinity';
COMMENT ON COLUMN jobs.next_attempt_at IS
    'waiting: not before; infinity: behind one of its key';
"""
