"""Each revision of the schema is a transaction of its own: what it locks, and for how long."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, text

from ingest.errors import MigrationRefused
from ingest.store import migrations
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.migrations import Target
from tests.conftest import Servers
from tests.support.rows import one, rows
from tests.support.servers import database_of
from tests.support.waiting import ENDS_WITHIN_S, until

ROOT = Path(__file__).parents[2]
RELEASED = "0004"
"""The revision of the only release, 0.1.0."""
OLD = Target(schema="public")
"""Where its tables are."""
LARGE = {
    *("deliveries", "events", "duplicates", "jobs", "attempts"),
    *("messages", "conversations", "contacts", "orders", "order_status_changes"),
}
"""Its tables that have millions of rows. Receivers wait for whoever reads all of the first."""


@pytest.fixture
def url(make_database: Callable[..., str]) -> str:
    """The address of an empty database."""
    return make_database()


@pytest.fixture
def application(url: str) -> Iterator[Engine]:
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


def reached(migrator: Engine) -> str | None:
    with migrator.connect() as connection:
        return migrations.state(connection).revision


def newest(migrator: Engine) -> str:
    with migrator.connect() as connection:
        return migrations.state(connection).newest


def by_ingest(url: str) -> None:
    engine = create_engine(parse(url), role=Role.MIGRATION)
    upgrade(engine)
    engine.dispose()


def by_alembic(url: str) -> None:
    run([sys.executable, "-m", "alembic", "upgrade", "head"], url).check_returncode()


def run(command: list[str], url: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | {"INGEST_DATABASE_URL": url}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False)


STALL = """
CREATE FUNCTION public.stall() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE current_query() LIKE '%CREATE INDEX {index} %'
            AND NOT pg_try_advisory_xact_lock_shared(4711) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
CREATE EVENT TRIGGER stall ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION public.stall();
"""


@contextmanager
def stalling(servers: Servers, url: str, index: str) -> Iterator[None]:
    """Let the revision that makes an index come no further meanwhile."""
    servers.execute(STALL.format(index=index), database=database_of(url))
    with psycopg.connect(servers.as_administrator(url), autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(4711)")
        yield


def stalled(application: Engine) -> set[int]:
    """The server processes that come no further."""
    sleeping = "wait_event = 'PgSleep' AND datname = current_database()"
    found = rows(application, f"SELECT pid FROM pg_stat_activity WHERE {sleeping}")
    return {row["pid"] for row in found}


def receive(url: str, schema: str) -> None:
    engine = create_engine(parse(url), role=Role.RECEIVER)
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {schema}.deliveries (id, source, received_at, key_id, headers, body)"
                " VALUES (:id, 'awalchat', now(), 'k', '[]', '{}')"
            ),
            {"id": uuid4()},
        )
    engine.dispose()


@pytest.mark.parametrize("index", ["jobs_parked", "jobs_replayed", "jobs_held"])
def test_receivers_store_while_jobs_are_indexed(
    index: str, servers: Servers, application: Engine, migrator: Engine, url: str
) -> None:
    """They answered 503: the lock of deliveries was kept to the end of all revisions."""
    upgrade(migrator, RELEASED, OLD)
    with ThreadPoolExecutor() as pool:
        with stalling(servers, url, index):
            migrating = pool.submit(upgrade, migrator)
            until(lambda: stalled(application) or migrating.done(), what="it makes the index")
            assert not migrating.done()
            receive(url, "public")  # as the release before does
            receive(url, "ingest")
        migrating.result(300)
    assert reached(migrator) == newest(migrator)
    assert one(application, "SELECT count(*) FROM ingest.deliveries") == 2


def test_a_lock_that_is_refused_undoes_no_earlier_revision(
    application: Engine, migrator: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TRIES", 2)
    upgrade(migrator, "0008")
    with application.begin() as reader:
        reader.execute(text("SELECT count(*) FROM ingest.jobs"))
        with pytest.raises(MigrationRefused) as refused:
            upgrade(migrator)
    assert refused.value.reason == "tables_in_use"
    assert reached(migrator) == "0016"  # the next one adds a column to jobs
    upgrade(migrator)
    assert reached(migrator) == newest(migrator)


@pytest.mark.parametrize("migrate", [by_ingest, by_alembic])
def test_each_revision_is_committed_by_itself(
    migrate: Callable[[str], None], application: Engine, migrator: Engine, url: str
) -> None:
    upgrade(migrator, "0005")
    migrate(url)
    assert reached(migrator) == newest(migrator)
    made = "SELECT count(*) AS revisions, count(DISTINCT xmin::text) AS transactions"
    (counted,) = rows(application, f"{made} FROM ingest.revisions WHERE revision > '0005'")
    assert counted["revisions"] == counted["transactions"] > 20


NOTE = """
CREATE TABLE public.ddl (command text, of text, may_take text, may_wait text);
GRANT INSERT, SELECT ON public.ddl TO PUBLIC;
CREATE FUNCTION public.note(command text, of oid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.ddl
    SELECT command, (SELECT relname FROM pg_class WHERE oid = of),
           current_setting('statement_timeout'), current_setting('lock_timeout')
$$;
CREATE FUNCTION public.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM public.note(
        command_tag, coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = objid), objid)
    ) FROM pg_event_trigger_ddl_commands();
