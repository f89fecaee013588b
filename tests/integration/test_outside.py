"""A processor without effects in PostgreSQL: no transaction is open while it is called, and its
success is fenced all the same."""

import base64
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from ingest.destinations import files
from ingest.store.address import parse
from tests.integration.conftest import Worker
from tests.integration.outcomes import job_states
from tests.support.deliver import deliver, order
from tests.support.http_taker import running
from tests.support.rows import execute, one, rows
from tests.support.servers import Servers, as_role
from workers import Discard, Event, Snooze, destinations, guard, registry
from workers.registry import Declaration

MakeWorker = Callable[..., Worker]

OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    " AND backend_type = 'client backend'"
)


def outside(function: Callable[[Event, Engine], None], *, threads: int = 1) -> None:
    """Declare a function as destinations are."""
    registry.declared.append(
        Declaration(
            function=function,
            types=("order.*",),
            name="outside",
            batch=False,
            queue="events",
            threads=threads,
            max_attempts=3,
            timeout_s=300,
            retry_base_s=60,
            retry_max_delay_s=60,
            is_outside=True,
        )
    )


@pytest.mark.parametrize("threads", [1, 4])
def test_no_transaction_is_open_during_a_call_and_its_success_is_recorded(
    engine: Engine, database_url: str, make_worker: MakeWorker, threads: int
) -> None:
    seen: list[int] = []

    def work(event: Event, database: Engine) -> None:
        if event.data["order_id"] == 0:  # the others' may be finishing
            seen.append(one(engine, OPEN) if threads == 1 else 0)
        with database.connect() as connection:
            assert isinstance(connection, Connection)
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1

    outside(work, threads=threads)
    make_worker().process(deliver(database_url, [order(n) for n in range(5)]))
    assert seen == [0]
    assert set(job_states(engine).values()) == {"succeeded"}
    attempts = rows(engine, "SELECT count(*) AS counted FROM attempts WHERE outcome <> 'succeeded'")
    assert attempts == [{"counted": 0}]


@pytest.mark.parametrize("threads", [1, 4])
def test_each_fails_discards_and_snoozes_alone(
    engine: Engine, database_url: str, make_worker: MakeWorker, threads: int
) -> None:
    def work(event: Event, _database: Engine) -> None:
        match event.data["order_id"]:
            case 1:
                raise ValueError("no")
            case 2:
                raise Discard("not for us")
            case 3:
                raise Snooze(60)

    outside(work, threads=threads)
    make_worker().process(deliver(database_url, [order(n) for n in range(5)]))
    assert job_states(engine) == {
        0: "succeeded",
        1: "retrying",
        2: "dead",
        3: "retrying",
        4: "succeeded",
    }


def test_as_many_calls_as_it_has_threads_are_made_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    together = threading.Barrier(4, timeout=300)

    def work(_event: Event, _database: Engine) -> None:
        together.wait()  # nobody passes until four are here

    outside(work, threads=4)
    make_worker().process(deliver(database_url, [order(n) for n in range(4)]))
    assert set(job_states(engine).values()) == {"succeeded"}


def test_a_call_whose_job_was_taken_over_meanwhile_does_not_make_it_succeed(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    def work(_event: Event, _database: Engine) -> None:
        execute(engine, "UPDATE jobs SET attempt = attempt + 1, worker = 'another'")

    outside(work)
    make_worker().process(deliver(database_url, [order(1)]))
    assert rows(engine, "SELECT state, attempt, worker FROM jobs") == [
        {"state": "running", "attempt": 2, "worker": "another"}
    ]


@pytest.mark.parametrize("threads", [1, 4])
def test_what_failed_before_postgresql_went_away_is_recorded(
    servers: Servers,
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    threads: int,
) -> None:
    """The effects' connections are refused, those of our own statements not."""
    with servers.role("SUPERUSER") as role:
        effects = guard.create_engine(parse(as_role(database_url, role)), pool_size=1)

        def work(event: Event, _database: Engine) -> None:
            if event.data["order_id"] == 0:
                raise ValueError("no")
            servers.execute(f"ALTER ROLE {role} NOLOGIN")

        outside(work, threads=threads)
        worker = make_worker(effects=effects)
        events = deliver(database_url, [order(0), order(1)])
        with pytest.raises(OperationalError):
            worker.process(events)
        effects.dispose()
    assert job_states(engine) == {0: "retrying", 1: "running"}
    assert one(engine, "SELECT error_type FROM attempts") == "ValueError"


DESTINATION = """
[[destination]]
name = "crm"
url = "{url}"
types = ["order.*"]
queue = "events"
secrets_env = "CRM_SECRETS"
allow_http = true
allow_private = true
[destination.breaker]
"""
FAR = b"Retry-After: Mon, 01 Jan 99999999999 00:00:00 GMT\r\n"


@pytest.mark.parametrize(
    ("raw", "state", "told"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "succeeded", []),
        (b"HTTP/1.1 503 No\r\n" + FAR + b"Content-Length: 2\r\n\r\n", "retrying", ["HTTP 503"]),
        (b"HTTP/1.1 404 No\r\n" + FAR + b"Content-Length: 0\r\n\r\n", "retrying", ["HTTP 404"]),
    ],
    ids=["a body that breaks off", "a wait without an end", "a wait that is not meant"],
)
def test_the_status_of_a_destination_is_its_answer_whatever_else_it_sends(
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raw: bytes,
    state: str,
    told: list[str],
) -> None:
    monkeypatch.setenv("CRM_SECRETS", "whsec_" + base64.b64encode(bytes(24)).decode())
    file = tmp_path / "sources.toml"
    with running() as taker:
        taker.raw = raw
        file.write_text(DESTINATION.format(url=taker.url))
        registry.declared += destinations.declarations(files.read([file], []))
        make_worker().process(deliver(database_url, [order(1)]))
    assert job_states(engine) == {1: state}
    failed = rows(engine, "SELECT error_message FROM attempts WHERE outcome = 'failed'")
    assert [attempt["error_message"] for attempt in failed] == told
    assert one(engine, "SELECT count(*) FROM jobs WHERE next_attempt_at > now() + '2 days'") == 0
