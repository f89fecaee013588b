"""Create what the console needs: activity by the minute, running processes, pauses, discards.

Workers wait while the events of the last week are counted. Receivers do not wait.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Ten million rows take longer than the minute that a migration's statement is allowed.
    op.execute("SET LOCAL statement_timeout = '30min'")
    op.execute("LOCK TABLE events, duplicates, jobs IN SHARE ROW EXCLUSIVE MODE")
    op.execute(TABLES)
    op.execute(FUNCTION)
    for table, what in (("events", "event"), ("duplicates", "duplicate")):
        op.execute(FILL.format(table=table, what=what))
        op.execute(
            f"CREATE TRIGGER note_activity AFTER INSERT ON {table} REFERENCING NEW TABLE AS changed"
            f" FOR EACH STATEMENT EXECUTE FUNCTION note_activity('{what}')"
        )
    op.execute(REPLAYS)
    op.execute("ALTER TABLE jobs ADD COLUMN discarded_at timestamptz")
    op.execute("COMMENT ON COLUMN jobs.discarded_at IS 'dead, and an operator wants it no more'")
    op.execute(INDEXES)
    if op.get_bind().execute(sa.text("SELECT to_regclass('messages')")).scalar():
        op.execute(READ_MODEL_INDEXES)


def downgrade() -> None:
    op.execute(
        "DROP INDEX IF EXISTS jobs_dead, jobs_discarded, messages_from_number,"
        " conversations_contact_id, conversations_phone_number, contacts_phone"
    )
    op.execute("CREATE INDEX jobs_dead ON jobs (event) WHERE state = 'dead'")
    op.execute("ALTER TABLE jobs DROP COLUMN discarded_at")
    op.execute("DROP INDEX replays_running")
    op.execute(
        "ALTER TABLE replays DROP COLUMN action, DROP COLUMN status, DROP COLUMN background,"
        " DROP COLUMN rate, DROP COLUMN total, DROP COLUMN after_job, DROP COLUMN after_event,"
        " DROP COLUMN last_job, DROP COLUMN last_event, DROP COLUMN paced_until,"
        " DROP COLUMN problem"
    )
    op.execute("DROP FUNCTION note_activity() CASCADE")
    op.execute("DROP TABLE activity, refusals, processes, processors, actions")


TABLES = """
CREATE TABLE actions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz DEFAULT now() NOT NULL,
    by text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    reason text,
    replay bigint,
    CONSTRAINT actions_pkey PRIMARY KEY (id)
);
COMMENT ON COLUMN actions.replay IS 'the bulk action that this began';

CREATE TABLE processors (
    name text NOT NULL,
    types jsonb NOT NULL,
    queue text NOT NULL,
    batch boolean NOT NULL,
    threads integer NOT NULL,
    max_attempts integer NOT NULL,
    timeout_s double precision NOT NULL,
    registered_at timestamptz NOT NULL,
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    parked boolean DEFAULT false NOT NULL,
    CONSTRAINT processors_pkey PRIMARY KEY (name)
);
COMMENT ON COLUMN processors.parked IS 'the relay has put jobs of it aside';

CREATE TABLE processes (
    id text NOT NULL,
    kind text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    CONSTRAINT processes_pkey PRIMARY KEY (id)
);

CREATE TABLE refusals (
    reason text NOT NULL,
    slot smallint NOT NULL,
    at timestamptz NOT NULL,
    source text NOT NULL,
    client text NOT NULL,
    detail jsonb NOT NULL,
    CONSTRAINT refusals_pkey PRIMARY KEY (reason, slot)
);
COMMENT ON COLUMN refusals.detail IS 'headers that tell what went wrong; no body';

