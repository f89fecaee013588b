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
# three fifths (docs/performance.md). The table is told, for the partitions that will be made, and
# those that still get rows: today's, those of the days to come, and the default one. One that
# belongs to another role, or is being vacuumed, is left as it is. Bodies that are there stay as
# they are.
COMPRESS = """
DO $$
DECLARE part regclass;
BEGIN
    IF NOT (SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings
            WHERE name = 'default_toast_compression') THEN
        RETURN;
    END IF;
    ALTER TABLE ONLY deliveries ALTER COLUMN body SET COMPRESSION {method};
    FOR part IN
        SELECT child.oid FROM pg_catalog.pg_inherits
        JOIN pg_catalog.pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = CAST('deliveries' AS regclass)
          AND pg_catalog.pg_has_role(child.relowner, 'USAGE')
          AND child.relname COLLATE "C"
              >= 'deliveries_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM_DD')
    LOOP
        BEGIN
            EXECUTE 'ALTER TABLE ' || part || ' ALTER COLUMN body SET COMPRESSION {method}';
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
END $$
"""
