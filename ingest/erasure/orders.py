"""Ordering an erasure: what was asked for before, and the search that the console runs.

A search reads everything that is stored, so it may take as long as the erasure. The console runs
both in batches, each a transaction that records how far it got.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Engine

from ingest.erasure import request, run, sentences
from ingest.erasure.person import Person
from ingest.erasure.request import BadPerson, Names
from ingest.erasure.run import Counts, Eraser, Position
from ingest.errors import IngestError
from ingest.store.erasure import records
from ingest.store.erasure.records import SEARCHING, Erasure
from ingest.store.pipeline import erased_names
from ingest.store.reports import heartbeats
from ingest.store.retention import obstacles
from ingest.store.sql import statement

# A lock number of the pipeline's own, after that of retention's turns.
_ONE_AT_A_TIME = statement("SELECT pg_advisory_xact_lock(1953460321, 18)")


class NotNow(IngestError):
    """Nobody may be erased at present."""


def refuse_older_workers(connection: Connection) -> None:
    """Raise NotNow while a worker is alive that does not know what was erased."""
    worker = heartbeats.older_worker(connection)
    if worker is not None:
        raise NotNow(sentences.older_worker(worker), reason="older_worker")


def before(connection: Connection, named: Names, source: str | None) -> list[Erasure]:
    """Return the requests for the same person and source, oldest first."""
    digests = records.person_digests(connection, named)
    return [
        erasure
        for erasure in records.of_person(connection, digests)
        if sorted(erasure.persons) == digests and erasure.source == source
    ]


def begin(
    connection: Connection,
    named: Names,
    person: Person,
    *,
    source: str | None,
    reason: str | None,
    by: str,
    random: Callable[[int], bytes],
    in_background: bool = False,
) -> Erasure:
    """Record who is to be erased. In the background, a search comes first.

    Args:
        connection: in a transaction.
        named: what was given.
        person: what is known so far.
        source: only what this one sent; None: all.
        reason: why; it is kept.
        by: who asks for it.
        random: returns that many random bytes.
        in_background: whether the console runs it.

    Raises:
        BadPerson: the reason names the person.
    """
    request.check_reason(reason, person)
    if not in_background:
        obstacles.refuse_older_code(connection)
    erased_names.ensure_key(connection, random)
    return records.begin(
        connection,
        requested_by=by,
        reason=reason,
        persons=records.person_digests(connection, named),
        source=source,
        identifiers=person.to_json(),
        in_background=in_background,
    )


def confirm(connection: Connection, number: int) -> None:
    """Let a person who was found be erased, in the background.

    Raises:
        NotNow: a worker is alive that does not know what was erased.
    """
    refuse_older_workers(connection)
    obstacles.refuse_older_code(connection)
    records.confirm(connection, number)


def take_turn(connection: Connection) -> None:
    """Wait until nobody else orders an erasure, until the transaction ends: an order that comes
    twice at once is one."""
    connection.execute(_ONE_AT_A_TIME)


def names(connection: Connection, erasure: Erasure, typed: str) -> bool:
    """Return whether a text is one of those that the request was made with."""
    parsed: list[tuple[str, str]] = []
    for place in range(3):
        given: list[Sequence[str]] = [(), (), ()]
        given[place] = (typed,)
        try:
            parsed += request.parse(*given)
        except BadPerson:  # it is no name of this kind
            continue
    return not set(erasure.persons).isdisjoint(records.person_digests(connection, parsed))


def advance(engine: Engine, eraser_of: Callable[[Erasure], Eraser], number: int) -> Erasure:
    """Do the next batch of a search or of an erasure; return the request as it is afterwards.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or something stays locked; the batch was not done.
    """
    with engine.begin() as connection:
        erasure = records.read(connection, number, hold=True)
        if erasure.status == SEARCHING:
            _search(connection, eraser_of(erasure), erasure)
            return records.read(connection, number)
    return run.advance(engine, eraser_of, number)


def _search(connection: Connection, eraser: Eraser, erasure: Erasure) -> None:
    person = Person.from_json(erasure.identifiers or {})
    position = Position(**erasure.position)
    counts = Counts.from_json(erasure.counts)
    has_ended = eraser.search_batch(connection, person, position, counts)
    records.save(
        connection,
        erasure.id,
        identifiers=person.to_json(),
        position=position.to_json(),
        counts=counts.to_json(),
    )
    if has_ended:
        _settle(connection, erasure, person, counts)


def _settle(connection: Connection, erasure: Erasure, person: Person, counts: Counts) -> None:
    try:
        request.check_is_one(person)
        request.check_reason(erasure.reason, person)
    except BadPerson as refused:
        records.cancel(connection, erasure.id, str(refused))
        if refused.reason == request.REASON_NAMES:
            records.forget_reason(connection, erasure.id)
        return
    if counts.total:
        records.mark_found(connection, erasure.id)
    else:
        records.cancel(connection, erasure.id, sentences.NOTHING)
