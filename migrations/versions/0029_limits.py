"""Keep the limits of processors: the declared and the set ones, and the jobs that wait for them."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased. Older code keeps no limits."""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute(
        """
        UPDATE jobs SET hinted_until = NULL
        WHERE id = ANY(ARRAY(SELECT job FROM limited_jobs)) AND hinted_until < 'infinity';
        DROP TABLE limits, limited_jobs, limited_keys;
        """
    )
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


# `limits` has a row for each such processor, which each claim updates: its page has room for that.
SCHEMA = """
CREATE TABLE limits (
    processor text NOT NULL,
    declared boolean NOT NULL,
    limit_by text,
    concurrency integer,
    rate text,
    key_concurrency integer,
    key_rate text,
    override jsonb,
    overridden_at timestamptz,
    overridden_by text,
    turn bigint DEFAULT 0 NOT NULL,
    starts_at double precision[] DEFAULT '{}' NOT NULL,
    starts integer[] DEFAULT '{}' NOT NULL,
    pulled_at timestamptz,
    CONSTRAINT limits_pkey PRIMARY KEY (processor)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.0,
        autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN limits.declared IS 'false: its last release has no limits';
COMMENT ON COLUMN limits.limit_by IS 'whose shares are equal; null: all have one';
COMMENT ON COLUMN limits.concurrency IS 'jobs at once, as declared; null: any number';
COMMENT ON COLUMN limits.rate IS 'starts in a time, as declared; null: any number';
COMMENT ON COLUMN limits.override IS 'what an operator has set instead; a null lifts a limit';
COMMENT ON COLUMN limits.turn IS 'of the last started';
COMMENT ON COLUMN limits.starts_at IS 'recent starts, Unix time';
COMMENT ON COLUMN limits.pulled_at IS 'when a worker last took jobs';
CREATE TABLE limited_jobs (
    job bigint NOT NULL,
    processor text NOT NULL,
    key uuid NOT NULL,
    place bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    claimed boolean DEFAULT false NOT NULL,
    CONSTRAINT limited_jobs_pkey PRIMARY KEY (job)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX limited_jobs_line ON limited_jobs (processor, key, place) WHERE NOT claimed;
CREATE INDEX limited_jobs_claimed ON limited_jobs (processor, key) WHERE claimed;
COMMENT ON COLUMN limited_jobs.key IS 'digest of the processor and the key';
CREATE TABLE limited_keys (
    processor text NOT NULL,
    key uuid NOT NULL,
    turn bigint NOT NULL,
    waiting boolean NOT NULL,
    held_until timestamptz,
    starts_at double precision[] DEFAULT '{}' NOT NULL,
    starts integer[] DEFAULT '{}' NOT NULL,
    CONSTRAINT limited_keys_pkey PRIMARY KEY (processor, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX limited_keys_ready ON limited_keys (processor, turn, key)
    WHERE waiting AND held_until IS NULL;
CREATE INDEX limited_keys_held ON limited_keys (processor, held_until)
    WHERE held_until IS NOT NULL;
COMMENT ON COLUMN limited_keys.turn IS 'the lowest is next';
COMMENT ON COLUMN limited_keys.waiting IS 'jobs of it wait';
COMMENT ON COLUMN limited_keys.held_until IS
    'its own limit; infinity: until a job ends; null: ready';
"""
