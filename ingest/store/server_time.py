"""The server's time: one clock for all processes."""

from datetime import datetime

from sqlalchemy import Connection

from ingest.store.sql import statement

_NOW = statement("SELECT now()")


def server_time(connection: Connection) -> datetime:
    """Return when the transaction began, by the server's clock."""
    now: datetime = connection.execute(_NOW).scalar_one()
    return now
