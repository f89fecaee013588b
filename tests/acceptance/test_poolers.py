"""PgBouncer, and roles with settings of their own: the promises hold there too."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ingest.local import postgres, process
from tests.acceptance.harness import Stack
from tests.support.deliver import body, order
from tests.support.servers import PATIENT, Running, pgbouncer
from tests.support.servers.pgbouncer import Mode
from tests.support.servers.setups import installed
from tests.support.waiting import until


class House:
    """A PostgreSQL that may be stopped at once, and poolers in front of it."""

    def __init__(self, home: Path, ends: ExitStack) -> None:
        self._home = home
        self._sockets = home / "run"
        self._sockets.mkdir()
        (home / "logs").mkdir()
        self._ends = ends
        # As long as it may be: what is not written by a commit is written by nobody else.
        self._program = postgres.program(home, self._sockets, settings=("wal_writer_delay=10s",))
        self.start()

    def start(self) -> None:
        """Start PostgreSQL."""
        self._process: subprocess.Popen[bytes] = process.spawn(self._program)
        process.wait_until_ready(self._program, self._process, timeout_s=300)

    def stop_immediately(self) -> None:
        """Stop it as `pg_ctl stop --mode=immediate` does: what is not on disk is lost."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(300)

    def close(self) -> None:
        """Stop it for good."""
        process.stop(self._program, self._process)

    def database(self, *settings: str) -> str:
        """Make a role with these settings, and a database that it owns; both have the name."""
        name = f"app_{uuid4().hex[:12]}"
        with psycopg.connect(postgres.url(self._sockets), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN".encode())
            for setting in settings:
                connection.execute(f"ALTER ROLE {name} SET {setting}".encode())
            connection.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        return name

    def direct(self, name: str) -> str:
        """Return the address of such a database, as its role."""
        return f"{postgres.url(self._sockets, name)}&user={name}{PATIENT}"

    def pooled(self, name: str, mode: Mode, *, ignored: str = "") -> str:
        """Start a PgBouncer for such a database, and return the address through it."""
        home = self._home / name
        (home / "logs").mkdir(parents=True)
        self._ends.enter_context(
            Running(
                pgbouncer.program(
                    home,
                    self._sockets,
                    binary=installed(pgbouncer.find_binary(), "PgBouncer"),
                    mode=mode,
                    user=name,
                    ignored=ignored,
                )
            )
        )
        return pgbouncer.url(home, mode, name, user=name) + PATIENT


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ExitStack() as ends:
        home = Path(tempfile.mkdtemp(prefix="ingest-pool-"))
        ends.callback(shutil.rmtree, home, ignore_errors=True)
        made = House(home, ends)
        ends.callback(made.close)
        yield made


@pytest.fixture
def make(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes a stack on an address, migrated through it."""
    with ExitStack() as ends:

        def make_stack(url: str, **environment: str) -> Stack:
            stack = Stack(url, redis_url, tmp_path, **environment)
            ends.callback(stack.close)
            stack.command("migrate")
            return stack

        yield make_stack


def wait_for_success(stack: Stack, count: int) -> None:
    """Wait until that many jobs have succeeded; one that failed would never be counted."""
    until(
        lambda: stack.value("SELECT count(*) FROM ingest.jobs WHERE state = 'succeeded'") == count,
        what=f"{count} jobs have succeeded",
        timeout_s=300,
    )
    assert stack.value("SELECT count(*) FROM ingest.jobs") == count
    assert stack.value("SELECT coalesce(max(failures), 0) FROM ingest.jobs") == 0


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_what_was_answered_is_on_disk_whatever_the_pooler_drops(
    house: House, make: Callable[..., Stack], mode: Mode
) -> None:
    name = house.database("synchronous_commit = off")
    stack = make(house.pooled(name, mode, ignored="options"))
    stack.receiver()
    answers = stack.post_all([order(number) for number in range(40)], connections=4)
    assert [answer.status for answer in answers] == [200] * 40
    house.stop_immediately()
    house.start()
    with psycopg.connect(house.direct(name)) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM ingest.deliveries").fetchone() or (0,)
    assert kept == 40


def test_every_process_works_through_a_pooler_in_transaction_mode(
    house: House, make: Callable[..., Stack]
) -> None:
    """With PgBouncer's default settings; connections are shared by all, and change at any time."""
    stack = make(house.pooled(house.database(), "transaction"))
    stack.receiver()
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.console()
    answers = stack.post_all([order(number) for number in range(200)], connections=16)
    assert [answer.status for answer in answers] == [200] * 200
    wait_for_success(stack, 200)
    for page in ("/", "/events", "/events?q=order:7", "/failures", "/processors", "/live"):
        assert stack.ask(page).status == 200, page
    stack.command("replay", "--type", "order.created", "--state", "succeeded")
    until(
        lambda: stack.value("SELECT count(*) FROM ingest.jobs WHERE trigger = 'replay'") == 200,
        what="all is replayed",
        timeout_s=300,
    )
    wait_for_success(stack, 200)
    assert stack.stats()["events"]["total"] == 200
    for sign in ("42P05", "26000", "prepared statement", "InvalidSqlStatementName"):
        assert sign not in stack.logs()


SETTINGS = (
    "idle_in_transaction_session_timeout = '2s'",
    "statement_timeout = '1s'",
    "lock_timeout = '50ms'",
    "DateStyle = 'German'",
    "TimeZone = 'Asia/Kathmandu'",
    "IntervalStyle = 'sql_standard'",
    "client_encoding = 'LATIN1'",
    "default_transaction_isolation = 'serializable'",
    "search_path = 'nowhere'",
)
PROCESSORS = '''
import time

from sqlalchemy import text

from workers import processor


@processor("contact.created", name="slow", timeout_s=60)
def slow(event, db):
    """Is idle for longer, and runs a statement for longer, than the role may."""
    time.sleep(2.2)
    db.execute(text("SELECT pg_sleep(1.2)"))


@processor("order.created", name="shop")
def shop(event, db):
    kept = db.execute(text("SELECT CAST(:note AS text), now()"), {"note": event.data["note"]})
    note, moment = kept.one()
    assert note == event.data["note"], note
    assert moment.tzinfo is not None
'''


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "transaction"])
def test_a_role_with_settings_of_its_own_changes_nothing(
    house: House, make: Callable[..., Stack], tmp_path: Path, is_pooled: bool
) -> None:
    name = house.database(*SETTINGS)
    url = house.pooled(name, "transaction") if is_pooled else house.direct(name)
    (tmp_path / "odd_processors.py").write_text(PROCESSORS)
    stack = make(url, processors="odd_processors", read_model="true")
    stack.receiver()
    stack.worker()
    stack.relay()
    bodies = [order(number, note="عميل", total=1.5) for number in range(100)] * 2
    answers = stack.post_all([*bodies, body("contact.created", {"id": 1})])
    assert {answer.status for answer in answers} == {200}
    wait_for_success(stack, 202)  # two processors for each of 101 events
    assert stack.stats()["deliveries"]["duplicates"] == 100
