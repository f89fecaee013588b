"""200 means kept: append returns after the commit, or raises."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine

from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.errors import StorageUnavailable
from ingest.ids import delivery_id
from ingest.receiver.writer import DeliveryWriter, Limits
from ingest.sources.base import EventIdentity
from ingest.store.address import parse
from ingest.store.engine import WriterConnection
from ingest.store.pipeline import deliveries
from ingest.store.pipeline.deliveries import Delivery
from tests.conftest import Servers
from tests.support.rows import execute, one, rows
from tests.support.servers.setups import POOLED

EVENT = EventIdentity(event_id="x:1", type="x", fingerprint=b"f" * 32)


def delivery(number: int = 1, *, body: bytes = b"{}", **more: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": delivery_id(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10)),
        "source": "awalchat",
        "received_at": datetime.now(UTC),
        "key_id": "k",
        "headers": "[]",
        "body": body,
        "name": EventIdentity(event_id=f"x:{number}", type="x", fingerprint=b"f" * 32),
        "rejected": None,
    }
    return Delivery(**(fields | more))


@pytest.fixture(autouse=True)
def _time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine may take longer to connect than a receiver waits."""
    monkeypatch.setattr("ingest.receiver.writer._OPEN_TIMEOUT_S", 60.0)


@asynccontextmanager
async def writing(
    url: str, committed: list[UUID] | None = None, **limits: Any
) -> AsyncIterator[DeliveryWriter]:
    defaults: dict[str, Any] = {
        "flush_rows": 100,
        "flush_bytes": 1_000_000,
        "flush_timeout_s": 60,
        "backlog_rows": 1_000,
        "backlog_bytes": 10_000_000,
        "dispatch_grace_s": 2,
    }
    sink = committed if committed is not None else []

    def on_commit(ids: Sequence[UUID]) -> None:
        sink.extend(ids)

    writer = DeliveryWriter(parse(url), Limits(**(defaults | limits)), on_commit=on_commit)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close()


def stored(engine: Engine) -> int:
    count: int = one(engine, "SELECT count(*) FROM deliveries")
    return count


