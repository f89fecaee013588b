"""A replay that is paused or cancelled takes back what has not begun, and says what came of it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from ingest.cli import main
from ingest.console.app import create_app
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.query import parse, spell
from ingest.settings import Settings
from ingest.store.address import parse as parse_address
from ingest.store.bulk import changes, operations, replay
from ingest.store.bulk.changes import CANCELLED, PAUSED, RUNNING
from ingest.store.bulk.replay import DISCARD, REPLAY, Operation
from ingest.store.bulk.work import Work
from ingest.store.engine import Role as StoreRole
from ingest.store.engine import create_engine
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome
from ingest.store.retention import progress, records
from ingest.store.search.filters import EventFilter, where
from tests.integration.test_totals import check_totals
from tests.support.asgi import Browser, running
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute, one, rows
from tests.support.slots import until_waiting
from tests.support.states import listed

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)
NOTIFY = NewJobs(type="order.created", processor="notify", queue="slow", max_attempts=3)
DEAD = EventFilter(state="dead")
SARA = Identity(name="sara", role=Role.OPERATOR, via="password")
_ROWS = "SELECT to_jsonb(jobs) AS job FROM jobs ORDER BY id"
_HISTORY = "SELECT * FROM attempts ORDER BY job, number"


def admit(
    engine: Engine, deliveries: Sequence[UUID], processors: Sequence[NewJobs] = (ORDERS,)
) -> list[int]:
    with engine.begin() as connection:
        admitted = admission.admit(
            connection, deliveries, processors, replay_queue="replay", redispatch_after_s=0
        )
    return [job.id for job in admitted.jobs]


def claim(engine: Engine, ids: Sequence[int]) -> list[Lease]:
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=3)
    return [Lease(id=job.id, attempt=job.attempt) for job in claimed]


def succeed(engine: Engine, ids: Sequence[int]) -> None:
    held = claim(engine, ids)
    with engine.begin() as connection:
        jobs.finish(connection, held)


def fail(engine: Engine, ids: Sequence[int], *, retry_in_s: float | None = None) -> None:
    ended = [
        Failure(
            id=held.id,
            attempt=held.attempt,
            outcome=Outcome.FAILED,
            retry_in_s=retry_in_s,
            error_type="E",
            error_message="no",
        )
        for held in claim(engine, ids)
    ]
    with engine.begin() as connection:
        jobs.fail(connection, ended)


def dead_ones(engine: Engine, database_url: str, count: int) -> list[int]:
    ids = admit(engine, deliver(database_url, [order(number) for number in range(count)]))
    fail(engine, ids)
    return ids


def begin(
    engine: Engine, selection: EventFilter, *, action: str = REPLAY, rate: float | None = None
) -> int:
    """Begin an operation as the console does."""
    with engine.begin() as connection:
        total = replay.count(connection, selection, action=action).total
        return replay.begin(
            connection,
            selection,
            action=action,
            requested_by="sara",
            reason=None,
            rate=rate,
            total=total,
            background=True,
        )


def advance(engine: Engine, number: int) -> None:
    """Until nothing is left to do for now."""
    while not (done := replay.advance(engine, number)).has_ended and not done.waits:
        pass


def started(engine: Engine, selection: EventFilter, **options: Any) -> int:
    number = begin(engine, selection, **options)
    advance(engine, number)
    return number


def change(engine: Engine, number: int, status: str) -> bool:
    return replay.change(engine, number, status, by=SARA, reason="why not")


def read(engine: Engine, number: int) -> Operation:
    with engine.connect() as connection:
        return replay.operation(connection, number)


def work(engine: Engine, number: int) -> dict[str, int]:
    """What has become of its jobs, without what is nothing."""
    counted = read(engine, number).work
    names = (name for name in counted.__slots__ if name != "is_capped")
    return {name: value for name in names if (value := getattr(counted, name))}


def found(engine: Engine, search: str) -> set[str]:
    """The ids at the sender of the events that a search finds; in a list, and by a replay."""
    selection = parse(search, now=one(engine, "SELECT now()")).selection
    assert spell(selection) == search
    return {event.event_id.partition(":")[2] for event in listed(engine, selection)}


def test_it_is_finished_only_when_nothing_of_it_waits_or_runs(
    engine: Engine, database_url: str
) -> None:
    ids = dead_ones(engine, database_url, 5)
    number = started(engine, DEAD)
    assert (read(engine, number).status, work(engine, number)) == ("running", {"pending": 5})
    succeed(engine, ids[:2])
    claim(engine, ids[2:3])
    fail(engine, ids[3:4])
    fail(engine, ids[4:], retry_in_s=0)
    expected = {"succeeded": 2, "running": 1, "dead": 1, "retrying": 1}
    assert (read(engine, number).status, work(engine, number)) == ("running", expected)
    with engine.begin() as connection:
        jobs.finish(connection, [Lease(id=ids[2], attempt=2)])
    assert read(engine, number).status == "running"  # one is still to be retried
    succeed(engine, ids[4:])
    assert (read(engine, number).status, work(engine, number)) == (
        "finished",
        {"succeeded": 4, "dead": 1},
    )


def test_each_number_leads_to_exactly_those_events(engine: Engine, database_url: str) -> None:
    ids = dead_ones(engine, database_url, 5)
    number = started(engine, DEAD)
    succeed(engine, ids[:2])
    fail(engine, ids[2:3])
    fail(engine, ids[3:4], retry_in_s=100)
    assert found(engine, f"state:succeeded replay:{number}") == {"0", "1"}
    assert found(engine, f"state:dead replay:{number}") == {"2"}
    assert found(engine, f"state:retrying replay:{number}") == {"3"}
    assert found(engine, f"state:pending replay:{number}") == {"4"}
    assert found(engine, f"replay:{number}") == {"0", "1", "2", "3", "4"}
    assert found(engine, f"processor:notify replay:{number}") == set()
    assert change(engine, number, CANCELLED)
    assert found(engine, f"taken_back:{number}") == {"4"}
    assert found(engine, f"state:pending replay:{number}") == set()


def test_an_event_is_listed_for_each_state_that_its_jobs_are_in(
    engine: Engine, database_url: str
) -> None:
    made = deliver(database_url, [order(1)])
    first, second = admit(engine, made, [ORDERS, NOTIFY])
    fail(engine, [first, second])
    number = started(engine, DEAD)
    succeed(engine, [first])
    fail(engine, [second])
    for state in ("succeeded", "dead"):
        (event,) = listed(engine, EventFilter(replay=number, state=state))
        assert event.state == state
    again = started(engine, EventFilter(replay=number, state="dead"))
    assert work(engine, again) == {"pending": 1}
    assert work(engine, number) == {"succeeded": 1, "moved_on": 1}


def test_a_state_that_is_excluded_is_that_of_the_operations_jobs(
    engine: Engine, database_url: str
) -> None:
    """In the list as in what a replay of that list takes."""
    made = deliver(database_url, [order(1)])
    fail(engine, admit(engine, made, [ORDERS, NOTIFY]))
    number = started(engine, EventFilter(state="dead", processor="orders"))
    succeed(engine, [one(engine, "SELECT id FROM jobs WHERE processor = 'orders'")])
    for search, ids in (
        (f"replay:{number} -state:succeeded", set()),
        (f"replay:{number} -state:dead", {"1"}),
    ):
        assert found(engine, search) == ids
        condition = where(parse(search, now=datetime.now(UTC)).selection)
        query = f"SELECT count(*) FROM ingest.events WHERE {condition.sql}"
        assert one(engine, query, **condition.parameters) == len(ids)


def test_what_has_not_begun_is_what_it_was_after_a_cancel(
    engine: Engine, database_url: str
) -> None:
    """Dead, succeeded, discarded, to be retried or never run: every column, and the history."""
    made = deliver(database_url, [order(number) for number in range(6)])
    dead, done, discarded, waits, fresh, ran = admit(engine, made)
    fail(engine, [dead, discarded, ran])
    succeed(engine, [done])
    fail(engine, [waits], retry_in_s=1_000)
    with engine.begin() as connection:
        jobs.discard(connection, [discarded], replay=None, why="Discarded by sara.")
    before, history = rows(engine, _ROWS), rows(engine, _HISTORY)
    number = started(engine, EventFilter(ids=tuple(made)))
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'pending'") == 6
    succeed(engine, [ran])
    assert change(engine, number, CANCELLED)
    after = rows(engine, _ROWS)
    hinted = {"hinted_until": None, "due_at": None}
    assert [row["job"] | hinted for row in after[:5]] == [row["job"] | hinted for row in before[:5]]
    assert rows(engine, _HISTORY) == history
    assert after[5]["job"]["state"] == "succeeded"
    assert (read(engine, number).status, work(engine, number)) == (
        "cancelled",
        {"succeeded": 1, "taken_back": 5},
    )
    assert claim(engine, [dead, done, discarded, waits]) == []
    assert [held.id for held in claim(engine, [fresh])] == [fresh]


def test_a_job_that_it_made_is_removed_and_its_event_unhandled_again(
    engine: Engine, database_url: str
) -> None:
    made = deliver(database_url, [order(1), order(2), order(3)])
    admit(engine, made, [])
    number = started(engine, EventFilter(types=("order.*",)))
    assert work(engine, number) == {"unadmitted": 3}
    first, *_ = admit(engine, made[:2], [ORDERS, NOTIFY])
    succeed(engine, [first])
    assert work(engine, number) == {"unadmitted": 1, "pending": 3, "succeeded": 1}
    assert change(engine, number, CANCELLED)
    assert work(engine, number) == {"succeeded": 1, "taken_back": 4}
    assert rows(engine, "SELECT id FROM jobs") == [{"id": first}]
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0
    assert found(engine, f"taken_back:{number}") == {"1", "2", "3"}
    check_totals(engine)


def test_an_event_that_was_never_admitted_is_not_taken_back(
    engine: Engine, database_url: str
) -> None:
    """It would be lost: nothing but that row says that it is to be admitted."""
    made = deliver(database_url, [order(1), order(2)])
    admit(engine, made[:1], [])
    number = started(engine, EventFilter(types=("order.*",)))
    execute(engine, "UPDATE unadmitted SET replay = :number, queue = 'replay'", number=number)
    change(engine, number, CANCELLED)
    assert rows(engine, "SELECT delivery FROM unadmitted") == [{"delivery": made[1]}]
    assert len(admit(engine, made[1:])) == 1


def test_a_resumed_replay_goes_on_without_repeating_what_has_run(
    engine: Engine, database_url: str
) -> None:
    ids = dead_ones(engine, database_url, 6)
    number = started(engine, DEAD)
    succeed(engine, ids[1:2])
    fail(engine, ids[3:4])
    assert change(engine, number, PAUSED)
    expected = {"succeeded": 1, "dead": 1, "taken_back": 4, "to_begin": 4}
    assert (read(engine, number).status, work(engine, number)) == ("paused", expected)
    assert change(engine, number, RUNNING)
    advance(engine, number)
    waiting = rows(engine, "SELECT id FROM jobs WHERE state = 'pending' ORDER BY id")
    assert [row["id"] for row in waiting] == [ids[0], ids[2], ids[4], ids[5]]
    assert work(engine, number) == {"pending": 4, "succeeded": 1, "dead": 1}
    assert found(engine, f"taken_back:{number}") == set()
    succeed(engine, ids)
    assert read(engine, number).status == "finished"
    attempts = "SELECT max(attempt) FROM jobs"
    assert one(engine, attempts) == 2


def test_events_that_wait_beyond_what_is_counted_are_not_said_to_be_done(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list said "4 of 5" of the second, of which nothing had begun: the first took the room."""
    orders = deliver(database_url, [order(number) for number in range(5)])
    notes = deliver(database_url, [body("note.made", {"note": number}) for number in range(5)])
    admit(engine, [*orders, *notes], [])
    started(engine, EventFilter(types=("order.*",)))
    started(engine, EventFilter(types=("note.*",)))
    for most, counted_of_each in ((11, [5, 5]), (6, [1, 5]), (4, [1, 4])):
        monkeypatch.setattr(operations, "MOST_IN_LIST", most)
        listed = listed_work(engine)
        assert sorted(counted.unadmitted for counted in listed) == counted_of_each
        assert [(counted.done, counted.total) for counted in listed] == [(0, 5), (0, 5)]
        assert {counted.is_capped for counted in listed} == {most < 11}


