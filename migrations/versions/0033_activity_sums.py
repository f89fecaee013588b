"""Sum up the counts of minutes by quarter of an hour and by hour."""

from alembic import op

revision = "0033"
down_revision = "0030"
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
    op.execute("DROP TABLE activity_sums; DROP INDEX activity_of_receipt")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


# The index is of a small table: two months of ten processors are half a million rows, a second.
SCHEMA = """
CREATE TABLE activity_sums (
    span_s integer NOT NULL,
    begins timestamptz NOT NULL,
    what text NOT NULL,
    label text NOT NULL,
    total bigint NOT NULL,
    cells smallint[] NOT NULL,
    counts bigint[] NOT NULL,
    CONSTRAINT activity_sums_pkey PRIMARY KEY (span_s, begins, what, label)
);
CREATE INDEX activity_sums_totals ON activity_sums (what, span_s, begins) INCLUDE (label, total);
COMMENT ON COLUMN activity_sums.span_s IS 'how many seconds it sums up';
COMMENT ON COLUMN activity_sums.total IS 'the sum of the counts';
COMMENT ON COLUMN activity_sums.cells IS 'five times the bucket, and its part';
COMMENT ON COLUMN activity_sums.counts IS 'of each cell';
CREATE INDEX activity_of_receipt ON activity (what, minute)
    WHERE what IN ('event', 'duplicate', 'possible_loss');
"""
