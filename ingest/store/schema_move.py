"""The move of an installation from before revision 0005 into a schema of its own, in place.

Before that revision the tables were where the search path of the migrating role led, mostly in
`public`, among those of the application. Views stay under the old names, so that processes of the
previous release keep working during the deploy. A later release drops them.
"""

from sqlalchemy import Connection

from ingest.errors import MigrationRefused
from ingest.store.sql import quoted, statement

LAST = "0004"
"""The last revision before the move."""
FIRST_IN_SCHEMA = "0005"
"""The revision whose triggers name the schema."""
_REVISIONS = ("0001", "0002", "0003", "0004")
# The pipeline's tables at revision 0004, each with a column that an application's table of the same
# name would not have.
_TABLES = {
    "deliveries": "rejected",
    "unadmitted": "fingerprint",
    "events": "fingerprint",
    "duplicates": "conflict",
    "jobs": "hinted_until",
    "attempts": "outcome",
    "replays": "requested_by",
    "actions": "target",
    "processors": "pause_reason",
    "processes": "seen_at",
    "refusals": "detail",
    "activity": "bucket",
    "unhandled": "event",
    "totals": "counted",
    "messages": "received_event_id",
    "conversations": "created_event_id",
    "orders": "created_event_id",
    "order_status_changes": "new_status",
    "contacts": "versions",
}
_FUNCTIONS = ("count_rows", "note_unhandled", "note_handled", "note_activity")


_HAS_TABLES = statement(
    """
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = :schema AND c.relname = 'unadmitted')
    """
)


# A partitioned table of that name with these columns can only be the pipeline's. Beside a table of
# revisions it belongs to another installation, which has a schema of its own already.
_OLD_HOME = statement(
    """
    SELECT n.nspname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'deliveries' AND c.relkind = 'p'
      AND (SELECT count(*) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attname IN ('key_id', 'rejected', 'headers')) = 3
      AND EXISTS (SELECT FROM pg_class u WHERE u.relnamespace = n.oid AND u.relname = 'unadmitted')
      AND NOT EXISTS (SELECT FROM pg_class r
                      WHERE r.relnamespace = n.oid AND r.relname = 'revisions')
    ORDER BY n.nspname <> 'public', n.nspname LIMIT 1
    """
)


def old_home(connection: Connection, schema: str) -> str | None:
    """Return the schema of an installation from before revision 0005.

    Return None if there is none, or if it has been moved.

    Raises:
        MigrationRefused: Alembic's version table beside its tables is another application's.
    """
    if connection.execute(_HAS_TABLES, {"schema": schema}).scalar_one():
        return None
    home: str | None = connection.execute(_OLD_HOME).scalar()
    if home is None:
        return None
    versions = _versions(connection, home)
    if len(versions) != 1 or versions[0] not in _REVISIONS:
        raise MigrationRefused(
            f"The pipeline's tables of an earlier release lie in the schema {home}, but"
            f" {home}.alembic_version is another application's: it has no revision of ours.",
            reason="foreign_version_table",
        )
    return home


def is_before_last(connection: Connection, home: str) -> bool:
    """Return whether the old home still lacks migrations."""
    return _versions(connection, home) != [LAST]


_OURS = statement(
    """
    SELECT c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = :home
    JOIN unnest(CAST(:tables AS text[]), CAST(:columns AS text[])) AS ours (name, has)
      ON ours.name = c.relname
    WHERE c.relkind IN ('r', 'p')
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ours.has)
    ORDER BY c.relname
    """
)


_PARTITIONS = statement(
    """
    SELECT c.relname
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class parent ON parent.oid = i.inhparent AND parent.relname = 'deliveries'
    JOIN pg_namespace n ON n.oid = parent.relnamespace AND n.nspname = :home
    ORDER BY c.relname
    """
)


# Roles with privileges on the tables keep them after the move, and get the same on the views.
_GRANTS = """
DO $$
DECLARE
    old text := {home};
    new text := {schema};
    item record;
BEGIN
    FOR item IN
        SELECT c.relname AS table_name, acl.privilege_type AS privilege,
               CASE acl.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = new
        CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
        WHERE c.relkind IN ('r', 'p') AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', new, item.grantee);
        IF to_regclass(format('%I.%I', old, item.table_name)) IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %I.%I TO %s', item.privilege, old, item.table_name,
                           item.grantee);
        END IF;
    END LOOP;
END $$
"""


def move(connection: Connection, home: str, schema: str) -> None:
    """Move everything of the pipeline's from the schema `home` to the schema `schema`.

    Raises:
        SQLAlchemyError: the locks are not available at once, or the role lacks a privilege.
    """
    parameters = {"home": home, "tables": list(_TABLES), "columns": list(_TABLES.values())}
    tables = list(connection.execute(_OURS, parameters).scalars())
    partitions = list(connection.execute(_PARTITIONS, {"home": home}).scalars())
    _lock(connection, [f"{quoted(home)}.{quoted(table)}" for table in tables])
    for table in (*tables, *partitions, "alembic_version"):
        connection.execute(
            statement(f"ALTER TABLE {quoted(home)}.{quoted(table)} SET SCHEMA {quoted(schema)}")
        )
    for function in _FUNCTIONS:
        connection.execute(
            statement(f"ALTER FUNCTION {quoted(home)}.{function}() SET SCHEMA {quoted(schema)}")
        )
    for table in tables:
        connection.execute(
            statement(
                f"CREATE VIEW {quoted(home)}.{quoted(table)} AS"
                f" SELECT * FROM {quoted(schema)}.{quoted(table)}"
            )
        )
    connection.execute(statement(_GRANTS.format(home=_literal(home), schema=_literal(schema))))


def _lock(connection: Connection, tables: list[str]) -> None:
    connection.execute(statement("SET LOCAL lock_timeout = '200ms'"))
    connection.execute(statement(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"))


def _versions(connection: Connection, home: str) -> list[str]:
    table = f"{quoted(home)}.alembic_version"
    if connection.execute(statement("SELECT to_regclass(:name)"), {"name": table}).scalar() is None:
        return []
    return list(connection.execute(statement(f"SELECT version_num FROM {table}")).scalars())


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
