"""What a processor does to its transaction and its session reaches nobody else."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tests.conftest import Servers
from tests.integration.conftest import Worker
from tests.integration.outcomes import effect, effects, job_states, make_tables, run_due
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one
from workers import Event, processor
from workers.recovery import rescue
from workers.retry import RetryPolicy

MakeWorker = Callable[..., Worker]


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


def test_a_swallowed_database_error_is_a_failure_with_advice(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 1:
            with contextlib.suppress(Exception):  # as careless code does
                db.execute(text("SELECT 1 / 0"))

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert effects(engine) == [0, 2]
    assert "begin_nested" in one(engine, "SELECT error_message FROM attempts")


def _swallowed(end: Callable[[Connection], Any]) -> Callable[[Connection], None]:
    def careless(db: Connection) -> None:
        with contextlib.suppress(Exception):
            end(db)

    return careless


@pytest.mark.filterwarnings("default")  # as in production: a warning there is no exception
@pytest.mark.parametrize(
    "end",
    [
        lambda db: db.commit(),
        lambda db: db.rollback(),
        lambda db: db.close(),
        lambda db: db.get_transaction().rollback(),
        lambda db: db.execute(text("COMMIT")),
        lambda db: db.execute(text("  rollback")),
        lambda db: db.execute(text("/* now */ COMMIT")),
        lambda db: db.exec_driver_sql("-- now\nSELECT 1; commit"),
        lambda db: db.exec_driver_sql("END"),
        lambda db: db.connection.driver_connection.commit(),
        lambda db: db.connection.driver_connection.execute("ROLLBACK"),
        _swallowed(lambda db: db.commit()),
        _swallowed(lambda db: db.rollback()),
    ],
    ids=[
        "commit",
        "rollback",
        "close",
        "root rollback",
        "sql commit",
        "sql rollback",
        "behind a comment",
        "behind a statement",
        "driver end",
        "driver commit",
        "driver rollback",
        "commit, swallowed",
        "rollback, swallowed",
    ],
)
def test_a_processor_that_ends_the_transaction_fails_with_advice_and_without_effects(
    end: Callable[[Connection], Any], engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 1:
            end(db)

    worker = make_worker()
    worker.process(deliver(database_url, [order(n) for n in range(3)]))
    worker.process(deliver(database_url, [order(3)]))
    assert job_states(engine) == {0: "succeeded", 1: "dead", 2: "succeeded", 3: "succeeded"}
    assert "must not commit or roll back" in one(engine, "SELECT error_message FROM attempts")
    assert effects(engine) == [0, 2, 3]


@pytest.fixture
def another_role(servers: Servers) -> Iterator[str]:
    """A role that the pipeline's own may become."""
    with servers.role() as role:
        servers.execute(f"GRANT {role} TO {servers.owner}")
        yield role


@pytest.mark.parametrize(
    "statement",
    [
        "SET search_path TO elsewhere",
        "SET LOCAL search_path TO elsewhere",
        "SET default_transaction_read_only = on",
        "SET statement_timeout = 60000",
        "SET LOCAL ROLE {role}",
        pytest.param(
            "SET SESSION AUTHORIZATION {role}",
            marks=pytest.mark.not_on("external", reason="only a superuser may"),
        ),
        "CREATE TEMP TABLE jobs (id int)",
        "CREATE TEMP TABLE events (LIKE events INCLUDING ALL)",
        "CREATE TEMP TABLE staging (id int) ON COMMIT DROP",
        "PREPARE mine AS SELECT 1",
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
        "SELECT pg_advisory_lock(7)",
        "LISTEN everything",
    ],
)
def test_what_a_processor_does_to_its_session_reaches_nobody_else(
    statement: str, engine: Engine, database_url: str, make_worker: MakeWorker, another_role: str
) -> None:
    seen = []

    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        seen.append(_session(db))
        if event.data["order_id"] == 1:
            db.execute(text(statement.format(role=another_role)))

    worker = make_worker()
    worker.process(deliver(database_url, [order(n) for n in range(3)]))
    worker.process(deliver(database_url, [order(n) for n in range(3, 6)]))
    assert effects(engine) == list(range(6))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert one(engine, "SELECT count(*) FROM events") == 6
    assert len(set(seen)) == 1
    assert one(engine, "SELECT pg_try_advisory_lock(7)")


