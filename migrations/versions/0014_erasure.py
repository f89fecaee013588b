"""Erase persons: bodies may be null, and what was erased is recorded."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema. It recognises no duplicate of an erased event
whose id was erased: nobody is erased before all workers are new."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '200ms'")  # receivers wait behind it
    op.execute("ALTER TABLE deliveries ALTER COLUMN body DROP NOT NULL")
    op.execute("COMMENT ON COLUMN deliveries.body IS 'null: it was erased'")
    op.execute(SCHEMA)
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute("UPDATE deliveries SET body = '' WHERE body IS NULL")
    op.execute("ALTER TABLE deliveries ALTER COLUMN body SET NOT NULL")
    op.execute("COMMENT ON COLUMN deliveries.body IS NULL")
    op.execute("DROP TABLE erasures, erased_events, erasure_keys")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE erasures (
    id bigint GENERATED ALWAYS AS IDENTITY,
    requested_at timestamptz DEFAULT now() NOT NULL,
    requested_by text NOT NULL,
    reason text,
    persons bytea[] NOT NULL,
    source text,
    status text NOT NULL,
    identifiers jsonb,
    position jsonb DEFAULT '{}' NOT NULL,
    counts jsonb DEFAULT '{}' NOT NULL,
    finished_at timestamptz,
    CONSTRAINT erasures_pkey PRIMARY KEY (id),
    CONSTRAINT erasures_status
        CHECK (status IN ('erasing', 'finished'))
);
COMMENT ON COLUMN erasures.persons IS 'keyed digests of the numbers and ids that were given';
COMMENT ON COLUMN erasures.source IS 'only its events; null: those of all sources';
COMMENT ON COLUMN erasures.identifiers
    IS 'what is searched for, in clear; null once it has ended';
COMMENT ON COLUMN erasures.position IS 'how far it has got';

CREATE TABLE erased_events (
    event uuid NOT NULL,
    erasure bigint NOT NULL,
    CONSTRAINT erased_events_pkey PRIMARY KEY (event)
);
CREATE INDEX erased_events_erasure ON erased_events (erasure);

CREATE TABLE erasure_keys (
    id smallint NOT NULL,
    key bytea NOT NULL,
    made_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT erasure_keys_pkey PRIMARY KEY (id)
);
"""
