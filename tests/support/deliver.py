"""Putting signed bodies into the database as the receiver does, without one."""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ingest import queues
from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.ids import delivery_id, element_id
from ingest.store.address import parse
from ingest.store.engine import WriterConnection
from ingest.store.pipeline import deliveries
from ingest.store.pipeline.deliveries import Delivery
from tests.support.sources import awalchat

_source = awalchat()


def body(event_type: str, data: dict[str, Any], **fields: Any) -> bytes:
    """An envelope."""
    envelope = {"event": event_type, "timestamp": "2024-01-20T10:30:00Z", "data": data} | fields
    return json.dumps(envelope).encode()


def order(order_id: int, **data: Any) -> bytes:
    """An order.created."""
    return body("order.created", {"order_id": order_id} | data)


def deliver(
    database_url: str,
    bodies: Sequence[bytes],
    *,
    dispatch_grace_s: float = 0,
    now: float | None = None,
    keys: BodyKeys = NO_KEYS,
) -> list[UUID]:
    """Store deliveries of `bodies` that came `now` (Unix time), unadmitted; returns their ids."""
    now = time.time() if now is None else now
    made = [_delivery(each, now + position / 1000) for position, each in enumerate(bodies)]
    _store(database_url, made, keys, dispatch_grace_s)
    return [delivery.id for delivery in made]


def deliver_together(database_url: str, bodies: Sequence[bytes]) -> tuple[UUID, list[UUID]]:
    """Store one delivery that holds several events, unadmitted; returns its id, and theirs."""
    whole = _delivery(bodies[0], time.time())
    elements = tuple(
        _delivery(each, time.time())._replace(id=element_id(whole.id, position))
        for position, each in enumerate(bodies)
    )
    _store(database_url, [whole._replace(name=None, elements=elements)], NO_KEYS, 0)
    return whole.id, [element.id for element in elements]


def _store(
    database_url: str, made: Sequence[Delivery], keys: BodyKeys, dispatch_grace_s: float
) -> None:
    database = replace(parse(database_url), body_keys=keys)

    async def insert() -> None:
        async with await WriterConnection.open(database) as connection:
            for start in range(0, len(made), 1_000):
                await deliveries.insert(
                    connection,
                    made[start : start + 1_000],
                    queue=queues.LIVE,
                    dispatch_grace_s=dispatch_grace_s,
                )

    asyncio.run(insert())


def _delivery(raw: bytes, now: float) -> Delivery:
    return Delivery(
        id=delivery_id(int(now * 1000), os.urandom(10)),
        source="awalchat",
        received_at=datetime.fromtimestamp(now, UTC),
        key_id="0123abcd",
        headers='[["content-type", "application/json"]]',
        body=raw,
        name=_source.identify(_source.parse(raw)),
        rejected=None,
    )
