"""Events in every state there is, without a worker."""

import itertools
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import Engine

from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EVENT_STATES, EventFilter
from tests.support.deliver import body, deliver
from tests.support.rows import execute

STATES = ("pending", "retrying", "succeeded", "dead", "running")


def store(engine: Engine, database_url: str) -> list[UUID]:
    """Sixty events of three types in every state there is, some delivered twice, oldest first."""
    bodies = [
        body(kind, {"order_id": number, "note": "urgent" if number % 7 == 0 else "later"})
        for number, kind in enumerate(["order.created", "order.lost", "contact.made"] * 20)
    ]
    ids = deliver(database_url, bodies)
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(engine, "DELETE FROM unadmitted")
    for number, event in enumerate(ids):
        if number % 6 != 5:
            give_job(engine, event, STATES[number % 5], "p")
        if number % 4 == 0 and number % 6 != 5:
            give_job(engine, event, "succeeded", "q")
    execute(
        engine,
        "INSERT INTO duplicates SELECT gen_random_uuid(), id, received_at, false FROM events"
        " WHERE id = ANY(:ids)",
        ids=ids[::10],
    )
    execute(engine, "DELETE FROM unhandled WHERE event IN (SELECT event FROM jobs)")
    return ids


def give_job(engine: Engine, event: UUID, state: str, processor: str) -> None:
    """A job in that state."""
    waits, runs, ended = state in ("pending", "retrying"), state == "running", state in STATES[2:4]
    execute(
        engine,
        "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
        " max_attempts, next_attempt_at, lease_until, finished_at) VALUES (:event, :processor,"
        " 'events', :state, 'delivery', 1, 0, 3, CASE WHEN :waits THEN now() END,"
        " CASE WHEN :runs THEN now() END, CASE WHEN :ended THEN now() END)",
        event=event,
        state=state,
        processor=processor,
        waits=waits,
        runs=runs,
        ended=ended,
    )


def listed(engine: Engine, selection: EventFilter, limit: int = 100) -> list[ListedEvent]:
    """The newest events of a selection."""
    with engine.connect() as connection:
        return list(events.events(connection, selection, limit=limit))


def selections() -> Iterator[EventFilter]:
    """By type, by state and by text, in all combinations."""
    for types, state, search in itertools.product(
        ((), ("order.created",), ("order.*",), ("order.*", "contact.made"), ("none.*",)),
        (None, *EVENT_STATES),
        (None, "urgent"),
    ):
        yield EventFilter(types=types, state=state, search=search)
