"""The connections of async processors: guarded as those of the others are (workers.guard)."""

from functools import partial
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest.store.address import Database
from ingest.store.async_engine import AsyncPipelineConnection, create_async_engine
from workers.guard import Guarded, look_at


class GuardedAsyncCursor(psycopg.AsyncCursor[Any]):
    """A cursor that looks at the statements."""

    async def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        """Execute, unless that would end a guarded transaction."""
        look_at(self.connection, query)
        return await super().execute(query, *arguments, **options)

    async def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        """Execute many times, unless that would end a guarded transaction."""
        look_at(self.connection, query)
        await super().executemany(query, *arguments, **options)


class GuardedAsyncConnection(Guarded, AsyncPipelineConnection):
    """The driver's connection; while guarded, it refuses to end its transaction."""

    async def commit(self) -> None:
        """Commit, unless guarded."""
        self.check()
        await super().commit()

    async def rollback(self) -> None:
        """Roll back, unless guarded."""
        self.check()
        await super().rollback()


def create_engine(database: Database) -> AsyncEngine:
    """Return an engine for async processors, whose connections are guarded."""
    return create_async_engine(
        database,
        partial(
            GuardedAsyncConnection.open,
            database,
            cursor_factory=GuardedAsyncCursor,
            row_factory=tuple_row,
        ),
    )
