"""Whether deliveries can be stored: the writer's own word, and what a role may not do."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from ingest import heartbeat
from ingest.alerts import configuration, judges
from ingest.alerts.facts import Facts
from ingest.cli.author import author
from ingest.console.services import overview, ranges
from ingest.console.services.health import UNKNOWN_REDIS
from ingest.errors import MigrationRefused, SettingsError, StorageUnavailable
from ingest.heartbeat import Heartbeat, identity
from ingest.receiver import writer
from ingest.settings import Settings
from ingest.store import engine as connections
from ingest.store import keyed_requests, migrations, privileges, startup_check
from ingest.store.address import parse
from ingest.store.bulk import replay as replays
from ingest.store.causes import Cause
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import deliveries
from ingest.store.reports import audit_log, heartbeats
from ingest.store.reports.heartbeats import ProcessIdentity
from ingest.store.schema import READ_MODEL, metadata
from ingest.store.search.filters import EventFilter
from tests.conftest import Servers
from tests.integration.conftest import Sent, Worker
from tests.integration.test_relay import make_jobs
from tests.integration.test_writer import delivery, writing
from tests.support.deliver import body, deliver, order
from tests.support.lines import Lines
from tests.support.rows import execute, one, rows
from tests.support.servers import as_role
from tests.support.servers.setups import POOLED, POOLERS_ROLE
from tests.support.slots import on_servers_of_its_own
from tests.support.waiting import until
from workers import Event, processor
from workers.registry import Declaration
from workers.relay import maintenance, sweep
from workers.relay.maintenance import MinuteTasks
from workers.relay.parking import Parking
from workers.relay.sweep import Relay

MakeRole = Callable[..., str]
with_a_role = pytest.mark.not_on(*POOLED, reason=POOLERS_ROLE)


@pytest.fixture
def make_role(servers: Servers, database_url: str) -> Iterator[MakeRole]:
    """Makes roles without any right, but for what is granted; returns their addresses."""
    with ExitStack() as made:

        def make(*grants: str, options: str = "") -> str:
            name = made.enter_context(servers.role(options, used_in=database_url))
            with psycopg.connect(database_url, autocommit=True) as connection:
                for grant in grants:
                    connection.execute(f"GRANT {grant} TO {name}".encode())
            return as_role(database_url, name)

        yield make


USAGE = "USAGE ON SCHEMA ingest"
ROWS = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ingest"


def needed_by(kind: str) -> list[str]:
    """Grants of what a kind of process needs, and of nothing else."""
    verbs = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}
    return [
        USAGE,
        *(
            f"{', '.join(verbs[each] for each in needed)} ON ingest.{table}"
            for table, needed in privileges.NEEDS[kind].items()
        ),
    ]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What the writer and the presence log."""
    kept = Lines()
    monkeypatch.setattr(writer, "log", kept)
    monkeypatch.setattr(heartbeat, "log", kept)
    return kept


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The deliveries that were tried out."""
    made: list[UUID] = []
    real = deliveries.try_to_insert

    async def count(connection: Any, trial: Any) -> None:
        made.append(trial.id)
        await real(connection, trial)

    monkeypatch.setattr(deliveries, "try_to_insert", count)
    return made


async def becomes(found: writer.DeliveryWriter, reason: str | None) -> Cause | None:
    """Ask until readiness is that."""
    for _ in range(1_000):
        problem = await found.problem()
        if (problem and problem.reason) == reason:
            return problem
        await asyncio.sleep(0.02)
    raise AssertionError(f"it stayed {problem}")


async def refusal(found: writer.DeliveryWriter) -> str | None:
    """Why a delivery is refused, or None."""
    try:
        await found.append(delivery())
    except StorageUnavailable as error:
        return error.reason
    return None


@contextmanager
def set_for_database(engine: Engine, setting: str) -> Iterator[None]:
    """A setting of the database's; all who are connected have to come again."""
    name = one(engine, "SELECT current_database()")
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    execute(engine, f"ALTER DATABASE {name} SET {setting} = on")
    execute(engine, others)
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET {setting}")
    execute(engine, others)


