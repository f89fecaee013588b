"""Breaking PostgreSQL."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import psycopg
from sqlalchemy.exc import OperationalError

from ingest.local import postgres
from ingest.local.process import Program
from ingest.store import migrations
from tests.faults import processes
from tests.faults.strike import NotStruck
from tests.faults.world import World
from tests.support.fleet import NotInTime, children_of

_LEFT = 20_000_000
"""Transaction ids that are left. Below 40 million each statement that takes one warns, and below 3
million none gets one (PostgreSQL 18, "Preventing Transaction ID Wraparound Failures")."""
_IDS, _IDS_OF_A_FILE = 2**31, 2**20
_FILE_BYTES = 262_144
_FROZEN_WITHIN_S = 1_800


def kill(world: World, random: Random) -> None:
    """SIGKILL the postmaster; it recovers from its log."""
    world.fleet.hold_down(world.postgres, signal.SIGKILL)
    world.fleet.bring_back(world.postgres)
    await_database(world)


def stop_for(seconds: float) -> Callable[[World, Random], None]:
    """Stop it, and start it again after some seconds."""

    def stop(world: World, random: Random) -> None:
        world.fleet.hold_down(world.postgres, signal.SIGINT)
        began = time.time()
        world.fleet.wait(seconds)
        world.windows.append((began, time.time()))
        world.fleet.bring_back(world.postgres)
        await_database(world)

    return stop


def freeze(world: World, random: Random) -> None:
    """SIGSTOP every process of it: connections stay open and nothing answers."""
    with processes.stopped([world.postgres.pid, *children_of(world.postgres.pid)]):
        world.fleet.wait(random.uniform(4, 8))


def terminate_connections(world: World, random: Random) -> None:
    """End everybody's connections, again and again: in statements, around commits."""
    ends = time.monotonic() + 4
    with world.connect() as connection:
        while time.monotonic() < ends:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                " AND (state <> 'idle' OR random() < 0.2)"
            )
            world.fleet.wait(random.uniform(0, 0.1))


def lock_table(world: World, random: Random) -> None:
    """Hold a lock that nobody else's goes with, on a table that all need."""
    table = random.choice(("unadmitted", "jobs", "deliveries", "events"))
    with world.connect() as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        world.fleet.wait(random.uniform(2, 5))


def fill_disk(world: World, random: Random) -> None:
    """Leave no byte on its disk, for some seconds. It may go down over that, and come back."""
    assert world.disk is not None
    ballast = world.disk / "ballast"
    try:
        _fill(ballast)
        world.fleet.wait(random.uniform(4, 8))
    finally:
        ballast.unlink(missing_ok=True)
    await_database(world)


def migrate(world: World, random: Random) -> None:
    """A migration of the kind that deploys bring, under load: a column on each hot table."""
    with tempfile.TemporaryDirectory() as folder:
        scripts = Path(folder) / "migrations"
        original = migrations.config().get_main_option("script_location")
        assert original is not None
        shutil.copytree(original, scripts, ignore=shutil.ignore_patterns("__pycache__"))
        revision = f"9{random.randrange(10**6):06d}"
        with world.engine.connect() as connection:
            before = migrations.state(connection).revision
        (scripts / "versions" / f"{revision}_column.py").write_text(
            _MIGRATION.format(revision=revision, before=before, column=f"column_{revision}")
        )
        world.fleet.until(lambda: _upgraded(world, scripts), what="migrated", timeout_s=60)
        with world.engine.begin() as connection:  # this code knows only its own revisions
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{before}'")


def near_wraparound(world: World, random: Random) -> None:
    """Most transaction ids are used up, as after years in which nothing could be vacuumed."""
    with world.connect() as connection:
        row = connection.execute(
            "SELECT min(datfrozenxid::text::bigint), pg_current_xact_id()::text::bigint"
            " FROM pg_database"
        ).fetchone()
    assert row is not None
    oldest, now = row
    first = (oldest + _IDS - _LEFT) // _IDS_OF_A_FILE * _IDS_OF_A_FILE
    if now >= first - _IDS_OF_A_FILE:
        raise NotStruck("they are used up already")
    world.fleet.hold_down(world.postgres, signal.SIGINT)
    try:
        _advance_ids(world.postgres.program, first)
    finally:
        world.fleet.bring_back(world.postgres)
        await_database(world)
    with world.connect() as connection:
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    if row is None or row[0] < first:
        raise NotStruck("the next transaction id is not what it was set to")
    world.fleet.wait(random.uniform(4, 8))


def _advance_ids(program: Program, first: int) -> None:
    """Let the next transaction have the id `first`, the first of a file of their states."""
    data, runs_as = Path(program.command[2]), program.identity
    states = data / "pg_xact" / f"{first // _IDS_OF_A_FILE:04X}"
    states.write_bytes(bytes(_FILE_BYTES))
    runs_as.own(states)
    done = subprocess.run(
        [postgres.find_binaries() / "pg_resetwal", "--next-transaction-id", str(first), data],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=runs_as.enter,
        user=runs_as.uid,
        group=runs_as.gid,
        extra_groups=None if runs_as.uid is None else [],
    )
    if done.returncode != 0:
        raise NotStruck(f"pg_resetwal: {done.stderr.strip()}")


def frozen_again(world: World) -> list[str]:
    """Wait until PostgreSQL has frozen its old rows by itself, so that it has ids again."""

    def is_frozen() -> bool:
        with world.connect() as connection:
            row = connection.execute(
                "SELECT max(age(datfrozenxid)) < current_setting('autovacuum_freeze_max_age')::int"
                " FROM pg_database"
            ).fetchone()
        return row is not None and bool(row[0])

    try:
        world.fleet.until(is_frozen, what="old rows are frozen", timeout_s=_FROZEN_WITHIN_S)
    except NotInTime as error:
        return [str(error)]
    return []


def await_database(world: World) -> None:
    """Until it takes connections."""

    def answers() -> bool:
        try:
            with world.connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    world.fleet.until(answers, what="PostgreSQL is back", timeout_s=60)
    world.engine.dispose()


def _upgraded(world: World, scripts: Path) -> bool:
    """Return whether it went through. On a busy table its lock times out: it is run again."""
    try:
        with world.engine.connect() as connection:
            migrations.upgrade(connection, target=migrations.Target(scripts=scripts))
    except OperationalError:
        return False
    return True


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


_MIGRATION = """
revision = "{revision}"
down_revision = "{before}"
branch_labels = depends_on = None

from alembic import op

def upgrade():
    for table in ("deliveries", "unadmitted", "events", "jobs"):
        op.execute(f"ALTER TABLE {{table}} ADD COLUMN {column} text DEFAULT 'x'")
"""