CREATE TABLE activity (
    minute timestamptz NOT NULL,
    what text NOT NULL,
    label text NOT NULL,
    bucket smallint NOT NULL,
    slot smallint NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT activity_pkey PRIMARY KEY (minute, what, label, bucket, slot)
) WITH (fillfactor = 50);
COMMENT ON COLUMN activity.minute IS 'or hour, once it is old';
COMMENT ON COLUMN activity.label IS 'which processor, source or reason';
COMMENT ON COLUMN activity.bucket IS 'how long';
"""

FUNCTION = """
CREATE OR REPLACE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change bigint := (SELECT count(*) FROM changed);
BEGIN
    IF change > 0 THEN
        PERFORM pg_advisory_xact_lock(1953460321, pg_backend_pid() % 16);
        INSERT INTO totals (counted, slot, rows)
        VALUES (TG_TABLE_NAME, pg_backend_pid() % 16,
                CASE TG_OP WHEN 'DELETE' THEN -change ELSE change END)
        ON CONFLICT (counted, slot) DO UPDATE SET rows = totals.rows + excluded.rows;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION note_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1953460321, pg_backend_pid() % 16);
    INSERT INTO activity (minute, what, label, bucket, slot, count)
    SELECT date_trunc('minute', received_at), TG_ARGV[0], '', 0, pg_backend_pid() % 16, count(*)
    FROM changed GROUP BY 1 ORDER BY 1
    ON CONFLICT (minute, what, label, bucket, slot)
    DO UPDATE SET count = activity.count + excluded.count;
    RETURN NULL;
END $$;
"""

FILL = """
INSERT INTO activity (minute, what, label, bucket, slot, count)
SELECT date_trunc('minute', received_at), '{what}', '', 0, 0, count(*)
FROM {table} WHERE received_at > now() - interval '8 days' GROUP BY 1
"""

# Earlier replays were completed by the command line, or aborted.
REPLAYS = """
ALTER TABLE replays
    ADD COLUMN action text DEFAULT 'replay' NOT NULL,
    ADD COLUMN status text DEFAULT 'running' NOT NULL,
    ADD COLUMN background boolean DEFAULT false NOT NULL,
    ADD COLUMN rate double precision,
    ADD COLUMN total bigint,
    ADD COLUMN after_job bigint DEFAULT 0 NOT NULL,
    ADD COLUMN after_event uuid DEFAULT '00000000-0000-0000-0000-000000000000' NOT NULL,
    ADD COLUMN last_job bigint,
    ADD COLUMN last_event uuid,
    ADD COLUMN paced_until timestamptz,
    ADD COLUMN problem text,
    ADD CONSTRAINT replays_action CHECK (action IN ('replay', 'discard')),
    ADD CONSTRAINT replays_status
        CHECK (status IN ('running', 'paused', 'cancelled', 'finished', 'failed'));
UPDATE replays SET status = CASE WHEN finished_at IS NULL THEN 'cancelled' ELSE 'finished' END;
COMMENT ON COLUMN replays.background IS 'the console runs it, and goes on after a restart';
COMMENT ON COLUMN replays.rate IS 'jobs that fall due a second';
COMMENT ON COLUMN replays.total IS 'counted beforehand';
COMMENT ON COLUMN replays.after_job IS 'jobs up to this one are done';
COMMENT ON COLUMN replays.after_event IS 'events up to this one are done';
COMMENT ON COLUMN replays.last_job IS 'jobs after this one came later, and are not meant';
COMMENT ON COLUMN replays.last_event IS 'likewise';
COMMENT ON COLUMN replays.paced_until IS 'with a rate: when what was put back last is due';
COMMENT ON COLUMN replays.problem IS 'why it failed';
CREATE INDEX replays_running ON replays (id) WHERE status = 'running';
"""

# Discarded jobs leave the lists of dead ones, and are listed on their own.
INDEXES = """
DROP INDEX jobs_dead;
CREATE INDEX jobs_dead ON jobs (event) WHERE state = 'dead' AND discarded_at IS NULL;
CREATE INDEX jobs_discarded ON jobs (event) WHERE discarded_at IS NOT NULL;
"""

# For searches by phone number.
READ_MODEL_INDEXES = """
CREATE INDEX messages_from_number ON messages (from_number);
CREATE INDEX conversations_contact_id ON conversations (contact_id);
CREATE INDEX conversations_phone_number ON conversations (phone_number);
CREATE INDEX contacts_phone ON contacts (phone);
"""
