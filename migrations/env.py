"""Alembic's environment. `ingest migrate` runs it (ingest.store.migrations); so does `alembic`."""

from alembic import context
from sqlalchemy import Connection

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
    """Run the migrations that Alembic has been told to, in the transaction that is open."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=include_object,
        include_schemas=True,
        version_table_schema=home,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Run inside `ingest migrate`, or for Alembic's own commands by the settings."""
    attributes = context.config.attributes
    if "connection" in attributes:
        run(attributes["connection"], attributes["home"])
        return
    given = settings.load()
    engine = create_engine(given.migration_database, role=Role.MIGRATION)
    attributes.update(home=given.database_schema, read_model=given.read_model)
    with engine.connect() as connection, connection.begin():
        migrations.take_turns(connection)
        migrations.ensure_schema(connection, given.database_schema)
        run(connection, given.database_schema)
    engine.dispose()


main()
