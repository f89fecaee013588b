"""Remember the events that retention removes, and keep what retention has done.

Tables and a column are added; nothing that the release before uses changes, and no table in use is
written anew.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of the release before still runs on the schema, as long as no event has been removed. Before
the first is, the relay raises this to 0013 (ingest.store.retention.obstacles)."""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute("ALTER TABLE processes ADD COLUMN remembers boolean NOT NULL DEFAULT false")
    op.execute(
        "COMMENT ON COLUMN processes.remembers"
        " IS 'a worker: its admit knows removed and erased events'"
    )
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
    op.execute("ALTER TABLE processes DROP COLUMN remembers")
    op.execute("DROP TABLE past_events, retention")


TABLES = """
CREATE TABLE past_events (
    digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    event uuid NOT NULL,
    day date NOT NULL,
    CONSTRAINT past_events_pkey PRIMARY KEY (digest)
);
CREATE INDEX past_events_day ON past_events (day);
COMMENT ON COLUMN past_events.digest IS '16 bytes, of the source and the sender''s id';
COMMENT ON COLUMN past_events.fingerprint IS 'its first 8 bytes';
COMMENT ON COLUMN past_events.event IS 'the id that it had';
COMMENT ON COLUMN past_events.day IS 'of its receipt, in UTC';

CREATE TABLE retention (
    kind text NOT NULL,
    removed bigint DEFAULT 0 NOT NULL,
    ended_at timestamptz,
    removed_to uuid DEFAULT '00000000-0000-0000-0000-000000000000' NOT NULL,
    remembered_to uuid DEFAULT '00000000-0000-0000-0000-000000000000' NOT NULL,
    closed_at timestamptz,
    CONSTRAINT retention_pkey PRIMARY KEY (kind)
);
COMMENT ON COLUMN retention.removed IS 'rows, ever';
COMMENT ON COLUMN retention.ended_at IS 'when nothing older was left last';
COMMENT ON COLUMN retention.removed_to IS 'rows up to this id are done in this pass';
COMMENT ON COLUMN retention.remembered_to IS 'events: those up to this one are in past_events';
COMMENT ON COLUMN retention.closed_at IS 'events: since when older code may not start';
"""
