"""200 means kept by the standby too: a commit whose wait for it was cut short is answered 503."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Engine

from ingest.errors import StorageUnavailable
from ingest.local import postgres
from ingest.receiver.writer import DeliveryWriter
from ingest.store import migrations
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.integration.test_writer import delivery, writing
from tests.support.rows import one
from tests.support.servers import PATIENT, Running, pgbouncer, setups
from tests.support.waiting import until

pytestmark = pytest.mark.not_on(
    *("pgbouncer-session", "pgbouncer-transaction", "postgresql-15", "external"),
    reason="runs a PostgreSQL of its own",
)

WAITS = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
ENDINGS = ("pg_cancel_backend", "pg_terminate_backend")
_UNLIMITED = "-c statement_timeout=0"
"""For the tests' own statements, whatever is set for the database."""


@dataclass
class Primary:
    """A primary whose synchronous standby can be away."""

    url: str
    """Past any pooler."""
    given: str
    """What the writer is given."""
    engine: Engine

    def execute(self, statement: str) -> None:
        """Run a statement outside of a transaction, and wait for no standby."""
        with psycopg.connect(self.url, autocommit=True, options=_UNLIMITED) as connection:
            connection.execute(b"SET synchronous_commit = local")
            connection.execute(statement.encode())

    def expect_standby(self, names: str) -> None:
        """Wait with each commit for these standbys; there are none."""
        self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.execute("SELECT pg_reload_conf()")
        shown = "SELECT current_setting('synchronous_standby_names')"
        until(lambda: one(self.engine, shown) == names, what="it is read")

    def waiting(self) -> int:
        """Return the process that waits for the standby, once there is one."""
        (pid,) = until(self._waiting, what="a commit waits for the standby")
        return pid

    def _waiting(self) -> list[int]:
        with psycopg.connect(self.url, options=_UNLIMITED) as connection:
            return [pid for (pid,) in connection.execute(WAITS.encode())]


@pytest.fixture(scope="module", params=["direct", "transaction"])
def primary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Primary]:
    home = tmp_path_factory.mktemp("primary")
    (home / "logs").mkdir()
    with ExitStack() as stack:
        stack.enter_context(Running(postgres.program(home, home, settings=("wal_level=replica",))))
        url = given = postgres.url(home) + PATIENT
        if request.param == "transaction":
            binary = setups.installed(pgbouncer.find_binary(), "PgBouncer")
            bouncer = pgbouncer.program(
                home, home, binary=binary, mode="transaction", user=postgres.USER
            )
            stack.enter_context(Running(bouncer))
            given = pgbouncer.url(home, "transaction", "postgres", user=postgres.USER) + PATIENT
        engine = create_engine(parse(url), role=Role.MIGRATION)
        stack.callback(engine.dispose)
        migrations.prepare(
            engine, migrations.Target(), today=datetime.now(UTC).date(), days_ahead=1
        )
        yield Primary(url=url, given=given, engine=engine)


@pytest.fixture
def away(primary: Primary) -> Iterator[Primary]:
    """The primary, whose standby is away until the end of the test."""
    primary.expect_standby("*")
    yield primary
    primary.expect_standby("")


def stored(primary: Primary) -> int:
    count: int = one(primary.engine, "SELECT count(*) FROM ingest.deliveries")
    return count


async def refusal(answer: Awaitable[None]) -> str:
    with pytest.raises(StorageUnavailable) as caught:
        await answer
    return caught.value.reason


