"""Whether the database answers, its version, and the durability of its commits."""

from collections.abc import Iterator

from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError
from ingest.store import causes
from ingest.store.causes import Cause
from ingest.store.sql import statement

UNUSABLE = error(
    "database_unusable",
    "Make the server accept this connection: receivers answer 503 until it does.",
)
REASONS = {
    kind.slug: kind
    for kind in (
        error("no_database", "docs/getting-started.md shows both ways."),
        error("host_not_found", "Correct the host in INGEST_DATABASE_URL, or the name service."),
        error("connection_refused", "Start the server, or correct host and port."),
        error("host_unreachable", "Look at the network between this machine and the server."),
        error("database_timeout", "Look at firewalls and at the load of the server."),
        error(
            "access_denied",
            "Correct user and password in INGEST_DATABASE_URL, or the server's pg_hba.conf.",
        ),
        error("no_such_database", "Make it (`createdb --encoding=UTF8`), then `ingest migrate`."),
        error(
            "database_not_utf8", "Make a database in UTF8 and move the data with pg_dump and psql."
        ),
        error("server_too_old", "Upgrade PostgreSQL."),
        error("tls_failed", "Correct sslmode, sslrootcert, sslcert or sslkey in the address."),
        error(
            "too_many_connections", "Raise the limit that is named, or stop what holds connections."
        ),
        error("pooler_parameter", "Change PgBouncer's configuration as the sentence says."),
        error("pooler_without_server", "Look at PgBouncer's log, and at the server behind it."),
        error("read_only", "Name the primary in INGEST_DATABASE_URL."),
    )
}
"""The kinds of findings by the reason slug of `ingest.store.causes`."""
VERSION = note("database_version")
FSYNC_OFF = error("fsync_off", "Set fsync = on: deliveries are answered 503 meanwhile.")
FULL_PAGE_WRITES_OFF = error(
    "full_page_writes_off",
    "Set full_page_writes = on: a crash of the machine can damage tables for good.",
)
SYNCHRONOUS_COMMIT_OFF = warning(
    "synchronous_commit_off",
    "ALTER ROLE … RESET synchronous_commit (or of the database, or in postgresql.conf). Our own"
    " connections turn it on; those of your application lose commits in a crash.",
)


def cause_of(problem: BaseException, setup: Setup) -> Cause:
    """Return why the database failed."""
    if isinstance(problem, SettingsError):
        return causes.explain(problem)
    return causes.explain(problem, setup.settings.database)


def reach(setup: Setup) -> Iterator[Finding]:
    """Connect as every process does, which refuses unfit servers."""
    try:
        with setup.connected() as connection:
            version = connection.execute(_VERSION).scalar_one()
    except Exception as problem:
        cause = cause_of(problem, setup)
        yield REASONS.get(cause.reason, UNUSABLE).found(cause.sentence)
    else:
        yield VERSION.found(f"The database {setup.settings.database} is PostgreSQL {version}.")


_VERSION = statement("SELECT current_setting('server_version')")
# `reset_val` is what the session began with, before our connection made its own settings.
_DURABILITY = statement(
    """
    SELECT name, reset_val FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND reset_val = 'off'
    """
)


def durability(setup: Setup) -> Iterator[Finding]:
    """Look for settings with which a crash loses commits or damages tables."""
    kinds = (FSYNC_OFF, FULL_PAGE_WRITES_OFF, SYNCHRONOUS_COMMIT_OFF)
    with setup.connected() as connection:
        off = {row.name for row in connection.execute(_DURABILITY)}
    for kind in kinds:
        name = kind.slug.removesuffix("_off")
        if name in off:
            yield kind.found(f"{name} is off in the database {setup.settings.database}.")
