"""Count refused requests by minute, reason, source and address, with what was answered."""

from alembic import op

revision = "0024"
down_revision = "0023"
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
    op.execute("DROP TABLE refusal_counts")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE refusal_counts (
    minute timestamptz NOT NULL,
    reason text NOT NULL,
    source text NOT NULL,
    client text NOT NULL,
    status smallint NOT NULL,
    sentence text NOT NULL,
    count bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    request uuid NOT NULL,
    CONSTRAINT refusal_counts_pkey PRIMARY KEY (minute, reason, source, client)
) WITH (fillfactor = 50);
COMMENT ON COLUMN refusal_counts.minute IS 'or quarter or hour, once it is old';
COMMENT ON COLUMN refusal_counts.source IS 'empty: none of that name is configured';
COMMENT ON COLUMN refusal_counts.client IS 'their address; empty: further addresses';
COMMENT ON COLUMN refusal_counts.sentence IS 'what the last sender was told';
COMMENT ON COLUMN refusal_counts.request IS 'the id in the last answer';
"""
