"""The worker: a task for each event.

The application and the engine are made at import, as the guides do it: `celery -A` imports this
module. Addresses come from the environment.
"""

import os
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker

from tests.benchmarks.textbook.models import Message, WebhookEvent

engine = create_engine(os.environ["BENCH_DATABASE_URL"])
Session = sessionmaker(engine)

app = Celery("textbook", broker=os.environ["BENCH_REDIS_URL"])


@worker_process_init.connect  # type: ignore[untyped-decorator]
def forget_the_parents_connections(**_: Any) -> None:
    """What SQLAlchemy's guide asks for in a forked process."""
    engine.dispose(close=False)


@app.task(  # type: ignore[untyped-decorator]
    name="process_event",
    acks_late=True,
    autoretry_for=(OperationalError,),
    retry_backoff=True,
    ignore_result=True,
)
def process_event(event_id: int) -> None:
    """Keep the message of an event, unless that was done."""
    with Session() as session:
        event = session.get(WebhookEvent, event_id)
        if event is None or event.status == "processed":
            return
        data = event.payload["data"]
        session.merge(
            Message(
                message_id=data["message_id"],
                conversation_id=data["conversation_id"],
                from_number=data["from"],
                to_number=data["to"],
                type=data["type"],
                body=data["body"],
                timestamp=datetime.fromisoformat(data["timestamp"]),
            )
        )
        event.status = "processed"
        event.processed_at = datetime.now(UTC)
        session.commit()
