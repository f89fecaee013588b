"""Keep what was behind, every few seconds: since when, and how fast it shrinks."""

from alembic import op

revision = "0018"
down_revision = "0017"
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
    op.execute("DROP TABLE backlog_samples")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE backlog_samples (
    at timestamptz NOT NULL,
    deliveries bigint NOT NULL,
    jobs bigint NOT NULL,
    age_s double precision NOT NULL,
    is_least boolean NOT NULL,
    CONSTRAINT backlog_samples_pkey PRIMARY KEY (at)
);
COMMENT ON COLUMN backlog_samples.deliveries IS 'not admitted';
COMMENT ON COLUMN backlog_samples.jobs IS 'due, and not claimed';
COMMENT ON COLUMN backlog_samples.age_s IS 'how long the oldest of them had been due';
COMMENT ON COLUMN backlog_samples.is_least IS 'there may have been more';
"""
