"""What the last hour, day or week looked like, and how everything is just now."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import queues
from ingest.console.services import health
from ingest.console.services.health import Database, Doorbell
from ingest.redis_address import RedisAddress
from ingest.store.pipeline import jobs, metrics, processors
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.metrics import (
    ANSWER,
    DUPLICATE,
    EVENT,
    FAILED,
    LAG,
    SUCCEEDED,
    Histogram,
    Point,
)
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import backlog, heartbeats, totals
from ingest.store.reports.heartbeats import ProcessRecord
from ingest.store.reports.totals import Stats
from ingest.store.sql import statement

LATE_AFTER = timedelta(minutes=1)
"""An unfinished job older than this is worth a look: retries apart, work takes seconds."""
_AWAY_S = 10.0
"""So long a Redis that does not answer is not asked again."""
_SHARE = 10
_KEPT_S = 2.0
"""What was read is shown again to whoever asks so soon."""


class Range(StrEnum):
    """How far an overview looks back."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


_SPANS = {
    Range.HOUR: (timedelta(hours=1), timedelta(minutes=1)),
    Range.DAY: (timedelta(days=1), timedelta(minutes=15)),
    Range.WEEK: (timedelta(days=7), timedelta(hours=2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """What happened in one span of time. Percentiles are estimates, in seconds; None: nothing
    happened."""

    begins: datetime
    accepted: int
    """Deliveries, duplicates among them."""
    duplicates: int
    rejected: int
    succeeded: int
    failed: int
    lag_p50_s: float | None
    lag_p95_s: float | None
    answer_p50_s: float | None
    answer_p95_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All of it."""

    now: datetime
    range: Range
    span_s: float
    spells: tuple[Spell, ...]
    stats: Stats
    """Counts of everything, ever."""
    oldest_unadmitted: datetime | None
    oldest_job: datetime | None
    parked: tuple[ParkedJobs, ...]
    """Jobs that no worker may or can take now, by processor and queue."""
    unreadable: dict[str, int]
    """How many values the read model could not read in the range, by processor and field, the most
    first."""
    processors: tuple[ProcessorRecord, ...]
    processes: tuple[ProcessRecord, ...]
    database: Database
    redis: Doorbell


class Overviews:
    """Reads overviews, one at a time, and at most a tenth of the time: with a great backlog,
    counting it takes long, and every page shows something of it."""

    def __init__(self, engine: Engine, redis: RedisAddress, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix time in seconds."""
        self._engine = engine
        self._redis = redis
        self._clock = clock
        self._reading = threading.Lock()
        self._kept: dict[Range, tuple[Overview, float]] = {}
        never = datetime(1970, 1, 1, tzinfo=UTC)
        self._asked = (never, Doorbell(version=None, answers_in_s=None, waiting={}))

    def read(self, wanted: Range) -> Overview:
        """The overview of a range, as it was at most some seconds ago.

        Raises:
            SQLAlchemyError: PostgreSQL does not answer.
        """
        with self._reading:
            return self._fresh(wanted) or self._read(wanted)

    def newest(self) -> Overview | None:
        """That of the last hour, however old if it cannot be read just now; None: it never could.
        Waits for nobody else."""
        if not self._reading.acquire(blocking=False):
            return self._last(Range.HOUR)
        try:
            return self._fresh(Range.HOUR) or self._read(Range.HOUR)
        except SQLAlchemyError:
            return self._last(Range.HOUR)
        finally:
            self._reading.release()

    def _read(self, wanted: Range) -> Overview:
        now = self._now()
        redis = self._doorbell(now)
        began = time.monotonic()
        with self._engine.connect() as connection:
            found = read(connection, wanted, redis, now=now)
        keep_s = max(_KEPT_S, _SHARE * (time.monotonic() - began))
        self._kept[wanted] = (found, keep_s)
        return found

    def _fresh(self, wanted: Range) -> Overview | None:
        found, keep_s = self._kept.get(wanted, (None, 0.0))
        if found is not None and abs((self._now() - found.now).total_seconds()) < keep_s:
            return found
        return None

    def _last(self, wanted: Range) -> Overview | None:
        kept = self._kept.get(wanted)
        return kept[0] if kept else None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _doorbell(self, now: datetime) -> Doorbell:
        """Redis; where it does not answer, nobody waits for it again so soon."""
        asked_at, found = self._asked
        if found.version is None and abs((now - asked_at).total_seconds()) < _AWAY_S:
            return found
        with self._engine.connect() as connection:
            lanes = {queues.LIVE, queues.REPLAY, *processors.queues(connection)}
        found = health.of_redis(self._redis, sorted(lanes))
        self._asked = (now, found)
        return found


def read(connection: Connection, wanted: Range, redis: Doorbell, *, now: datetime) -> Overview:
    """The overview of a range up to `now`."""
    length, span = _SPANS[wanted]
    until = _ceiling(now, span)
    since = until - length
    points = metrics.over_time(connection, since=since, until=until, span=span)
    unadmitted = _unadmitted(connection, since, span)
    rejected = _rejected(connection, since, span)
    oldest = backlog.oldest(connection)
    return Overview(
        now=now,
        range=wanted,
        span_s=span.total_seconds(),
        spells=tuple(
            _spell(
                point,
                rejected=rejected.get(point.begins, 0),
                unadmitted=unadmitted.get(point.begins, 0),
            )
            for point in points
        ),
        stats=totals.read(connection),
        oldest_unadmitted=oldest.unadmitted,
        oldest_job=oldest.job,
        parked=tuple(jobs.parked(connection)),
        unreadable=metrics.unreadable(connection, since=since),
        processors=tuple(processors.all_of_them(connection)),
        processes=tuple(heartbeats.all_of_them(connection)),
        database=health.of_database(connection),
        redis=redis,
    )


def _spell(point: Point, *, rejected: int, unadmitted: int) -> Spell:
    lag = point.histograms.get(LAG, Histogram())
    answer = point.histograms.get(ANSWER, Histogram())
    duplicates = point.count(DUPLICATE)
    return Spell(
        begins=point.begins,
        accepted=point.count(EVENT) + duplicates + unadmitted,
        duplicates=duplicates,
        rejected=rejected,
        succeeded=point.count(SUCCEEDED),
        failed=point.count(FAILED),
        lag_p50_s=lag.percentile(0.5),
        lag_p95_s=lag.percentile(0.95),
        answer_p50_s=answer.percentile(0.5),
        answer_p95_s=answer.percentile(0.95),
    )


def _rejected(connection: Connection, since: datetime, span: timedelta) -> dict[datetime, int]:
    rows = connection.execute(_REJECTED, {"since": since, "span": span})
    return {row.begins: row.deliveries for row in rows}


def _unadmitted(connection: Connection, since: datetime, span: timedelta) -> dict[datetime, int]:
    """What was accepted and nobody has admitted yet: with the workers away, all of it."""
    rows = connection.execute(_UNADMITTED, {"since": since, "span": span})
    return {row.begins: row.deliveries for row in rows}


def _ceiling(moment: datetime, span: timedelta) -> datetime:
    """The next whole `span`, counted from midnight UTC of some Monday."""
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    return moment + (monday - moment) % span


_UNADMITTED = statement(
    """
    SELECT date_bin(:span, received_at, :since) AS begins, count(*) AS deliveries
    FROM ingest.unadmitted WHERE replay IS NULL AND received_at >= :since
    GROUP BY 1
    """
)
# By the small index of what was rejected.
_REJECTED = statement(
    """
    SELECT date_bin(:span, received_at, :since) AS begins, count(*) AS deliveries
    FROM ingest.deliveries WHERE rejected IS NOT NULL AND received_at >= :since
    GROUP BY 1
    """
)
