"""Give the tables a schema of their own: trigger functions name it, whatever the search path is.

The tables were created in it, or moved to it before this migration (ingest.store.schema_move).
"""

from alembic import context, op

from ingest.store.sql import in_schema

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
oldest_code = "0004"
"""Code of this revision still runs on the schema: views are in the tables' old place."""


def upgrade() -> None:
    op.execute(REVISIONS)
    op.execute(in_schema(FUNCTIONS, context.config.attributes["home"]))
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute(FUNCTIONS.replace("ingest.", ""))
    op.execute("DROP TABLE revisions")


REVISIONS = """
CREATE TABLE revisions (
    revision text NOT NULL,
    oldest_code text NOT NULL,
    CONSTRAINT revisions_pkey PRIMARY KEY (revision)
);
COMMENT ON COLUMN revisions.oldest_code IS 'code of this revision still runs on it';
"""

FUNCTIONS = """
CREATE OR REPLACE FUNCTION ingest.count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change bigint := (SELECT count(*) FROM changed);
BEGIN
    IF change > 0 THEN
        PERFORM pg_advisory_xact_lock(1953460321, pg_backend_pid() % 16);
        INSERT INTO ingest.totals (counted, slot, rows)
        VALUES (TG_TABLE_NAME, pg_backend_pid() % 16,
                CASE TG_OP WHEN 'DELETE' THEN -change ELSE change END)
        ON CONFLICT (counted, slot) DO UPDATE SET rows = totals.rows + excluded.rows;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION ingest.note_unhandled() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO ingest.unhandled (event)
    SELECT id FROM changed
    WHERE (SELECT true FROM ingest.jobs WHERE jobs.event = changed.id LIMIT 1) IS NULL;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION ingest.note_handled() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM ingest.unhandled
    WHERE event = ANY(ARRAY(SELECT changed.event FROM changed WHERE changed.trigger = 'replay'));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION ingest.note_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1953460321, pg_backend_pid() % 16);
    INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
    SELECT date_trunc('minute', received_at), TG_ARGV[0], '', 0, pg_backend_pid() % 16, count(*)
    FROM changed GROUP BY 1 ORDER BY 1
    ON CONFLICT (minute, what, label, bucket, slot)
    DO UPDATE SET count = activity.count + excluded.count;
    RETURN NULL;
END $$;
"""
