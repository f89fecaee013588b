"""Alembic's environment, for `ingest migrate` (ingest.store.migrations) and for `alembic`."""

from alembic import context
from sqlalchemy import Connection, event

from ingest import settings
from ingest.store import migrations
from ingest.store.engine import Role, create_engine
from ingest.store.schema import metadata


def include_object(
    _object: object, name: str | None, type_: str, _reflected: bool, _compare_to: object
) -> bool:
    """Leave the partitions of deliveries to ingest.store.partitions."""
    return not (type_ == "table" and (name or "").startswith("deliveries_"))


def run(connection: Connection, home: str) -> None:
    """Run the migrations that Alembic was asked for: in the open transaction, or else each in one
    of its own."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=include_object,
        include_schemas=True,
        version_table_schema=home,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Run on the connection of `ingest migrate`, or on one of our own for Alembic's commands."""
    attributes = context.config.attributes
    if "connection" in attributes:
        run(attributes["connection"], attributes["home"])
        return
    configured = settings.load()
    engine = create_engine(configured.migration_database, role=Role.MIGRATION)
    attributes.update(home=configured.database_schema, read_model=configured.read_model)
    with engine.connect() as connection:
        event.listen(connection, "begin", begin)
        run(connection, configured.database_schema)
        connection.commit()
    engine.dispose()


def begin(connection: Connection) -> None:
    """Begin a transaction as `ingest migrate` does."""
    migrations.take_turns(connection)
    migrations.ensure_schema(connection, context.config.attributes["home"])


main()
