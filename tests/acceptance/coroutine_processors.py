"""A user's own module of async processors, as the acceptance tests plug it in."""

import asyncio
import ctypes
import os
import time
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from workers import Event, processor

_RECORD = text("INSERT INTO effects (what, event, attempt) VALUES (:what, :event, :attempt)")


async def record(event: Event, db: AsyncConnection, what: str) -> None:
    await db.execute(_RECORD, {"what": what, "event": event.id, "attempt": event.attempt})


def _note(event: Event) -> None:
    with Path("begun").open("a") as begun:
        begun.write(f"{os.getpid()} {event.id}\n")


@processor("order.created", name="crm", in_flight=30)
async def crm(event: Event, db: AsyncConnection) -> None:
    """Says which process it runs in, half of the time after an effect, and waits."""
    if event.data["order_id"] % 2:
        await record(event, db, "crm")
    await asyncio.to_thread(_note, event)
    while await asyncio.to_thread(Path("stall").exists):  # noqa: ASYNC110 - another process's
        await asyncio.sleep(0.02)
    if event.data["order_id"] % 2 == 0:
        await record(event, db, "crm")


@processor("conversation.created", name="waits", in_flight=20, max_attempts=2)
async def waits(event: Event, db: AsyncConnection) -> None:
    """Does what must not be done on an event loop, if its conversation says so."""
    await record(event, db, "waits")
    match event.data.get("note"):
        case "blocks":
            time.sleep(3_600)  # noqa: ASYNC251 - the mistake
        case "holds":  # the GIL, and takes no signal
            ctypes.PyDLL(None).sleep(3_600)
        case "swallows":
            while True:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    continue
