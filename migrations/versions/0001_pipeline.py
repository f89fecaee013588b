"""Create the pipeline's tables: deliveries, events, jobs and their attempts."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("DROP TABLE replays, attempts, jobs, duplicates, events, unadmitted, deliveries")


SCHEMA = """
CREATE TABLE deliveries (
    id uuid NOT NULL,
    source text NOT NULL,
    received_at timestamptz NOT NULL,
    key_id text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    rejected text,
    CONSTRAINT deliveries_pkey PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- The way in when nobody made the day's partition; ingest.store.partitions empties it.
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
CREATE INDEX deliveries_rejected ON deliveries (id) WHERE rejected IS NOT NULL;
COMMENT ON COLUMN deliveries.key_id IS 'which secret matched';
COMMENT ON COLUMN deliveries.headers IS '[[name, value], …], those worth keeping';
COMMENT ON COLUMN deliveries.rejected IS 'why it was answered 400; null: accepted';

CREATE TABLE unadmitted (
    delivery uuid NOT NULL,
    source text NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    fingerprint bytea NOT NULL,
    received_at timestamptz NOT NULL,
    queue text NOT NULL,
    hint_at timestamptz NOT NULL,
    processor text,
    replay bigint,
    CONSTRAINT unadmitted_pkey PRIMARY KEY (delivery)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX unadmitted_due ON unadmitted (queue, hint_at);
COMMENT ON COLUMN unadmitted.hint_at IS 'when the relay dispatches it (again)';
COMMENT ON COLUMN unadmitted.processor IS 'make a job for this processor only';

CREATE TABLE events (
    id uuid NOT NULL,
    source text NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    fingerprint bytea NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (id),
    CONSTRAINT events_source_event_id_key UNIQUE (source, event_id)
);
COMMENT ON COLUMN events.event_id IS 'the sender''s name for the occurrence';

CREATE TABLE duplicates (
    delivery uuid NOT NULL,
    event uuid NOT NULL,
    received_at timestamptz NOT NULL,
    conflict boolean NOT NULL,
    CONSTRAINT duplicates_pkey PRIMARY KEY (delivery)
);
CREATE INDEX duplicates_conflict ON duplicates (event) WHERE conflict;
CREATE INDEX duplicates_event ON duplicates (event);
COMMENT ON COLUMN duplicates.conflict IS 'its content differs from the first''s';

CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    event uuid NOT NULL,
    processor text NOT NULL,
    queue text NOT NULL,
    state text NOT NULL,
    trigger text NOT NULL,
    attempt integer NOT NULL,
    failures smallint NOT NULL,
    max_attempts smallint NOT NULL,
    next_attempt_at timestamptz,
    hinted_until timestamptz,
    lease_until timestamptz,
    due_at timestamptz GENERATED ALWAYS AS (greatest(next_attempt_at, hinted_until)) STORED,
    started_at timestamptz,
    finished_at timestamptz,
    worker text,
    replay bigint,
    CONSTRAINT jobs_pkey PRIMARY KEY (id),
    CONSTRAINT jobs_event_processor_key UNIQUE (event, processor),
    CONSTRAINT jobs_state CHECK
        (state IN ('pending', 'running', 'retrying', 'succeeded', 'dead')),
    CONSTRAINT jobs_trigger CHECK (trigger IN ('delivery', 'retry', 'rescue', 'replay')),
    CONSTRAINT jobs_lease CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT jobs_waiting CHECK
        ((state IN ('pending', 'retrying')) = (next_attempt_at IS NOT NULL)),
    CONSTRAINT jobs_finished CHECK
        ((state IN ('succeeded', 'dead')) = (finished_at IS NOT NULL)),
    CONSTRAINT jobs_failures CHECK (failures BETWEEN 0 AND attempt)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX jobs_dead ON jobs (event) WHERE state = 'dead';
CREATE INDEX jobs_due ON jobs (queue, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE lease_until IS NOT NULL;
COMMENT ON COLUMN jobs.trigger IS 'why the current or next attempt runs';
COMMENT ON COLUMN jobs.attempt IS 'number of the last attempt; fencing token';
COMMENT ON COLUMN jobs.failures IS 'attempts that count, since a replay';
COMMENT ON COLUMN jobs.next_attempt_at IS 'waiting: not before';
COMMENT ON COLUMN jobs.hinted_until IS 'waiting: Redis is presumed to know until then';
COMMENT ON COLUMN jobs.lease_until IS 'running: the claim ends';
COMMENT ON COLUMN jobs.due_at IS 'waiting: when the relay dispatches it';
COMMENT ON COLUMN jobs.worker IS 'who ran or runs the last attempt';
COMMENT ON COLUMN jobs.replay IS 'the last replay that put it back';

CREATE TABLE attempts (
    job bigint NOT NULL,
    number integer NOT NULL,
    trigger text NOT NULL,
    worker text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    outcome text NOT NULL,
    error_type text,
    error_message text,
    traceback text,
    replay bigint,
    CONSTRAINT attempts_pkey PRIMARY KEY (job, number),
    CONSTRAINT attempts_trigger CHECK (trigger IN ('delivery', 'retry', 'rescue', 'replay')),
    CONSTRAINT attempts_outcome CHECK (outcome IN (
        'succeeded', 'failed', 'discarded', 'snoozed', 'timed_out', 'lost', 'released')),
    CONSTRAINT attempts_job_fkey FOREIGN KEY(job) REFERENCES jobs (id)
);

CREATE TABLE replays (
    id bigint GENERATED ALWAYS AS IDENTITY,
    requested_at timestamptz DEFAULT now() NOT NULL,
    requested_by text NOT NULL,
    reason text,
    selection jsonb NOT NULL,
    jobs bigint DEFAULT 0 NOT NULL,
    events bigint DEFAULT 0 NOT NULL,
    running bigint DEFAULT 0 NOT NULL,
    finished_at timestamptz,
    CONSTRAINT replays_pkey PRIMARY KEY (id)
);
COMMENT ON COLUMN replays.jobs IS 'put back to pending';
COMMENT ON COLUMN replays.events IS 'to be admitted again';
COMMENT ON COLUMN replays.running IS 'left alone: running';
"""
