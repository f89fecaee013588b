"""Let the audit log say which way somebody came in, and who it is whatever their name is."""

from alembic import op

revision = "0021"
down_revision = "0020"
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
    op.execute("ALTER TABLE actions DROP COLUMN via, DROP COLUMN subject")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
ALTER TABLE actions ADD COLUMN via text, ADD COLUMN subject text;
COMMENT ON COLUMN actions.via
    IS 'how they came in: password, oidc, token, loopback, command line';
COMMENT ON COLUMN actions.subject
    IS 'who it is for ever, where an OIDC provider tells the name';
"""
