"""Keep what fails in one way as a record with a state, notes and the releases that had it."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased. What older workers fail with is grouped while it is
the last attempt of a job that fails."""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute("DROP TABLE failure_notes, failure_releases, failure_counts, failure_groups")
    op.execute("DROP TABLE ungrouped")
    op.execute("ALTER TABLE attempts DROP COLUMN place, DROP COLUMN release")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
ALTER TABLE attempts ADD COLUMN place text, ADD COLUMN release text;
COMMENT ON COLUMN attempts.place IS 'module and function that the error was raised in';
COMMENT ON COLUMN attempts.release IS 'of the worker''s application (INGEST_RELEASE)';

CREATE TABLE ungrouped (
    job bigint NOT NULL,
    number integer NOT NULL,
    CONSTRAINT ungrouped_pkey PRIMARY KEY (job, number)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
COMMENT ON COLUMN ungrouped.number IS 'of the attempt';

CREATE TABLE failure_groups (
    id bigint GENERATED ALWAYS AS IDENTITY,
    processor text NOT NULL,
    error_type text NOT NULL,
    place text NOT NULL,
    state text DEFAULT 'open' NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    attempts bigint NOT NULL,
    job bigint NOT NULL,
    number integer NOT NULL,
    assigned_to text,
    changed_at timestamptz,
    changed_by text,
    muted_until timestamptz,
    muted_to bigint,
    resolved_at timestamptz,
    resolved_in text,
    resolves_itself boolean DEFAULT false NOT NULL,
    reopened_at timestamptz,
    CONSTRAINT failure_groups_pkey PRIMARY KEY (id),
    CONSTRAINT failure_groups_processor_error_type_place_key UNIQUE (processor, error_type, place),
    CONSTRAINT failure_groups_state
        CHECK (state IN ('open', 'acknowledged', 'resolved', 'muted'))
) WITH (fillfactor = 70);
CREATE INDEX failure_groups_by_state ON failure_groups (state, last_seen);
COMMENT ON COLUMN failure_groups.place IS 'empty: there is no traceback';
COMMENT ON COLUMN failure_groups.attempts IS 'that have failed so, ever';
COMMENT ON COLUMN failure_groups.job IS 'of the newest of these attempts';
COMMENT ON COLUMN failure_groups.number IS 'of that attempt';
COMMENT ON COLUMN failure_groups.changed_at IS 'the state was changed';
COMMENT ON COLUMN failure_groups.changed_by IS 'null: by itself';
COMMENT ON COLUMN failure_groups.muted_to
    IS 'the number of attempts at which it is open again';
COMMENT ON COLUMN failure_groups.resolved_at
    IS 'the last time, if it was not muted since';
COMMENT ON COLUMN failure_groups.resolved_in IS 'the release that mends it; null: it is mended';
COMMENT ON COLUMN failure_groups.resolves_itself
    IS 'it is resolved once none of its jobs fails or is to be repeated';
COMMENT ON COLUMN failure_groups.reopened_at
    IS 'it came back by itself, and nobody has reacted';

CREATE TABLE failure_counts (
    failure bigint NOT NULL,
    at timestamptz NOT NULL,
    attempts bigint NOT NULL,
    CONSTRAINT failure_counts_pkey PRIMARY KEY (failure, at)
) WITH (fillfactor = 70);
CREATE INDEX failure_counts_at ON failure_counts (at);

CREATE TABLE failure_releases (
    failure bigint NOT NULL,
    release text NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    attempts bigint NOT NULL,
    CONSTRAINT failure_releases_pkey PRIMARY KEY (failure, release)
) WITH (fillfactor = 70);

CREATE TABLE failure_notes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    failure bigint NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    by text NOT NULL,
    text text NOT NULL,
    CONSTRAINT failure_notes_pkey PRIMARY KEY (id)
);
CREATE INDEX failure_notes_failure ON failure_notes (failure);
"""
