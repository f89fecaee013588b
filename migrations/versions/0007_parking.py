"""Park jobs that no worker can take: store what each worker serves, and why jobs are parked."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
oldest_code = "0004"
"""Code of this revision still runs on the schema: columns, a table and an index are added."""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '30min'")  # the index reads all jobs once
    op.execute(ADDED)
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
    op.execute(UNPARKED)
    op.execute("DROP INDEX jobs_parked")
    op.execute("DROP TABLE parked")
    op.execute("ALTER TABLE processes DROP COLUMN queues, DROP COLUMN processors")


ADDED = """
ALTER TABLE processes ADD COLUMN queues text[], ADD COLUMN processors text[];
COMMENT ON COLUMN processes.queues IS 'a worker: those it consumes';
COMMENT ON COLUMN processes.processors IS 'a worker: those it has';
CREATE TABLE parked (
    processor text NOT NULL,
    queue text NOT NULL,
    reason text NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT parked_pkey PRIMARY KEY (processor, queue),
    CONSTRAINT parked_reason CHECK (reason IN ('unknown', 'unconsumed'))
);
CREATE INDEX jobs_parked ON jobs (processor, queue) WHERE due_at = 'infinity';
"""

# Earlier code unparks only jobs that a pause parked.
UNPARKED = """
UPDATE jobs SET hinted_until = NULL FROM parked
WHERE jobs.processor = parked.processor AND jobs.queue = parked.queue AND due_at = 'infinity'
"""
