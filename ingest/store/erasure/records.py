"""The requests to erase a person, and how far each has got."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store import arrays
from ingest.store.pipeline.erased_names import digest
from ingest.store.sql import statement

ERASING, FINISHED = "erasing", "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A request to erase a person."""

    id: int
    requested_at: datetime
    requested_by: str
    reason: str | None
    persons: Sequence[bytes]
    """Keyed digests of what was given."""
    source: str | None
    status: str
    identifiers: Mapping[str, Sequence[str]] | None
    """What is searched for; None once it has ended."""
    position: Mapping[str, Any]
    counts: Mapping[str, Any]
    finished_at: datetime | None


_COLUMNS = """id, requested_at, requested_by, reason, persons, source, status,
    identifiers, position, counts, finished_at"""


_DIGEST = statement(f"SELECT {digest('CAST(:text AS text)')}")


def person_digests(connection: Connection, names: Sequence[tuple[str, str]]) -> list[bytes]:
    """Return the keyed digests of kinds and values, sorted; none while there is no key."""
    digests = [
        connection.execute(_DIGEST, {"text": f"{kind}:{value}"}).scalar_one()
        for kind, value in names
    ]
    return sorted(bytes(one) for one in digests if one is not None)


_BEGIN = statement(
    f"""
    INSERT INTO ingest.erasures (requested_by, reason, persons, source, status, identifiers)
    VALUES (:requested_by, :reason, :persons, :source, 'erasing', CAST(:identifiers AS jsonb))
    RETURNING {_COLUMNS}
    """
)


def begin(
    connection: Connection,
    *,
    requested_by: str,
    reason: str | None,
    persons: Sequence[bytes],
    source: str | None,
    identifiers: Mapping[str, Sequence[str]],
) -> Erasure:
    """Record that a person is to be erased, by what the search has learned."""
    parameters = {
        "requested_by": requested_by,
        "reason": reason,
        "persons": list(persons),
        "source": source,
        "identifiers": json.dumps(identifiers),
    }
    return Erasure(**connection.execute(_BEGIN, parameters).mappings().one())


_READ = statement(f"SELECT {_COLUMNS} FROM ingest.erasures WHERE id = :id")
_HOLD = statement(f"SELECT {_COLUMNS} FROM ingest.erasures WHERE id = :id FOR UPDATE")


def read(connection: Connection, number: int, *, hold: bool = False) -> Erasure:
    """Return a request; `hold` locks it until the transaction ends.

    Raises:
        NotFound: there is none of that number.
    """
    row = connection.execute(_HOLD if hold else _READ, {"id": number}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no erasure {number}.", reason="not_found")
    return Erasure(**row)


_OF_PERSON = statement(
    f"SELECT {_COLUMNS} FROM ingest.erasures WHERE persons && CAST(:persons AS bytea[]) ORDER BY id"
)


def of_person(connection: Connection, persons: Sequence[bytes]) -> list[Erasure]:
    """Return the requests in which one of the digests was given, oldest first."""
    rows = connection.execute(_OF_PERSON, {"persons": list(persons)}).mappings()
    return [Erasure(**row) for row in rows]


_SAVE = statement(
    """
    UPDATE ingest.erasures
    SET identifiers = CAST(:identifiers AS jsonb), position = CAST(:position AS jsonb),
        counts = CAST(:counts AS jsonb)
    WHERE id = :id
    """
)


def save(
    connection: Connection,
    number: int,
    *,
    identifiers: Mapping[str, Sequence[str]],
    position: Mapping[str, Any],
    counts: Mapping[str, Any],
) -> None:
    """Record how far a request has got."""
    parameters = {
        "id": number,
        "identifiers": json.dumps(identifiers),
        "position": json.dumps(position),
        "counts": json.dumps(counts),
    }
    connection.execute(_SAVE, parameters)


_FINISH = statement(
    """
    UPDATE ingest.erasures SET status = 'finished', identifiers = NULL, finished_at = now()
    WHERE id = :id
    """
)


def finish(connection: Connection, number: int) -> None:
    """Record that a request has ended. What was searched for is no longer kept."""
    connection.execute(_FINISH, {"id": number})


_ERASED = statement("SELECT event FROM ingest.erased_events WHERE erasure = :id ORDER BY event")


def erased_events(connection: Connection, number: int) -> list[UUID]:
    """Return the events that a request has erased, oldest first."""
    return list(connection.execute(_ERASED, {"id": number}).scalars())


_NOTE = statement(
    """
    INSERT INTO ingest.erased_events (event, erasure)
    SELECT event, :erasure FROM unnest(CAST(:events AS uuid[])) AS erased (event)
    ON CONFLICT (event) DO NOTHING
    """
)


def note_events(connection: Connection, number: int, events: Sequence[UUID]) -> int:
    """Record that a request has erased events; return how many were not erased before."""
    parameters = {"erasure": number, "events": arrays.literal(events)}
    return connection.execute(_NOTE, parameters).rowcount