def listed_work(engine: Engine) -> list[Work]:
    with engine.connect() as connection:
        return [operation.work for operation in replay.operations(connection, limit=10)]


def test_events_that_have_jobs_in_several_states_are_not_without_a_job(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of no state there are more than are counted, but of all together."""
    made = deliver(database_url, [order(number) for number in range(6)])
    admit(engine, made, [])
    started(engine, EventFilter(types=("order.*",)))
    ids = admit(engine, made)
    succeed(engine, ids[:2])
    fail(engine, ids[2:4])
    monkeypatch.setattr(operations, "MOST_IN_LIST", 3)
    (counted,) = listed_work(engine)
    assert (counted.pending, counted.without_job, counted.done, counted.total) == (2, 0, 4, 6)


def test_what_is_beyond_the_jobs_that_are_counted_belongs_to_the_whole(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_ones(engine, database_url, 6)
    started(engine, DEAD)
    monkeypatch.setattr(operations, "MOST_IN_LIST", 4)
    (counted,) = listed_work(engine)
    assert (counted.pending, counted.is_capped, counted.total) == (4, True, 6)


def test_a_count_that_was_not_taken_to_its_end_says_so_everywhere(
    engine: Engine,
    database_url: str,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    made = deliver(database_url, [order(number) for number in range(5)])
    admit(engine, made, [])
    number = started(engine, EventFilter(types=("order.*",)))
    for name in ("ingest.store.bulk.operations", "ingest.console.pages.bulk_action"):
        monkeypatch.setattr(f"{name}.MOST", 3)
    monkeypatch.setattr(operations, "MOST_IN_LIST", 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(main.program(), ["bulk-actions", *arguments])
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return ended.output

    assert "\t0+ of 5\t" in run("list")
    assert "waiting\t3\nmore, not counted\t2\n" in run("show", str(number))
    app = create_app(make_settings())
    with running(app):
        shown = Browser(app=app).get(f"/bulk-actions/{number}").text
    assert ">0+ of 5 (0 %)<" in shown
    assert '<b class="num">3+</b>' in shown


def test_events_without_a_job_are_admitted_again_after_a_pause(
    engine: Engine, database_url: str
) -> None:
    made = deliver(database_url, [order(1), order(2)])
    admit(engine, made, [])
    number = started(engine, EventFilter(types=("order.*",)))
    succeed(engine, admit(engine, made[1:]))
    change(engine, number, PAUSED)
    assert work(engine, number) == {"succeeded": 1, "taken_back": 1, "to_begin": 1}
    change(engine, number, RUNNING)
    advance(engine, number)
    assert work(engine, number) == {"succeeded": 1, "unadmitted": 1}
    succeed(engine, admit(engine, made))
    assert (read(engine, number).status, work(engine, number)) == ("finished", {"succeeded": 2})


def test_of_two_jobs_of_an_event_the_one_that_had_not_begun_is_made_again(
    engine: Engine, database_url: str
) -> None:
    made = deliver(database_url, [order(1)])
    admit(engine, made, [])
    number = started(engine, EventFilter(types=("order.*",)))
    first, _ = admit(engine, made, [ORDERS, NOTIFY])
    succeed(engine, [first])
    change(engine, number, PAUSED)
    assert rows(engine, "SELECT id FROM jobs") == [{"id": first}]
    change(engine, number, RUNNING)
    advance(engine, number)
    succeed(engine, admit(engine, made, [ORDERS, NOTIFY]))
    assert (read(engine, number).status, work(engine, number)) == ("finished", {"succeeded": 2})
    check_totals(engine)


def test_what_a_console_of_the_release_before_resumes_is_not_taken_back(
    engine: Engine, database_url: str
) -> None:
    dead_ones(engine, database_url, 2)
    number = started(engine, DEAD)
    execute(engine, "UPDATE replays SET taking_back = true, status = 'running'")
    assert replay.take_back(engine, number) == 0
    with engine.connect() as connection:
        assert replay.taking_back(connection) == []
    assert work(engine, number) == {"pending": 2}


def test_at_a_rate_what_is_not_due_yet_is_taken_back_and_paced_anew(
    engine: Engine, database_url: str
) -> None:
    dead_ones(engine, database_url, 30)
    number = begin(engine, DEAD, rate=1)
    advance(engine, number)
    change(engine, number, PAUSED)
    assert work(engine, number) == {"taken_back": 30, "to_begin": 30}
    change(engine, number, RUNNING)
    advance(engine, number)
    first = "SELECT extract(epoch FROM min(next_attempt_at) - now()) FROM jobs"
    assert one(engine, first) < 1


def test_what_a_later_replay_took_counts_there(engine: Engine, database_url: str) -> None:
    """Taken back by the later one, it is what it was before both."""
    ids = dead_ones(engine, database_url, 3)
    before = rows(engine, _ROWS)
    earlier = started(engine, DEAD)
    later = started(engine, EventFilter(state="pending"))
    assert work(engine, earlier) == {"moved_on": 3}
    assert work(engine, later) == {"pending": 3}
    assert not change(engine, earlier, CANCELLED)
    succeed(engine, ids[:1])
    assert change(engine, later, CANCELLED)
    assert work(engine, later) == {"succeeded": 1, "taken_back": 2}
    assert rows(engine, _ROWS)[1:] == before[1:]


def test_an_operation_that_has_ended_cannot_be_cancelled(engine: Engine, database_url: str) -> None:
    ids = dead_ones(engine, database_url, 2)
    number = started(engine, DEAD)
    succeed(engine, ids)
    assert not change(engine, number, CANCELLED)
    assert not change(engine, number, PAUSED)
    assert read(engine, number).status == "finished"
    assert one(engine, "SELECT count(*) FROM actions") == 0


def test_a_discard_is_done_when_it_is_done_and_nothing_of_it_is_taken_back(
    engine: Engine, database_url: str
) -> None:
    ids = dead_ones(engine, database_url, 3)
    number = started(engine, DEAD, action=DISCARD)
    assert (read(engine, number).status, work(engine, number)) == ("finished", {"discarded": 3})
    assert not change(engine, number, CANCELLED)
    assert found(engine, f"state:discarded replay:{number}") == {"0", "1", "2"}
    event = one(engine, "SELECT event FROM jobs WHERE id = :id", id=ids[0])
    started(engine, EventFilter(ids=(event,)))
    assert work(engine, number) == {"discarded": 2, "moved_on": 1}


def test_cancelling_outlasts_a_lock_that_somebody_holds_for_long(
    engine: Engine, database_url: str
) -> None:
    ids = dead_ones(engine, database_url, 3)
    number = started(engine, DEAD)
    mine = create_engine(parse_address(database_url), role=StoreRole.OPERATOR)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as other:
            other.execute(text("SELECT FROM replays WHERE id = :id FOR UPDATE"), {"id": number})
            cancelled = pool.submit(replay.cancel, mine, number)
            for _ in range(2):  # it waits, gives up, and waits anew
                until_waiting(engine, 1)
                until_waiting(engine, 0)
        cancelled.result(300)
    mine.dispose()
    assert read(engine, number).status == "cancelled"
    assert work(engine, number) == {"taken_back": len(ids)}


def test_whoever_claims_while_it_is_taken_back_has_each_job_once(
    engine: Engine, database_url: str
) -> None:
    ids = dead_ones(engine, database_url, 400)
    number = started(engine, DEAD)
    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(claim, engine, ids[n:300:15]) for n in range(15)]
        cancelled = pool.submit(change, engine, number, CANCELLED)
        assert cancelled.result(300)
        claimed = {held.id for done in claims for held in done.result(300)}
    while changes.take_back(engine, number):
        pass
    counted = work(engine, number)
    assert counted.get("running", 0) == len(claimed)
    assert counted.get("running", 0) + counted.get("taken_back", 0) == 400
    states = rows(engine, "SELECT id, state FROM jobs")
    assert {row["id"] for row in states if row["state"] == "running"} == claimed
    assert {row["state"] for row in states} <= {"running", "dead"}


def test_a_job_that_is_being_claimed_is_left_and_looked_at_again(
    engine: Engine, database_url: str
) -> None:
    first, second = dead_ones(engine, database_url, 2)
    number = started(engine, DEAD)
    with engine.begin() as claiming:
        claiming.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": first})
        assert change(engine, number, CANCELLED)
        assert read(engine, number).taking_back
        assert work(engine, number) == {"pending": 1, "taken_back": 1}
    with engine.connect() as connection:
        assert replay.taking_back(connection) == [number]
    assert changes.take_back(engine, number) == 1
    assert changes.take_back(engine, number) == 0
    assert not read(engine, number).taking_back
    states = rows(engine, "SELECT id, state FROM jobs ORDER BY id")
    assert states == [{"id": first, "state": "dead"}, {"id": second, "state": "dead"}]


def test_an_admission_under_way_is_waited_for_and_its_jobs_are_taken_back(
    engine: Engine, database_url: str
) -> None:
    made = deliver(database_url, [order(1)])
    admit(engine, made, [])
    number = started(engine, EventFilter(types=("order.*",)))
    with engine.begin() as admitting:
        admission.admit(admitting, made, [ORDERS], replay_queue="replay", redispatch_after_s=0)
        assert change(engine, number, CANCELLED)
        assert read(engine, number).taking_back
    assert changes.take_back_all(engine, number, within_s=60) == 1
    assert one(engine, "SELECT count(*) FROM jobs") == 0
    check_totals(engine)


def test_a_job_whose_event_is_to_be_admitted_for_another_replay_is_left(
    engine: Engine, database_url: str
) -> None:
    """Otherwise the event could be unhandled beside a job that is made meanwhile."""
    made = deliver(database_url, [order(1)])
    admit(engine, made, [])
    number = started(engine, EventFilter(types=("order.*",)))
    admit(engine, made)
    started(engine, EventFilter(types=("order.*",), processor="notify", state="unhandled"))
    assert change(engine, number, CANCELLED)
    assert read(engine, number).taking_back
    admit(engine, made, [ORDERS, NOTIFY])
    assert changes.take_back_all(engine, number, within_s=60) == 1
    left = rows(engine, "SELECT processor FROM jobs")
    assert left == [{"processor": "notify"}]
    check_totals(engine)


def test_what_a_console_of_the_release_before_requeued_is_left_to_run(
    engine: Engine, database_url: str
) -> None:
    """It has not kept what those jobs were, and they are not taken for jobs that were made."""
    ids = admit(engine, deliver(database_url, [order(1), order(2)]))
    fail(engine, ids[:1])
    number = started(engine, EventFilter(processor="orders", state="pending"))
    execute(engine, "UPDATE jobs SET requeued_from = NULL")
    change(engine, number, CANCELLED)
    assert not read(engine, number).taking_back
    assert one(engine, "SELECT count(*) FROM jobs") == 2
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'pending'") == 1


def test_a_change_is_in_the_audit_log_and_what_was_taken_back_is_forgotten_with_it(
    engine: Engine, database_url: str
) -> None:
    dead_ones(engine, database_url, 2)
    number = started(engine, DEAD)
    change(engine, number, CANCELLED)
    assert one(engine, "SELECT count(*) FROM taken_back") == 2
    (said,) = rows(engine, "SELECT by, action, target, reason, replay FROM actions")
    assert said == {
        "by": "sara",
        "action": "cancel",
        "target": f"#{number}",
        "reason": "why not",
        "replay": number,
    }
    later = datetime.now(UTC) + timedelta(days=1)
    with engine.begin() as connection:
        records.remove(connection, progress.AUDIT, before=later, limit=10)
    assert one(engine, "SELECT count(*) FROM replays") == 0
    assert one(engine, "SELECT count(*) FROM taken_back") == 0


def test_a_replay_that_the_database_breaks_off_has_failed_and_can_be_resumed(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_ones(engine, database_url, 3)
    steps = replay.run(engine, DEAD, requested_by="sara", reason=None, rate=None)
    next(steps)
    with monkeypatch.context() as broken:
        away = OperationalError("SELECT", None, Exception("away"))
        broken.setattr(replay, "advance", Mock(side_effect=away))
        with pytest.raises(OperationalError):
            next(steps)
    number = one(engine, "SELECT id FROM replays")
    stopped = read(engine, number)
    assert (stopped.status, stopped.problem) == ("failed", "PostgreSQL: OperationalError.")
    assert work(engine, number)["pending"] == 3
    assert change(engine, number, RUNNING)


@pytest.mark.parametrize("stops", ["before", "after"])
def test_an_iteration_that_stops_takes_back_what_has_not_begun(
    engine: Engine, database_url: str, stops: str
) -> None:
    ids = dead_ones(engine, database_url, 3)
    steps = replay.run(engine, DEAD, requested_by="sara", reason=None, rate=None)
    next(steps)
    if stops == "after":
        succeed(engine, ids[:1])
    del steps  # as a loop that is left does
    left = rows(engine, "SELECT state FROM jobs ORDER BY id")
    first = "succeeded" if stops == "after" else "dead"
    assert [row["state"] for row in left] == [first, "dead", "dead"]
