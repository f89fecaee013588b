"""What an event costs PostgreSQL, whatever the planner knows of the tables.

Each state (tests.support.statistics) is a database of its own. Rounds go through all of them in
turn, so that a machine that is busy for a while is busy for all. What is measured is the CPU time
of the server's process, which no neighbour changes much; the median round counts.
"""

import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection

from ingest import queues
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.sources.base import EventIdentity
from ingest.store.address import Database, parse
from ingest.store.engine import (
    FOR_OURS,
    PipelineConnection,
    Role,
    WriterConnection,
    create_engine,
)
from ingest.store.pipeline import admission, deliveries, jobs
from ingest.store.pipeline.deliveries import Delivery
from ingest.store.pipeline.jobs import Claimant, Failure, Lease, NewJobs, Outcome
from ingest.store.reports import backlog, totals
from tests.benchmarks import stored
from tests.benchmarks.world import World
from tests.support.statistics import State, fill, prepared

Result = TypeVar("Result")

BATCH = 200
SETTINGS = ("autovacuum=off", "max_connections=60")
"""Of the PostgreSQL that is measured: nothing is to take statistics by itself."""
_STATES = (State.NEVER, State.EMPTY, State.FULL, State.DEAD)
_WAITING = 2_000
_SLOW_S = 2.0
"""A state in which a round takes longer than this has shown it, and is left out from then on."""
_READS_EVERY = 5
_CLAIMED = NewJobs(
    type="order.created", processor="orders", queue=queues.LIVE, max_attempts=8, claimed=BATCH
)
_LATER = NewJobs(type="order.created", processor="notify", queue=queues.LIVE, max_attempts=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one statement costs in one state."""

    statement: str
    state: str
    is_prepared: bool
    median_us: float
    """CPU time of the server: an event, or a call of what is read now and then."""
    rounds: int


def costs(world: World, *, rounds: int, dead: int, many: int) -> Iterator[Cost]:
    """Measure every statement in every state, with prepared statements and without.

    Args:
        world: its database `postgres` is migrated and empty, and becomes the one with many rows.
        rounds: how often.
        dead: rows that vacuum may not remove.
        many: events that are stored already; 0 leaves that state out.
    """
    with ExitStack() as stack:
        lines: dict[tuple[str, bool], Line] = {}
        for state in _STATES:
            url = clone(world, state.name.lower())
            stack.enter_context(prepared(url, state, waiting=_WAITING, dead=dead))
            lines |= _lines(stack, state, url)
        if many:
            stored.seed(world, many)
            with world.connect() as connection:
                fill(connection, _WAITING)
            lines |= _lines(stack, f"{many:,} rows", world.database_url)
        for number in range(rounds):
            for line in lines.values():
                line.round(reads=number % _READS_EVERY == 0)
        for (name, is_prepared), line in lines.items():
            for statement, taken in line.taken_us.items():
                yield Cost(
                    statement=statement,
                    state=name,
                    is_prepared=is_prepared,
                    median_us=statistics.median(taken),
                    rounds=len(taken),
                )


def _lines(stack: ExitStack, state: str, url: str) -> dict[tuple[str, bool], "Line"]:
    return {
        (state, is_prepared): stack.enter_context(Line.open(url, is_prepared=is_prepared))
        for is_prepared in (True, False)
    }


def clone(world: World, name: str) -> str:
    """Make a database of the world like `postgres`, which nobody may be connected to; returns its
    address."""
    with psycopg.connect(_address(world.database_url, "template1"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE postgres'.encode())
    return _address(world.database_url, name)


def _address(url: str, database: str) -> str:
    return url.replace("/postgres?", f"/{database}?")


class Line:
    """The way of a batch of events through one database, statement by statement."""

    def __init__(
        self,
        writer: WriterConnection,
        loop: asyncio.AbstractEventLoop,
        connections: dict[Role, Connection],
    ) -> None:
        self._writer = writer
        self._loop = loop
        self._connections = connections
        self._pids = {role: _pid(connection) for role, connection in connections.items()}
        self._is_slow = False
        self.taken_us: dict[str, list[float]] = defaultdict(list)

    @classmethod
    @contextmanager
    def open(cls, url: str, *, is_prepared: bool) -> Iterator["Line"]:
        """Connect as the receiver, a worker, a processor, the relay and the console do."""
        database = parse(url)
        loop = asyncio.new_event_loop()
        with ExitStack() as stack:
            stack.callback(loop.close)
            writer = loop.run_until_complete(WriterConnection.open(database))
            stack.callback(lambda: loop.run_until_complete(writer.close()))
            roles = (Role.WORKER, Role.PROCESSOR, Role.RELAY, Role.OPERATOR)
            connections = {role: _connect(stack, database, role, is_prepared) for role in roles}
            yield cls(writer, loop, connections)

    def round(self, *, reads: bool) -> None:
        """Take a batch from its delivery to its end; `reads`: and look at what waits."""
        if self._is_slow:
            return
        began = time.monotonic()
        batch = [_delivery() for _ in range(BATCH)]
        self._store(batch)
        admitted = self._run(
            "admit",
            lambda db: admission.admit(
                db,
                [delivery.id for delivery in batch],
                (_CLAIMED, _LATER),
                replay_queue=queues.REPLAY,
                redispatch_after_s=10,
                claimant=Claimant(worker="w", lease_s=60),
            ),
        )
        held = [Lease(id=job.id, attempt=job.attempt) for job in admitted.claimed]
        self._run("renew", lambda db: jobs.renew(db, held, lease_s=60))
        self._run("finish", lambda db: jobs.finish(db, held), role=Role.PROCESSOR)
        later = [job.id for job in admitted.jobs]
        claimed = self._run(
            "claim", lambda db: jobs.claim(db, later, worker="w", lease_s=60, max_attempts=8)
        )
        failures = [_failure(job.id, job.attempt) for job in claimed]
        self._run("fail", lambda db: jobs.fail(db, failures))
        assert len(held) == len(failures) == BATCH
        if reads:
            self._read()
        self._is_slow = time.monotonic() - began > _SLOW_S

    def _read(self) -> None:
        hints: dict[str, Any] = {
            "queue": queues.LIVE,
            "limit": BATCH,
            "ttl_s": -1.0,
        }  # to be found again
        relay, operator = Role.RELAY, Role.OPERATOR
        self._run("hint overdue", lambda db: admission.dispatch_overdue(db, **hints), role=relay)
        self._run("hint due", lambda db: jobs.dispatch_due(db, **hints), role=relay)
        self._run("held by, a call", lambda db: jobs.held_by(db, "nobody"), per=1)
        self._run("expired, a call", lambda db: jobs.expired(db, limit=BATCH), role=relay, per=1)
        self._run("oldest, a call", backlog.oldest, role=operator, per=1)
        self._run("stats, a call", totals.read, role=operator, per=1)

    def _store(self, batch: list[Delivery]) -> None:
        pid = self._writer.info.backend_pid
        before = _cpu_us(pid)
        self._loop.run_until_complete(
            deliveries.insert(self._writer, batch, queue=queues.LIVE, dispatch_grace_s=2)
        )
        self.taken_us["store"].append((_cpu_us(pid) - before) / BATCH)

    def _run(
        self,
        what: str,
        statement: Callable[[Connection], Result],
        *,
        role: Role = Role.WORKER,
        per: int = BATCH,
    ) -> Result:
        with self._connections[role].begin():
            if role is Role.PROCESSOR:
                self._connections[role].exec_driver_sql(FOR_OURS)  # as workers.transaction does
            before = _cpu_us(self._pids[role])
            result = statement(self._connections[role])
        self.taken_us[what].append((_cpu_us(self._pids[role]) - before) / per)
        return result


def _connect(stack: ExitStack, database: Database, role: Role, is_prepared: bool) -> Connection:
    connection_class = PipelineConnection if is_prepared else _Unprepared
    engine = create_engine(database, role=role, connection_class=connection_class)
    stack.callback(engine.dispose)
    return stack.enter_context(engine.connect())


class _Unprepared(PipelineConnection):
    """As behind a pooler: every statement is planned anew."""

    @classmethod
    def open(cls, database: Database, role: Role, **options: object) -> "_Unprepared":
        connection = super().open(database, role, **options)
        connection.prepare_threshold = None
        return connection


def _pid(connection: Connection) -> int:
    with connection.begin():
        pid: int = connection.exec_driver_sql("SELECT pg_catalog.pg_backend_pid()").scalar_one()
    return pid


def _cpu_us(pid: int) -> float:
    """Return the CPU time that a process has had, in microseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def _delivery() -> Delivery:
    now = time.time()
    made = delivery_id(int(now * 1000), os.urandom(RANDOM_BYTES))
    return Delivery(
        id=made,
        source="awalchat",
        received_at=datetime.fromtimestamp(now, UTC),
        key_id="00000000",
        headers="[]",
        body=b'{"event":"order.created","data":{"order_id":1,"note":"%s"}}' % (b"." * 200),
        name=EventIdentity(event_id=f"order:{made}", type="order.created", fingerprint=made.bytes),
        rejected=None,
    )


def _failure(job: int, attempt: int) -> Failure:
    return Failure(
        id=job,
        attempt=attempt,
        outcome=Outcome.FAILED,
        retry_in_s=3600.0,
        error_type="TimeoutError",
        error_message="the shop did not answer",
        traceback="." * 500,
    )
