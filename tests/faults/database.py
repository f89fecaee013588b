"""Breaking PostgreSQL."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import psycopg
from sqlalchemy.exc import OperationalError

from ingest.store import migrations
from tests.faults import processes
from tests.faults.world import World
from tests.support.fleet import children_of


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
