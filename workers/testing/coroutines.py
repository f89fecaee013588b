"""Async processors in a test: each call on an event loop of its own, in the test's transaction."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from workers.coroutines.database import Database
from workers.registry import Processor


def awaited(processor: Processor) -> Processor:
    """Return a plain processor that calls an async one and waits for it."""
    return replace(processor, function=_waiting(processor.function), is_async=False, in_flight=1)


def _waiting(function: Callable[..., Any]) -> Callable[[Any, Connection], None]:
    async def call_on_loop(argument: Any, connection: Connection) -> None:
        async def begin() -> Connection:
            return connection

        database = Database(begin)
        try:
            await function(argument, database)
        finally:
            database.end()
        database.check()

    def call(argument: Any, connection: Connection) -> None:
        asyncio.run(call_on_loop(argument, connection))

    return call