def _session(db: Connection) -> tuple[object, ...]:
    return tuple(
        db.execute(
            text(
                "SELECT current_user, current_setting('search_path'),"
                " current_setting('statement_timeout'), to_regclass('pg_temp.jobs')"
            )
        ).one()
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda db: db.execution_options(stream_results=True),
        lambda db: db.execution_options(yield_per=10),
        lambda db: setattr(db.connection.driver_connection, "row_factory", dict_row),
    ],
    ids=["stream_results", "yield_per", "row_factory"],
)
def test_how_a_processor_reads_its_rows_is_its_own_business(
    change: Callable[[Connection], Any], engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        change(db)
        assert db.execute(text("SELECT * FROM generate_series(1, 20)")).all()

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert effects(engine) == [0, 1, 2]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_leaving_by_any_exception_is_a_failure_that_harms_no_neighbour(
    error: BaseException, engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 1:
            raise error

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert job_states(engine) == {0: "succeeded", 1: "dead", 2: "succeeded"}
    assert one(engine, "SELECT error_type FROM attempts") == type(error).__name__
    assert effects(engine) == [0, 2]


def test_a_nested_transaction_left_open_is_a_failure_with_advice(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        nested = db.begin_nested()
        effect(event, db)
        if event.data["order_id"] != 1:
            nested.commit()

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert job_states(engine) == {0: "succeeded", 1: "dead", 2: "succeeded"}
    assert "left open" in one(engine, "SELECT error_message FROM attempts")
    assert effects(engine) == [0, 2]


def test_its_own_savepoints_are_the_processors_to_use(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        try:
            with db.begin_nested():
                db.execute(text("INSERT INTO effects VALUES (99, 0)"))
                raise ValueError
        except ValueError:
            pass
        db.execute(text("SAVEPOINT mine"))
        db.execute(text("ROLLBACK TO SAVEPOINT mine"))

    make_worker().process(deliver(database_url, [order(1)]))
    assert effects(engine) == [1]


def test_a_commit_that_is_refused_is_blamed_on_the_one_that_caused_it(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 1:
            db.execute(text("INSERT INTO checked VALUES (5)"))  # no such parent, known at commit

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert job_states(engine) == {0: "succeeded", 1: "retrying", 2: "succeeded"}
    assert effects(engine) == [0, 2]


def test_a_connection_that_breaks_harms_no_neighbour(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 1:
            db.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert job_states(engine) == {0: "succeeded", 1: "retrying", 2: "succeeded"}
    assert effects(engine) == [0, 2]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("moment", ["before its transaction", "after its transaction"])
def test_a_connection_that_ends_between_two_slices_is_replaced(
    moment: str,
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by ending connections under load: the pool has one, and must get it back."""

    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)

    worker = make_worker()
    statements = "RESET" if moment == "before its transaction" else "RELEASE"
    with monkeypatch.context() as patch:
        patch.setattr(
            f"workers.transaction.{statements}", "SELECT pg_terminate_backend(pg_backend_pid())"
        )
        with contextlib.suppress(DBAPIError, psycopg.Error):
            worker.process(deliver(database_url, [order(0)]))
    assert worker.effects.pool.checkedout() == 0  # type: ignore[attr-defined]
    execute(engine, "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE state = 'running'")
    rescue.recover_expired(
        engine, RetryPolicy(base_s=0.001, cap_s=0.001), limit=10, random=lambda a, b: a
    )
    run_due(engine, worker)
    worker.process(deliver(database_url, [order(1)]))
    assert effects(engine) == [0, 1]
