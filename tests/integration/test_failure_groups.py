"""What fails in one way is one record, whoever counts it; it comes back, and is resolved, by
itself."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.errors import NotFound
from ingest.store.bulk import replay
from ingest.store.failures import changes, folding, records
from ingest.store.failures.changes import Change
from ingest.store.failures.records import FailureRecord, State
from ingest.store.pipeline import jobs
from ingest.store.retention.ages import Ages
from ingest.store.search.filters import EventFilter
from tests.integration.conftest import Worker
from tests.integration.outcomes import run_due
from tests.integration.test_command_parity import kill
from tests.support.deliver import deliver, order
from tests.support.failing import (
    PLACE,
    claim_again,
    count,
    declare,
    fail_jobs,
    fail_running,
    failure,
    group,
    groups,
    running_job,
    waiting,
)
from tests.support.retention import remove
from tests.support.rows import execute, one, rows
from tests.support.slots import on_servers_of_its_own, two_backends
from tests.support.states import listed
from tests.support.waiting import until
from workers.registry import Declaration
from workers.relay.grouping import Grouping

MakeWorker = Callable[..., Worker]
AMAL = Identity(name="amal", role=Role.OPERATOR, via="password")


def change(
    engine: Engine, verb: Callable[..., FailureRecord], number: int, **how: object
) -> FailureRecord:
    """What an operator changes in a group."""
    with engine.begin() as connection:
        return verb(connection, Change(failure=number, by=AMAL), **how)


def requeue(engine: Engine, ids: list[int]) -> None:
    """Replay jobs, as an operator's bulk action does."""
    with engine.begin() as connection:
        number = replay.begin(
            connection, EventFilter(), action="replay", requested_by="amal", reason=None
        )
        jobs.requeue(connection, ids, replay=number, queue="events", delays_s=[0.0] * len(ids))


def test_what_a_worker_fails_with_is_one_group_without_lines(
    engine: Engine,
    database_url: str,
    declared: list[Declaration],
    make_worker: MakeWorker,
) -> None:
    def price(number: int) -> None:
        if number % 2:
            raise KeyError("total")
        raise KeyError("total of another line")

    declare(price, max_attempts=1)
    worker = make_worker(release="2026.11.3")
    worker.process(deliver(database_url, [order(number) for number in range(6)]))
    count(engine)
    found = group(engine)
    assert (found.processor, found.error_type) == ("p", "KeyError")
    assert found.place == (
        f"{__name__}:test_what_a_worker_fails_with_is_one_group_without_lines.<locals>.price"
    )
    assert (found.attempts, found.state, waiting(engine)) == (6, State.OPEN, 0)
    with engine.connect() as connection:
        (release,) = records.releases(connection, found.id)
        (trend,) = records.trends(
            connection,
            [found.id],
            since=found.last_seen - timedelta(hours=1),
            span=timedelta(hours=2),
            spans=1,
        ).values()
    assert (release.release, release.attempts) == ("2026.11.3", 6)
    assert trend == (6,)
    assert len(declared) == 1


