"""Every call to the database, and every message to Redis, fails in turn, before it took effect and
after; the end is always the same."""

import asyncio
import enum
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine

from ingest.errors import StorageUnavailable
from ingest.store.engine import WriterConnection
from ingest.store.pipeline.deliveries import Delivery
from tests.integration.pipeline import FailingPublish, Pipeline, Scenario, Turn, playing
from tests.integration.test_writer import delivery, writing
from tests.support.fault_injection import Fate, Fault
from tests.support.generated_events import Happening, retried, spell
from tests.support.rows import execute, rows

ALL = 7
"""The choice of a turn that is about all events: seven, and the eighth is a repeat."""


def happening(event_type: str, **data: object) -> Happening:
    return {"event": event_type, "timestamp": "2024-01-20T10:00:00Z", "data": data}


CREATED = happening(
    "order.created",
    order_id=1,
    conversation_id=1,
    status="pending",
    total=7,
    currency="SAR",
    created_at="2024-01-20T10:00:00Z",
)
DAY = (
    happening(
        "conversation.created",
        conversation_id=1,
        contact_id=7,
        phone_number="9665",
        created_at="2024-01-20T10:00:00Z",
    ),
    CREATED,
    happening(
        "order.status.updated",
        order_id=1,
        old_status="pending",
        new_status="accepted",
        updated_at="2024-01-20T10:00:01Z",
    ),
    happening("order.created", order_id="unusable"),
    CREATED | {"data": CREATED["data"] | {"total": 9}},  # a conflict
    happening(
        "contact.created",
        id=7,
        name="نورة",
        phone="9665",
        email=None,
        is_favorite=False,
        created_at="2024-01-20T10:00:00Z",
    ),
    happening("tag.added", id=1),  # nobody handles it
)
ARRIVING = [*map(spell, DAY), retried(CREATED)]


def turn(
    does: str,
    choice: int = ALL,
    fault: Fault | None = None,
    publish: FailingPublish | None = None,
    other: Fault | None = None,
) -> Turn:
    return Turn(does=does, fault=fault, other=other, choice=choice, publish=publish)


ARRIVE, WORK = turn("arrive"), turn("work")
ABANDON = turn("work", fault=Fault(fate=Fate.KILLED, step=2, in_effects=True))
"""A worker that is killed in the midst of its jobs."""
BEFORE: dict[str, Sequence[Turn]] = {
    "work": [],
    "sweep": [ARRIVE],
    "end_leases": [ABANDON],
    "find_wrecks": [ABANDON],
    "replay": [WORK],
    "bulk": [WORK],
    "take_back": [WORK],
}
"""What goes on before somebody does it who meets a fault."""


@pytest.fixture
def pipeline(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    with playing(engine, database_url, tmp_path) as played:
        yield played


def play(pipeline: Pipeline, does: str, faulty: Turn) -> bool:
    """Play it out and check the end; return whether the fault came to pass."""
    turns = [*BEFORE[does], faulty]
    pipeline.run(Scenario(arriving=ARRIVING, turns=turns, moods=["fails", "snoozes"]))
    *before, has_struck = pipeline.struck
    assert before == [one.fault is not None for one in BEFORE[does]]
    return has_struck


@pytest.mark.parametrize("fate", Fate)
@pytest.mark.parametrize("does", BEFORE)
def test_whichever_call_to_the_database_fails_the_end_is_the_same(
    pipeline: Pipeline, does: str, fate: Fate
) -> None:
    steps = 0
    for step in count():
        if not play(pipeline, does, turn(does, fault=Fault(fate=fate, step=step))):
            break
        steps += 1
    assert steps >= (1 if fate in (Fate.DROPPED, Fate.STALLED) else 3)


@pytest.mark.parametrize("is_taken", [False, True])
def test_whichever_message_redis_does_not_confirm_the_end_is_the_same(
    pipeline: Pipeline, is_taken: bool
) -> None:
    messages = 0
    for number in count():
        publish = FailingPublish(number=number, is_taken=is_taken)
        if not play(pipeline, "sweep", turn("sweep", publish=publish)):
            break
        messages += 1
    assert messages


class Break(enum.Enum):
    """How a receiver's connection breaks under a call."""

    BEFORE = "before the server gets it"
    AFTER = "after the server has done it, and before its answer"
    CLOSED = "likewise, and the connection is known to be closed: its commit is in doubt"


class BrittleConnection(WriterConnection):
    """A receiver's connection that breaks under one of its calls to the server."""

    breaks_at: ClassVar[int]
    """The number of the call, over all connections of a run."""
    breaks: ClassVar[Break]
    calls: ClassVar[int]

    async def wait(self, *arguments: Any, **options: Any) -> Any:
        number = BrittleConnection.calls
        BrittleConnection.calls += 1
        if number != self.breaks_at:
            return await super().wait(*arguments, **options)
        is_done = self.breaks is not Break.BEFORE
        if is_done:
            await super().wait(*arguments, **options)
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        if self.breaks is Break.CLOSED:
            self.pgconn.finish()
        if is_done:
            raise psycopg.OperationalError("the connection broke before the answer came")
        return await super().wait(*arguments, **options)


async def send_until_stored(url: str, numbers: Iterable[int]) -> tuple[list[Delivery], list[UUID]]:
    """Send as a sender does, which sends again what was not answered 200, and a receiver gives that
    another id; return what was answered 200, and the hints."""
    answered: list[Delivery] = []
    hinted: list[UUID] = []
    async with writing(url, hinted) as writer:
        waiting = list(numbers)
        while waiting:
            sent = {number: delivery(number) for number in waiting}
            answers = await asyncio.gather(
                *map(writer.append, sent.values()), return_exceptions=True
            )
            assert all(isinstance(answer, StorageUnavailable) for answer in answers if answer)
            waiting = [
                number for number, answer in zip(sent, answers, strict=True) if answer is not None
            ]
            answered += [one for number, one in sent.items() if number not in waiting]
            if waiting:
                await asyncio.sleep(0.01)
    return answered, hinted


@pytest.mark.parametrize("breaks", Break)
def test_whichever_call_of_a_receiver_fails_what_it_answered_is_there(
    engine: Engine, database_url: str, breaks: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.receiver.writer.WriterConnection", BrittleConnection)
    monkeypatch.setattr("ingest.receiver.writer._RECONNECT_S", (0.01,))
    monkeypatch.setattr("ingest.receiver.writer._OPEN_TIMEOUT_S", 300.0)
    monkeypatch.setattr(BrittleConnection, "breaks", breaks, raising=False)
    for number in count():
        monkeypatch.setattr(BrittleConnection, "breaks_at", number, raising=False)
        monkeypatch.setattr(BrittleConnection, "calls", 0, raising=False)
        answered, hinted = asyncio.run(send_until_stored(database_url, range(3)))
        assert sorted(one.name.event_id for one in answered if one.name) == ["x:0", "x:1", "x:2"]
        assert sorted(hinted) == sorted(one.id for one in answered)
        kept = [row["id"] for row in rows(engine, "SELECT id FROM deliveries")]
        assert set(hinted) <= set(kept)
        if breaks is Break.CLOSED:  # what is stored once more is the same rows
            assert sorted(hinted) == sorted(kept)
        waiting = [row["delivery"] for row in rows(engine, "SELECT delivery FROM unadmitted")]
        assert sorted(waiting) == sorted(kept)
        execute(engine, "DELETE FROM unadmitted")
        execute(engine, "DELETE FROM deliveries")
        if BrittleConnection.calls <= number:
            break
    assert number >= 3
