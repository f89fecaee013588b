"""Say which key a stored body is encrypted with, and which keys the processes have."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased. Before the first body is encrypted, a receiver or
`ingest encryption` raises this to 0015 (ingest.store.encryption.gate)."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '200ms'")  # receivers wait behind it
    op.execute("ALTER TABLE deliveries ADD COLUMN body_key text")
    op.execute("COMMENT ON COLUMN deliveries.body_key IS 'what encrypts the body; null: nothing'")
    op.execute("ALTER TABLE processes ADD COLUMN body_keys text[]")
    op.execute(
        "COMMENT ON COLUMN processes.body_keys"
        " IS 'ids of the keys of bodies that it has, newest first; null: it knows of none'"
    )
    op.execute(
        """
        CREATE TABLE body_keys (
            id text NOT NULL,
            used_since timestamptz DEFAULT now() NOT NULL,
            CONSTRAINT body_keys_pkey PRIMARY KEY (id)
        )
        """
    )
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
    op.execute("DROP TABLE body_keys")
    op.execute("ALTER TABLE processes DROP COLUMN body_keys")
    op.execute("ALTER TABLE deliveries DROP COLUMN body_key")
