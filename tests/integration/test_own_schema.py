"""The pipeline's tables live in a schema of their own, beside those of the application."""

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from ingest.errors import MigrationRefused
from ingest.queues import REPLAY
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.bulk import replay
from ingest.store.engine import Role, create_engine
from ingest.store.migrations import Target
from ingest.store.pipeline import admission
from ingest.store.pipeline.jobs import NewJobs
from ingest.store.reports import totals
from ingest.store.schema import READ_MODEL
from ingest.store.search import counts, events
from ingest.store.search.filters import EventFilter
from tests.conftest import Servers
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.servers import as_role, database_of
from tests.support.servers.setups import POOLED, POOLERS_ROLE

OLD = Target(schema="public")
"""Where installations from before revision 0005 lie."""
PROCESSORS = [
    NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3, claimed=0)
]


@pytest.fixture
def url(make_database: Callable[..., str]) -> str:
    """The address of an empty database."""
    return make_database()


@pytest.fixture
def application(url: str) -> Iterator[Engine]:
    """The engine of an application in that database; it finds its own tables first."""
    engine = create_engine(parse(url), role=Role.PROCESSOR, pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture
def migrator(url: str) -> Iterator[Engine]:
    engine = create_engine(parse(url), role=Role.MIGRATION, pool_size=2)
    yield engine
    engine.dispose()


def upgrade(migrator: Engine, revision: str = "head", target: Target | None = None) -> None:
    with migrator.connect() as connection:
        migrations.upgrade(connection, revision, target=target or Target())


def admit(engine: Engine, url: str, count: int) -> None:
    """Store and admit that many orders."""
    ids = deliver(url, [order(number, total=number) for number in range(count)])
    with engine.begin() as connection:
        admission.admit(connection, ids, PROCESSORS, replay_queue=REPLAY, redispatch_after_s=10)


def tables(engine: Engine, schema: str) -> set[str]:
    found = rows(engine, "SELECT tablename FROM pg_tables WHERE schemaname = :s", s=schema)
    return {row["tablename"] for row in found}


APPLICATION = """
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('0001');
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    CREATE TABLE events (id int PRIMARY KEY, note text);
    CREATE TABLE jobs (id int PRIMARY KEY, note text);
    CREATE TABLE deliveries (id int PRIMARY KEY, rejected boolean);
    INSERT INTO orders VALUES (1, 'mine');
    INSERT INTO events VALUES (1, 'mine');
    INSERT INTO jobs VALUES (1, 'mine');
"""
MINE = """
    SELECT (SELECT version_num FROM public.alembic_version) AS version,
           (SELECT note FROM public.orders) AS orders, (SELECT note FROM public.events) AS events,
           (SELECT note FROM public.jobs) AS jobs
"""


def test_an_applications_tables_and_its_version_are_left_alone(
    application: Engine, migrator: Engine, url: str
) -> None:
    execute(application, APPLICATION)
    before = tables(application, "public")
    upgrade(migrator)
    admit(migrator, url, 3)
    assert rows(application, MINE) == [
        {"version": "0001", "orders": "mine", "events": "mine", "jobs": "mine"}
    ]
    assert tables(application, "public") == before
    assert one(application, "SELECT count(*) FROM ingest.events") == 3


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_an_installation_of_an_earlier_release_is_moved_with_its_data(
    revision: str, application: Engine, migrator: Engine, url: str
) -> None:
    upgrade(migrator, revision, OLD)
    fill_old(application, 5)
    upgrade(migrator)
    assert tables(application, "public") == set()
    assert {"deliveries", "deliveries_default", "events", "orders", "alembic_version"} <= tables(
        application, "ingest"
    )
    admit(migrator, url, 3)
    with migrator.begin() as connection:
        counted = totals.read(connection)
    assert counted.events.total == 8
    assert one(application, "SELECT count(*) FROM ingest.deliveries") == 8
    assert one(application, "SELECT count(*) FROM ingest.jobs") == 8
    upgrade(migrator)  # again: nothing to do


def fill_old(application: Engine, count: int) -> None:
    """Store events as an earlier release did, by bare names."""
    execute(
        application,
        """
        INSERT INTO deliveries (id, source, received_at, key_id, headers, body)
        SELECT gen_random_uuid(), 'awalchat', now(), 'k', '[]', '{}'
        FROM generate_series(1, :count);
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT id, source, id::text, 'order.created', 'f', received_at FROM deliveries
        ON CONFLICT (id) DO NOTHING;
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          next_attempt_at)
        SELECT id, 'orders', 'events', 'pending', 'delivery', 0, 0, 3, now() FROM events
        ON CONFLICT (event, processor) DO NOTHING;
        """.replace(":count", str(count)),
    )


def test_processes_of_the_release_before_go_on_after_the_move(
    application: Engine, migrator: Engine
) -> None:
    upgrade(migrator, "0004", OLD)
    fill_old(application, 2)
    upgrade(migrator)
    work_old(application)
    assert one(application, "SELECT count(*) FROM ingest.unadmitted") == 1
    assert one(application, "SELECT count(*) FROM ingest.jobs WHERE state = 'running'") == 2


def test_they_go_on_wherever_the_migration_stops(application: Engine, migrator: Engine) -> None:
    """Each revision is committed by itself, so each may be the last for a while."""
    upgrade(migrator, "0004", OLD)
    script = ScriptDirectory.from_config(migrations.config())
    passed = [each.revision for each in script.iterate_revisions("head", "0004")]
    for revision in reversed(passed):
        upgrade(migrator, revision)
        fill_old(application, 1)
        work_old(application)
    assert one(application, "SELECT count(*) FROM ingest.unadmitted") == len(passed)
    assert one(application, "SELECT count(*) FROM ingest.jobs") == len(passed)


def work_old(application: Engine) -> None:
    """Store a delivery, and claim all jobs, as an earlier release did, by bare names."""
    fill_old_again = """
        INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,
                                hint_at)
        SELECT gen_random_uuid(), 'awalchat', 'x', 'x', 'f', now(), 'events', now()
        ON CONFLICT (delivery) DO NOTHING
    """
    execute(application, fill_old_again)
    claimed = """
        UPDATE jobs SET state = 'running', lease_until = now(), next_attempt_at = NULL
        WHERE id = ANY(ARRAY(SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED))
    """
    execute(application, claimed)


def test_two_installations_in_one_database_leave_each_other_alone(
    application: Engine, migrator: Engine, url: str
) -> None:
    upgrade(migrator)
    admit(migrator, url, 3)
    upgrade(migrator, target=Target(schema="hooks"))
    upgrade(migrator, target=Target(schema="hooks"))
    assert one(application, "SELECT count(*) FROM ingest.events") == 3
    assert one(application, "SELECT count(*) FROM hooks.events") == 0
    assert tables(application, "hooks") >= {"deliveries", "events", "jobs", "orders"}


@pytest.mark.parametrize(
    "selection",
    [
        EventFilter(types=("order.*",), fields=(("data.total", "1"),)),
        EventFilter(about=(("order", "1"),), search="order"),
        EventFilter(event_ids=("order.created:1",), state="unhandled"),
        EventFilter(error_type="E", state="dead"),
    ],
)
def test_a_search_reads_only_the_schema_that_the_settings_name(
    selection: EventFilter, migrator: Engine, url: str
) -> None:
    upgrade(migrator, target=Target(schema="hooks"))
    address = dataclasses.replace(parse(url), schema="hooks")
    engine = create_engine(address, role=Role.OPERATOR)
    with engine.connect() as connection:
        listed = events.page(connection, selection, limit=10)
        counted = counts.count(connection, selection)
        bulk = replay.count(connection, selection)
    engine.dispose()
    assert (listed.events, counted.number, bulk.total) == ((), 0, 0)


def test_two_who_move_at_once_wait_for_each_other(application: Engine, migrator: Engine) -> None:
    upgrade(migrator, "0004", OLD)
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(upgrade, migrator) for _ in range(2)]:
            done.result(300)
    assert tables(application, "public") == set()


