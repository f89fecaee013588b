"""The partitions of deliveries: those of the coming days, and those that should be gone."""

from collections.abc import Iterator
from datetime import UTC, date, timedelta

from ingest.doctor.findings import Finding, listed, warning
from ingest.doctor.setup import Setup
from ingest.store import partitions
from ingest.store.sql import statement

MISSING = warning(
    "partition_missing",
    "Start a relay, which makes them; `ingest migrate` does too. Nothing is lost: meanwhile"
    " deliveries go to the default partition.",
)
OVERDUE = warning(
    "partition_overdue",
    "Start a relay, which drops them. A day with unfinished work is kept (`ingest stats`).",
)
DEFAULT_IN_USE = warning(
    "default_partition_in_use",
    "Run `ingest migrate` or a relay, for the days to come. A day with more than"
    f" {partitions.STRAYS_AT_ONCE} there stays, and past days: their bodies go at the age of all"
    " bodies. For days far away look at the clocks.",
)

_SHOWN = 3
_STRAYS = statement("SELECT EXISTS (SELECT FROM ingest.deliveries_default)")


def check(setup: Setup) -> Iterator[Finding]:
    """Compare the partitions with the days that the settings ask for."""
    today = setup.clock().astimezone(UTC).date()
    days_ahead = setup.settings.partition_days_ahead
    with setup.connected() as connection:
        existing = partitions.days(connection)
        has_strays = connection.execute(_STRAYS).scalar_one()
        stray_days = partitions.stray_days(connection, before=today + timedelta(days=days_ahead))
    # The relay makes the last day only in the course of today.
    coming = (today + timedelta(days=ahead) for ahead in range(days_ahead))
    missing = [day for day in coming if day not in existing and day not in stray_days]
    if missing:
        yield MISSING.found(f"There is no partition for the deliveries of {_days(missing)}.")
    retention = setup.settings.body_retention_days
    kept = date.min if retention is None else today - timedelta(days=retention + 1)
    overdue = [day for day in existing if day < kept]
    if overdue:
        yield OVERDUE.found(f"The bodies of {_days(overdue)} are older than {retention} days.")
    if has_strays:
        yield DEFAULT_IN_USE.found("Deliveries lie in the default partition.")


def _days(days: list[date]) -> str:
    shown = [day.isoformat() for day in days[:_SHOWN]]
    more = len(days) - len(shown)
    return listed([*shown, f"{more} days more"] if more else shown)
