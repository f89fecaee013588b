"""Waits as long as a call to a CRM takes, on an event loop, then writes one row an event."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.benchmarks.own import KEEP
from workers import Event, processor

NAP_S = 0.02
IN_FLIGHT = 200

_KEEP = text(KEEP)


@processor("message.received", name="async_naps", in_flight=IN_FLIGHT)
async def nap(event: Event, db: AsyncConnection) -> None:
    """Wait, and keep the message."""
    await asyncio.sleep(NAP_S)
    await db.execute(_KEEP, {**event.data, "event_id": event.event_id})
