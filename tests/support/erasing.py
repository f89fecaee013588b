"""Storing what senders of several kinds send, and erasing a person from it."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from ingest import queues
from ingest.erasure import request, run
from ingest.erasure.run import Counts, Eraser, Position
from ingest.errors import InvalidEnvelope
from ingest.ids import delivery_id, element_id
from ingest.sources.base import Source
from ingest.sources.identities import name_body
from ingest.store.address import parse
from ingest.store.engine import WriterConnection
from ingest.store.erasure import records
from ingest.store.erasure.records import ERASING, Erasure
from ingest.store.pipeline import deliveries, erased_names
from ingest.store.pipeline.deliveries import Delivery

HEADERS = '[["content-type", "application/json"]]'


def wamid(phone: str, tail: bytes = b"3A4A6599AEE03810144F") -> str:
    """A message id as WhatsApp makes it: the number stands in it, in base64."""
    content = b"\x1c\x18" + bytes([len(phone)]) + phone.encode() + b"\x15\x02\x00\x12\x18\x14"
    return "wamid." + base64.b64encode(content + tail).decode()


def store(
    database_url: str, source: Source, bodies: Sequence[bytes], *, headers: str = HEADERS
) -> list[UUID]:
    """Store requests as the receiver does, unadmitted; return their ids and those of elements."""
    made = [_delivery(source, body, headers) for body in bodies]

    async def insert() -> None:
        async with await WriterConnection.open(parse(database_url)) as connection:
            await deliveries.insert(connection, made, queue=queues.LIVE, dispatch_grace_s=0)

    asyncio.run(insert())
    return [event.id for delivery in made for event in delivery.events()]


def _delivery(source: Source, body: bytes, headers: str) -> Delivery:
    identity = delivery_id(int(time.time() * 1000), os.urandom(10))
    named = name_body(source, body)
    common: dict[str, Any] = {
        "source": source.slug,
        "received_at": datetime.now(UTC),
        "key_id": "0123abcd",
        "headers": headers,
    }

    def element(number: UUID, raw: bytes, name: Any) -> Delivery:
        rejected = name.reason if isinstance(name, InvalidEnvelope) else None
        return Delivery(
            id=number, body=raw, name=None if rejected else name, rejected=rejected, **common
        )

    if isinstance(named, list):
        elements = tuple(
            element(element_id(identity, position), one.body, one.name)
            for position, one in enumerate(named)
        )
        return Delivery(
            id=identity, body=body, name=None, rejected=None, elements=elements, **common
        )
    return element(identity, body, named)


def begin(
    engine: Engine,
    *,
    phones: Sequence[str] = (),
    contacts: Sequence[str] = (),
    conversations: Sequence[str] = (),
    sources: Mapping[str, Source],
    source: str | None = None,
) -> tuple[int, Counts]:
    """Search for a person, and record that they are to be erased."""
    named = request.parse(phones, contacts, conversations)
    person, position, counts = request.person(named), Position(), Counts()
    eraser = Eraser(sources=sources, source=source)
    with engine.connect() as connection:
        while not eraser.search_batch(connection, person, position, counts):
            pass
    request.check_is_one(person)
    with engine.begin() as connection:
        erased_names.ensure_key(connection, os.urandom)
        erasure = records.begin(
            connection,
            requested_by="test",
            reason=None,
            persons=records.person_digests(connection, named),
            source=source,
            identifiers=person.to_json(),
        )
    return erasure.id, counts


def finish(engine: Engine, number: int, sources: Mapping[str, Source]) -> Erasure:
    """Advance an erasure until it ends."""
    while True:
        erasure = run.advance(
            engine, lambda one: Eraser(sources=sources, source=one.source), number
        )
        if erasure.status != ERASING:
            return erasure


def everything(engine: Engine, schema: str = "ingest") -> str:
    """Every row of every table, as text; bodies as they read."""
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = :schema"), {"schema": schema}
        ).scalars()
        found = []
        for table in tables:
            rows = connection.execute(text(f"SELECT * FROM {schema}.{table}")).mappings()
            found += [f"{table}: {_readable(dict(row))}" for row in rows]
    return "\n".join(found)


def _readable(row: dict[str, Any]) -> str:
    return json.dumps(
        {
            name: bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else value
            for name, value in row.items()
        },
        default=str,
        ensure_ascii=False,
    )