def test_what_append_returns_from_is_committed_and_hinted(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        committed: list[UUID] = []
        async with writing(database_url, committed) as writer:
            first = delivery(body=b'{"a": "\xff\x00"}', headers='[["a", "b"]]')
            await writer.append(first)
            (row,) = rows(engine, "SELECT * FROM deliveries")
            assert row["id"] == first.id
            assert bytes(row["body"]) == first.body
            assert row["headers"] == [["a", "b"]]
            assert row["rejected"] is None
            (waiting,) = rows(engine, "SELECT * FROM unadmitted")
            assert (waiting["event_id"], waiting["queue"]) == ("x:1", "events")
            assert committed == [first.id]

    asyncio.run(scenario())


def test_a_rejected_delivery_is_kept_and_neither_admitted_nor_hinted(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        committed: list[UUID] = []
        async with writing(database_url, committed) as writer:
            await asyncio.gather(
                writer.append(delivery(name=None, rejected="body_not_json")),
                writer.append(delivery()),
            )
        assert len(committed) == 1

    asyncio.run(scenario())
    assert stored(engine) == 2
    assert one(engine, "SELECT count(*) FROM unadmitted") == 1


def test_what_arrives_during_a_flush_makes_the_next_one(database_url: str, engine: Engine) -> None:
    async def scenario() -> None:
        async with writing(database_url) as writer:
            await asyncio.gather(*(writer.append(delivery(n)) for n in range(500)))

    asyncio.run(scenario())
    assert stored(engine) == 500
    commits = one(engine, "SELECT count(DISTINCT xmin::text) FROM deliveries")
    assert commits <= 6  # 100 rows a flush, and the first may go alone


def test_a_flush_is_bounded_in_bytes(database_url: str, engine: Engine) -> None:
    async def scenario() -> None:
        async with writing(database_url, flush_bytes=10_000) as writer:
            await asyncio.gather(
                *(writer.append(delivery(n, body=b"x" * 6_000)) for n in range(10)),
                writer.append(delivery(99, body=b"x" * 50_000)),
            )

    asyncio.run(scenario())
    assert stored(engine) == 11
    assert one(engine, "SELECT count(DISTINCT xmin::text) FROM deliveries") == 11


def test_a_full_backlog_refuses_at_once_and_recovers(database_url: str, engine: Engine) -> None:
    async def scenario() -> None:
        async with writing(database_url, backlog_rows=10) as writer:
            answers = await asyncio.gather(
                *(writer.append(delivery(n)) for n in range(50)), return_exceptions=True
            )
            refused = [each for each in answers if isinstance(each, StorageUnavailable)]
            assert {each.reason for each in refused} == {"backlog_full"}
            assert len(refused) == 40
            await writer.append(delivery(99))

    asyncio.run(scenario())
    assert stored(engine) == 11


def test_the_elements_of_a_delivery_count_in_the_backlog(database_url: str) -> None:
    async def scenario() -> None:
        async with writing(database_url, backlog_rows=10) as writer:
            elements = tuple(delivery(number) for number in range(20))
            whole = writer.submit(delivery(99, name=None, elements=elements))
            with pytest.raises(StorageUnavailable) as refused:
                writer.submit(delivery(100))
            assert refused.value.reason == "backlog_full"
            await whole
            await writer.append(delivery(100))

    asyncio.run(scenario())


def test_the_backlog_is_bounded_in_bytes(database_url: str) -> None:
    async def scenario() -> None:
        async with writing(database_url, backlog_bytes=20_000) as writer:
            answers = await asyncio.gather(
                *(writer.append(delivery(n, body=b"x" * 9_000)) for n in range(5)),
                return_exceptions=True,
            )
            assert [isinstance(each, StorageUnavailable) for each in answers] == [
                False,
                False,
                True,
                True,
                True,
            ]

    asyncio.run(scenario())


def test_a_delivery_larger_than_the_backlog_has_room_while_nothing_else_waits(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        async with writing(database_url, backlog_bytes=20_000) as writer:
            first = writer.submit(delivery(1, body=b"x" * 50_000))
            with pytest.raises(StorageUnavailable):
                writer.submit(delivery(2, body=b"x"))
            await first
            await writer.append(delivery(2, body=b"x" * 50_000))

    asyncio.run(scenario())
    assert stored(engine) == 2


def test_close_commits_what_waits_and_refuses_what_comes(database_url: str, engine: Engine) -> None:
    async def scenario() -> None:
        async with writing(database_url) as writer:
            waiting = [asyncio.create_task(writer.append(delivery(n))) for n in range(50)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        with pytest.raises(StorageUnavailable) as caught:
            await writer.append(delivery())
        assert caught.value.reason == "shutting_down"

    asyncio.run(scenario())
    assert stored(engine) == 50


def test_without_a_database_every_append_is_refused_at_once() -> None:
    async def scenario() -> None:
        async with writing("postgresql://nobody@127.0.0.1:1/none") as writer:
            for _ in range(3):
                with pytest.raises(StorageUnavailable) as caught:
                    await asyncio.wait_for(writer.append(delivery()), 60)
                assert caught.value.reason == "connection_refused"

    asyncio.run(scenario())


@pytest.mark.not_on(*POOLED, reason="the pooler may hand out another that was ended")
def test_a_connection_that_breaks_in_between_costs_no_request(
    database_url: str, engine: Engine
) -> None:
    """The commit is in doubt, so the same rows are sent once more; no row is there twice."""

    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery(1))
            execute(
                engine,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'",
            )
            await asyncio.gather(*(writer.append(delivery(n)) for n in range(2, 20)))

    asyncio.run(scenario())
    assert stored(engine) == 19


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("has_elements", [False, True])
def test_what_was_committed_before_the_answer_was_lost_is_there_once(
    database_url: str, engine: Engine, has_elements: bool, is_encrypted: bool
) -> None:
    """What is repeated is a batch that is there, or is not; here, both at once."""
    elements = (delivery(7), delivery(8)) if has_elements else ()
    first = delivery(1, elements=elements, name=None if has_elements else EVENT)
    second = delivery(2)
    keys = BodyKeys([bytes(range(32))]) if is_encrypted else NO_KEYS
    database = replace(parse(database_url), body_keys=keys)

    async def scenario() -> None:
        async with await WriterConnection.open(database) as connection:
            for batch, is_repeat in (([first], False), ([first, second], True)):
                await deliveries.insert(
                    connection, batch, queue="events", dispatch_grace_s=2, is_repeat=is_repeat
                )

    asyncio.run(scenario())
    sent = {one.id for one in (first, second, *elements)}
    assert {row["id"] for row in rows(engine, "SELECT id FROM deliveries")} == sent
    assert {row["delivery"] for row in rows(engine, "SELECT delivery FROM unadmitted")} == {
        one.id for one in (*first.events(), second)
    }


def test_whoever_sends_again_until_it_is_stored_loses_nothing_by_connections_that_break(
    database_url: str, engine: Engine
) -> None:
    """Behind a pooler the next connection may be dead too: that request is refused, and no other
    is lost."""

    async def stored_in_the_end(writer: DeliveryWriter, number: int) -> None:
        while True:
            try:
                return await writer.append(delivery(number))
            except StorageUnavailable:
                await asyncio.sleep(0.1)

    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery(1))
            execute(
                engine,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'",
            )
            await asyncio.gather(*(stored_in_the_end(writer, number) for number in range(2, 20)))

    asyncio.run(scenario())
    assert one(engine, "SELECT count(DISTINCT event_id) FROM unadmitted") == 19


def test_a_row_that_the_database_refuses_fails_none_of_its_neighbours(
    database_url: str, engine: Engine
) -> None:
    """No receiver gives an id twice. Were it to happen, the second would not be answered 200."""
    first = delivery(1)

    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(first)
            again = delivery(2, id=first.id)
            refused, taken = await asyncio.gather(
                writer.append(again), writer.append(delivery(3)), return_exceptions=True
            )
        assert isinstance(refused, StorageUnavailable)
        assert refused.reason == "refused_by_database"
        assert taken is None

    asyncio.run(scenario())
    names = {row["event_id"] for row in rows(engine, "SELECT event_id FROM unadmitted")}
    assert names == {"x:1", "x:3"}


def backend(engine: Engine) -> int:
    """The process of the writer's connection."""
    pid: int = one(
        engine,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query NOT LIKE 'SELECT pid%'"
        " AND backend_type = 'client backend'"
        " ORDER BY backend_start DESC LIMIT 1",
    )
    return pid


@pytest.mark.not_on(*POOLED, reason="looks into a session, which the pooler changes")
def test_a_database_that_hangs_is_given_up_and_the_next_request_gets_through(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery(1))
            with frozen(backend(engine)):
                assert await refused_in_time(writer) == "flush_timeout"
                await writer.append(delivery(3))

    asyncio.run(scenario())
    assert stored(engine) >= 2


@pytest.mark.not_on(*POOLED, reason="looks into a session, which the pooler changes")
def test_closed_it_leaves_no_connection_to_a_database_that_hangs(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery(1))
            hanging = writer._connection
            assert hanging is not None
            with frozen(backend(engine)):
                assert await refused_in_time(writer) == "flush_timeout"
                await writer.close()
                assert hanging.closed

    asyncio.run(scenario())


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process of the server's, and let it go on at the end."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def refused_in_time(writer: DeliveryWriter) -> str:
    """Give a delivery half a second, and what comes after it a loaded machine's time."""
    usual = writer._limits
    writer._limits = replace(usual, flush_timeout_s=0.5)
    with pytest.raises(StorageUnavailable) as caught:
        await writer.append(delivery(2))
    writer._limits = usual
    return caught.value.reason


def test_a_row_that_the_database_refuses_fails_alone(database_url: str, engine: Engine) -> None:
    async def scenario() -> None:
        async with writing(database_url) as writer:
            bad = delivery(2, headers="not json")
            answers = await asyncio.gather(
                *(writer.append(each) for each in (delivery(1), bad, delivery(3))),
                return_exceptions=True,
            )
            assert answers[0] is None
            assert answers[2] is None
            assert isinstance(answers[1], StorageUnavailable)
            await writer.append(delivery(4))

    asyncio.run(scenario())
    assert stored(engine) == 3


def test_a_table_that_is_missing_is_our_fault_and_passes(database_url: str, engine: Engine) -> None:
    execute(engine, "ALTER TABLE unadmitted RENAME TO elsewhere")

    async def scenario() -> None:
        async with writing(database_url) as writer:
            with pytest.raises(StorageUnavailable) as caught:
                await writer.append(delivery(1))
            assert caught.value.reason == "not_migrated"
            execute(engine, "ALTER TABLE elsewhere RENAME TO unadmitted")
            await _eventually(writer)

    asyncio.run(scenario())


async def _eventually(writer: DeliveryWriter) -> None:
    for _ in range(100):
        try:
            await writer.append(delivery(2))
            return
        except StorageUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("never recovered")


def test_a_database_that_does_not_write_to_disk_is_refused(
    servers: Servers, database_url: str
) -> None:
    with psycopg.connect(servers.direct_url("postgres"), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET fsync = off")
        admin.execute("SELECT pg_reload_conf()")
        try:

            async def scenario() -> None:
                async with writing(database_url) as writer:
                    with pytest.raises(StorageUnavailable) as caught:
                        await writer.append(delivery())
                    assert caught.value.reason == "fsync_off"

            asyncio.run(scenario())
        finally:
            admin.execute("ALTER SYSTEM RESET fsync")
            admin.execute("SELECT pg_reload_conf()")


def test_a_server_that_stops_writing_to_disk_is_noticed_by_the_next_commit(
    servers: Servers, database_url: str
) -> None:
    """The setting may change by a reload, on a connection that was asked when it was opened."""

    async def scenario(admin: psycopg.Connection) -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery(1))
            admin.execute("ALTER SYSTEM SET fsync = off")
            admin.execute("SELECT pg_reload_conf()")
            shown = "SELECT current_setting('fsync')"
            await _until_reloaded(writer, shown, "off")
            with pytest.raises(StorageUnavailable) as refused:
                await writer.append(delivery(2))
            assert refused.value.reason == "fsync_off"

    with psycopg.connect(servers.direct_url("postgres"), autocommit=True) as admin:
        try:
            asyncio.run(scenario(admin))
        finally:
            admin.execute("ALTER SYSTEM RESET fsync")
            admin.execute("SELECT pg_reload_conf()")


async def _until_reloaded(writer: DeliveryWriter, query: str, wanted: str) -> None:
    """Wait until the writer's own session has read the new configuration."""
    async with asyncio.timeout(60):
        while True:
            assert writer._connection is not None
            row = await (await writer._connection.execute(query)).fetchone()
            if row == (wanted,):
                return


@pytest.mark.not_on(*POOLED, reason="looks into a session, which the pooler changes")
def test_a_session_that_lost_its_settings_answers_nothing(
    database_url: str, engine: Engine
) -> None:
    """As behind a pooler that gives every statement another session."""
    name = one(engine, "SELECT current_database()")
    execute(engine, f"ALTER DATABASE {name} SET synchronous_commit = off")

    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery(1))
            assert writer._connection is not None
            await writer._connection.execute("RESET ALL")
            with pytest.raises(StorageUnavailable) as refused:
                await writer.append(delivery(2))
            assert refused.value.reason == "synchronous_commit_off"
            await writer.append(delivery(3))  # over a new connection

    asyncio.run(scenario())


def test_behind_a_pooler_each_commit_brings_its_own_settings(
    database_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = one(engine, "SELECT current_database()")
    execute(engine, f"ALTER DATABASE {name} SET synchronous_commit = off")
    monkeypatch.setattr("ingest.store.engine.is_direct", lambda *_: False)

    async def scenario() -> None:
        async with writing(database_url) as writer:
            for number in range(10):
                await writer.append(delivery(number))
                assert writer._connection is not None
                await writer._connection.execute("DEALLOCATE ALL")
                await writer._connection.execute("RESET ALL")

    asyncio.run(scenario())
    assert stored(engine) == 10


def test_a_request_that_is_cancelled_does_not_disturb_the_others(
    database_url: str, engine: Engine
) -> None:
    async def scenario() -> None:
        async with writing(database_url) as writer:
            tasks = [asyncio.create_task(writer.append(delivery(n))) for n in range(20)]
            await asyncio.sleep(0)
            tasks[3].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert [each for each in answers if each is not None] == [answers[3]]

    asyncio.run(scenario())
    assert stored(engine) == 20


@pytest.mark.not_on(*POOLED, reason="looks into a session, which the pooler changes")
def test_commits_wait_for_the_disk(database_url: str, engine: Engine) -> None:
    """Whatever the database's default is."""
    name = one(engine, "SELECT current_database()")
    execute(engine, f"ALTER DATABASE {name} SET synchronous_commit = off")

    async def scenario() -> None:
        async with writing(database_url) as writer:
            await writer.append(delivery())
            assert writer._connection is not None
            cursor = await writer._connection.execute("SHOW synchronous_commit")
            assert await cursor.fetchone() == ("on",)

    asyncio.run(scenario())


def test_a_server_that_takes_the_login_and_answers_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a pooler does that has lost its server."""
    monkeypatch.setattr("ingest.receiver.writer._OPEN_TIMEOUT_S", 0.3)

    clients: list[asyncio.StreamWriter] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        await reader.read(4_096)
        writer.write(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")
        while await reader.read(4_096):
            pass

    async def scenario() -> None:
        async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable"
            async with asyncio.timeout(60), writing(url) as writer:
                for _ in range(2):
                    with pytest.raises(StorageUnavailable, match="could not be stored"):
                        await writer.append(delivery())
            for client in clients:
                client.transport.abort()
            await asyncio.gather(
                *asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True
            )

    asyncio.run(scenario())


def test_a_refusal_keeps_nothing_of_what_it_refused() -> None:
    """One exception for all would hold the frames, and bodies, of every caller."""

    async def scenario() -> None:
        async with writing("postgresql://u@127.0.0.1:1/d") as writer:
            refusals = []
            for _ in range(3):
                with pytest.raises(StorageUnavailable) as caught:
                    await writer.append(delivery())
                refusals.append(caught.value)
            assert len(set(map(id, refusals))) == 3

    asyncio.run(scenario())
