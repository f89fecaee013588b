"""The requests to erase a person, and how far each has got.

searching ──▶ found ──confirm──▶ erasing ──▶ finished
searching, found ──▶ cancelled

A command searches before it makes its request, which is `erasing` from the start.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store import arrays
from ingest.store.pipeline.erased_names import digest
from ingest.store.sql import statement

SEARCHING, FOUND, ERASING = "searching", "found", "erasing"
FINISHED = "finished"
UNCONFIRMED = (SEARCHING, FOUND)


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
    background: bool
    """Whether the console runs it; otherwise the command that began it does."""
    advanced_at: datetime | None
    """When its last batch ended."""
    problem: str | None
    """Why it waits, or was cancelled."""


_COLUMNS = """id, requested_at, requested_by, reason, persons, source, status,
    identifiers, position, counts, finished_at, background, advanced_at, problem"""


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
    INSERT INTO ingest.erasures (requested_by, reason, persons, source, status, background,
                                 identifiers)
    VALUES (:requested_by, :reason, :persons, :source, :status, :background,
            CAST(:identifiers AS jsonb))
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
    in_background: bool = False,
) -> Erasure:
    """Record that a person is to be erased, by what the search has learned.

    `in_background`: the console searches first.
    """
    parameters = {
        "requested_by": requested_by,
        "reason": reason,
        "persons": list(persons),
        "source": source,
        "status": SEARCHING if in_background else ERASING,
        "background": in_background,
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


_NEWEST = statement(
    f"""
    SELECT {_COLUMNS} FROM ingest.erasures
    WHERE CAST(:before AS bigint) IS NULL OR id < :before
    ORDER BY id DESC LIMIT :limit
    """
)


def newest(connection: Connection, *, limit: int, before: int | None = None) -> list[Erasure]:
    """Return the newest requests, those before the number `before`."""
    rows = connection.execute(_NEWEST, {"limit": limit, "before": before}).mappings()
    return [Erasure(**row) for row in rows]


_IN_BACKGROUND = statement(
    """
    SELECT id FROM ingest.erasures WHERE background AND status IN ('searching', 'erasing')
    ORDER BY id
    """
)


def in_background(connection: Connection) -> list[int]:
    """Return the requests that the console has to advance, oldest first."""
    return list(connection.execute(_IN_BACKGROUND).scalars())


_SAVE = statement(
    """
    UPDATE ingest.erasures
    SET identifiers = CAST(:identifiers AS jsonb), position = CAST(:position AS jsonb),
        counts = CAST(:counts AS jsonb), advanced_at = now(), problem = NULL
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


_FOUND = statement("UPDATE ingest.erasures SET status = 'found' WHERE id = :id")
_CONFIRM = statement(
    """
    UPDATE ingest.erasures SET status = 'erasing', position = '{}', counts = '{}' WHERE id = :id
    """
)
_CONTINUE = statement("UPDATE ingest.erasures SET background = true WHERE id = :id")
_WAIT = statement("UPDATE ingest.erasures SET problem = :problem WHERE id = :id")


def mark_found(connection: Connection, number: int) -> None:
    """Record that the search for a person has ended, and waits to be confirmed."""
    connection.execute(_FOUND, {"id": number})


def confirm(connection: Connection, number: int) -> None:
    """Record that a person who was found is to be erased."""
    connection.execute(_CONFIRM, {"id": number})


def continue_in_background(connection: Connection, number: int) -> None:
    """Let the console run a request that a command began."""
    connection.execute(_CONTINUE, {"id": number})


def note_problem(connection: Connection, number: int, problem: str) -> None:
    """Record why the next batch of a request waits."""
    connection.execute(_WAIT, {"id": number, "problem": problem})


_FINISH = statement(
    """
    UPDATE ingest.erasures SET status = 'finished', identifiers = NULL, finished_at = now()
    WHERE id = :id
    """
)
_CANCEL = """
    UPDATE ingest.erasures
    SET status = 'cancelled', identifiers = NULL, position = position - 'after',
        finished_at = now(), problem = :problem
    WHERE status IN ('searching', 'found') AND
"""
_CANCEL_ONE = statement(f"{_CANCEL} id = :id")
# Those that mean nobody else, and no source that was left out.
_CANCEL_COVERED = statement(
    f"""{_CANCEL} (
        SELECT erasures.persons && done.persons AND erasures.persons <@ done.persons
               AND (done.source IS NULL OR erasures.source = done.source)
        FROM ingest.erasures AS done WHERE done.id = :id
    )
    """
)
_CANCEL_OLD = statement(
    f"{_CANCEL} status = 'found' AND advanced_at < now() - CAST(:age AS interval)"
)
_FORGET_REASON = statement("UPDATE ingest.erasures SET reason = NULL WHERE id = :id")


def finish(connection: Connection, number: int) -> None:
    """Record that a request has ended. What was searched for is no longer kept.

    Requests that nobody has confirmed, and that ask for nothing more than this one did, are
    cancelled."""
    connection.execute(_FINISH, {"id": number})
    problem = f"Erasure {number} has erased the person."
    connection.execute(_CANCEL_COVERED, {"id": number, "problem": problem})


def cancel(connection: Connection, number: int, problem: str | None) -> None:
    """Record that nobody is erased by a request that was not confirmed. What was searched for is no
    longer kept, nor how far the search had got: a key of the read model may be a number. `problem`
    says why, unless an operator wanted it."""
    connection.execute(_CANCEL_ONE, {"id": number, "problem": problem})


def forget_reason(connection: Connection, number: int) -> None:
    """Erase the reason of a request."""
    connection.execute(_FORGET_REASON, {"id": number})


def cancel_unconfirmed(connection: Connection, *, age: timedelta) -> None:
    """Cancel requests whose search has ended so long ago: what they search for stands in clear."""
    parameters = {"age": age, "problem": "Nobody confirmed it within a day."}
    connection.execute(_CANCEL_OLD, parameters)


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
