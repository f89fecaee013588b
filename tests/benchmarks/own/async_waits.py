"""Waits as long as a call to a CRM takes, on an event loop, and writes nothing."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection

from workers import Event, processor

NAP_S = 0.02
IN_FLIGHT = 200


@processor("message.received", name="async_waits", in_flight=IN_FLIGHT)
async def wait(event: Event, db: AsyncConnection) -> None:
    """Wait."""
    await asyncio.sleep(NAP_S)
