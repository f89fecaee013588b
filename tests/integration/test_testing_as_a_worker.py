"""What a worker does before a call and around it, in the tests of processors' authors."""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from sqlalchemy import Connection

from ingest.local import postgres
from ingest.store.address import parse
from tests.conftest import Servers
from workers import Event, processor, registry
from workers.registry import Declaration
from workers.testing import Fault, Pipeline, under_faults
from workers.testing.database import prepared


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declarations: list[Declaration] = []
    monkeypatch.setattr(registry, "declared", declarations)


@pytest.mark.parametrize("option", ["ordered_by", "limit_by"])
def test_an_event_whose_key_cannot_be_told_is_dead_as_in_a_worker(
    pipeline: Pipeline, option: str
) -> None:
    """A key is read from the plain data: a typed processor's model is not made yet."""
    called: list[str] = []
    more: dict[str, Any] = {option: lambda event: event.data.order_id}
    if option == "limit_by":
        more["key_concurrency"] = 1

    @processor("order.created", **more)
    def work(event: Event, db: Connection) -> None:
        called.append(event.id)

    attempt = pipeline.run(work, pipeline.event("order.created"))
    assert (attempt.outcome, attempt.state, called) == ("discarded", "dead", [])
    assert attempt.error is not None
    assert attempt.error.startswith("AttributeError")


def test_the_events_of_a_list_whose_key_can_be_told_are_called_for(pipeline: Pipeline) -> None:
    called: list[list[int]] = []

    @processor("order.created", batch=True, ordered_by="order_id")
    def work(events: list[Event], db: Connection) -> None:
        called.append([event.data["order_id"] for event in events])

    events = [pipeline.event("order.created", order_id=key) for key in (1, {"no": "key"}, 2)]
    attempts = pipeline.run_all(work, events)
    assert [str(attempt.outcome) for attempt in attempts] == ["succeeded", "discarded", "succeeded"]
    assert {key for call in called for key in call} == {1, 2}


@under_faults
def test_a_fault_happens_to_each_call_until_it_is_done(
    pipeline: Pipeline, request: pytest.FixtureRequest
) -> None:
    fault = request.node.callspec.params["pipeline"]
    numbers: list[int] = []

    @processor("order.created", max_attempts=3)
    def work(event: Event, db: Connection) -> None:
        numbers.append(event.attempt)

    (attempt,) = pipeline.run_until_done(work, pipeline.event("order.created"))
    assert attempt.succeeded
    twice = fault in (Fault.CRASH, Fault.DUPLICATE)
    assert numbers == ([1, 2] if twice else [1])
    assert attempt.number == numbers[-1]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_server_may_be_named_without_a_host(scheme: str, servers: Servers) -> None:
    """As a socket is."""
    parameters = dict(parse(servers.as_administrator(servers.database_url("postgres"))).parameters)
    del parameters["dbname"]
    server = f"{scheme}:///postgres?{urlencode(parameters)}"
    with prepared(server, "CREATE TABLE own ()") as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM own").fetchone() == (0,)


def test_no_lock_of_a_killed_server_stays(tmp_path: Path) -> None:
    """After a reboot another process may have its pid, and the server would not start."""
    (tmp_path / "postgres").mkdir()
    locks = [tmp_path / "postgres" / "postmaster.pid", tmp_path / ".s.PGSQL.5432.lock"]
    for lock in locks:
        lock.write_text("1\n")
    postgres.clear_stale_lock(tmp_path, tmp_path)
    assert not any(lock.exists() for lock in locks)
