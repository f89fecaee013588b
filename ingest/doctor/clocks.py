"""The clock of this machine against the database's and the senders'."""

from collections.abc import Iterator
from datetime import timedelta
from statistics import median

from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup
from ingest.ids import received_at
from ingest.sources import registry
from ingest.store.reports import refused_requests
from ingest.store.reports.refused_requests import Refusal
from ingest.store.sql import statement

CLOCK_WRONG = error(
    "clock_wrong",
    "Run a time service (chrony, systemd-timesyncd) on both machines. Signatures are checked by the"
    " receiver's clock.",
)
CLOCK_DIFFERS = warning("clock_differs", "Run a time service (chrony, systemd-timesyncd) on both.")
CLOCK = note("clock")
DELIVERIES_IN_THE_FUTURE = warning(
    "deliveries_in_the_future",
    "Run a time service on the receivers' machines: bodies lie in the partition of another day.",
)
TIMESTAMPS_REFUSED = error(
    "timestamps_refused",
    "Run a time service on the receivers' machines; if their time is right, the sender's is wrong.",
)

_TOLERATED = timedelta(seconds=5)
_RECENT = timedelta(hours=24)
_OUTSIDE = "timestamp_outside_window"
"""The reason of a refusal, as the sources name it."""

_NOW = statement("SELECT clock_timestamp()")
# Ids begin with the time, and deliveries lie in partitions by id, so the newest is found at once.
_NEWEST = statement(
    """
    SELECT clock_timestamp() AS now,
           (SELECT id FROM ingest.deliveries ORDER BY id DESC LIMIT 1) AS newest
    """
)


def of_database(setup: Setup) -> Iterator[Finding]:
    """Compare this machine's clock with the database's."""
    with setup.connected() as connection:
        before = setup.clock()
        there = connection.execute(_NOW).scalar_one()
        here = before + (setup.clock() - before) / 2
    off = abs(here - there)
    sentence = f"This machine's clock is {_way(here - there)} the database's."
    if off >= _least_tolerance(setup):
        yield CLOCK_WRONG.found(sentence)
    elif off >= _TOLERATED:
        yield CLOCK_DIFFERS.found(sentence)
    else:
        yield CLOCK.found("This machine's clock and the database's agree.")


def of_receivers(setup: Setup) -> Iterator[Finding]:
    """Look for deliveries that were received later than now, by the database's clock."""
    with setup.connected() as connection:
        row = connection.execute(_NEWEST).one()
    if row.newest is not None and received_at(row.newest) - row.now >= _TOLERATED:
        ahead = _span(received_at(row.newest) - row.now)
        yield DELIVERIES_IN_THE_FUTURE.found(
            f"The newest delivery was received {ahead} after now by the database's clock: the clock"
            " of a receiver is ahead."
        )


def of_senders(setup: Setup) -> Iterator[Finding]:
    """Look for requests of the last day that were refused for their timestamp."""
    with setup.connected() as connection:
        samples = refused_requests.newest(connection)
    by_source: dict[str, list[Refusal]] = {}
    for refusal in samples:
        if refusal.reason == _OUTSIDE and setup.clock() - refusal.at < _RECENT:
            by_source.setdefault(refusal.source, []).append(refusal)
    for source, refusals in sorted(by_source.items()):
        offsets = [offset for refusal in refusals if (offset := _offset_s(refusal)) is not None]
        clause = ""
        if offsets:
            clause = f"; their timestamps are {_way(timedelta(seconds=median(offsets)))} our clock"
        yield TIMESTAMPS_REFUSED.found(
            f"Requests of the source {source} were refused in the last day for their timestamp,"
            f" lately {refusals[0].at.isoformat(timespec='seconds')}{clause}."
        )


def _least_tolerance(setup: Setup) -> timedelta:
    sources = registry.configured(setup.settings.sources).values()
    return timedelta(seconds=min(source.tolerance_s for source in sources))


def _offset_s(refusal: Refusal) -> float | None:
    """Return by how many seconds the request's timestamp was ahead of the receiver's clock."""
    for name, value in refusal.detail.items():
        if name.endswith("timestamp") and value.isascii() and value.isdigit() and len(value) < 12:
            return int(value) - refusal.at.timestamp()
    return None


def _way(offset: timedelta) -> str:
    """Return an offset in words: `12 s ahead of`, `3 min behind`."""
    return f"{_span(abs(offset))} {'ahead of' if offset > timedelta() else 'behind'}"


def _span(length: timedelta) -> str:
    seconds = length.total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
