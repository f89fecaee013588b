"""Compress bodies by lz4 where the server can."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased."""


def upgrade() -> None:
    op.execute(COMPRESS.format(method="lz4"))
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


def downgrade() -> None:
    op.execute(COMPRESS.format(method="default"))
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


# A body of 8 kB takes two thirds of the CPU that PostgreSQL's own compression takes, one of 64 kB
# three fifths, and as many bytes (docs/performance.md). Partitions that are made later have it from
# their table, others have to be told. Bodies that are there stay as they are.
COMPRESS = """
DO $$
DECLARE part regclass;
BEGIN
    IF (SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings
        WHERE name = 'default_toast_compression') THEN
        FOR part IN SELECT relid FROM pg_catalog.pg_partition_tree('deliveries') LOOP
            EXECUTE 'ALTER TABLE ' || part || ' ALTER COLUMN body SET COMPRESSION {method}';
        END LOOP;
    END IF;
END $$
"""
