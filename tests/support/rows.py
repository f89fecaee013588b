"""Reading tables in tests."""

from typing import Any

from sqlalchemy import Engine, text


def rows(engine: Engine, sql: str, **values: Any) -> list[dict[str, Any]]:
    """What a query returns, a dict a row."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql), values).mappings()]


def one(engine: Engine, sql: str, **values: Any) -> Any:
    """The one value of a query."""
    with engine.connect() as connection:
        return connection.execute(text(sql), values).scalar_one()


def execute(engine: Engine, sql: str, **values: Any) -> None:
    """Run a statement and commit it."""
    with engine.begin() as connection:
        connection.execute(text(sql), values)
