"""The ways in which things are broken: each breaks on entering, and mends on leaving."""

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from signal import SIGCONT, SIGINT, SIGSTOP, SIGTERM

import psycopg

from ingest.store.retention import turns
from tests.monitoring.load import OLDER_SECRET
from tests.monitoring.world import PROCESSORS, WORKERS_ROLE, World
from tests.support.deliver import body, deliver
from tests.support.signing import SECRET

Strike = Callable[[World], AbstractContextManager[None]]

BUG = b"the bug"
"""A body that the plugin in `plugin/till.py` cannot bear."""
_FROZEN_S = 2.0
"""Below `flush_timeout_s`: the commit is slow, and does not fail."""
_CROWD = 32
"""Four times the console's connections."""
_BURST = 600
"""More than `IngestSourceQuiet` calls usual."""
_HOURS_OLD = 2


def stopped(*names: str) -> Strike:
    """Return what ends processes or servers, and starts them again."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        for name in names:
            member = world.member(name)
            world.fleet.hold_down(member, SIGINT if name == "postgres" else SIGTERM)
        yield
        world.start_again(*names)

    return strike


@contextmanager
def database_away_for_workers(world: World) -> Iterator[None]:
    """PostgreSQL lets the worker's role in no more."""
    with world.connect() as administrator:
        administrator.execute(f"ALTER ROLE {WORKERS_ROLE} NOLOGIN")
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            [WORKERS_ROLE],
        )
        yield
        administrator.execute(f"ALTER ROLE {WORKERS_ROLE} LOGIN")


@contextmanager
def slow_commits(world: World) -> Iterator[None]:
    """The receiver's sessions are frozen for a while, again and again, as by a slow disk."""
    with world.connect() as administrator, _repeating(lambda: _freeze(administrator)):
        yield


def _freeze(administrator: psycopg.Connection) -> None:
    sessions = administrator.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'ingest-receiver'"
    ).fetchall()
    _send(sessions, SIGSTOP)
    time.sleep(_FROZEN_S)
    _send(sessions, SIGCONT)
    time.sleep(_FROZEN_S / 10)


@contextmanager
def measuring_hangs(world: World) -> Iterator[None]:
    """The session in which the relay measures is frozen; in its others it sweeps."""
    with world.connect() as administrator:
        with world.connect() as locking, locking.transaction():
            locking.execute("LOCK TABLE ingest.totals IN ACCESS EXCLUSIVE MODE")
            sessions: list[tuple[int, ...]] = []

            def measures() -> bool:
                sessions[:] = administrator.execute(_MEASURING).fetchall()
                return bool(sessions)

            world.fleet.until(measures, what="the relay measures", timeout_s=150)
            _send(sessions, SIGSTOP)
        yield
        _send(sessions, SIGCONT)


_MEASURING = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'ingest-relay' AND wait_event_type = 'Lock'
"""


def _send(sessions: Sequence[tuple[int, ...]], number: int) -> None:
    for (pid,) in sessions:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def console_crowded(world: World) -> Iterator[None]:
    """Many ask for a list whose table is locked, so that all of the console's connections wait."""
    address = f"http://127.0.0.1:{world.ports['console']}/api/v1/bulk-actions"

    def ask(_number: int) -> None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=120):
            pass

    with world.connect() as locking, locking.transaction():
        locking.execute("LOCK TABLE ingest.replays IN ACCESS EXCLUSIVE MODE")
        with (
            ThreadPoolExecutor(_CROWD) as crowd,
            _repeating(lambda: list(crowd.map(ask, range(_CROWD)))),
        ):
            yield