def run(primary: Primary, scenario: Callable[[DeliveryWriter], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with writing(primary.given) as writer:
            await scenario(writer)

    asyncio.run(whole())


async def in_thread(work: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


@pytest.mark.parametrize("ending", ENDINGS)
def test_postgresql_alone_says_that_such_a_commit_succeeded_or_nothing_at_all(
    away: Primary, ending: str
) -> None:
    """The control: why the answer needs more than the absence of an error."""
    table = f"public.of_{ending}"

    async def scenario() -> None:
        connection = await psycopg.AsyncConnection.connect(away.url, autocommit=True)
        committed = asyncio.create_task(connection.execute(f"CREATE TABLE {table} ()".encode()))
        pid = await asyncio.get_running_loop().run_in_executor(None, away.waiting)
        await in_thread(lambda: away.execute(f"SELECT {ending}({pid})"))
        if ending == "pg_cancel_backend":
            await committed
        else:
            with pytest.raises(psycopg.OperationalError):
                await committed
        await connection.close()

    asyncio.run(scenario())
    assert one(away.engine, f"SELECT to_regclass('{table}') IS NOT NULL")


def test_a_wait_that_is_cancelled_is_answered_503(away: Primary) -> None:
    before = stored(away)

    async def scenario(writer: DeliveryWriter) -> None:
        answer = writer.submit(delivery())
        await in_thread(lambda: away.execute(f"SELECT pg_cancel_backend({away.waiting()})"))
        assert await refusal(answer) == "not_replicated"

    run(away, scenario)
    assert stored(away) == before + 1  # on the primary alone


def test_a_wait_that_is_terminated_is_waited_for_again(away: Primary) -> None:
    """The rows are there at the second try, which changes nothing and would wait for nobody."""
    before = stored(away)

    async def scenario(writer: DeliveryWriter) -> None:
        answer = writer.submit(delivery())
        first = await asyncio.get_running_loop().run_in_executor(None, away.waiting)
        await in_thread(lambda: away.execute(f"SELECT pg_terminate_backend({first})"))
        if away.given != away.url:  # the pooler says that the server is gone, and stays itself
            await refusal(answer)
            return
        await in_thread(lambda: until(lambda: away.waiting() != first, what="it waits again"))
        assert not answer.done()
        assert stored(away) == before + 1
        await in_thread(lambda: away.expect_standby(""))
        await answer

    run(away, scenario)
    assert stored(away) == before + 1


def test_a_role_that_hides_warnings_and_limits_statements_hides_nothing(away: Primary) -> None:
    away.execute("ALTER DATABASE postgres SET client_min_messages = error")
    away.execute("ALTER DATABASE postgres SET statement_timeout = '2s'")

    async def scenario(writer: DeliveryWriter) -> None:
        answer = writer.submit(delivery())
        await in_thread(lambda: away.execute(f"SELECT pg_cancel_backend({away.waiting()})"))
        assert await refusal(answer) == "not_replicated"

    try:
        run(away, scenario)
    finally:
        away.execute("ALTER DATABASE postgres RESET ALL")


def test_a_statement_timeout_does_not_end_the_wait(away: Primary) -> None:
    """PostgreSQL's own, in force when the commit begins: it stops before the wait."""
    statements = b"SET statement_timeout = '2s'; CREATE TABLE public.u ()"

    async def scenario() -> None:
        connection = await psycopg.AsyncConnection.connect(away.url, autocommit=True)
        committed = asyncio.create_task(connection.execute(statements))
        await asyncio.get_running_loop().run_in_executor(None, away.waiting)
        await asyncio.sleep(2.5)
        assert not committed.done()
        await in_thread(lambda: away.expect_standby(""))
        await committed
        await connection.close()

    asyncio.run(scenario())


def test_after_the_standby_is_back_deliveries_are_taken(primary: Primary) -> None:
    primary.expect_standby("*")

    async def scenario(writer: DeliveryWriter) -> None:
        answer = writer.submit(delivery())
        await in_thread(lambda: primary.execute(f"SELECT pg_cancel_backend({primary.waiting()})"))
        await refusal(answer)
        await in_thread(lambda: primary.expect_standby(""))
        while True:
            try:
                await writer.append(delivery())
                return
            except StorageUnavailable:
                await asyncio.sleep(0.05)

    run(primary, scenario)
