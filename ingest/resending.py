"""Editing an event's body and sending it again, as an event of the source `operator`.

Its origin's source reads the body, so what it would be and which processors run on it is known
before it is sent. It has a name of its own, and its origin stays as it is.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine

from ingest.errors import IngestError, InvalidEnvelope
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.sources import operator
from ingest.sources.base import EventIdentity, Source, encoded_headers
from ingest.sources.identities import name_body
from ingest.store import causes, copies
from ingest.store.address import Database
from ingest.store.engine import UnfitDatabase, WriterConnection
from ingest.store.entities import events as entity_events
from ingest.store.entities.rows import events_called
from ingest.store.pipeline import processors
from ingest.store.pipeline.deliveries import Delivery
from ingest.store.reports import event_detail
from ingest.store.reports.audit_log import Author


class CannotResend(IngestError):
    """The event cannot be edited, or the body cannot be sent."""


class NotStored(IngestError):
    """The database did not store the copy, or nobody knows; the same order again is safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The event that is edited."""

    event: UUID
    source: str
    """The slug of the source that reads it."""
    event_id: str
    type: str
    headers: Sequence[tuple[str, str]]
    """Those that its source keeps, without what signed the body."""
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What an edited body would become."""

    origin: Origin
    body: bytes
    identity: EventIdentity
    """As its source names it; a copy has another event id."""
    known: UUID | None
    """The sender's event that has this id; None: there is none."""
    processors: tuple[str, ...]
    """Those that run on events of its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A copy that is stored."""

    event: UUID
    """Its id, once a worker has admitted it."""
    is_new: bool
    """Whether this order sent it; otherwise the same order came before."""


def origin(connection: Connection, sources: Mapping[str, Source], event: UUID) -> Origin:
    """Return an event that is to be edited.

    Raises:
        NotFound: there is no such event.
        CannotResend: its body was erased, deleted or is not readable, or nothing reads its source.
    """
    record = event_detail.of_event(connection, event, most=1, conflicts=0)
    first = record.deliveries[0]
    if first.body is None:
        raise CannotResend(_why_not(connection, event, first.unreadable), reason="no_body")
    slug = operator.reader(record.source, record.event_id)
    source = sources.get(slug)
    if source is None:
        raise CannotResend(f"No source {slug} is configured.", reason="unknown_source")
    headers = [(str(name), str(value)) for name, value in first.headers or ()]
    return Origin(
        event=event,
        source=slug,
        event_id=record.event_id,
        type=record.type,
        headers=[pair for pair in headers if not _is_signature(source, pair)],
        body=first.body,
    )


def _is_signature(source: Source, header: tuple[str, str]) -> bool:
    """Return whether a header is what says that a request is signed. Of a sender whose signature is
    in no header, none is."""
    return not source.is_signed(()) and source.is_signed(encoded_headers([header]))


def _why_not(connection: Connection, event: UUID, unreadable: str | None) -> str:
    if unreadable is not None:
        return f"The event cannot be edited. {unreadable}"
    if entity_events.erased(connection, [event]):
        return "The event's body was erased: there is nothing to edit."
    return "The event's body was deleted when its retention ended: there is nothing to edit."


def examine(
    connection: Connection,
    sources: Mapping[str, Source],
    edited: Origin,
    body: bytes,
    *,
    body_limit: int,
) -> Examined:
    """Return what an edited body would become.

    Args:
        connection: reads in its transaction.
        sources: every source by its slug.
        edited: the event that it was made of.
        body: as it would be sent.
        body_limit: bytes of the largest body, unless the source says another.

    Raises:
        CannotResend: it differs in nothing, is too large, or is not one event of its source.
    """
    source = sources[edited.source]
    limit = body_limit if source.body_limit is None else source.body_limit
    if len(body) > limit:
        raise CannotResend(
            f"The body has {len(body):,} bytes; {source.title} sends at most {limit:,}.",
            reason="body_too_large",
        )
    if body == edited.body:
        raise CannotResend(
            "Nothing is changed. To run it again as it is, replay the event.", reason="unchanged"
        )
    named = name_body(source, body, encoded_headers(edited.headers))
    if isinstance(named, InvalidEnvelope):
        why = str(named).removeprefix("Signed, but ")
        raise CannotResend(
            f"{source.title} does not send this: {why}", reason=named.reason
        ) from None
    if isinstance(named, list):
        raise CannotResend(
            f"The body holds {len(named)} events: leave one in it.", reason="several_events"
        )
    known = events_called(connection, [edited.source], [named.event_id])
    return Examined(
        origin=edited,
        body=body,
        identity=named,
        known=known.get(named.event_id),
        processors=_running_on(processors.types(connection), named.type),
    )


def _running_on(types_of: Mapping[str, Sequence[str]], event_type: str) -> tuple[str, ...]:
    return tuple(
        sorted(
            name
            for name, types in types_of.items()
            if any(_is_of(event_type, pattern) for pattern in types)
        )
    )


def _is_of(event_type: str, pattern: str) -> bool:
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), event_type, re.DOTALL) is not None


def send(
    engine: Engine,
    database: Database,
    examined: Examined,
    *,
    number: UUID,
    by: Author,
    reason: str | None,
    now: float,
    random: Callable[[int], bytes],
) -> Sent:
    """Store a copy as a delivery of the source `operator`; a worker admits it like any other.

    Args:
        engine: to look for a copy of the same number.
        database: where the writer's statement stores it.
        examined: what is sent.
        number: of the order. The same again is the same copy.
        by: who sends it.
        reason: why.
        now: Unix time in seconds.
        random: as `os.urandom`.

    Raises:
        CannotResend: the number was used for another event.
        NotStored: the database did not store it, or nobody knows.
    """
    before = _sent_before(engine, number, examined.origin.event)
    if before is not None:
        return before
    delivery = _delivery(examined, by, now, random)
    origin_event = examined.origin.event

    async def insert() -> None:
        async with await WriterConnection.open(database) as connection:
            await copies.insert(
                connection, delivery, number=number, origin=origin_event, by=by, reason=reason
            )

    try:
        asyncio.run(insert())
    except psycopg.errors.UniqueViolation:  # the same order at the same time
        before = _sent_before(engine, number, origin_event)
        if before is None:
            raise
        return before
    except UnfitDatabase as error:
        raise NotStored(str(error), reason=error.reason) from None
    except psycopg.Error as error:
        cause = causes.explain(error, database)
        raise NotStored(cause.sentence, reason=cause.reason) from None
    return Sent(event=delivery.id, is_new=True)


def _sent_before(engine: Engine, number: UUID, event: UUID) -> Sent | None:
    with engine.connect() as connection:
        found = copies.of_number(connection, number)
    if found is None:
        return None
    copy, made_of = found
    if made_of != event:
        raise CannotResend("This number was used for another event.", reason="number_used")
    return Sent(event=copy, is_new=False)


def _delivery(
    examined: Examined, by: Author, now: float, random: Callable[[int], bytes]
) -> Delivery:
    identity = examined.identity
    milliseconds = int(now * 1000)
    own = delivery_id(milliseconds, random(RANDOM_BYTES))
    return Delivery(
        id=own,
        source=operator.SLUG,
        received_at=datetime.fromtimestamp(milliseconds / 1000, UTC),
        key_id=by.name,
        headers=json.dumps([list(pair) for pair in examined.origin.headers]),
        body=examined.body,
        name=identity._replace(
            event_id=operator.event_id(identity.type, examined.origin.source, own)
        ),
        rejected=None,
    )
