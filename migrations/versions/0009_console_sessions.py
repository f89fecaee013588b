"""Store a random key for the console's sessions, and the sessions ended by logging out."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema: two tables are added, which it does not know."""


def upgrade() -> None:
    op.execute(ADDED)
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
    op.execute("DROP TABLE ended_sessions, console_keys")


ADDED = """
CREATE TABLE console_keys (
    purpose text NOT NULL,
    key bytea NOT NULL,
    made_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT console_keys_pkey PRIMARY KEY (purpose)
);
CREATE TABLE ended_sessions (
    id text NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT ended_sessions_pkey PRIMARY KEY (id)
);
COMMENT ON COLUMN console_keys.key IS 'random, and known to nobody but the consoles';
COMMENT ON COLUMN ended_sessions.expires_at IS 'when it would have ended by itself';
"""
