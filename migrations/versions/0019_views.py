"""Keep searches that somebody named."""

from alembic import op

revision = "0019"
down_revision = "0018"
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
    op.execute("DROP TABLE views")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE views (
    id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    query text NOT NULL,
    oldest_first boolean DEFAULT false NOT NULL,
    made_by text NOT NULL,
    made_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT views_pkey PRIMARY KEY (id),
    CONSTRAINT views_name_key UNIQUE (name)
);
COMMENT ON COLUMN views.query IS 'as it was typed';
"""
