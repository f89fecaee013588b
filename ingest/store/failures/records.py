"""The groups of failures as they are stored: how one is read, and how they are listed."""

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store import arrays
from ingest.store.reports.failures import RAISED_AT
from ingest.store.sql import statement

LISTED = 200
"""Groups of a list, at most."""
SPAN = timedelta(minutes=5)
"""Attempts are counted by so much time."""
COUNTS_KEPT = timedelta(days=8)
"""How long these counts are kept: longer than the longest period that a page shows."""
RELEASES_SHOWN = 50


class State(enum.StrEnum):
    """What somebody has said of a group of failures."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    """Somebody looks after it."""
    RESOLVED = "resolved"
    """It is mended. If it fails again, it is open again, and an alert tells."""
    MUTED = "muted"
    """Nobody wants to see it: for ever, until a time, or until it has happened so often."""


class Sort(enum.StrEnum):
    """What a list of groups begins with."""

    JOBS = "jobs"
    """The one of which the most jobs fail now."""
    LAST_SEEN = "last_seen"
    FIRST_SEEN = "first_seen"
    ATTEMPTS = "attempts"
    """The one that most attempts have failed with, ever."""


class Key(NamedTuple):
    """What makes failures one group."""

    processor: str
    error_type: str
    place: str
    """The module and the function that the error was raised in; empty: there is no traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """A group of failures."""

    id: int
    processor: str
    error_type: str
    place: str
    state: State
    first_seen: datetime
    last_seen: datetime
    attempts: int
    """How many attempts have failed so, ever."""
    job: int
    number: int
    """The newest of these attempts, by its job and its number."""
    assigned_to: str | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None
    """Who changed the state last; None: it changed by itself, or never."""
    muted_until: datetime | None = None
    muted_to: int | None = None
    """The number of attempts at which a muted one is open again."""
    resolved_at: datetime | None = None
    """When it was resolved last, if it was not muted since."""
    resolved_in: str | None = None
    """The release that mends it; None: it is mended everywhere."""
    resolves_itself: bool = False
    """Whether it is resolved once none of its jobs fails or is to be repeated."""
    reopened_at: datetime | None = None
    """When it came back by itself; None: it did not, or somebody has reacted."""

    @property
    def key(self) -> Key:
        """Return what makes it this group."""
        return Key(self.processor, self.error_type, self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOfFailure:
    """A release of the application that had a failure."""

    release: str
    first_seen: datetime
    last_seen: datetime
    attempts: int
    """How many of its attempts failed so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody wrote about a failure."""

    id: int
    at: datetime
    by: str
    text: str


COLUMNS = """id, processor, error_type, place, state, first_seen, last_seen, attempts, job, number,
    assigned_to, changed_at, changed_by, muted_until, muted_to, resolved_at, resolved_in,
    resolves_itself, reopened_at"""


def record(row: Any) -> FailureRecord:
    """Return the group that a row of `COLUMNS` is."""
    return FailureRecord(**{**row, "state": State(row["state"])})


_ONE = statement(f"SELECT {COLUMNS} FROM ingest.failure_groups WHERE id = :id")


def one(connection: Connection, number: int) -> FailureRecord:
    """Return the group of a number.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(_ONE, {"id": number}).mappings().first()
    if row is None:
        raise missing(number)
    return record(row)


def missing(number: int) -> NotFound:
    """Return the error that there is no group of a number."""
    return NotFound(f"There is no failure {number}.", reason="no_failure")


_OF_KEYS = statement(
    f"""
    SELECT {COLUMNS} FROM ingest.failure_groups
    WHERE (processor, error_type, place) IN (
        SELECT * FROM unnest(CAST(:processors AS text[]), CAST(:error_types AS text[]),
                             CAST(:places AS text[]))
    )
    """
)


def of_keys(connection: Connection, keys: Collection[Key]) -> dict[Key, FailureRecord]:
    """Return the groups of `keys` that are recorded."""
    parameters = {
        "processors": arrays.literal(key.processor for key in keys),
        "error_types": arrays.literal(key.error_type for key in keys),
        "places": arrays.literal(key.place for key in keys),
    }
    return _by_key(connection.execute(_OF_KEYS, parameters).mappings())


_NEWEST = statement(
    f"""
    SELECT {COLUMNS} FROM ingest.failure_groups
    WHERE state = ANY(CAST(:states AS text[]))
      AND (CAST(:assigned_to AS text) IS NULL OR assigned_to = :assigned_to)
    ORDER BY last_seen DESC LIMIT :limit
    """
)


def newest(
    connection: Connection,
    states: Iterable[State],
    *,
    assigned_to: str | None = None,
    limit: int = LISTED,
) -> dict[Key, FailureRecord]:
    """Return the groups in `states` that were seen last, of one person if one is named."""
    parameters = {
        "states": arrays.literal(states),
        "assigned_to": assigned_to,
        "limit": limit,
    }
    return _by_key(connection.execute(_NEWEST, parameters).mappings())


def _by_key(rows: Iterable[Any]) -> dict[Key, FailureRecord]:
    read = map(record, rows)
    return {group.key: group for group in read}


_COUNTS = statement(
    """
    SELECT state, count(*) AS groups FROM ingest.failure_groups
    WHERE CAST(:assigned_to AS text) IS NULL OR assigned_to = :assigned_to
    GROUP BY state
    """
)


def counts(connection: Connection, *, assigned_to: str | None = None) -> dict[State, int]:
    """Return the number of groups in each state, of one person if one is named."""
    rows = connection.execute(_COUNTS, {"assigned_to": assigned_to})
    return dict.fromkeys(State, 0) | {State(row.state): row.groups for row in rows}


_RETURNED = statement(
    f"""
    SELECT {COLUMNS} FROM ingest.failure_groups
    WHERE state = 'open' AND reopened_at IS NOT NULL ORDER BY reopened_at DESC LIMIT :limit
    """
)


def returned(connection: Connection, *, limit: int = LISTED) -> list[FailureRecord]:
    """Return the groups that came back by themselves and that nobody has reacted to."""
    return list(map(record, connection.execute(_RETURNED, {"limit": limit}).mappings()))


_RELEASES = statement(
    """
    SELECT release, first_seen, last_seen, attempts FROM ingest.failure_releases
    WHERE failure = :failure ORDER BY last_seen DESC LIMIT :limit
    """
)


def releases(connection: Connection, failure: int) -> list[ReleaseOfFailure]:
    """Return the releases that had a failure, the last one first."""
    parameters = {"failure": failure, "limit": RELEASES_SHOWN}
    return [ReleaseOfFailure(**row) for row in connection.execute(_RELEASES, parameters).mappings()]


_NOTES = statement(
    """
    SELECT id, at, by, text FROM ingest.failure_notes
    WHERE failure = :failure ORDER BY id DESC LIMIT :limit
    """
)


def notes(connection: Connection, failure: int, *, limit: int = LISTED) -> list[Note]:
    """Return the notes about a failure, the newest first."""
    rows = connection.execute(_NOTES, {"failure": failure, "limit": limit}).mappings()
    return [Note(**row) for row in rows]


_TRENDS = statement(
    """
    SELECT failure, date_bin(:span, at, :since) AS begins, CAST(sum(attempts) AS bigint) AS attempts
    FROM ingest.failure_counts
    WHERE failure = ANY(CAST(:failures AS bigint[])) AND at >= :since AND at < :until
    GROUP BY 1, 2
    """
)


def trends(
    connection: Connection,
    failures: Collection[int],
    *,
    since: datetime,
    span: timedelta,
    spans: int,
) -> dict[int, tuple[int, ...]]:
    """Return how many attempts failed in the way of each of `failures`, in each of `spans` spans of
    time from `since` on. Spans shorter than `SPAN` are counted in the first of those that share
    one."""
    parameters = {
        "failures": arrays.literal(failures),
        "since": since,
        "until": since + spans * span,
        "span": span,
    }
    counted: dict[int, list[int]] = {failure: [0] * spans for failure in failures}
    for row in connection.execute(_TRENDS, parameters):
        counted[row.failure][(row.begins - since) // span] = row.attempts
    return {failure: tuple(values) for failure, values in counted.items()}


class NewestAttempt(NamedTuple):
    """The newest attempt of a group, as far as it is still kept."""

    event: UUID
    message: str | None
    traceback: str | None
    raised_at: str | None


_NEWEST_ATTEMPTS = statement(
    f"""
    SELECT asked.failure, j.event, a.error_message, a.traceback, {RAISED_AT} AS raised_at
    FROM unnest(CAST(:failures AS bigint[]), CAST(:jobs AS bigint[]), CAST(:numbers AS integer[]))
         AS asked (failure, job, number)
    JOIN ingest.attempts a ON a.job = asked.job AND a.number = asked.number
    JOIN ingest.jobs j ON j.id = asked.job
    """
)


def newest_attempts(
    connection: Connection, groups: Collection[FailureRecord]
) -> dict[int, NewestAttempt]:
    """Return the newest attempts of groups, by the groups' numbers. Those that retention has
    removed are left out."""
    parameters = {
        "failures": arrays.literal(group.id for group in groups),
        "jobs": arrays.literal(group.job for group in groups),
        "numbers": arrays.literal(group.number for group in groups),
    }
    rows = connection.execute(_NEWEST_ATTEMPTS, parameters)
    return {failure: NewestAttempt(*attempt) for failure, *attempt in rows}


_NAMES = statement(
    """
    SELECT DISTINCT assigned_to FROM ingest.failure_groups
    WHERE assigned_to IS NOT NULL ORDER BY assigned_to LIMIT 100
    """
)


def names(connection: Connection) -> list[str]:
    """Return the names that failures are assigned to."""
    return list(connection.execute(_NAMES).scalars())
