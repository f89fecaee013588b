"""Let operators edit an event and send it again."""

from alembic import op

revision = "0020"
down_revision = "0019"
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
    op.execute("DROP TABLE copies")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE copies (
    number uuid NOT NULL,
    event uuid NOT NULL,
    origin uuid NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    by text NOT NULL,
    reason text,
    CONSTRAINT copies_pkey PRIMARY KEY (number),
    CONSTRAINT copies_event_key UNIQUE (event)
);
CREATE INDEX copies_origin ON copies (origin);
COMMENT ON COLUMN copies.number IS 'given with the order: again is the same';
COMMENT ON COLUMN copies.event IS 'the copy';
COMMENT ON COLUMN copies.origin IS 'the event that it was made of';
"""
