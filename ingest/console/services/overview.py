"""The overview: the traffic of the last hour, day or week, and the present state of every part."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.exc import SQLAlchemyError

from ingest import queues
from ingest.console.services import health, ranges
from ingest.console.services.health import UNKNOWN_REDIS, DatabaseHealth, RedisHealth
from ingest.console.services.ranges import Range, Window
from ingest.ids import first_id
from ingest.redis_address import RedisAddress
from ingest.store import alerts
from ingest.store.alerts import Alert
from ingest.store.pipeline import jobs, metrics, processors, unfinished
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.pipeline.metrics import (
    ANSWER,
    DUPLICATE,
    EVENT,
    FAILED,
    LAG,
    REFUSED,
    SUCCEEDED,
    Point,
)
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.pipeline.unfinished import UnfinishedJobs
from ingest.store.reports import backlog, behind, heartbeats, possible_losses, totals
from ingest.store.reports.backlog import Oldest
from ingest.store.reports.behind import Backlog
from ingest.store.reports.heartbeats import ProcessRecord
from ingest.store.reports.possible_losses import PossibleLoss
from ingest.store.reports.totals import Stats
from ingest.store.sql import statement

_REDIS_RETRY_S = 10.0
"""A Redis that does not answer is not asked again for this long."""
_CACHED_S = 2.0
"""An overview is reused for at least this long."""
_CACHED_PER_READ = 10
"""And for this many times as long as reading it took."""
MOST_ON_EACH_PAGE = 100
"""Dead letters that are counted for each page: 1,000 take up to 45 ms from the disk before a
vacuum, 100 take 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBucket:
    """What happened in one span of time. Percentiles are estimates in seconds; None: no sample."""

    begins: datetime
    accepted: int
    """Deliveries, duplicates included."""
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
    """Traffic over a range, and the present state."""

    now: datetime
    range: Range
    span_s: float
    """The length of a bucket."""
    buckets: tuple[TimeBucket, ...]
    unfinished: UnfinishedJobs
    """Jobs that are not done now."""
    is_empty: bool
    """Whether nothing is stored: no event, and no rejected delivery."""
    backlog: Backlog
    """What is behind now."""
    refused: int
    """Requests that were refused in the range."""
    measured_s: float
    """How many seconds of the range were measured: those since the first count in it."""
    parked: tuple[ParkedJobs, ...]
    """Jobs that no worker may or can take now, by processor and queue."""
    unreadable: dict[str, int]
    """How many values the read model could not read in the range, by processor and field, the most
    first."""
    possible_losses: tuple[PossibleLoss, ...]
    """What sources may have lost in the last days, whatever the range, and nobody has recovered."""
    processors: tuple[ProcessorRecord, ...]
    processes: tuple[ProcessRecord, ...]
    alerts: tuple[Alert, ...]
    """Those whose conditions hold, the first 100; some have not fired yet."""
    database: DatabaseHealth
    redis: RedisHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is counted to its end, however long that takes."""

    stats: Stats
    oldest: Oldest


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What every page shows of the present state."""

    alerts: tuple[Alert, ...]
    dead_letters: int
    """Up to one more than `MOST_ON_EACH_PAGE`."""


class OverviewCache:
    """Reads overviews, and what every page shows of the present state, and reuses them.

    One thread reads at a time, and reading takes at most a tenth of the time.
    """

    def __init__(self, engine: Engine, redis: RedisAddress, *, clock: Callable[[], float]) -> None:
        """`clock` returns Unix time in seconds."""
        self._engine = engine
        self._redis = redis
        self._clock = clock
        self._lock = threading.Lock()
        self._cached: dict[Range, tuple[Overview, float]] = {}
        self._status: tuple[Status, datetime, float] | None = None
        self._status_lock = threading.Lock()
        self._counts: tuple[Counts, datetime, float] | None = None
        self._counts_lock = threading.Lock()
        self._redis_asked_at = datetime(1970, 1, 1, tzinfo=UTC)
        self._redis_health = UNKNOWN_REDIS

    def read(self, period: Range) -> Overview:
        """Return the overview of a range, at most some seconds old.

        Raises:
            SQLAlchemyError: PostgreSQL does not answer.
        """
        with self._lock:
            return self._fresh(period) or self._read(period)

    def counts(self) -> Counts:
        """Return what no page needs, and what may take seconds to count.

        Raises:
            SQLAlchemyError: PostgreSQL does not answer.
        """
        with self._counts_lock:
            if self._counts is None or self._age_s(self._counts[1]) >= self._counts[2]:
                now, began = self._now(), time.monotonic()
                with self._engine.connect() as connection:
                    counted = Counts(
                        stats=totals.read(connection), oldest=backlog.oldest(connection)
                    )
                self._counts = (counted, now, _keep_s(began))
            return self._counts[0]

    def status(self) -> Status | None:
        """Return the present state without waiting for another reader.

        It is old while PostgreSQL does not answer, and None if it was never read.
        """
        if self._status_lock.acquire(blocking=False):
            try:
                if self._status is None or self._age_s(self._status[1]) >= self._status[2]:
                    self._status = self._read_status()
            except SQLAlchemyError:
                pass
            finally:
                self._status_lock.release()
        return None if self._status is None else self._status[0]

    def _read_status(self) -> tuple[Status, datetime, float]:
        now, began = self._now(), time.monotonic()
        with self._engine.connect() as connection:
            status = Status(
                alerts=tuple(alerts.active(connection)),
                dead_letters=unfinished.dead(connection, most=MOST_ON_EACH_PAGE + 1),
            )
        return status, now, _keep_s(began)

    def _read(self, period: Range) -> Overview:
        now = self._now()
        redis = self._ask_redis(now)
        began = time.monotonic()
        with self._engine.connect() as connection:
            overview = read(connection, period, redis, now=now)
        self._cached[period] = (overview, _keep_s(began))
        return overview

    def _fresh(self, period: Range) -> Overview | None:
        overview, keep_s = self._cached.get(period, (None, 0.0))
        if overview is not None and self._age_s(overview.now) < keep_s:
            return overview
        return None

    def _age_s(self, moment: datetime) -> float:
        return abs((self._now() - moment).total_seconds())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _ask_redis(self, now: datetime) -> RedisHealth:
        """Return Redis's health; after a failure, the same for a while, so that few pages wait."""
        if (
            self._redis_health.version is None
            and self._age_s(self._redis_asked_at) < _REDIS_RETRY_S
        ):
            return self._redis_health
        with self._engine.connect() as connection:
            names = {queues.LIVE, queues.REPLAY, *processors.queues(connection)}
        self._redis_health = health.of_redis(self._redis, sorted(names))
        self._redis_asked_at = now
        return self._redis_health


