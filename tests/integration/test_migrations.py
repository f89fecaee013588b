import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from ingest.ids import delivery_id
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.schema import metadata
from tests.conftest import Servers
from tests.support.waiting import until


@pytest.fixture
def empty(make_database: Callable[..., str]) -> str:
    """The address of an empty database."""
    return make_database()


def schema(servers: Servers, url: str) -> list[str]:
    """What pg_dump says a database is, without partitions, Alembic's own table, and others'."""
    dump = subprocess.run(
        [
            servers.binaries / "pg_dump",
            "--schema-only",
            "--no-toast-compression",  # a matter of the server: the migrations ask it
            "--exclude-table=*.deliveries_*",
            "--exclude-table=*.alembic_version",
            "--exclude-schema=public",
            servers.as_administrator(url),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [
        line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    ]


def test_the_migrated_schema_is_the_one_in_tables(
    servers: Servers, empty: str, database_url: str
) -> None:
    engine = create_engine(parse(empty), role=Role.MIGRATION)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA ingest"))
        connection.execute(text("SET LOCAL search_path = ingest"))
        metadata.create_all(connection)
    engine.dispose()
    assert schema(servers, database_url) == schema(servers, empty)


def test_there_and_back_again(servers: Servers, empty: str) -> None:
    engine = create_engine(parse(empty), role=Role.MIGRATION)
    with engine.connect() as connection:
        migrations.upgrade(connection)
        once = schema(servers, empty)
        migrations.downgrade(connection, "base")
        tables = connection.execute(
            text("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'ingest')")
        ).scalar_one()
        assert tables == 1  # Alembic's
        connection.rollback()
        migrations.upgrade(connection)
    engine.dispose()
    assert schema(servers, empty) == once


def test_two_at_once_wait_for_each_other(empty: str) -> None:
    command = [sys.executable, "-m", "ingest", "migrate"]
    environment = dict(os.environ) | {"INGEST_DATABASE_URL": empty}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    printed = sorted(process.communicate(timeout=60)[0] for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("Migrated from nothing" in each for each in printed) >= 1


def test_the_days_wait_for_whoever_makes_them(engine: Engine, database_url: str) -> None:
    """Of three starts at once two failed: the locks of the first outlasted their patience."""
    far = datetime.now(UTC).date() + timedelta(days=400)
    second = create_engine(parse(database_url), role=Role.MIGRATION)

    def make() -> list[date]:
        with second.begin() as connection:
            return partitions.ensure(connection, today=far, days_ahead=0)

    with ThreadPoolExecutor() as pool:
        with engine.begin() as first:
            assert partitions.ensure(first, today=far, days_ahead=0) == [far]
            waiting = pool.submit(make)
            until(lambda: waiting_for_locks(engine) == 1, what="the second waits")
            time.sleep(0.2)  # beyond its patience with readers
        assert waiting.result(300) == []
    second.dispose()


def test_a_dump_does_not_keep_a_start_from_migrating(engine: Engine, database_url: str) -> None:
    far = datetime.now(UTC).date() + timedelta(days=400)
    migrator = create_engine(parse(database_url), role=Role.MIGRATION)
    with engine.begin() as reader:
        reader.execute(text("SELECT FROM deliveries"))
        assert not migrations.prepare(migrator, today=far, days_ahead=0)
    assert migrations.prepare(migrator, today=far, days_ahead=0)
    migrator.dispose()


def waiting_for_locks(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(
                text(
                    "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
                    " WHERE NOT granted AND datname = current_database()"
                )
            ).scalar_one()
        )


def test_a_migration_does_not_wait_long_behind_a_lock(database_url: str, engine: Engine) -> None:
    migrator = create_engine(parse(database_url), role=Role.MIGRATION)
    with engine.connect() as busy, migrator.connect() as connection:
        busy.execute(text("SELECT count(*) FROM jobs"))
        with pytest.raises(OperationalError, match="lock timeout"):
            connection.execute(text("ALTER TABLE ingest.jobs ADD COLUMN later text"))
    migrator.dispose()


def store(connection: Connection, moment: datetime) -> None:
    connection.execute(
        text(
            "INSERT INTO deliveries (id, source, received_at, key_id, headers, body)"
            " VALUES (:id, 'awalchat', :at, 'k', '[]', '{}')"
        ),
        {"id": delivery_id(int(moment.timestamp() * 1000), uuid4().bytes[:10]), "at": moment},
    )


def homes(connection: Connection) -> list[str]:
    """Which partition each delivery lies in, oldest first."""
    return list(
        connection.execute(
            text("SELECT tableoid::regclass::text FROM deliveries ORDER BY id")
        ).scalars()
    )


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def test_a_delivery_lies_in_the_partition_of_its_day(engine: Engine) -> None:
    with engine.begin() as connection:
        today, *_ = partitions.days(connection)
        store(connection, noon(today))
        store(connection, noon(today + timedelta(days=1)))
        tomorrow = today + timedelta(days=1)
        assert homes(connection) == [
            f"deliveries_{today:%Y_%m_%d}",
            f"deliveries_{tomorrow:%Y_%m_%d}",
        ]


def test_a_day_begins_and_ends_at_midnight_utc(engine: Engine) -> None:
    with engine.begin() as connection:
        today, *_ = partitions.days(connection)
        midnight = noon(today) + timedelta(hours=12)
        store(connection, midnight - timedelta(milliseconds=1))
        store(connection, midnight)
        assert homes(connection)[0] != homes(connection)[1]


def test_making_partitions_again_makes_only_what_is_missing(engine: Engine) -> None:
    with engine.begin() as connection:
        today, *_ = partitions.days(connection)
        assert partitions.ensure(connection, today=today, days_ahead=2) == []
        made = partitions.ensure(connection, today=today, days_ahead=4)
        assert made == [today + timedelta(days=3), today + timedelta(days=4)]
        assert partitions.days(connection)[-1] == made[-1]


def test_without_a_partition_nothing_is_lost_and_the_day_is_set_right_later(engine: Engine) -> None:
    far = datetime.now(UTC).date() + timedelta(days=400)
    with engine.begin() as connection:
        store(connection, noon(far))
        store(connection, noon(far + timedelta(days=1)))
        assert homes(connection) == ["deliveries_default", "deliveries_default"]
    with engine.begin() as connection:
        partitions.ensure(connection, today=far, days_ahead=0)
        assert homes(connection) == [f"deliveries_{far:%Y_%m_%d}", "deliveries_default"]


def test_a_partition_that_somebody_else_has_attached_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        before = partitions.days(connection)
        connection.execute(
            text(
                "CREATE TABLE ingest.deliveries_2025_archive PARTITION OF ingest.deliveries FOR"
                " VALUES FROM ('01800000-0000-0000-0000-000000000000')"
                " TO ('01810000-0000-0000-0000-000000000000')"
            )
        )
        assert partitions.days(connection) == before
        assert partitions.ensure(connection, today=before[0], days_ahead=1) == []


def test_a_migration_waits_for_a_lock_far_less_than_receivers_wait_behind_it(
    database_url: str,
) -> None:
    waits_ms = {}
    for role in (Role.MIGRATION, Role.RECEIVER):
        engine = create_engine(parse(database_url), role=role)
        with engine.begin() as connection:
            if role is Role.MIGRATION:
                migrations.take_turns(connection)
            setting = "SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'"
            waits_ms[role] = connection.execute(text(setting)).scalar_one()
        engine.dispose()
    assert 3 * waits_ms[Role.MIGRATION] < waits_ms[Role.RECEIVER]
