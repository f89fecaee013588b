"""Connections of an event loop for processors, with the settings that `ingest.store.engine`
makes."""

from collections.abc import Awaitable, Callable
from typing import Any, Self

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import NullPool
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest.store import engine
from ingest.store.address import Database
from ingest.store.engine import BODY_KEYS, Role
from ingest.store.sql import SCHEMA


class AsyncPipelineConnection(psycopg.AsyncConnection[Any]):
    """psycopg's connection for an event loop; each of its transactions has the settings of a
    processor's."""

    begin_statement = engine.BEGIN
    settings = ""
    """The expressions that set, for a transaction, what is not set for the session."""
    is_direct = False
    """Whether no pooler is in between, so that settings of the session stay."""

    def _start_query(self) -> PQGen[None]:
        """Begin a transaction and make its settings, in one message."""
        if not self.autocommit and self.pgconn.transaction_status == TransactionStatus.IDLE:
            yield from engine.send(self.pgconn, self.begin_statement)

    async def send(self, statements: bytes) -> None:
        """Send statements without parameters, in one round trip and past the cursors.

        Raises:
            psycopg.Error: one of them failed, or the connection is gone.
        """
        async with self.lock:
            await self.wait(engine.send(self.pgconn, statements))

    @classmethod
    async def open(cls, database: Database, **options: Any) -> Self:
        """Connect.

        Raises:
            psycopg.OperationalError: there is no server, or it takes none.
            UnfitDatabase: the server or the database is of a kind that is not supported.
        """
        role = Role.PROCESSOR
        parameters = engine.parameters(database, role)
        connection = await cls.connect(**parameters, **options, autocommit=True)
        try:
            engine.check_server(connection.pgconn)
            settings = engine.settings_of(role, connection.pgconn)
            row = await (await connection.execute(engine.select_settings(settings))).fetchone()
            connection.is_direct = engine.is_direct(connection.pgconn, row or ())
            if connection.is_direct:
                made = engine.set_configs(settings, is_local=False)
                await connection.execute(f"SELECT {made}")
                settings = engine.changed(settings, row or ())
            await connection.set_autocommit(False)
        except BaseException:
            await connection.close()
            raise
        connection.settings = engine.set_configs(settings, is_local=True)
        connection.begin_statement = engine.BEGIN + f"; SELECT {connection.settings}".encode()
        if not connection.is_direct:
            connection.prepare_threshold = None
        return connection


def create_async_engine(
    database: Database, open_connection: Callable[[], Awaitable[AsyncPipelineConnection]]
) -> AsyncEngine:
    """Return an engine whose connections are the caller's to keep; it never logs a parameter."""
    made = sqlalchemy_asyncio.create_async_engine(
        "postgresql+psycopg://",
        async_creator=open_connection,
        poolclass=NullPool,
        hide_parameters=True,
        execution_options={BODY_KEYS: database.body_keys},
    )
    if database.schema != SCHEMA:
        engine.rename_schema(made.sync_engine, database.schema)
    return made
