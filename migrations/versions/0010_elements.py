"""Store the elements of deliveries that hold several events."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema: the column may be null."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '200ms'")  # receivers wait behind it
    op.execute("ALTER TABLE deliveries ADD COLUMN part_of uuid")
    op.execute(f"COMMENT ON COLUMN deliveries.part_of IS '{COMMENT}'")
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute("ALTER TABLE deliveries DROP COLUMN part_of")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


COMMENT = "an element: the delivery that it came in"
