"""Pressure on PostgreSQL: nothing is broken, but everything takes longer, or is refused."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from signal import SIGKILL

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from tests.faults import processes
from tests.faults.strike import NotStruck
from tests.faults.world import World
from tests.support.fleet import children_of, send

_HOT = ("unadmitted", "jobs")
_READERS = 4
_DEAD_ROWS, _A_GREAT_MANY = 300_000, 10_000_000
_DEAD_ROW_BYTES = 60
"""A row takes more than twice as much."""
_SLOW_COMMIT_US = 100_000
"""The most that `commit_delay` takes."""
_ROWS_LOCKED = 500
_BACK_S, _LONGEST_S = 300, 3_600


def hold_snapshot(world: World, random: Random) -> None:
    """An old transaction: nothing that is deleted or updated meanwhile can be vacuumed."""
    with world.connect() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT FROM jobs LIMIT 1")
        world.fleet.wait(random.uniform(8, 14))


def read_long(world: World, random: Random) -> None:
    """Some read everything, again and again, each in one old snapshot."""
    ended = threading.Event()
    readers = [threading.Thread(target=_read, args=(world, ended)) for _ in range(_READERS)]
    for reader in readers:
        reader.start()
    try:
        world.fleet.wait(random.uniform(5, 9))
    finally:
        ended.set()
        for reader in readers:
            reader.join()


def _read(world: World, ended: threading.Event) -> None:
    with (
        contextlib.suppress(psycopg.Error),
        world.connect() as connection,
        connection.transaction(),
    ):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        while not ended.is_set():
            for table in ("deliveries", "events", "jobs", "unadmitted"):
                connection.execute(f"SELECT max(octet_length({table}::text)) FROM {table}".encode())


def take_connections(world: World, random: Random) -> None:
    """Take all connections that the server gives, and those that some of the pipeline have."""
    with contextlib.ExitStack() as stack:
        held = _take_all(world, stack)
        if not held:
            raise NotStruck("no connection was free")
        sessions = (
            held[0]
            .execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'ingest%'")
            .fetchall()
        )
        for (pid,) in random.sample(sessions, len(sessions) // 3):
            held[0].execute("SELECT pg_terminate_backend(%s)", [pid])
        held += _take_all(world, stack)
        world.fleet.wait(random.uniform(4, 7))


def _take_all(world: World, stack: contextlib.ExitStack) -> list[psycopg.Connection]:
    taken: list[psycopg.Connection] = []
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            taken.append(stack.enter_context(world.connect()))
    return taken


def cancel_statements(world: World, random: Random) -> None:
    """Cancel whatever statement runs, over and over, as a short `statement_timeout` would."""
    ends = time.monotonic() + 4
    with world.connect() as connection:
        while time.monotonic() < ends:
            connection.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND state = 'active'"
                " AND backend_type = 'client backend'"
            )
            world.fleet.wait(random.uniform(0, 0.03))


def slow_commits(world: World, random: Random) -> None:
    """Each commit takes a tenth of a second, as on a disk that is busy."""
    with _settings(world, commit_delay=str(_SLOW_COMMIT_US), commit_siblings="0"):
        world.fleet.wait(random.uniform(5, 8))


def refuse_writes(world: World, random: Random) -> None:
    """Transactions are read-only, as at a primary that another has replaced."""
    with _settings(world, default_transaction_read_only="on"):
        world.fleet.wait(random.uniform(4, 7))


def checkpoint(world: World, random: Random) -> None:
    """One checkpoint after the other: each page is written whole into the log after it."""
    ends = time.monotonic() + random.uniform(5, 8)
    with world.connect() as connection:
        while time.monotonic() < ends:
            connection.execute("CHECKPOINT")
            world.fleet.wait(0.1)


def lock_rows(world: World, random: Random) -> None:
    """Hold locks on rows that wait to be worked on."""
    with world.connect() as connection, connection.transaction():
        for query in (
            "SELECT FROM unadmitted LIMIT %s FOR UPDATE SKIP LOCKED",
            "SELECT FROM jobs WHERE state <> 'succeeded' LIMIT %s FOR UPDATE SKIP LOCKED",
        ):
            connection.execute(query.encode(), [_ROWS_LOCKED])
        world.fleet.wait(random.uniform(3, 6))


def lock_backwards(world: World, random: Random) -> None:
    """Lock the newest rows in the opposite order, over and over: others deadlock with that."""
    ends = time.monotonic() + random.uniform(4, 6)
    with world.connect() as connection:
        connection.execute("SET lock_timeout = '2s'")
        while time.monotonic() < ends:
            with contextlib.suppress(psycopg.OperationalError), connection.transaction():
                rows = connection.execute(
                    "SELECT id FROM jobs WHERE lease_until IS NOT NULL OR due_at IS NOT NULL"
                    " ORDER BY id DESC LIMIT 50"
                ).fetchall()
                for row in rows:
                    connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", row)
            world.fleet.wait(0.02)


def leave_dead_rows(world: World, random: Random) -> None:
    """Somebody inserts many rows and rolls back: the table and its indexes are full of what nobody
    sees."""
    _leave_dead_rows(world, _DEAD_ROWS)
    world.fleet.wait(random.uniform(1, 3))


def leave_ten_million_dead_rows(world: World, random: Random) -> None:
    """Somebody does so with ten million rows, which takes minutes."""
    with ThreadPoolExecutor(1) as pool:
        inserting = pool.submit(_leave_dead_rows, world, _A_GREAT_MANY)
        world.fleet.until(inserting.done, what="the rows are inserted", timeout_s=_LONGEST_S)
        inserting.result()
    with world.connect() as connection:
        row = connection.execute("SELECT pg_relation_size('unadmitted')").fetchone()
    if row is None or row[0] < _A_GREAT_MANY * _DEAD_ROW_BYTES:
        raise NotStruck("the table has not grown")
    world.fleet.wait(random.uniform(1, 3))


def _leave_dead_rows(world: World, count: int) -> None:
    with (
        world.connect() as connection,
        connection.transaction(force_rollback=True),
    ):
        connection.execute(
            """
                INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                        queue, hint_at)
                SELECT gen_random_uuid(), 'nobody', number::text, 'no.such', 'x', now(), 'events',
                       now()
                FROM generate_series(1, %s) AS number
                """,
            [count],
        )


def rewrite_tables(world: World, random: Random) -> None:
    """VACUUM FULL of the hot tables, which keeps everybody else out."""
    _maintain(world, "VACUUM FULL {table}")


def reindex(world: World, random: Random) -> None:
    """REINDEX of the hot tables, which keeps writers out."""
    _maintain(world, "REINDEX TABLE {table}")


def freeze_rows(world: World, random: Random) -> None:
    """A vacuum of everything that freezes all rows, as PostgreSQL does by itself one day."""
    with world.connect() as connection:
        connection.execute("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING)")


def forget_statistics(world: World, random: Random) -> None:
    """The planner knows nothing, as after an upgrade of PostgreSQL; later it does again."""
    with world.connect() as connection:
        try:
            connection.execute("DELETE FROM pg_catalog.pg_statistic")
            world.fleet.wait(random.uniform(4, 7))
        finally:
            connection.execute("ANALYZE")


def freeze_checkpointer(world: World, random: Random) -> None:
    """SIGSTOP what writes in the background; sessions must do it themselves."""
    with world.connect() as connection:
        pids = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type IN ('checkpointer', 'background writer', 'walwriter')"
        ).fetchall()
    with processes.stopped([pid for (pid,) in pids]):
        world.fleet.wait(random.uniform(5, 8))


def kill_backend(world: World, random: Random) -> None:
    """SIGKILL one session's process: the server ends all sessions and recovers."""
    with world.connect() as connection:
        pids = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    sessions = {pid for (pid,) in pids} & set(children_of(world.postgres.pid))
    if not sessions:
        raise NotStruck("there was no session")
    send(random.choice(sorted(sessions)), SIGKILL)


