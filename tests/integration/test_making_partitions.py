"""Partitions are made while receivers store."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from ingest.ids import delivery_id
from ingest.store import partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.conftest import Servers
from tests.support.rows import execute, one
from tests.support.servers import as_role
from tests.support.servers.setups import POOLED, POOLERS_ROLE

FAR = timedelta(days=400)
STORE = (
    "INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body)"
    " VALUES (%s, 'awalchat', now(), 'k', '[]', '{}')"
)


def a_day() -> date:
    """A day for which nobody makes a partition."""
    return datetime.now(UTC).date() + FAR


def an_id(day: date) -> UUID:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return delivery_id(int(noon.timestamp() * 1000), uuid4().bytes[:10])


def stored(connection: psycopg.Connection[tuple[UUID]]) -> set[UUID]:
    return {row[0] for row in connection.execute("SELECT id FROM ingest.deliveries")}


def test_what_is_stored_while_a_partition_is_made_is_kept(
    engine: Engine, database_url: str
) -> None:
    day = a_day()
    kept: set[UUID] = set()
    refused = 0

    with psycopg.connect(database_url, autocommit=True) as receiver:
        receiver.execute("SET lock_timeout = '20ms'")

        def store() -> None:
            one = an_id(day)
            receiver.execute(STORE, [one])
            kept.add(one)

        def store_meanwhile(*_: object) -> None:
            nonlocal refused
            try:
                store()
            except psycopg.errors.LockNotAvailable:
                refused += 1

        store()
        with engine.begin() as connection:
            event.listen(connection, "before_cursor_execute", store_meanwhile)
            made = partitions.ensure(connection, today=day, days_ahead=1)
            event.remove(connection, "before_cursor_execute", store_meanwhile)
        assert made == [day, day + timedelta(days=1)]
        assert refused, "a receiver never came at a moment that matters"
        store()
        assert stored(receiver) == kept


def test_a_day_with_many_deliveries_in_the_default_partition_stays_there(
    engine: Engine, database_url: str
) -> None:
    day = a_day()
    ids = {an_id(day) for _ in range(partitions.STRAYS_AT_ONCE + 1)}
    with psycopg.connect(database_url, autocommit=True) as receiver:
        receiver.cursor().executemany(STORE, [[one] for one in ids])
        with engine.begin() as connection:
            made = partitions.ensure(connection, today=day, days_ahead=2)
        assert made == [day + timedelta(days=1), day + timedelta(days=2)]
        assert stored(receiver) == ids


def test_where_much_is_in_the_default_partition_it_is_not_read_while_receivers_wait(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LARGE_BYTES", 0)
    day = a_day()
    told: list[str] = []
    with psycopg.connect(database_url, autocommit=True) as receiver:
        receiver.execute(STORE, [an_id(day)])
        with engine.begin() as connection:
            assert partitions.ensure(connection, today=day, days_ahead=2) == []
        partitions.show_absent(engine, today=day, days_ahead=2)
        with pytest.raises(psycopg.errors.CheckViolation):
            receiver.execute(STORE, [an_id(day + timedelta(days=1))])
        with engine.begin() as connection:
            driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
            driver.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
            connection.exec_driver_sql("SET LOCAL client_min_messages = debug1")
            made = partitions.ensure(connection, today=day, days_ahead=2)
        assert made == [day + timedelta(days=1), day + timedelta(days=2)]
        implied = "constraint for default partition"
        assert sum(implied in line and "is implied by" in line for line in told) == len(made)
        receiver.execute(STORE, [an_id(day + timedelta(days=3))])


def test_what_could_not_be_shown_absent_is_refused_no_longer(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LARGE_BYTES", 0)
    day = a_day()
    with psycopg.connect(database_url, autocommit=True) as receiver:
        receiver.execute(STORE, [an_id(day + timedelta(days=1))])
        with pytest.raises(IntegrityError):
            partitions.show_absent(engine, today=day, days_ahead=2)
        receiver.execute(STORE, [an_id(day + timedelta(days=2))])


def test_ctrl_c_meanwhile_leaves_no_day_refused(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LARGE_BYTES", -1)
    day = a_day()

    def interrupt(*given: Any) -> None:
        if "VALIDATE" in given[2]:
            raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        partitions.show_absent(engine, today=day, days_ahead=2)
    with psycopg.connect(database_url, autocommit=True) as receiver:
        receiver.execute(STORE, [an_id(day + timedelta(days=1))])


@pytest.mark.not_on(*POOLED, reason=POOLERS_ROLE)
def test_a_partition_belongs_to_who_owns_the_others_whichever_member_makes_it(
    engine: Engine, servers: Servers, database_url: str
) -> None:
    """Or the migrating role could change the table no more: it must own every partition."""
    day = a_day()
    owner = one(engine, "SELECT tableowner FROM pg_tables WHERE tablename = 'deliveries_default'")
    older = f"deliveries_{day:%Y_%m_%d}"
    with servers.role(f'IN ROLE "{owner}"', used_in=database_url) as member:
        with engine.begin() as connection:
            partitions.ensure(connection, today=day, days_ahead=0)
        execute(engine, f"ALTER TABLE ingest.{older} OWNER TO {member}")
        relay = create_engine(parse(as_role(database_url, member)), role=Role.RELAY)
        with relay.begin() as connection:
            made = partitions.ensure(connection, today=day, days_ahead=1)
        relay.dispose()
        assert made == [day + timedelta(days=1)]
        of_others = "SELECT count(*) FROM pg_tables WHERE schemaname = 'ingest' AND tableowner = "
        assert one(engine, f"{of_others} '{member}'") == 0