def _keep_s(began: float) -> float:
    """Return how long what was read since then is reused."""
    return max(_CACHED_S, _CACHED_PER_READ * (time.monotonic() - began))


def read(connection: Connection, period: Range, redis: RedisHealth, *, now: datetime) -> Overview:
    """Return the overview of a range that ends at `now`."""
    window = ranges.window(period, now)
    buckets, refused = _traffic(connection, window)
    counted = unfinished.read(connection)
    return Overview(
        now=now,
        range=period,
        span_s=window.span.total_seconds(),
        buckets=buckets,
        unfinished=unfinished.together(connection, counted),
        is_empty=all(connection.execute(asked).scalar_one() for asked in _LACKS),
        backlog=behind.read(connection),
        refused=refused,
        measured_s=ranges.measured_s(connection, window, now=now),
        parked=tuple(jobs.parked(connection, at_most=unfinished.MOST_PARKED)),
        unreadable=metrics.unreadable(connection, since=window.since),
        possible_losses=tuple(possible_losses.read(connection, now=now)),
        processors=tuple(processors.all_of_them(connection, counted=counted)),
        processes=tuple(heartbeats.all_of_them(connection)),
        alerts=tuple(alerts.active(connection)),
        database=health.of_database(connection),
        redis=redis,
    )


def within(connection: Connection, overview: Overview, window: Window) -> Overview:
    """Return an overview with the traffic of a part of the past. What is so now stays."""
    buckets, refused = _traffic(connection, window)
    return replace(
        overview,
        range=ranges.covering(window.since, now=overview.now),
        span_s=window.span.total_seconds(),
        buckets=buckets,
        refused=refused,
        measured_s=(window.until - window.since).total_seconds(),
        unreadable={},
    )


def _traffic(connection: Connection, window: Window) -> tuple[tuple[TimeBucket, ...], int]:
    """Return what happened in each span of a window, and how many requests were refused in it."""
    since, until, span = window.since, window.until, window.span
    points = metrics.over_time(
        connection,
        since=since,
        until=until,
        span=span,
        counted=(EVENT, DUPLICATE, SUCCEEDED, FAILED, REFUSED),
        timed=(LAG, ANSWER),
    )
    unadmitted = _count_by_bucket(connection, _UNADMITTED, since, span)
    rejected = _count_by_bucket(connection, _REJECTED, since, span)
    buckets = tuple(
        _bucket(
            point,
            rejected=rejected.get(point.begins, 0),
            unadmitted=unadmitted.get(point.begins, 0),
        )
        for point in points
    )
    return buckets, sum(point.count(REFUSED) for point in points)


def _bucket(point: Point, *, rejected: int, unadmitted: int) -> TimeBucket:
    lag = point.histograms.get(LAG, Histogram())
    answer = point.histograms.get(ANSWER, Histogram())
    duplicates = point.count(DUPLICATE)
    return TimeBucket(
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


def _count_by_bucket(
    connection: Connection, counting: TextClause, since: datetime, span: timedelta
) -> dict[datetime, int]:
    values = {"since": since, "span": span, "first": first_id(since)}
    rows = connection.execute(counting, values)
    return {row.begins: row.deliveries for row in rows}


# Deliveries that were accepted and not admitted yet: without workers, all of them.
_UNADMITTED = statement(
    """
    SELECT date_bin(:span, received_at, :since) AS begins, count(*) AS deliveries
    FROM ingest.unadmitted WHERE replay IS NULL AND received_at >= :since
    GROUP BY 1
    """
)
# The small index of rejected deliveries has their ids, which say when they were received.
_REJECTED = statement(
    """
    SELECT date_bin(:span, to_timestamp(
               ('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0
           ), :since) AS begins, count(*) AS deliveries
    FROM ingest.deliveries WHERE rejected IS NOT NULL AND id >= CAST(:first AS uuid)
    GROUP BY 1
    """
)
_LACKS = (
    statement("SELECT (SELECT id FROM ingest.events ORDER BY id LIMIT 1) IS NULL"),
    statement(
        "SELECT (SELECT id FROM ingest.deliveries WHERE rejected IS NOT NULL ORDER BY id LIMIT 1)"
        " IS NULL"
    ),
)
