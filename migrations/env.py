"""Alembic's environment: one migration at a time, each in its own transaction, none waiting for
ever."""

from alembic import context
from sqlalchemy import Connection, text

from ingest import settings
from ingest.store.database import Role, create_engine
from ingest.store.tables import metadata

# Two `ingest migrate` at once: the second waits here, then finds nothing to do.
ADVISORY_LOCK = 0x696E67657374  # "ingest"


def include_object(
    _object: object, name: str | None, type_: str, _reflected: bool, _compare_to: object
) -> bool:
    """Leave the partitions of deliveries to ingest.store.partitions."""
    return not (type_ == "table" and (name or "").startswith("deliveries_"))


def migrate(connection: Connection) -> None:
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_object=include_object,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
        connection.commit()


def main() -> None:
    given = context.config.attributes.get("connection")
    if isinstance(given, Connection):
        migrate(given)
        return
    engine = create_engine(settings.load().database, role=Role.MIGRATION)
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()


main()