def _maintain(world: World, command: str) -> None:
    """A lock that is not got in time is tried for again, as an operator would."""

    def is_done(table: str) -> bool:
        try:
            with world.connect() as connection:
                connection.execute("SET lock_timeout = '2s'")
                connection.execute(command.format(table=table).encode())
        except (LockNotAvailable, DeadlockDetected):
            return False
        return True

    for table in _HOT:
        world.fleet.until(lambda: is_done(table), what=f"{table} is done", timeout_s=_BACK_S)  # noqa: B023


@contextlib.contextmanager
def _settings(world: World, **settings: str) -> Iterator[None]:
    """Change the server's settings, for all sessions, and back."""
    try:
        with _administrator(world) as execute:
            for name, value in settings.items():
                execute(f"ALTER SYSTEM SET {name} = '{value}'")
            execute("SELECT pg_reload_conf()")
        yield
    finally:
        world.fleet.until(
            lambda: _are_reset(world, settings), what="the settings are back", timeout_s=_BACK_S
        )


def _are_reset(world: World, names: Iterable[str]) -> bool:
    try:
        with _administrator(world) as execute:
            for name in names:
                execute(f"ALTER SYSTEM RESET {name}")
            execute("SELECT pg_reload_conf()")
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def _administrator(world: World) -> Iterator[Callable[[str], object]]:
    with world.connect() as connection:
        connection.execute("SET default_transaction_read_only = off")
        yield lambda command: connection.execute(command.encode())
