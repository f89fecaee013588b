"""Whether the server takes as many connections as our processes may open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import Connection

from ingest.doctor.findings import Finding, error, note
from ingest.doctor.setup import Setup
from ingest.settings import Settings
from ingest.store.reports import heartbeats
from ingest.store.sql import statement

TOO_FEW = error(
    "connections_too_few",
    "Raise the limit that is named, run fewer processes, or put PgBouncer before the server.",
)
CONNECTIONS = note("connections")

OF_A_PROCESS = {
    "receiver": 2,  # the writer's, and the heartbeat's
    "worker": 4,  # jobs, leases, a processor's `db`, the heartbeat's; threads have one more each
    "relay": 7,  # sweeps, heartbeat, retention, failures' groups, metrics, and 2 for alerts
    "console": 13,  # ingest.console.app: 8 for pages, 2 for runners, the heartbeat's, alerts'
}
"""The connections that a process opens, at most."""
_LIMITS = statement(
    """
    SELECT CAST(current_setting('max_connections') AS integer)
               - CAST(current_setting('superuser_reserved_connections') AS integer)
               - coalesce(CAST(current_setting('reserved_connections', true) AS integer), 0)
               AS server,
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database,
           (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role,
           (SELECT count(*) FROM pg_stat_activity
            WHERE datname IS NOT NULL
              AND coalesce(application_name, '') NOT LIKE 'ingest-%') AS of_others
    """
)
_NAMES = {
    "server": "the server (max_connections)",
    "database": "the database (ALTER DATABASE … CONNECTION LIMIT)",
    "role": "the role (ALTER ROLE … CONNECTION LIMIT)",
}


_THREADS = statement("SELECT max(threads) FROM ingest.processors")


def check(setup: Setup) -> Iterator[Finding]:
    """Compare what our processes may open with the limits; those of a pooler are not known.

    The processes are those that run, and no fewer than the settings make.
    """
    with closing(setup.driver()) as driver:
        if not driver.is_direct:
            return
    with setup.connected() as connection:
        limits = connection.execute(_LIMITS).one()
        needed = _needed(connection, setup)
    rooms = {"server": limits.server - limits.of_others}
    rooms |= {"database": limits.database} if limits.database >= 0 else {}
    rooms |= {"role": limits.role} if limits.role >= 0 else {}
    short = {name: max(room, 0) for name, room in rooms.items() if room < needed}
    for name, room in short.items():
        yield TOO_FEW.found(
            f"Our processes may open {needed} connections, and {_NAMES[name]} has room for {room}."
        )
    if not short:
        yield CONNECTIONS.found(
            f"Our processes may open {needed} connections; the server has room for"
            f" {rooms['server']}."
        )


def _needed(connection: Connection, setup: Setup) -> int:
    alive = Counter(process.kind for process in heartbeats.all_of_them(connection) if process.alive)
    least = dict.fromkeys(OF_A_PROCESS, 1) | {"worker": _workers(setup.settings)}
    threads = connection.execute(_THREADS).scalar() or 1
    per_process = OF_A_PROCESS | (
        {"worker": OF_A_PROCESS["worker"] + threads} if threads > 1 else {}
    )
    return sum(max(alive[kind], number) * per_process[kind] for kind, number in least.items())


def _workers(settings: Settings) -> int:
    """Return how many processes `ingest worker` starts."""
    return sum(settings.worker_processes.values()) or settings.concurrency
