"""Store the privileges that a process's role lacks, as the process itself reports."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema: the column has a default."""


def upgrade() -> None:
    op.execute("ALTER TABLE processes ADD COLUMN lacks text[] NOT NULL DEFAULT '{}'")
    op.execute("COMMENT ON COLUMN processes.lacks IS 'what its role may not do and needs to'")
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute("ALTER TABLE processes DROP COLUMN lacks")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