END $$;
CREATE FUNCTION public.note_rewrite() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM public.note('rewrite', pg_event_trigger_table_rewrite_oid());
END $$;
CREATE EVENT TRIGGER note_ddl ON ddl_command_end EXECUTE FUNCTION public.note_ddl();
CREATE EVENT TRIGGER note_rewrite ON table_rewrite EXECUTE FUNCTION public.note_rewrite();
"""


@pytest.mark.parametrize("migrate", [by_ingest, by_alembic])
def test_what_reads_a_whole_large_table_may_take_its_time_and_no_lock_is_waited_for_long(
    migrate: Callable[[str], None],
    servers: Servers,
    application: Engine,
    migrator: Engine,
    url: str,
) -> None:
    upgrade(migrator, RELEASED, OLD)
    upgrade(migrator, "0005")
    servers.execute(NOTE, database=database_of(url))
    migrate(url)
    noted = rows(application, "SELECT * FROM public.ddl")
    reading = [
        each
        for each in noted
        if each["of"] in LARGE and each["command"] in ("CREATE INDEX", "rewrite")
    ]
    assert {"jobs", "messages", "contacts"} <= {each["of"] for each in reading}
    assert "deliveries" not in {each["of"] for each in reading}
    assert {each["may_take"] for each in reading} == {"30min"}
    assert {each["may_wait"] for each in noted} == {"200ms"}


def test_a_migration_waits_for_its_turn_however_long_the_other_takes(
    application: Engine, migrator: Engine
) -> None:
    """A second one failed after the minute that its statements may take."""

    def second() -> str:
        with migrator.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '500ms'"))
            migrations.take_turns(connection)
            return str(connection.execute(text("SHOW statement_timeout")).scalar_one())

    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event = 'advisory' AND clock_timestamp() - query_start > interval '1 s'"
    )
    with ThreadPoolExecutor() as pool:
        with migrator.begin() as first:
            migrations.take_turns(first)
            waiting = pool.submit(second)
            until(lambda: waiting.done() or one(application, waits), what="it waits for long")
            assert not waiting.done()
        assert waiting.result(300) == "500ms"


AT_WORK = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND state = 'active'"


def test_a_migration_that_is_told_to_end_ends_on_the_server_too_and_the_next_goes_on(
    servers: Servers, application: Engine, migrator: Engine, url: str
) -> None:
    """Its statement went on, and kept its locks, for as long as half an hour."""
    upgrade(migrator, "0024")
    environment = dict(os.environ) | {"INGEST_DATABASE_URL": url}
    with stalling(servers, url, "jobs_held"):
        process = subprocess.Popen([sys.executable, "-m", "ingest", "migrate"], env=environment)
        (pid,) = until(lambda: stalled(application), what="it makes the index")
        process.terminate()
        assert process.wait(ENDS_WITHIN_S) != 0
        until(lambda: not one(application, AT_WORK, pid=pid), what="the server has noticed")
        assert reached(migrator) == "0025"
    upgrade(migrator)
    assert reached(migrator) == newest(migrator)
