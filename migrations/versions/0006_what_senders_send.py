"""Store phone numbers in one form, versions for each field, and changes without a time.

`messages`, `conversations` and `contacts` are rewritten for the normal form of phone numbers.
Workers wait for that. Receivers do not wait.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
oldest_code = "0004"
"""Code of this revision still runs on the schema, and finds phone numbers without an index."""


def upgrade() -> None:
    # Ten million rows take longer than the minute that a migration's statement is allowed.
    op.execute("SET LOCAL statement_timeout = '30min'")
    for function in (NORMAL_PHONE, BODY_JSON):
        op.get_bind().exec_driver_sql(function)  # a colon in it does not mark a parameter
    if has_read_model():
        for statement in STATEMENTS:
            op.execute(statement)
        for table, column in PHONES:
            op.execute(f"DROP INDEX {table}_{column}")
            op.execute(f"CREATE INDEX {table}_{column}_normal ON {table} ({column}_normal)")
            op.execute(f"COMMENT ON COLUMN {table}.{column}_normal IS '{DIGITS}'")
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    if has_read_model():
        for table, column in PHONES:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}_normal")
            op.execute(f"CREATE INDEX {table}_{column} ON {table} ({column})")
        for table in ("messages", "conversations", "orders"):
            op.execute(f"ALTER TABLE {table} DROP COLUMN versions")
        op.execute("DROP INDEX order_status_changes_changed_at")
        op.execute("ALTER TABLE order_status_changes DROP COLUMN sent_at")
    op.execute("DROP FUNCTION normal_phone(text)")
    op.execute("DROP FUNCTION body_json(bytea)")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


def has_read_model() -> bool:
    """Return whether the tables of the built-in read model exist."""
    named = sa.text("SELECT to_regclass('messages')")
    return op.get_bind().execute(named).scalar() is not None


PHONES = (
    ("messages", "from_number"),
    ("conversations", "phone_number"),
    ("contacts", "phone"),
)
DIGITS = "the digits, however they were written"
VERSIONS = "per field, what set it; null: the event ids and times say so"
# Both columns of a table at once, so that it is rewritten only once.
STATEMENTS = (
    """
    ALTER TABLE messages ADD COLUMN versions jsonb,
        ADD COLUMN from_number_normal text
            GENERATED ALWAYS AS (normal_phone(from_number)) STORED
    """,
    """
    ALTER TABLE conversations ADD COLUMN versions jsonb,
        ADD COLUMN phone_number_normal text
            GENERATED ALWAYS AS (normal_phone(phone_number)) STORED
    """,
    """
    ALTER TABLE contacts
        ADD COLUMN phone_normal text GENERATED ALWAYS AS (normal_phone(phone)) STORED
    """,
    "ALTER TABLE orders ADD COLUMN versions jsonb",
    *(
        f"COMMENT ON COLUMN {table}.versions IS '{VERSIONS}'"
        for table in ("messages", "conversations", "orders")
    ),
    "ALTER TABLE order_status_changes ADD COLUMN sent_at timestamptz",
    """
    COMMENT ON COLUMN order_status_changes.sent_at
        IS 'by its envelope, where it has no time of its own'
    """,
    """
    CREATE INDEX order_status_changes_changed_at ON order_status_changes (
        order_id, coalesce(updated_at, sent_at, '0001-01-01 00:00:00+00'::timestamptz),
        event_id COLLATE "C"
    )
    """,
)
NORMAL_PHONE = r"""
CREATE FUNCTION normal_phone(written text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 20 AS $$
DECLARE
    seen text;
    digits text;
BEGIN
    IF written ~ '^[1-9][0-9]*$' AND length(written) <= 200 THEN
        RETURN written;
    END IF;
    seen := btrim(translate(
        normalize(
            regexp_replace(
                left(written, 200),
                '[\u00AD\u061C\u180E\u200B-\u200F\u2028-\u202E\u2060-\u206F\uFEFF]', '', 'g'
            ),
            NFKC
        ),
        U&'\0660\0661\0662\0663\0664\0665\0666\0667\0668\0669'
            '\06F0\06F1\06F2\06F3\06F4\06F5\06F6\06F7\06F8\06F9',
        '01234567890123456789'
    ));
    digits := regexp_replace(seen, '^\+|[ \t\n\r\f\v()./\u2010-\u2015\u2212-]', '', 'g');
    IF digits ~ '^[0-9]+$' THEN
        RETURN regexp_replace(digits, '^(?:00)+', '');
    END IF;
    RETURN seen;
END $$
"""
BODY_JSON = r"""
CREATE FUNCTION body_json(body bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED COST 20 AS $$
DECLARE
    spelled text;
BEGIN
    RETURN CAST(convert_from(body, 'UTF8') AS jsonb);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    BEGIN
        spelled := ltrim(convert_from(body, 'UTF8'), U&'\FEFF');
        spelled := regexp_replace(
            spelled, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g'
        );
        spelled := regexp_replace(
            spelled,
            '(?<!\\)((?:\\\\)*)\\u[dD][89abAB][0-9a-fA-F]{2}'
                '(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})',
            '\1\\ufffd', 'g'
        );
        spelled := regexp_replace(
            spelled,
            '(?<!\\|\\u[dD][89abAB][0-9a-fA-F]{2})((?:\\\\)*)\\u[dD][c-fC-F][0-9a-fA-F]{2}',
            '\1\\ufffd', 'g'
        );
        BEGIN
            RETURN CAST(spelled AS jsonb);
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            RETURN CAST(
                regexp_replace(
                    spelled,
                    '(?<=[[:space:]:,\[])-?[0-9]'
                        '(?:[0-9.]{200,}|[0-9]*(?:\.[0-9]+)?[eE][+-]?[0-9]{3,})'
                        '(?=[[:space:],}]|\])',
                    'null', 'g'
                ) AS jsonb
            );
        END;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        RETURN NULL;
    END;
END $$
"""
