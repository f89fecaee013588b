"""For how long the oldest row should have been gone that retention has not removed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ingest.ids import first_id
from ingest.monitoring import catalogue
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.retention import lateness, passes
from ingest.store.retention.ages import Ages
from tests.support.deliver import deliver, order
from tests.support.retention import is_ready
from tests.support.rows import execute, rows
from tests.support.states import give_job
from tests.support.work import explained
from workers.relay.measurement import Measurement

DAY = timedelta(days=1)
AGES = Ages(
    events=30 * DAY,
    past_events=60 * DAY,
    refusals=10 * DAY,
    activity=30 * DAY,
    audit=90 * DAY,
    failures=90 * DAY,
)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the test, and not of the import."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


@pytest.fixture
def relay(database_url: str) -> Iterator[Engine]:
    engine = create_engine(parse(database_url), role=Role.RELAY)
    yield engine
    engine.dispose()


def late(relay: Engine, ages: Ages = AGES) -> dict[str, float]:
    """Days, rounded."""
    with relay.connect() as connection:
        found = lateness.read(connection, ages, now=NOW)
    return {kind: round(seconds / DAY.total_seconds(), 1) for kind, seconds in found.items()}


def stored(engine: Engine, days: int, state: str | None) -> None:
    """An event of so many days ago, with a job in a state."""
    moment = NOW - days * DAY
    execute(
        engine,
        "INSERT INTO events VALUES (:id, 'awalchat', :name, 'order.created', '', :at)",
        id=first_id(moment),
        name=str(days),
        at=moment,
    )
    if state is not None:
        give_job(engine, first_id(moment), state, "p")
        execute(engine, "UPDATE jobs SET finished_at = :at WHERE state = 'succeeded'", at=moment)
    execute(engine, "DELETE FROM activity")  # a trigger counted the event at its receipt


def test_nothing_is_late_where_nothing_is_old_or_everything_is_kept(
    engine: Engine, relay: Engine
) -> None:
    stored(engine, 5, "succeeded")
    assert late(relay) == dict.fromkeys(
        ("events", "duplicates", "past_events", "refusals", "activity", "audit", "failures"), 0
    )
    stored(engine, 400, "succeeded")
    assert late(relay, Ages()) == {}


def test_each_kind_is_as_late_as_its_oldest_row_that_may_go(engine: Engine, relay: Engine) -> None:
    stored(engine, 50, "dead")  # stays until somebody discards it
    stored(engine, 40, "succeeded")
    stored(engine, 35, None)
    for table, values in {
        "activity": "now() - interval '33 days', 'lag', '', 0, 0, 1",
        "past_events": "'\\x01', '\\x02', gen_random_uuid(),"
        " CAST(now() AT TIME ZONE 'UTC' AS date) - 70",
    }.items():
        execute(engine, f"INSERT INTO {table} VALUES ({values})")
    execute(
        engine,
        "INSERT INTO actions (at, by, action, target)"
        " VALUES (now() - interval '95 d', 'a', 'b', 'c')",
    )
    execute(
        engine,
        "INSERT INTO duplicates VALUES (:delivery, gen_random_uuid(), :at, false)",
        delivery=first_id(NOW - 31 * DAY),
        at=NOW - 31 * DAY,
    )
    found = late(relay)
    assert found.pop("past_events") in (pytest.approx(9, abs=1.1),)
    assert found == {"events": 10, "duplicates": 1, "activity": 3, "audit": 5} | dict.fromkeys(
        ("refusals", "failures"), 0
    )


PARKED_JOB = """
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      next_attempt_at, hinted_until)
    SELECT event, :processor, queue, 'retrying', 'retry', 1, 1, 8, now(), 'infinity'
    FROM jobs LIMIT 1
"""


def failure(engine: Engine, processor: str, days: int, state: str = "open") -> None:
    """A group whose last attempt failed so many days ago."""
    execute(
        engine,
        "INSERT INTO failure_groups (processor, error_type, place, state, first_seen, last_seen,"
        " attempts, job, number) VALUES (:processor, :state, '', :state, :at, :at, 1, 1, 1)",
        processor=processor,
        state=state,
        at=NOW - days * DAY,
    )


def test_failures_are_as_late_as_their_oldest_group_that_may_go(
    engine: Engine, relay: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure(engine, "muted", 120, "muted")
    failure(engine, "p", 110)
    stored(engine, 5, "dead")  # of the processor p
    failure(engine, "q", 10)
    assert late(relay)["failures"] == 0
    failure(engine, "q", 97, "resolved")
    assert late(relay)["failures"] == 7
    failure(engine, "r", 99)
    execute(engine, PARKED_JOB, processor="r")  # which would be counted anew
    assert late(relay)["failures"] == 7
    with monkeypatch.context() as patched:
        patched.setattr(lateness, "EXAMINED", 1)
        assert late(relay)["failures"] == 0  # a dead letter beyond those may be of q
    for _ in passes.run(relay, AGES, clock=lambda: NOW):
        pass
    assert late(relay)["failures"] == 0
    left = "SELECT processor FROM failure_groups ORDER BY 1"
    assert [row["processor"] for row in rows(engine, left)] == ["muted", "p", "q", "r"]


def test_a_pass_makes_up_for_it(engine: Engine, relay: Engine) -> None:
    stored(engine, 40, "succeeded")
    execute(engine, "INSERT INTO activity VALUES (now() - interval '33 d', 'lag', '', 0, 0, 1)")
    assert late(relay)["activity"] == 3
    assert late(relay)["events"] == 10
    is_ready(engine)
    for _ in passes.run(relay, AGES, clock=lambda: NOW):
        pass
    assert set(late(relay).values()) == {0}


def test_the_relay_tells_it_to_prometheus(engine: Engine, relay: Engine) -> None:
    execute(engine, "INSERT INTO activity VALUES (now() - interval '33 d', 'lag', '', 0, 0, 1)")
    measurement = Measurement(relay, Ages(activity=30 * DAY), clock=lambda: 0.0)
    measurement.measure()
    (sample,) = [
        sample for sample in measurement.read() if sample.metric is catalogue.RETENTION_BEHIND
    ]
    assert sample.labels == ("activity",)
    assert sample.value == pytest.approx(3 * DAY.total_seconds(), abs=3_600)


def test_what_is_read_is_bounded_however_many_old_events_stay(
    database_url: str, engine: Engine, relay: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lateness, "EXAMINED", 50)
    ids = deliver(database_url, [order(number) for number in range(600)], now=1_700_000_000)
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted WHERE delivery = ANY(:ids)",
        ids=ids,
    )
    execute(engine, "ANALYZE")
    with relay.connect() as connection:
        found, effort = explained(connection, lambda reading: lateness.read(reading, AGES, now=NOW))
    assert found["events"] == 0  # all of them are yet to be admitted
    assert effort.rows <= 20 * 50, effort
