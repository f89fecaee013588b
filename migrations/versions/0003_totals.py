"""Keep counts and indexes, so that counts and lists cost the same with any number of events.

Workers wait while existing rows are counted and indexed. Receivers do not wait.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Ten million rows take longer than the minute that a migration's statement is allowed.
    op.execute("SET LOCAL statement_timeout = '30min'")
    op.execute("LOCK TABLE events, duplicates, jobs IN SHARE ROW EXCLUSIVE MODE")
    op.execute(TABLES)
    op.execute(FILL)
    op.execute(FUNCTIONS)
    for table in ("events", "duplicates", "jobs", "unhandled"):
        for what, rows in (("INSERT", "NEW"), ("DELETE", "OLD")):
            op.execute(
                f"CREATE TRIGGER count_{what.lower()} AFTER {what} ON {table}"
                f" REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT"
                " EXECUTE FUNCTION count_rows()"
            )
    op.execute(
        "CREATE TRIGGER note_unhandled AFTER INSERT ON events REFERENCING NEW TABLE AS changed"
        " FOR EACH STATEMENT EXECUTE FUNCTION note_unhandled()"
    )
    op.execute(
        "CREATE TRIGGER note_handled AFTER INSERT ON jobs REFERENCING NEW TABLE AS changed"
        " FOR EACH STATEMENT EXECUTE FUNCTION note_handled()"
    )
    op.execute("CREATE INDEX events_type_id ON events (type, id)")


def downgrade() -> None:
    op.execute("DROP INDEX events_type_id")
    op.execute("DROP FUNCTION count_rows(), note_unhandled(), note_handled() CASCADE")
    op.execute("DROP TABLE unhandled, totals")


TABLES = """
CREATE TABLE totals (
    counted text NOT NULL,
    slot smallint NOT NULL,
    rows bigint NOT NULL,
    CONSTRAINT totals_pkey PRIMARY KEY (counted, slot)
) WITH (fillfactor = 50);
COMMENT ON COLUMN totals.counted IS 'the table';
COMMENT ON COLUMN totals.slot IS 'several a table, so that workers seldom wait for each other';

CREATE TABLE unhandled (
    event uuid NOT NULL,
    CONSTRAINT unhandled_pkey PRIMARY KEY (event)
);
"""

FILL = """
INSERT INTO unhandled
SELECT id FROM events WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.event = events.id);
INSERT INTO totals
SELECT 'events', 0, count(*) FROM events
UNION ALL SELECT 'duplicates', 0, count(*) FROM duplicates
UNION ALL SELECT 'jobs', 0, count(*) FROM jobs
UNION ALL SELECT 'unhandled', 0, count(*) FROM unhandled;
"""

FUNCTIONS = """
CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change bigint := (SELECT count(*) FROM changed);
BEGIN
    IF change > 0 THEN
        INSERT INTO totals (counted, slot, rows)
        VALUES (TG_TABLE_NAME, pg_backend_pid() % 16,
                CASE TG_OP WHEN 'DELETE' THEN -change ELSE change END)
        ON CONFLICT (counted, slot) DO UPDATE SET rows = totals.rows + excluded.rows;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION note_unhandled() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO unhandled (event)
    SELECT id FROM changed
    WHERE (SELECT true FROM jobs WHERE jobs.event = changed.id LIMIT 1) IS NULL;
    RETURN NULL;
END $$;

CREATE FUNCTION note_handled() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM unhandled
    WHERE event = ANY(ARRAY(SELECT changed.event FROM changed WHERE changed.trigger = 'replay'));
    RETURN NULL;
END $$;
"""
