"""Statements on the hot path do the same work whatever the planner knows of their tables."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from ingest import queues
from ingest.store.address import parse
from ingest.store.engine import FOR_OURS, Role, create_engine
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.jobs import Claimant, Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.metrics import Note
from ingest.store.reports import backlog, totals
from tests.conftest import Servers, cloned
from tests.support.deliver import deliver, order
from tests.support.statistics import State, fill, prepared
from tests.support.work import Reads, Work, explained, reads

BATCH = 100
WAITING = 200
DEAD = 6_000
PREPARED_AFTER = 12
"""So often a statement is run before psycopg and PostgreSQL keep a plan of it."""
ORDERS = NewJobs(
    type="order.created", processor="orders", queue="events", max_attempts=8, claimed=BATCH
)
NOTIFY = NewJobs(type="order.created", processor="notify", queue="events", max_attempts=8)

Run = Callable[[Connection], Any]
Count = Callable[[Connection, Run], tuple[Any, Any]]


class Line:
    """A batch's way through a database; what each statement took is kept."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._engines: dict[Role, Engine] = {}
        for role in (Role.WORKER, Role.PROCESSOR, Role.RELAY, Role.OPERATOR):
            self._engines[role] = create_engine(parse(url), role=role)
            stack.callback(self._engines[role].dispose)
        self._first = 0

    def take(self, count: Count, size: int = BATCH) -> dict[str, Any]:
        """Take a batch through, `count` what each statement does."""
        numbers = range(self._first, self._first + size)
        self._first += size
        deliveries = deliver(self._url, [order(number) for number in numbers])
        taken: dict[str, Any] = {}

        def run(what: str, statement: Run, role: Role = Role.WORKER) -> Any:
            with self._engines[role].begin() as connection:
                if role is Role.PROCESSOR:
                    connection.exec_driver_sql(FOR_OURS)  # as workers.transaction does
                result, taken[what] = count(connection, statement)
            return result

        claimant = Claimant(worker="w", lease_s=60)
        options: dict[str, Any] = {
            "replay_queue": queues.REPLAY,
            "redispatch_after_s": 10.0,
            "claimant": claimant,
        }
        admit = partial(admission.admit, processors=(ORDERS, NOTIFY), **options)
        admitted = run("admit", partial(admit, deliveries=deliveries))
        held = [Lease(id=job.id, attempt=job.attempt) for job in admitted.claimed]
        run("renew", partial(jobs.renew, held=held, lease_s=60))
        run("finish", partial(_finish, held=held), role=Role.PROCESSOR)
        waits = [job.id for job in admitted.jobs]
        run("claimable", partial(jobs.due, job_ids=waits))
        claim = partial(jobs.claim, job_ids=waits, worker="w", lease_s=60, max_attempts=8)
        claimed = run("claim", claim)
        failures = [_failure(job.id, job.attempt) for job in claimed]
        run("fail", partial(jobs.fail, failures=failures))
        assert len(held) == len(failures) == size
        run("held by", partial(jobs.held_by, worker="nobody"))
        again = deliver(self._url, [order(number) for number in numbers])
        repeated = run("admit again", partial(admit, deliveries=again))
        assert repeated.duplicates == size
        return taken

    def look(self, count: Count) -> dict[str, Any]:
        """What the relay and the console ask, `count` what each statement does."""
        hints: dict[str, Any] = {"queue": queues.LIVE, "limit": BATCH, "ttl_s": 60.0}
        taken: dict[str, Any] = {}
        for what, statement, role in (
            ("hint overdue", partial(admission.dispatch_overdue, **hints), Role.RELAY),
            ("hint due", partial(jobs.dispatch_due, **hints), Role.RELAY),
            ("expired", partial(jobs.expired, limit=BATCH), Role.RELAY),
            ("unadmitted queues", admission.queues, Role.RELAY),
            ("due queues", jobs.queues, Role.RELAY),
            ("oldest", backlog.oldest, Role.OPERATOR),
            ("stats", totals.read, Role.OPERATOR),
        ):
            with self._engines[role].begin() as connection:
                _, taken[what] = count(connection, statement)
        return taken


def _finish(connection: Connection, held: list[Lease]) -> None:
    jobs.finish(connection, held, [Note(what="succeeded")])


def _failure(job: int, attempt: int) -> Failure:
    return Failure(id=job, attempt=attempt, outcome=Outcome.FAILED, retry_in_s=3600)


@contextmanager
def line(servers: Servers, template: str, state: State) -> Iterator[Line]:
    with ExitStack() as stack:
        url = stack.enter_context(cloned(servers, template))
        stack.enter_context(
            prepared(servers.as_administrator(url), state, waiting=WAITING, dead=DEAD)
        )
        yield Line(url, stack)


@pytest.fixture(scope="module")
def works(servers: Servers, template: str) -> dict[State, dict[str, Work]]:
    """What each statement took in each state."""
    taken = {}
    for state in State:
        with line(servers, template, state) as one:
            taken[state] = one.take(explained) | one.look(explained)
    return taken


@pytest.mark.parametrize(
    "statement",
    [
        *("admit", "admit again", "renew", "finish", "claimable", "claim", "fail"),
        *("hint overdue", "hint due"),
    ],
)
def test_a_batch_takes_the_same_work_whenever_statistics_were_taken(
    works: dict[State, dict[str, Work]], statement: str
) -> None:
    taken = {state.value: work[statement] for state, work in works.items()}
    rows = [work.rows for work in taken.values()]
    blocks = [work.blocks for work in taken.values()]
    assert max(rows) <= 1.5 * min(rows), taken
    assert max(blocks) <= 1.5 * min(blocks), taken
    assert max(rows) <= 60 * BATCH, taken


def test_what_a_dead_worker_held_is_found_among_what_runs(
    works: dict[State, dict[str, Work]],
) -> None:
    for work in works.values():
        assert work["held by"].rows <= WAITING + BATCH


def test_the_oldest_that_waits_is_found_without_a_visit_to_each_dead_row(
    works: dict[State, dict[str, Work]],
) -> None:
    assert works[State.DEAD]["oldest"].blocks <= DEAD / 4


@pytest.mark.parametrize("queues_of", ["unadmitted queues", "due queues"])
def test_the_queues_where_something_waits_are_found_without_a_visit_to_each_dead_row(
    works: dict[State, dict[str, Work]], queues_of: str
) -> None:
    taken = {state.value: work[queues_of] for state, work in works.items()}
    assert max(work.blocks for work in taken.values()) <= 20, taken


def test_plans_that_were_made_while_the_tables_were_empty_read_no_table_from_end_to_end(
    servers: Servers, template: str
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(cloned(servers, template))
        administrator = servers.as_administrator(url)
        stack.enter_context(prepared(administrator, State.NEVER, waiting=0, dead=0))
        one = Line(url, stack)
        for _ in range(PREPARED_AFTER):
            one.take(reads, size=1)
        with psycopg.connect(administrator, autocommit=True) as connection:
            fill(connection, WAITING)
        taken: dict[str, Reads] = one.take(reads)
    for statement, read in taken.items():
        assert read.scanned <= BATCH, (statement, read)
        assert read.searches <= 8 * BATCH, (statement, read)
