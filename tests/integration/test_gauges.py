"""The state of the tables, as the relay measures it: right, and at a bounded cost."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from ingest.monitoring import catalogue
from ingest.monitoring.samples import Distribution, Sample
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.reports import gauges
from ingest.store.reports.gauges import Gauges
from ingest.store.retention.ages import Ages
from tests.conftest import Servers
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one
from tests.support.statistics import fill
from tests.support.work import explained
from workers.relay.measurement import Measurement

WAITING = 5_000
LIMIT = 100

_SPREAD = """
    UPDATE jobs SET queue = CASE WHEN id % 2 = 0 THEN 'crm' ELSE queue END;
    UPDATE jobs SET hinted_until = 'infinity' WHERE id % 10 = 0 AND due_at IS NOT NULL;
    UPDATE jobs SET state = 'dead', next_attempt_at = NULL, hinted_until = NULL,
                    finished_at = now()
    WHERE id % 10 = 1 AND due_at IS NOT NULL;
"""


@pytest.fixture
def relay(servers: Servers, database_url: str) -> Iterator[Engine]:
    """The relay's engine, on a database with many jobs of each kind."""
    with psycopg.connect(servers.as_administrator(database_url), autocommit=True) as connection:
        connection.execute("SET search_path = ingest")
        fill(connection, WAITING)
        connection.execute(_SPREAD)
        connection.execute(
            "INSERT INTO parked (processor, queue, reason)"
            " SELECT DISTINCT processor, queue, 'unknown' FROM jobs WHERE due_at = 'infinity'"
        )
    found = create_engine(parse(database_url), role=Role.RELAY)
    yield found
    found.dispose()


def read(engine: Engine) -> Gauges:
    with engine.begin() as connection:
        return gauges.read(connection)


def count(engine: Engine, condition: str) -> int:
    return int(one(engine, f"SELECT count(*) FROM ingest.jobs WHERE {condition}"))


def test_jobs_are_counted_by_processor_and_queue(relay: Engine) -> None:
    state = read(relay)
    assert sum(lane.pending for lane in state.lanes) == count(
        relay, "state = 'pending' AND due_at < 'infinity'"
    )
    assert sum(lane.running for lane in state.lanes) == count(relay, "state = 'running'")
    assert sum(state.parked.values()) == count(relay, "due_at = 'infinity'")
    assert {reason for _, _, reason in state.parked} == {"unknown"}
    assert sum(state.dead.values()) == count(relay, "state = 'dead'")
    assert {lane.queue for lane in state.lanes} >= {"crm"}
    assert state.unadmitted == one(
        relay, "SELECT count(*) FROM ingest.unadmitted WHERE replay IS NULL"
    )


def test_the_oldest_that_waits_is_found_by_lane(engine: Engine, database_url: str) -> None:
    execute(engine, "TRUNCATE unadmitted")
    assert read(engine).unadmitted_since is None
    first, *_ = deliver(database_url, [order(1), order(2)])
    state = read(engine)
    assert state.unadmitted == 2
    assert state.unadmitted_since == one(
        engine, "SELECT received_at FROM unadmitted WHERE delivery = :first", first=first
    )


def test_the_cost_does_not_grow_with_what_waits(
    relay: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "EXAMINED", LIMIT)
    with relay.begin() as connection:
        state, taken = explained(connection, gauges.read)
    assert sum(lane.pending for lane in state.lanes) <= 2 * LIMIT
    assert max(state.parked.values()) == LIMIT
    assert taken.rows <= 20 * LIMIT < WAITING, taken


def test_a_measurement_says_when_it_was_and_keeps_its_values(relay: Engine) -> None:
    measurement = Measurement(relay, Ages(), clock=lambda: 1_700_000_000.0)
    measurement.measure()
    told = {sample.metric: sample.value for sample in measurement.read()}
    assert told[catalogue.MEASURED_AT] == 1_700_000_000.0
    assert told[catalogue.BACKLOG] == read(relay).unadmitted
    days = told[catalogue.PARTITION_DAYS]
    assert not isinstance(days, Distribution)
    assert days >= 1


def test_what_was_never_measured_or_long_ago_is_not_told_as_the_state_of_now(
    relay: Engine,
) -> None:
    """The time alone is told, so that `IngestMeasurementOld` fires."""
    now = 1_700_000_000.0
    measurement = Measurement(relay, Ages(), clock=lambda: now)
    assert measurement.read() == [Sample(catalogue.MEASURED_AT, 0.0)]
    measurement.measure()
    now += 300
    assert len(measurement.read()) > 5
    now += 1
    assert measurement.read() == [Sample(catalogue.MEASURED_AT, 1_700_000_000.0)]
