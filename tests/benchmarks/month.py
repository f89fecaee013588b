"""Stores a month of events in a folder, once, and brings it up to now whenever it is used again."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psycopg

from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.benchmarks.world import World
from tests.support.month import DAYS, Month, around
from tests.support.month.grouped import group_failures, sum_up
from tests.support.month.numbered import BLOCK

Task = TypeVar("Task")

_FOLDER = "ingest-month"
_CHUNK = 1_000 * BLOCK
_THREADS = 2
_MADE = "month.json"
"""Written last: without it everything is stored anew."""
_HURRIED = (
    *("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off"),
    *("wal_level=minimal", "max_wal_senders=0", "max_wal_size=8GB", "checkpoint_timeout=1h"),
    *("shared_buffers=1GB", "maintenance_work_mem=1GB", "jit=off"),
)
"""For storing, which is begun anew if it is cut off."""
# They are made at the end. Ids come in their order, so those of the ids stay.
_INDEXED_LATER = (
    *("events_source_event_id_key", "events_type_id", "jobs_event_processor_key"),
    *("jobs_due", "jobs_dead", "jobs_discarded", "jobs_parked", "jobs_replayed", "jobs_leased"),
    *("messages_pkey", "messages_conversation_id", "messages_from_number_normal"),
    *("orders_conversation_id", "order_status_changes_pkey", "order_status_changes_changed_at"),
    *("whatsapp_messages_pkey", "whatsapp_messages_contact_user_id"),
    *("whatsapp_messages_contact_phone", "whatsapp_message_statuses_pkey"),
    *("past_events_pkey", "past_events_day", "duplicates_event", "duplicates_conflict"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a folder holds."""

    month: Month
    stored: int
    """Events that are there: of the month, and those that came since."""


@contextmanager
def kept(home: Path, count: int, *, settings: Sequence[str] = ()) -> Iterator[World]:
    """Yield a world whose database holds `count` events of a month and those that came since. What
    was stored in `home` before is used again, if it was as many; its schema becomes this code's."""
    folder = home / _FOLDER
    made = _read(folder / _MADE)
    if made is None or made.month.total != count:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with World(home=folder, settings=_HURRIED, keep=True) as world:
            made = _store(world, count)
        _write(folder / _MADE, made)
    with World(home=folder, settings=settings, keep=True) as world:
        _migrate(world)
        _write(folder / _MADE, _bring_up_to_now(world, made))
        yield world


def _read(file: Path) -> _Made | None:
    if not file.exists():
        return None
    fields = json.loads(file.read_text())
    return _Made(month=Month(**fields["month"]), stored=fields["stored"])


def _write(file: Path, made: _Made) -> None:
    file.write_text(json.dumps(asdict(made)))


def _store(world: World, count: int) -> _Made:
    _migrate(world)
    month = Month.until(datetime.now(UTC), count)
    made = _Made(month=month, stored=count // BLOCK * BLOCK)
    with world.connect() as connection:
        later = list(_take_indexes(connection))
    _fill(world, month, 0, made.stored)
    _say("making the indexes")
    _in_threads(world, later, lambda connection, sql: connection.execute(sql.encode()))
    with world.connect() as connection:
        month.surround(connection)
        connection.execute(around.LONG_PAST.encode())
        _say("analyzing")
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    return made


def _bring_up_to_now(world: World, made: _Made) -> _Made:
    due = made.month.number_at(datetime.now(UTC)) // BLOCK * BLOCK
    if due > made.stored:
        _fill(world, made.month, made.stored, due)
    with world.connect() as connection:
        made.month.bring_up_to_now(connection)
        group_failures(world.database_url)
        sum_up(world.database_url)
        connection.execute("VACUUM (ANALYZE) ingest.activity_sums")
        connection.execute("CHECKPOINT")
    return replace(made, stored=max(due, made.stored))


def _migrate(world: World) -> None:
    """Bring the schema to this code's, with a partition for each day of the month and the next."""
    engine = create_engine(parse(world.database_url), role=Role.MIGRATION)
    with engine.connect() as connection:
        migrations.upgrade(connection)
    with engine.begin() as connection:
        first = datetime.now(UTC).date() - timedelta(days=DAYS)
        partitions.ensure(connection, today=first, days_ahead=DAYS + 2)
    engine.dispose()


_DEFINED = """
    SELECT c.relname, t.relname, pg_get_indexdef(c.oid), k.conname, pg_get_constraintdef(k.oid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
    WHERE c.relname = ANY(%s)
"""


def _take_indexes(connection: psycopg.Connection) -> Iterator[str]:
    """Drop the indexes that are made later; yield the statements that make them."""
    for index, table, index_sql, constraint, constraint_sql in connection.execute(
        _DEFINED, [list(_INDEXED_LATER)]
    ).fetchall():
        if constraint:
            connection.execute(f"ALTER TABLE ingest.{table} DROP CONSTRAINT {constraint}".encode())
            yield f"ALTER TABLE ingest.{table} ADD CONSTRAINT {constraint} {constraint_sql}"
        else:
            connection.execute(f"DROP INDEX ingest.{index}".encode())
            yield index_sql


def _fill(world: World, month: Month, first: int, end: int) -> None:
    began = time.monotonic()

    def fill(connection: psycopg.Connection, start: int) -> None:
        month.fill(connection, start, min(start + _CHUNK, end))
        if start % (10 * _CHUNK) == 0:
            _say(f"{start:,} events, {time.monotonic() - began:.0f} s")

    _in_threads(world, range(first, end, _CHUNK), fill)


def _in_threads(
    world: World, tasks: Sequence[Task], work: Callable[[psycopg.Connection, Task], object]
) -> None:
    """Do each task on one of a few connections."""
    waiting, lock = iter(tasks), threading.Lock()

    def run() -> None:
        with world.connect() as connection:
            while True:
                with lock:
                    task = next(waiting, None)
                if task is None:
                    return
                work(connection, task)

    threads = [threading.Thread(target=run) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _say(text: str) -> None:
    sys.stderr.write(f"month: {text}\n")
