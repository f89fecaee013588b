"""What the textbook and its peers have in common: their tables, and what these say."""

import json

from sqlalchemy import Engine, create_engine, insert
from sqlalchemy.orm import Session

from tests.benchmarks import messages
from tests.benchmarks.subject import Drained
from tests.benchmarks.textbook.models import Base, WebhookEvent
from tests.benchmarks.world import World

_BATCH = 5_000


class StoredEvents:
    """Events in `webhook_events`, their messages in `textbook_messages`."""

    def prepare(self, world: World) -> None:
        """Make both tables."""
        engine = _engine(world)
        Base.metadata.create_all(engine)
        engine.dispose()

    def is_done(self, world: World) -> bool:
        """No event is left that was not processed."""
        return not world.value(
            "SELECT count(*) FROM (SELECT FROM webhook_events WHERE status <> 'processed' LIMIT 1)"
        )

    def drained(self, world: World) -> Drained:
        """By the events' own times."""
        with world.connect() as connection:
            row = connection.execute(
                "SELECT count(*), extract(epoch FROM max(processed_at) - min(processed_at))"
                " FROM webhook_events WHERE status = 'processed'"
            ).fetchone()
        assert row is not None
        return Drained(events=row[0], seconds=float(row[1] or 0))


def store(world: World, count: int, first: int) -> list[int]:
    """Store the events of `count` messages as if received; returns their ids."""
    ids: list[int] = []
    engine = _engine(world)
    with Session(engine) as session:
        for start in range(first, first + count, _BATCH):
            batch = [_values(number) for number in range(start, min(start + _BATCH, first + count))]
            ids.extend(session.scalars(insert(WebhookEvent).returning(WebhookEvent.id), batch))
        session.commit()
    engine.dispose()
    return ids


def analyze(world: World) -> None:
    """What autovacuum does within a minute of a backlog's coming, and PostgreSQL plans badly
    without: Procrastinate's jobs cost half as much CPU again."""
    with world.connect() as connection:
        connection.execute("ANALYZE")


def sqlalchemy_url(world: World) -> str:
    """The address of the database as SQLAlchemy reads it."""
    return world.database_url.replace("postgresql:", "postgresql+psycopg:", 1)


def _engine(world: World) -> Engine:
    return create_engine(sqlalchemy_url(world))


def _values(number: int) -> dict[str, object]:
    payload = json.loads(messages.body(number))
    event_type, message_id = payload["event"], payload["data"]["message_id"]
    return {"event_id": f"{event_type}:{message_id}", "type": event_type, "payload": payload}