def test_snoozed_and_released_attempts_are_no_failures(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    from workers import Snooze

    def price(_number: int) -> None:
        raise Snooze(60)

    declare(price)
    make_worker().process(deliver(database_url, [order(1)]))
    assert one(engine, "SELECT outcome FROM attempts") == "snoozed"
    count(engine)
    assert groups(engine) == []
    assert len(declared) == 1


@on_servers_of_its_own
def test_the_first_failures_of_two_workers_at_once_make_one_group(
    engine: Engine, database_url: str
) -> None:
    ids = [running_job(engine, event) for event in deliver(database_url, [order(1), order(2)])]
    with two_backends(engine, of_one_slot=False) as (one_worker, another):
        for connection, job in zip((one_worker, another), ids, strict=True):
            jobs.fail(connection, [failure(connection, job, "KeyError", PLACE, True)])
        one_worker.commit()
        another.commit()
    count(engine)
    assert group(engine).attempts == 2


def test_relays_that_count_at_once_count_each_attempt_once(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url, 60)
    together = threading.Barrier(4)

    def fold(_relay: int) -> int:
        together.wait()
        counted = 0
        while waiting(engine):
            with engine.begin() as connection:
                if folding.take_turn(connection):
                    counted += folding.fold(connection, now=datetime.now(UTC), limit=7).attempts
        return counted

    with ThreadPoolExecutor(4) as relays:
        assert sum(relays.map(fold, range(4))) == 60
    assert group(engine).attempts == 60
    assert one(engine, "SELECT sum(attempts) FROM failure_counts") == 60


def test_a_group_keeps_its_number_while_processor_type_and_place_differ(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url, 2)
    count(engine)
    number = group(engine).id
    fail_jobs(engine, database_url, error_type="ValueError", first=10)
    fail_jobs(engine, database_url, place="shop.orders:tax", first=20)
    fail_jobs(engine, database_url, place=None, error_type="WorkerLost", first=30)
    fail_jobs(engine, database_url, first=40)
    count(engine)
    found = groups(engine)
    assert [(one.error_type, one.attempts) for one in found if one.id == number] == [
        ("KeyError", 3)
    ]
    assert len(found) == 4


def test_an_attempt_that_retention_has_removed_meanwhile_is_left_out(
    engine: Engine, database_url: str
) -> None:
    kept, gone = fail_jobs(engine, database_url, 2)
    execute(engine, "DELETE FROM attempts WHERE job = :gone", gone=gone)
    count(engine)
    assert (group(engine).attempts, group(engine).job, waiting(engine)) == (1, kept, 0)


def test_what_older_workers_failed_with_is_adopted_once(engine: Engine, database_url: str) -> None:
    kill(engine, database_url, 3)
    for _ in range(2):
        with engine.begin() as connection:
            folding.adopt(connection)
        count(engine)
    assert (group(engine).attempts, group(engine).place) == (3, "")


def test_the_place_of_an_older_attempt_is_its_last_frame_without_the_line(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url, place=None)
    count(engine)
    found = group(engine)
    assert found.place == '"/app/shop/orders.py", in total'
    for place in (found.place, '"/app/shop/orders.py", line 12, in total'):
        selection = EventFilter(error_type="KeyError", raised_at=place)
        assert len(listed(engine, selection)) == 1
    assert not listed(engine, EventFilter(raised_at="shop.orders:total"))


def test_a_resolved_failure_that_returns_is_open_again(engine: Engine, database_url: str) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    number = group(engine).id
    resolved = change(engine, changes.resolve, number)
    assert (resolved.state, resolved.changed_by) == (State.RESOLVED, "amal")
    fail_jobs(engine, database_url, first=1)
    count(engine)
    back = group(engine)
    assert (back.id, back.state, back.changed_by) == (number, State.OPEN, None)
    assert back.reopened_at is not None
    assert back.resolved_at == resolved.resolved_at
    with engine.connect() as connection:
        assert [one.id for one in records.returned(connection)] == [number]
    change(engine, changes.acknowledge, number)
    with engine.connect() as connection:
        assert records.returned(connection) == []


def test_an_attempt_that_began_before_it_was_resolved_is_no_return(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    (event,) = deliver(database_url, [order(7)])
    runs = running_job(engine, event)
    change(engine, changes.resolve, group(engine).id)
    fail_running(engine, [runs])
    count(engine)
    assert (group(engine).state, group(engine).attempts) == (State.RESOLVED, 2)


def test_a_replay_of_an_old_event_that_fails_again_is_a_return(
    engine: Engine, database_url: str
) -> None:
    ids = fail_jobs(engine, database_url)
    count(engine)
    change(engine, changes.resolve, group(engine).id)
    requeue(engine, ids)
    claim_again(engine, ids)
    fail_running(engine, ids)
    count(engine)
    assert group(engine).state is State.OPEN


@pytest.mark.parametrize("in_release", ["next", "3"])
def test_a_failure_that_a_release_mends_may_go_on_in_those_that_had_it(
    engine: Engine, database_url: str, in_release: str
) -> None:
    fail_jobs(engine, database_url, release="1")
    fail_jobs(engine, database_url, release="2", first=10)
    count(engine)
    change(engine, changes.resolve, group(engine).id, in_release=in_release)
    fail_jobs(engine, database_url, release="1", first=20)
    fail_jobs(engine, database_url, release="2", first=30)
    count(engine)
    assert group(engine).state is State.RESOLVED
    fail_jobs(engine, database_url, release="3", first=40)
    count(engine)
    assert group(engine).state is State.OPEN


def test_a_failure_is_muted_until_it_has_happened_so_often_more(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url, 2)
    count(engine)
    change(engine, changes.mute, group(engine).id, times=3)
    fail_jobs(engine, database_url, 2, first=10)
    count(engine)
    assert (group(engine).state, group(engine).muted_to) == (State.MUTED, 5)
    fail_jobs(engine, database_url, first=20)
    count(engine)
    assert (group(engine).state, group(engine).muted_to) == (State.OPEN, None)
    assert group(engine).reopened_at is not None


def test_a_failure_is_muted_until_a_time_or_for_ever(engine: Engine, database_url: str) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    number = group(engine).id
    change(engine, changes.mute, number)
    fail_jobs(engine, database_url, first=10)
    count(engine)
    assert group(engine).state is State.MUTED
    change(engine, changes.mute, number, until=datetime.now(UTC) + timedelta(hours=1))
    count(engine)
    assert group(engine).state is State.MUTED
    execute(engine, "UPDATE failure_groups SET muted_until = now() - interval '1 s'")
    count(engine)
    assert (group(engine).state, group(engine).reopened_at) == (State.OPEN, None)


def test_a_failure_resolves_itself_once_everything_of_it_has_succeeded(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    prices: dict[int, int] = {}
    declare(lambda number: prices[number], max_attempts=1)
    worker = make_worker()
    worker.process(deliver(database_url, [order(1), order(2)]))
    count(engine)
    change(engine, changes.resolve_when_succeeded, group(engine).id)
    count(engine)
    assert (group(engine).state, group(engine).resolves_itself) == (State.OPEN, True)
    prices |= {1: 10}
    requeue(engine, [row["id"] for row in rows(engine, "SELECT id FROM jobs")])
    count(engine)
    assert group(engine).state is State.OPEN  # they are to be repeated
    run_due(engine, worker)
    count(engine)
    assert (group(engine).state, group(engine).attempts) == (State.OPEN, 3)  # one failed again
    prices |= {2: 20}
    requeue(engine, [one(engine, "SELECT id FROM jobs WHERE state = 'dead'")])
    run_due(engine, worker)
    count(engine)
    found = group(engine)
    assert (found.state, found.changed_by, found.resolves_itself) == (State.RESOLVED, None, False)
    assert len(declared) == 1


def test_a_discarded_job_is_nothing_that_is_left_to_do(engine: Engine, database_url: str) -> None:
    ids = fail_jobs(engine, database_url, 2)
    count(engine)
    change(engine, changes.resolve_when_succeeded, group(engine).id)
    with engine.begin() as connection:
        jobs.discard(connection, ids[:1], replay=None, why="a test order")
    count(engine)
    assert group(engine).state is State.OPEN
    with engine.begin() as connection:
        jobs.discard(connection, ids[1:], replay=None, why="a test order")
    count(engine)
    assert group(engine).state is State.RESOLVED


def test_a_discarded_job_that_is_replayed_holds_up_its_group(
    engine: Engine, database_url: str
) -> None:
    ids = fail_jobs(engine, database_url)
    count(engine)
    with engine.begin() as connection:
        jobs.discard(connection, ids, replay=None, why="a test order")
    requeue(engine, ids)
    change(engine, changes.resolve_when_succeeded, group(engine).id)
    count(engine)
    assert group(engine).state is State.OPEN


def test_a_job_that_fails_otherwise_by_now_does_not_hold_up_a_group(
    engine: Engine, database_url: str
) -> None:
    ids = fail_jobs(engine, database_url, dies=False)
    count(engine)
    change(engine, changes.resolve_when_succeeded, group(engine).id)
    claim_again(engine, ids)
    fail_running(engine, ids, error_type="ValueError")
    count(engine)
    states = {found.error_type: found.state for found in groups(engine)}
    assert states == {"KeyError": State.RESOLVED, "ValueError": State.OPEN}


def test_a_change_waits_for_the_count_and_loses_nothing(engine: Engine, database_url: str) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    number = group(engine).id
    fail_jobs(engine, database_url, first=10)
    with ThreadPoolExecutor(1) as operator, engine.connect() as relay:
        folding.take_turn(relay)
        folding.fold(relay, now=datetime.now(UTC))
        waits = operator.submit(change, engine, changes.mute, number, times=1)
        until(lambda: one(engine, BLOCKED) == 1, what="the change waits for the row")
        relay.commit()
        assert waits.result().muted_to == 3
    assert group(engine).attempts == 2


BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def test_each_change_is_in_the_audit_log_and_an_unknown_group_is_none(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    number = group(engine).id
    change(engine, changes.acknowledge, number)
    change(engine, changes.assign, number, to="noura")
    change(engine, changes.reopen, number)
    with engine.begin() as connection:
        changes.note(connection, Change(failure=number, by=AMAL), text="since the deploy")
    done = [(row["by"], row["action"], row["target"]) for row in rows(engine, ACTIONS)]
    assert done == [
        ("amal", "acknowledge failure", f"failure {number}"),
        ("amal", "assign failure", f"failure {number} to noura"),
        ("amal", "reopen failure", f"failure {number}"),
        ("amal", "note on failure", f"failure {number}"),
    ]
    with pytest.raises(NotFound, match="There is no failure 99"):
        change(engine, changes.resolve, 99)
    assert len(rows(engine, ACTIONS)) == 4


ACTIONS = "SELECT by, action, target FROM actions ORDER BY id"


def test_old_groups_go_with_their_notes_but_not_while_their_processor_has_dead_letters(
    engine: Engine, database_url: str
) -> None:
    ids = fail_jobs(engine, database_url)
    fail_jobs(engine, database_url, error_type="ValueError", first=10)
    count(engine)
    old, young = groups(engine)
    with engine.begin() as connection:
        changes.note(connection, Change(failure=old.id, by=AMAL), text="known")
    execute(
        engine,
        "UPDATE failure_groups SET last_seen = now() - interval '40 d' WHERE id = :id",
        id=old.id,
    )
    month = Ages(failures=timedelta(days=30))
    assert remove(engine, month, datetime.now(UTC)) == {}
    execute(engine, "UPDATE jobs SET discarded_at = now()")
    assert remove(engine, month, datetime.now(UTC)) == {"failures": 1}
    assert [found.id for found in groups(engine)] == [young.id]
    assert one(engine, "SELECT count(*) FROM failure_notes") == 0
    assert len(ids) == 1


def test_the_relay_counts_in_its_own_thread(engine: Engine, database_url: str) -> None:
    kill(engine, database_url, 2)
    fail_jobs(engine, database_url, 3, first=100)
    stop = threading.Event()
    grouping = Grouping(engine, stop=stop)
    grouping.start()
    try:
        until(lambda: len(groups(engine)) == 2, what="both ways of failing are recorded")
        until(lambda: waiting(engine) == 0, what="all attempts are counted")
    finally:
        stop.set()
        grouping._thread.join(300)
    assert sorted(found.attempts for found in groups(engine)) == [2, 3]
