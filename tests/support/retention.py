"""Deliveries at a time that the test says, and passes of retention at another."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from ingest.ids import delivery_id
from ingest.store.pipeline import admission
from ingest.store.pipeline.admission import Admitted
from ingest.store.pipeline.jobs import NewJobs
from ingest.store.retention import obstacles, passes
from ingest.store.retention.ages import Ages
from tests.support.rows import execute

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)


def is_ready(engine: Engine) -> None:
    """Let events be removed: older code was refused its start a while ago."""
    with engine.begin() as connection:
        obstacles.refuse_older_code(connection)
    execute(engine, "UPDATE retention SET closed_at = now() - interval '1 h'")


def deliver_at(
    engine: Engine,
    event_id: str,
    at: datetime,
    *,
    content: str = "",
    type_: str = "order.created",
    chance: random.Random | None = None,
) -> UUID:
    """Store a delivery, unadmitted, that came at a time; its content is its fingerprint."""
    chance = chance or random.Random()
    made = delivery_id(int(at.timestamp() * 1000), chance.randbytes(10))
    execute(
        engine,
        "INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,"
        " hint_at) VALUES (:id, 'awalchat', :event_id, :type, sha256(CAST(:content AS bytea)), :at,"
        " 'events', now())",
        id=made,
        event_id=event_id,
        type=type_,
        content=content,
        at=at,
    )
    return made


def admit(
    engine: Engine, deliveries: Sequence[UUID], processors: Sequence[NewJobs] = (ORDERS,)
) -> Admitted:
    """Admit deliveries as a worker does."""
    with engine.begin() as connection:
        return admission.admit(
            connection, deliveries, processors, replay_queue="replay", redispatch_after_s=10
        )


def end(engine: Engine, events: Sequence[UUID], at: datetime, *, state: str = "succeeded") -> None:
    """Have the jobs of events end at a time."""
    execute(
        engine,
        "UPDATE jobs SET state = :state, finished_at = :at, next_attempt_at = NULL,"
        " hinted_until = NULL WHERE event = ANY(CAST(:events AS uuid[]))",
        state=state,
        at=at,
        events=list(events),
    )


def remove(
    engine: Engine,
    ages: Ages,
    now: datetime,
    *,
    batch: int = 3,
    pause: Callable[[float], object] = time.sleep,
) -> Counter[str]:
    """Make a whole pass; returns what it removed."""
    removed: Counter[str] = Counter()
    for kind, rows in passes.run(engine, ages, clock=lambda: now, pause=pause, batch=batch):
        removed[kind] += rows
    return +removed


def days(count: float) -> timedelta:
    return timedelta(days=count)


@contextmanager
def inserting(engine: Engine, event_id: str) -> Iterator[Connection]:
    """Be in the middle of inserting an event; whoever inserts it too waits. It is rolled back."""
    with engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO events (id, source, event_id, type, fingerprint, received_at)"
                " VALUES (gen_random_uuid(), 'awalchat', :event_id, 'x', '', now())"
            ),
            {"event_id": event_id},
        )
        yield connection
        connection.rollback()
