"""The functions and triggers of the schema, in SQL.

`ingest.store.schema` creates them with its tables; nothing else uses this module. Two functions
serve generated columns and searches, so they are created before the tables. The triggers, with
their functions, are created after them.
"""

# The lock of the slot comes first: an admit of new events and one of replayed events count in
# different orders, and would deadlock without it.
_COUNT_ROWS = """
CREATE FUNCTION ingest.count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change bigint := (SELECT count(*) FROM changed);
BEGIN
    IF change > 0 THEN
        PERFORM pg_advisory_xact_lock(1953460321, pg_backend_pid() % 16);
        INSERT INTO ingest.totals (counted, slot, rows)
        VALUES (TG_TABLE_NAME, pg_backend_pid() % 16,
                CASE TG_OP WHEN 'DELETE' THEN -change ELSE change END)
        ON CONFLICT (counted, slot) DO UPDATE SET rows = totals.rows + excluded.rows;
    END IF;
    RETURN NULL;
END $$
"""

# The next two prescribe an index, row by row. Their plans are kept from when the tables were small,
# and a join with the changed rows was ten times as slow.
_NOTE_UNHANDLED = """
CREATE FUNCTION ingest.note_unhandled() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO ingest.unhandled (event)
    SELECT id FROM changed
    WHERE (SELECT true FROM ingest.jobs WHERE jobs.event = changed.id LIMIT 1) IS NULL;
    RETURN NULL;
END $$
"""

_NOTE_HANDLED = """
CREATE FUNCTION ingest.note_handled() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM ingest.unhandled
    WHERE event = ANY(ARRAY(SELECT changed.event FROM changed WHERE changed.trigger = 'replay'));
    RETURN NULL;
END $$
"""

_NOTE_ACTIVITY = """
CREATE FUNCTION ingest.note_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1953460321, pg_backend_pid() % 16);
    INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
    SELECT date_trunc('minute', received_at), TG_ARGV[0], '', 0, pg_backend_pid() % 16, count(*)
    FROM changed GROUP BY 1 ORDER BY 1
    ON CONFLICT (minute, what, label, bucket, slot)
    DO UPDATE SET count = activity.count + excluded.count;
    RETURN NULL;
END $$
"""

# The one form of a phone number: 966511110001 for +966 51-111-0001. What is not a number (`SA.abc`)
# stays as it is written. The result has at most 200 characters, which fit any index.
_NORMAL_PHONE = r"""
CREATE FUNCTION ingest.normal_phone(written text) RETURNS text
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

# A body as jsonb; null if it is not JSON. JSON that jsonb refuses is replaced: U+0000 and halves of
# surrogate pairs by U+FFFD, then numbers that jsonb might refuse by null.
_BODY_JSON = r"""
CREATE FUNCTION ingest.body_json(body bytea) RETURNS jsonb
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


def _trigger(name: str, table: str, *, on: str, rows: str, function: str) -> str:
    return (
        f"CREATE TRIGGER {name} AFTER {on} ON {table} REFERENCING {rows} TABLE AS changed"
        f" FOR EACH STATEMENT EXECUTE FUNCTION ingest.{function}"
    )


FUNCTIONS = (_NORMAL_PHONE, _BODY_JSON)
"""Created before the tables. A colon in them is not a bind parameter."""
TRIGGERS = (
    *(_COUNT_ROWS, _NOTE_UNHANDLED, _NOTE_HANDLED, _NOTE_ACTIVITY),
    *(
        _trigger(f"count_{on.lower()}", table, on=on, rows=rows, function="count_rows()")
        for table in ("ingest.events", "ingest.duplicates", "ingest.jobs", "ingest.unhandled")
        for on, rows in (("INSERT", "NEW"), ("DELETE", "OLD"))
    ),
    _trigger(
        "note_unhandled", "ingest.events", on="INSERT", rows="NEW", function="note_unhandled()"
    ),
    *(
        _trigger(
            "note_activity", table, on="INSERT", rows="NEW", function=f"note_activity('{what}')"
        )
        for table, what in (("ingest.events", "event"), ("ingest.duplicates", "duplicate"))
    ),
    _trigger("note_handled", "ingest.jobs", on="INSERT", rows="NEW", function="note_handled()"),
)
"""Created after the tables, each trigger after its function."""
