"""Keep which requests were sent to the API with an Idempotency-Key, and what was answered."""

from alembic import op

revision = "0023"
down_revision = "0021"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased."""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute("DROP TABLE keyed_requests")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE keyed_requests (
    key bytea NOT NULL,
    request bytea NOT NULL,
    began_at timestamptz DEFAULT now() NOT NULL,
    answer bytea,
    CONSTRAINT keyed_requests_pkey PRIMARY KEY (key)
);
CREATE INDEX keyed_requests_began_at ON keyed_requests (began_at);
COMMENT ON COLUMN keyed_requests.key IS 'a digest of the author and the Idempotency-Key';
COMMENT ON COLUMN keyed_requests.request IS 'a digest, keyed with the Idempotency-Key';
COMMENT ON COLUMN keyed_requests.answer
    IS 'encrypted with the Idempotency-Key; null: it runs, or its end is not known';
"""