def test_what_cannot_be_moved_now_is_left_as_it_is(
    application: Engine, migrator: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TRIES", 2)
    upgrade(migrator, "0004", OLD)
    before = tables(application, "public")
    with application.begin() as reader:
        reader.execute(text("SELECT count(*) FROM public.deliveries"))
        with pytest.raises(MigrationRefused, match="locked") as refused:
            upgrade(migrator)
    assert refused.value.reason == "tables_in_use"
    assert tables(application, "public") == before
    upgrade(migrator)
    assert tables(application, "public") == set()


def test_tables_of_ours_beside_a_version_that_is_not_are_left_alone(
    application: Engine, migrator: Engine
) -> None:
    upgrade(migrator, "0004", OLD)
    execute(application, "UPDATE public.alembic_version SET version_num = 'a1b2c3'")
    before = tables(application, "public")
    with pytest.raises(MigrationRefused, match="another application's"):
        upgrade(migrator)
    assert tables(application, "public") == before
    assert tables(application, "ingest") == set()


def test_who_might_use_the_tables_may_use_them_after_the_move(
    servers: Servers, url: str, application: Engine, migrator: Engine
) -> None:
    with servers.role(used_in=url) as role:
        servers.execute(f"GRANT {role} TO {servers.owner}")
        upgrade(migrator, "0004", OLD)
        fill_old(application, 2)
        execute(application, f"GRANT SELECT, INSERT ON events TO {role}")
        upgrade(migrator)
        for table in ("ingest.events", "public.events"):
            with application.begin() as connection:
                connection.execute(text(f"SET LOCAL ROLE {role}"))
                assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 2


def test_a_dump_restores_into_an_empty_database(
    servers: Servers, application: Engine, migrator: Engine, url: str
) -> None:
    """Triggers run while the search path is empty, as pg_dump sets it."""
    upgrade(migrator)
    admit(migrator, url, 4)
    with servers.database("restored") as name:
        dump = subprocess.run(
            [str(servers.binaries / "pg_dump"), url], capture_output=True, check=True
        ).stdout
        restored = servers.database_url(name)
        psql = [str(servers.binaries / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", restored]
        subprocess.run(psql, input=dump, capture_output=True, check=True)
        engine = create_engine(parse(restored), role=Role.OPERATOR)
        upgrade(engine)
        admit(engine, restored, 6)  # four are known already
        with engine.begin() as connection:
            counted = totals.read(connection)
        engine.dispose()
        assert (counted.events.total, counted.deliveries.duplicates) == (6, 4)
        assert counted.jobs.pending == 6


def make_partition(migrator: Engine, day: date) -> None:
    with migrator.begin() as connection:
        partitions.ensure(connection, today=day, days_ahead=0)


def compression(engine: Engine) -> dict[str, str]:
    """How bodies are compressed, by the table: `l` for lz4, nothing for the server's default."""
    found = rows(
        engine,
        "SELECT relname, attcompression::text AS by FROM pg_attribute JOIN pg_class"
        " ON pg_class.oid = attrelid WHERE attname = 'body' AND attrelid"
        " = ANY (SELECT relid FROM pg_partition_tree('ingest.deliveries'))",
    )
    return {row["relname"]: row["by"] for row in found}


def test_bodies_of_every_day_are_compressed_by_lz4_where_the_server_can(
    application: Engine, migrator: Engine
) -> None:
    can = one(
        application,
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'",
    )
    today = datetime.now(UTC).date()
    long_ago, coming = date(2026, 1, 1), today + timedelta(days=3)
    upgrade(migrator, "0033")
    for day in (long_ago, coming):
        make_partition(migrator, day)
    upgrade(migrator)
    make_partition(migrator, coming + timedelta(days=1))
    now = "l" if can else ""
    assert compression(application) == {
        "deliveries": now,
        "deliveries_default": now,
        "deliveries_2026_01_01": "",
        f"deliveries_{coming:%Y_%m_%d}": now,
        f"deliveries_{coming + timedelta(days=1):%Y_%m_%d}": now,
    }
    with migrator.connect() as connection:
        migrations.downgrade(connection, "0033")
    assert set(compression(application).values()) == {""}


def test_without_the_read_model_none_of_its_tables_are_made(
    application: Engine, migrator: Engine
) -> None:
    model = {table.name for table in READ_MODEL}
    upgrade(migrator, target=Target(read_model=False))
    assert not tables(application, "ingest") & model
    upgrade(migrator)  # wanted later after all
    assert model <= tables(application, "ingest")


def test_a_newer_schema_is_left_as_it_is_where_this_code_runs_on_it(
    application: Engine, migrator: Engine
) -> None:
    upgrade(migrator)
    execute(application, "UPDATE ingest.alembic_version SET version_num = '9999'")
    execute(application, "INSERT INTO ingest.revisions VALUES ('9999', '0005')")
    upgrade(migrator)
    with migrator.connect() as connection:
        assert migrations.state(connection).is_newer
    execute(application, "UPDATE ingest.revisions SET oldest_code = '9998'")
    with migrator.connect() as connection, pytest.raises(MigrationRefused, match="newer"):
        migrations.state(connection)


@pytest.mark.not_on(*POOLED, reason=POOLERS_ROLE)
def test_a_role_that_may_make_no_schema_may_use_one_that_it_is_given(
    servers: Servers, application: Engine, url: str
) -> None:
    with servers.role(used_in=url) as role:
        servers.execute(f"CREATE SCHEMA ingest AUTHORIZATION {role}", database=database_of(url))
        engine = create_engine(parse(as_role(url, role)), role=Role.MIGRATION)
        upgrade(engine)
        engine.dispose()
        assert "events" in tables(application, "ingest")


def test_each_revision_since_the_move_says_which_code_runs_on_it(
    application: Engine, migrator: Engine
) -> None:
    """The last two of them may be reached by code of the release before."""
    upgrade(migrator)
    script = ScriptDirectory.from_config(migrations.config())
    listed = [revision for revision in script.walk_revisions() if revision.revision >= "0005"]
    kept = rows(application, "SELECT revision, oldest_code FROM ingest.revisions ORDER BY 1 DESC")
    assert kept == [
        {"revision": each.revision, "oldest_code": each.module.oldest_code} for each in listed
    ]
    assert all(each.module.oldest_code < each.revision for each in listed)