@on_servers_of_its_own
def test_any_number_of_probes_costs_one_trial_which_leaves_nothing(
    database_url: str, engine: Engine, trials: list[UUID]
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as found:
            assert await found.problem() is None
            trials.clear()
            found._worked_at -= 10
            answers = await asyncio.gather(*(found.problem() for _ in range(150)))
            assert answers == [None] * 150
            assert len(trials) == 1
            for _ in range(150):
                await found.problem()
            connected = one(
                engine,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )
            assert connected == 1

    asyncio.run(scenario())
    assert one(engine, "SELECT count(*) FROM deliveries") == 0
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0


def test_a_commit_answers_the_probes_that_come_after_it(
    database_url: str, trials: list[UUID]
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as found:
            await found.append(delivery(1))
            trials.clear()
            found._worked_at -= 10
            await found.append(delivery(2))
            assert await found.problem() is None
            assert trials == []

    asyncio.run(scenario())


def test_a_connection_that_broke_while_idle_is_no_reason_to_be_unready(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as found:
            assert await found.problem() is None
            execute(
                engine,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'ingest-receiver' AND datname = current_database()",
            )
            found._worked_at -= 10
            assert await found.problem() is None
            assert await refusal(found) is None

    asyncio.run(scenario())


@on_servers_of_its_own
def test_a_read_only_database_makes_unready_and_is_logged_once(
    database_url: str, engine: Engine, lines: Lines
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as found:
            await found.append(delivery())
            with set_for_database(engine, "default_transaction_read_only"):
                found._worked_at -= 10
                problem = await becomes(found, "read_only")
                assert problem is not None
                assert "read-only" in problem.sentence
                for _ in range(20):
                    assert await refusal(found) == "read_only"
            await becomes(found, None)
            assert await refusal(found) is None

    asyncio.run(scenario())
    told = [fields.get("reason") for event, fields in lines.kept if event == "storage_fails"]
    assert told.count("read_only") == 1
    assert len(told) <= 2  # the connection was lost
    assert lines.events[-1] == "storage_works"


@with_a_role
@pytest.mark.parametrize(
    ("grants", "lacks"),
    [
        ((USAGE, "SELECT, INSERT ON ingest.deliveries"), "INSERT on ingest.unadmitted"),
        ((USAGE, "SELECT, INSERT ON ingest.unadmitted"), "INSERT on ingest.deliveries"),
        ((), "USAGE on the schema ingest"),
    ],
)
def test_a_missing_privilege_is_named_and_makes_unready(
    make_role: MakeRole, engine: Engine, lines: Lines, grants: tuple[str, ...], lacks: str
) -> None:
    url = make_role(*grants)

    async def scenario() -> None:
        async with writing(url) as found:
            problem = await found.problem()
            assert problem is not None
            assert problem.reason == await refusal(found) == "privilege_missing"
            assert lacks in problem.sentence.replace("SELECT, ", "")
            role = urlsplit(url).username
            execute(engine, f"GRANT {USAGE} TO {role}")
            execute(engine, f"GRANT {ROWS} TO {role}")
            await becomes(found, None)
            assert await refusal(found) is None

    asyncio.run(scenario())
    assert lines.events == ["storage_fails", "storage_works"]


@with_a_role
def test_a_receiver_needs_no_more_than_what_is_listed(make_role: MakeRole, engine: Engine) -> None:
    url = make_role(*needed_by("receiver"))

    async def scenario() -> None:
        async with writing(url) as found:
            assert await found.problem() is None
            assert await refusal(found) is None

    asyncio.run(scenario())


@with_a_role
def test_a_role_whose_connections_are_all_taken_stays_ready(make_role: MakeRole) -> None:
    """The probe used to open one of its own."""
    url = make_role(USAGE, ROWS, options="CONNECTION LIMIT 1")

    async def scenario() -> None:
        async with writing(url) as found:
            assert await found.problem() is None
            with pytest.raises(psycopg.OperationalError, match="too many"):
                psycopg.connect(url)
            found._worked_at -= 10
            assert await found.problem() is None
            assert await refusal(found) is None

    asyncio.run(scenario())


@with_a_role
def test_a_role_whose_connections_others_have_taken_is_told_so(make_role: MakeRole) -> None:
    url = make_role(USAGE, ROWS, options="CONNECTION LIMIT 1")

    async def scenario() -> None:
        with ExitStack() as stack:
            stack.enter_context(psycopg.connect(url))
            async with writing(url) as found:
                problem = await found.problem()
                assert problem is not None
                assert problem.reason == await refusal(found) == "too_many_connections"
                assert "of the role" in problem.sentence
                stack.close()
                await becomes(found, None)
                assert await refusal(found) is None

    asyncio.run(scenario())


def test_a_table_that_is_missing_makes_unready(database_url: str, engine: Engine) -> None:
    execute(engine, "ALTER TABLE unadmitted RENAME TO elsewhere")

    async def scenario() -> None:
        async with writing(database_url) as found:
            assert await becomes(found, "not_migrated")
            execute(engine, "ALTER TABLE elsewhere RENAME TO unadmitted")
            await becomes(found, None)

    asyncio.run(scenario())


def test_what_only_a_trial_with_a_row_finds_makes_unready(
    database_url: str, engine: Engine
) -> None:
    """A statement without rows would check the privileges, and not run the table's triggers."""
    execute(
        engine,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE disk_full; END $$",
    )
    execute(
        engine,
        "CREATE TRIGGER full_disk BEFORE INSERT ON unadmitted"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )

    async def scenario() -> None:
        async with writing(database_url) as found:
            problem = await found.problem()
            assert problem is not None
            assert problem.reason == await refusal(found) == "disk_full"

    asyncio.run(scenario())


def test_what_only_a_commit_finds_is_logged_once_until_one_succeeds(
    database_url: str, engine: Engine, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a standby that must confirm and is away: a trial, rolled back, waits for nobody."""
    real = deliveries.insert
    fails = True

    async def insert(*values: Any, **options: Any) -> None:
        if fails:
            raise psycopg.errors.DiskFull
        await real(*values, **options)

    monkeypatch.setattr(deliveries, "insert", insert)

    async def scenario() -> None:
        nonlocal fails
        async with writing(database_url) as found:
            for _ in range(5):
                assert await refusal(found) == "disk_full"
                await becomes(found, None)
            fails = False
            assert await refusal(found) is None

    asyncio.run(scenario())
    assert lines.events == ["storage_fails", "storage_works"]


def test_a_full_backlog_and_the_end_make_unready(database_url: str) -> None:
    async def scenario() -> None:
        async with writing(database_url, backlog_rows=1) as found:
            assert await found.problem() is None
            waiting = found.submit(delivery())
            problem = await found.problem()
            assert problem is not None
            assert problem.reason == "backlog_full"
            await waiting
            assert await found.problem() is None
        problem = await found.problem()
        assert problem is not None
        assert problem.reason == "shutting_down"

    asyncio.run(scenario())


def test_probes_during_the_first_connection_and_without_a_database_are_answered() -> None:
    async def scenario() -> None:
        async with writing("postgresql://u:hunter2@127.0.0.1:1/d") as found:
            answers = await asyncio.gather(*(found.problem() for _ in range(150)))
            for problem in answers:
                assert problem is not None
                assert problem.reason == "connection_refused"
                assert "hunter2" not in problem.sentence

    asyncio.run(scenario())


def lacks(url: str, kind: str) -> list[str]:
    engine = create_engine(parse(url), role=Role.OPERATOR)
    try:
        with engine.connect() as connection:
            return privileges.lacking(connection, kind, schema="ingest")
    finally:
        engine.dispose()


NOT_OWNER = (
    "is not the owner of ingest.deliveries, so that the partitions for the coming days cannot be"
    " made"
)


def test_the_owner_lacks_nothing(database_url: str) -> None:
    assert [lacks(database_url, kind) for kind in privileges.NEEDS] == [[]] * 4


@with_a_role
def test_a_role_for_rows_alone_makes_no_partitions(make_role: MakeRole) -> None:
    url = make_role(USAGE, ROWS)
    found = {kind: lacks(url, kind) for kind in privileges.NEEDS}
    assert found == {"receiver": [], "worker": [], "console": [], "relay": [NOT_OWNER]}


@with_a_role
@pytest.mark.parametrize("kind", privileges.NEEDS)
def test_each_privilege_that_is_taken_away_is_named(
    make_role: MakeRole, engine: Engine, kind: str
) -> None:
    url = make_role(*needed_by(kind))
    rest = [NOT_OWNER] if kind == "relay" else []
    assert lacks(url, kind) == rest
    role = urlsplit(url).username
    table = next(iter(privileges.NEEDS[kind]))
    execute(engine, f"REVOKE UPDATE, DELETE ON ingest.{table} FROM {role}")
    assert lacks(url, kind) == [f"lacks UPDATE, DELETE on ingest.{table}", *rest]
    execute(engine, f"REVOKE {USAGE} FROM {role}")
    assert "lacks USAGE on the schema ingest" in lacks(url, kind)


def test_every_table_of_the_pipeline_is_needed_by_somebody() -> None:
    """A table that is new is forgotten in the list otherwise."""
    tables = {table.name for table in metadata.tables.values()}
    listed = {table for needs in privileges.NEEDS.values() for table in needs}
    assert tables - {table.name for table in READ_MODEL} - listed == set()


@with_a_role
def test_a_relay_works_with_no_more_than_what_is_listed(
    make_role: MakeRole,
    engine: Engine,
    database_url: str,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Lines()
    monkeypatch.setattr(sweep, "log", kept)
    jobs = make_jobs(engine, database_url, 3)
    overdue = deliver(database_url, [order(number) for number in range(3, 6)])
    worker = ProcessIdentity(
        id="w", kind="worker", host="h", pid=1, version="1", queues=("events",)
    )
    owner = create_engine(parse(make_role(*needed_by("relay"))), role=Role.RELAY)
    try:
        moments = iter([0.0])  # when it was made; later, all is long ago
        parking = Parking(owner, clock=lambda: next(moments, 1e6))
        relay = Relay(owner, Sent(), make_settings(), parking=parking)
        for has, hinted, lanes in (((), 0, 1), (("p",), len(jobs), 0)):
            with engine.begin() as connection:
                heartbeats.upsert(connection, replace(worker, id=f"w{lanes}", processors=has))
            swept = relay.sweep()
            assert (swept.deliveries, swept.jobs) == (len(overdue) if lanes else 0, hinted)
            assert one(engine, "SELECT count(*) FROM parked") == lanes
        MinuteTasks(owner).run(one(engine, "SELECT now()"))
    finally:
        owner.dispose()
    assert kept.events == []


def test_a_task_of_the_minute_that_fails_keeps_no_other_from_its_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Lines()
    monkeypatch.setattr(maintenance, "log", kept)
    execute(engine, "ALTER TABLE refusal_counts RENAME TO away")
    gone = ProcessIdentity(id="gone", kind="worker", host="h", pid=1, version="1")
    with engine.begin() as connection:
        heartbeats.upsert(connection, gone)
    execute(engine, "UPDATE processes SET seen_at = now() - interval '1 day'")
    MinuteTasks(engine).run(one(engine, "SELECT now()"))
    assert [(event, fields["reason"]) for event, fields in kept.kept] == [
        ("upkeep_waits", "not_migrated")
    ]
    assert one(engine, "SELECT count(*) FROM processes") == 0


@with_a_role
def test_a_worker_works_with_no_more_than_what_is_listed(
    make_role: MakeRole,
    engine: Engine,
    database_url: str,
    declared: list[Declaration],
    tmp_path: Path,
) -> None:
    """Admitting, claiming, finishing, failing, letting die; events, duplicates, unhandled ones."""

    @processor("order.created", name="good")
    def good(event: Event, db: Connection) -> None: ...

    @processor("order.created", name="bad", max_attempts=1)
    def bad(event: Event, db: Connection) -> None:
        raise ValueError

    url = make_role(*needed_by("worker"))
    owner = create_engine(parse(url), role=Role.WORKER)
    raw = [order(1), order(2), order(1), body("contact.created", {"contact_id": 1})]
    ids = deliver(database_url, raw)
    try:
        worker = Worker(owner, url, tmp_path, declared)
        worker.process(ids)
        worker.close()
    finally:
        owner.dispose()
    states = "SELECT state, count(*) AS n FROM jobs GROUP BY state"
    assert {row["state"]: row["n"] for row in rows(engine, states)} == {"succeeded": 2, "dead": 2}
    assert one(engine, "SELECT count(*) FROM duplicates") == 1
    assert one(engine, "SELECT count(*) FROM unhandled") == 1
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0


@with_a_role
def test_a_console_reads_and_replays_with_no_more_than_what_is_listed(
    make_role: MakeRole, engine: Engine, database_url: str
) -> None:
    make_jobs(engine, database_url, 2)
    execute(
        engine,
        "UPDATE jobs SET state = 'dead', attempt = 1, finished_at = now(), started_at = now(),"
        " next_attempt_at = NULL, hinted_until = NULL",
    )
    owner = create_engine(parse(make_role(*needed_by("console"))), role=Role.OPERATOR)
    try:
        with owner.connect() as connection:
            found = overview.read(
                connection, ranges.Range.HOUR, UNKNOWN_REDIS, now=datetime.now(UTC)
            )
        assert found.unfinished.dead == 2
        (*_, counted) = replays.run(
            owner, EventFilter(state="dead"), requested_by="me", reason="to see", rate=None
        )
        assert counted.jobs == 2
        with owner.begin() as connection:
            audit_log.record(connection, by=author(), action="pause", target="p", reason=None)
            for key in (b"answered", b"refused"):
                assert keyed_requests.claim(connection, key, b"request") is None
            keyed_requests.keep_answer(connection, b"answered", b"request", b"sealed")
            keyed_requests.give_back(connection, b"refused", b"request")
        assert one(engine, "SELECT count(*) FROM keyed_requests") == 1
    finally:
        owner.dispose()


@with_a_role
def test_what_a_role_lacks_is_logged_kept_and_shown(
    make_role: MakeRole, engine: Engine, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.001)
    monkeypatch.setattr(heartbeat, "_REPORTS_PER_MINUTE", 10**9)
    url = make_role(USAGE, "SELECT, INSERT, UPDATE, DELETE ON ingest.processes")
    relay = Heartbeat(parse(url), identity("relay", random=os.urandom))
    relay.start()
    try:
        (record,) = until(lambda: _seen(engine), what="the relay is seen")
        until(lambda: _seen(engine)[0].seen_at > record.seen_at, what="it is seen again")
    finally:
        relay.leave()
    assert "lacks SELECT, INSERT, UPDATE, DELETE on ingest.jobs" in record.lacks
    assert NOT_OWNER in record.lacks
    assert lines.events == ["privileges_missing"]
    policies = configuration.read(None).policies
    (finding,) = judges.findings(
        cast(Facts, SimpleNamespace(processes=(record,))),
        {"privileges_missing": policies["privileges_missing"]},
    )
    assert finding.sentence.startswith("The database role of the relays lacks ")
    assert "lacks SELECT, INSERT, UPDATE, DELETE on ingest.jobs" in finding.sentence


def _seen(engine: Engine) -> list[heartbeats.ProcessRecord]:
    with engine.connect() as connection:
        return heartbeats.all_of_them(connection)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_utf8_is_refused_at_the_start_and_in_readiness(
    make_database: Callable[..., str], encoding: str
) -> None:
    url = make_database(encoding=encoding)
    with pytest.raises(SettingsError, match=f"must be UTF8; it is {encoding}") as refused:
        startup_check.check(parse(url))
    assert refused.value.reason == "database_not_utf8"

    async def scenario() -> None:
        async with writing(url) as found:
            problem = await found.problem()
            assert problem is not None
            assert problem.reason == await refusal(found) == "database_not_utf8"
            assert "must be UTF8" in problem.sentence

    asyncio.run(scenario())


def test_a_server_that_is_too_old_is_refused_at_the_start(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "OLDEST_SERVER", 99)
    with pytest.raises(SettingsError, match="must be PostgreSQL 99 or newer"):
        startup_check.check(parse(database_url))


def test_a_schema_of_a_later_release_is_refused_at_the_start_unless_this_code_runs_on_it(
    database_url: str, engine: Engine
) -> None:
    execute(engine, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match="newer") as refused:
        startup_check.check(parse(database_url))
    assert refused.value.reason == "schema_newer"
    execute(engine, "INSERT INTO revisions VALUES ('9999', '0001')")
    startup_check.check(parse(database_url))


@with_a_role
def test_a_database_that_is_away_or_full_or_not_migrated_stops_no_start(
    make_database: Callable[..., str], make_role: MakeRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Lines()
    monkeypatch.setattr(startup_check, "log", kept)
    startup_check.check(parse("postgresql://u@127.0.0.1:1/d"))
    startup_check.check(parse(make_role(options="CONNECTION LIMIT 0")))
    startup_check.check(parse(make_role()))
    assert kept.events == []
    startup_check.check(parse(make_database()))
    assert kept.events == ["not_migrated"]


@with_a_role
def test_who_may_not_make_the_schema_is_told_what_to_run(
    make_database: Callable[..., str], make_role: MakeRole
) -> None:
    role = urlsplit(make_role()).username
    assert role is not None
    engine = create_engine(parse(as_role(make_database(), role)), role=Role.MIGRATION)
    try:
        with (
            engine.connect() as connection,
            pytest.raises(MigrationRefused, match="CREATE SCHEMA ingest AUTHORIZATION"),
        ):
            migrations.upgrade(connection)
    finally:
        engine.dispose()