@contextmanager
def _repeating(act: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread, again and again."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sent(*contents: bytes, source: str = "awalchat") -> Strike:
    """Return what sends requests that nobody should have sent. It is over by itself."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        for content in contents:
            world.load.post(content, source=source)
        yield

    return strike


@contextmanager
def signed_otherwise(world: World) -> Iterator[None]:
    """A secret was replaced at the sender alone."""
    world.load.secret = "another secret"
    yield
    world.load.secret = SECRET


@contextmanager
def clock_behind(world: World) -> Iterator[None]:
    """The sender's clock is a minute behind."""
    world.load.clock_s = -60
    yield
    world.load.clock_s = 0


@contextmanager
def older_key_used(world: World) -> Iterator[None]:
    """The sender signs with the older secret. Later it does not, and that one is retired."""
    world.load.secret = OLDER_SECRET
    yield
    world.load.secret = SECRET
    world.restart("receiver", awalchat_secrets=SECRET)


@contextmanager
def source_quiet(world: World) -> Iterator[None]:
    """A sender that sends much sends nothing more."""
    for _ in range(_BURST):
        world.load.post(world.load.new_order(), source="till")
    world.load.sources = ("awalchat",)
    yield
    world.load.sources = ("awalchat", "till")


def failing(processor: str, event_type: str, *, events: int = 1) -> Strike:
    """Return what makes a processor fail. When it does so no more, its dead letters are
    replayed."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        flag = world.flags / processor
        flag.touch()
        for _ in range(events):
            world.load.post(world.load.event(event_type))
        yield
        flag.unlink()
        world.replay_dead(processor)

    return strike


@contextmanager
def late(world: World) -> Iterator[None]:
    """A processor puts off what comes. What has come is late for another minute."""

    def send() -> None:
        world.load.post(world.load.event("contact.synced"))
        time.sleep(0.2)

    with _repeating(send):
        yield


@contextmanager
def job_old(world: World) -> Iterator[None]:
    """A job that came hours ago is put off further and further."""
    flag = world.flags / "reports"
    flag.touch()
    hours_ago = (datetime.now(UTC) - timedelta(hours=_HOURS_OLD)).timestamp()
    deliver(world.database_url, [body("report.asked", {"number": hours_ago})], now=hours_ago)
    yield
    flag.unlink()
    with world.connect() as administrator:
        administrator.execute(
            "UPDATE ingest.jobs SET next_attempt_at = now() WHERE processor = 'reports'"
            " AND next_attempt_at IS NOT NULL"
        )


@contextmanager
def processor_removed(world: World) -> Iterator[None]:
    """A deploy leaves out a processor that has a job."""
    flag = world.flags / "labels"
    flag.touch()
    world.load.post(world.load.event("label.printed"))
    with world.connect() as administrator:
        world.fleet.until(
            lambda: bool(
                administrator.execute(
                    "SELECT FROM ingest.jobs WHERE processor = 'labels' AND attempt > 0"
                ).fetchall()
            ),
            what="the job was tried",
            timeout_s=120,
        )
    world.restart("worker", processors=PROCESSORS)
    yield
    flag.unlink()
    world.restart("worker")


@contextmanager
def processor_paused(world: World) -> Iterator[None]:
    """An operator pauses a processor, and forgets it."""
    world.ask_console("/processors/invoices/pause", b"{}")
    world.load.post(world.load.event("invoice.made"))
    yield
    world.ask_console("/processors/invoices/resume", b"{}")


@contextmanager
def partitions_missing(world: World) -> Iterator[None]:
    """Somebody drops the partitions of the coming days."""
    world.drop_partitions()
    yield
    world.ensure_partitions()


@contextmanager
def retention_hangs(world: World) -> Iterator[None]:
    """Another process holds the turn of whoever removes, while there is a count of long ago."""
    old = "INSERT INTO ingest.activity VALUES (now() - interval '40 days', 'lag', '', 0, 0, 1)"
    with world.connect() as administrator, world.connect() as holder:
        holder.autocommit = False
        holder.execute(f"SELECT pg_advisory_xact_lock({turns.LOCK})")
        administrator.execute(old)
        yield
        holder.rollback()
        # The relay's next pass would do the same, within five minutes.
        administrator.execute(
            "DELETE FROM ingest.activity WHERE minute < now() - interval '30 days'"
        )


def same_id_twice(world: World) -> AbstractContextManager[None]:
    """An event comes again with other content."""
    number = next(world.load.numbers)
    return sent(
        body("order.created", {"order_id": number, "total": 1}),
        body("order.created", {"order_id": number, "total": 2}),
    )(world)
