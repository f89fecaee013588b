"""What the rules look at, read once for all of them."""

import shutil
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import redis
from sqlalchemy import Connection

from ingest.alerts import catalogue, folders
from ingest.alerts.configuration import Configuration
from ingest.redis_address import RedisAddress
from ingest.settings import Settings
from ingest.store import alerts, partitions
from ingest.store.failures import records
from ingest.store.failures.records import FailureRecord
from ingest.store.pipeline import breakers, metrics, processors, schedules
from ingest.store.pipeline.breakers import BreakerRecord
from ingest.store.pipeline.metrics import SUCCEEDED
from ingest.store.reports import alert_facts, gauges, heartbeats, possible_losses
from ingest.store.reports.alert_facts import PastHour
from ingest.store.reports.gauges import Gauges
from ingest.store.reports.heartbeats import ALIVE_FOR, ProcessRecord
from ingest.store.reports.possible_losses import PossibleLoss
from ingest.store.server_time import server_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The free space of a folder's file system."""

    free_bytes: int
    free_share: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The state of the pipeline at one moment."""

    now: datetime
    host: str
    """The machine of the process that evaluates."""
    kind: str
    """The kind of that process: one of it is alive, whatever has been reported."""
    state: Gauges
    processes: Sequence[ProcessRecord]
    partition_days: int
    """Days after today that have a partition; -1: today has none."""
    overdue: Mapping[str, datetime]
    """When each periodic processor was due of which no run has begun, though one could."""
    due: Mapping[str, datetime]
    """When each periodic processor is due, whether or not a run can begin."""
    paused: Collection[str]
    """The processors that are paused still, of those whose pause is an alert."""
    open_breakers: Mapping[str, BreakerRecord]
    """The breakers that are open, by processor."""
    attempts: Mapping[str, tuple[int, int]]
    """Failed and succeeded ones of each processor that failed, in its rule's window."""
    succeeded: Collection[str]
    """The processors that succeeded in that window."""
    refused: Mapping[str, int]
    """Requests by reason, in its rule's window."""
    stored: int
    """Requests that were stored, in the same window."""
    recent: Mapping[str, int]
    """Deliveries by key, in the window of the rule about quiet sources."""
    past_hours: Sequence[PastHour]
    keys: Mapping[str, int]
    """Deliveries by key, in the window of the rule about old keys."""
    configured_keys: Mapping[str, Sequence[str]]
    """The ids of the keys of each source that the process could receive, newest first."""
    losses: Sequence[PossibleLoss]
    unrecovered: Collection[str]
    """The sources whose losses nobody has recovered, those that are no longer told included."""
    returned_failures: Sequence[FailureRecord]
    """Those that came back by themselves, and that nobody has reacted to."""
    disks: Mapping[str, Disk]
    """By path."""
    database_bytes: int | None
    """None: nobody asks."""
    redis_answers: bool
    waiting_channels: Mapping[str, datetime]
    """When the oldest message that waits for a channel was written."""
    channels: Collection[str]
    """Those that are configured."""
    taking_channels: Collection[str]
    """Those that took the last message that does not wait for them."""

    @property
    def has_secrets(self) -> bool:
        """Return whether the process that evaluates has those of the sources: relays need none."""
        return any(self.configured_keys.values())

    def has_alive(self, kind: str) -> bool:
        """Return whether a process of a kind is alive."""
        return kind == self.kind or any(
            process.kind == kind for process in self.processes if process.alive
        )

    @property
    def is_starting(self) -> bool:
        """Return whether all processes have just started: the others may come yet."""
        started = [process.started_at for process in self.processes if process.alive]
        return bool(started) and self.now - min(started) < ALIVE_FOR

    def may_receive(self, source: str) -> bool:
        """Return whether a source is configured; without secrets, any may be."""
        return source in self.configured_keys or not self.has_secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a process knows beside the database."""

    settings: Settings
    kind: str
    """What it is: a relay, or a console that stands in."""
    configured_keys: Callable[[], Mapping[str, Sequence[str]]]
    """Returns the ids of the keys of each source that the process could receive, newest first. A
    process without secrets has none, or only sources that need none."""


def read(connection: Connection, configuration: Configuration, around: Surroundings) -> Facts:
    """Read everything. It takes some 20 ms, and up to 0.3 s with 100,000 of each kind waiting.

    Raises:
        SQLAlchemyError: PostgreSQL is away or refuses.
    """
    now = server_time(connection)
    policies = configuration.policies

    def window(slug: str) -> timedelta:
        return timedelta(seconds=policies[slug]["window_s"])

    days = partitions.days(connection)
    refused, stored = alert_facts.refusals(connection, now=now, window=window("signatures_refused"))
    quiet = window("source_quiet")
    return Facts(
        now=now,
        host=socket.gethostname(),
        kind=around.kind,
        state=gauges.read(connection),
        processes=heartbeats.all_of_them(connection),
        partition_days=(days[-1] - now.date()).days if days else -1,
        overdue=schedules.overdue(connection),
        due={
            processor: schedule.next_due_at
            for processor, schedule in schedules.records(connection).items()
        },
        paused=_paused_still(connection),
        open_breakers=breakers.open_ones(connection),
        attempts=alert_facts.attempts(connection, now=now, window=window("processor_fails")),
        succeeded=metrics.by_label(
            connection, SUCCEEDED, since=now - window("processor_fails")
        ).keys(),
        refused=refused,
        stored=stored,
        recent=alert_facts.key_uses(connection, now=now, window=quiet),
        past_hours=alert_facts.past_hours(connection, at=now - quiet / 2),
        keys=alert_facts.key_uses(connection, now=now, window=window("old_key_used")),
        configured_keys=around.configured_keys(),
        losses=possible_losses.read(connection, now=now),
        unrecovered=_unrecovered(connection, now),
        returned_failures=records.returned(connection),
        disks=_disks(folders.on_disks(around.settings, connection)),
        database_bytes=(
            alert_facts.database_bytes(connection) if policies["database_large"].enabled else None
        ),
        redis_answers=answers(around.settings.redis),
        waiting_channels=alerts.oldest_waiting(connection),
        channels=configuration.channels.keys(),
        taking_channels=alerts.taking_channels(connection),
    )


def sources_of(uses: Mapping[str, int]) -> set[str]:
    """Return the sources that delivered, from their deliveries by key."""
    return {key.partition(" ")[0] for key, deliveries in uses.items() if deliveries}


def answers(address: RedisAddress) -> bool:
    """Return whether Redis answers within its time-out."""
    client = address.connect()
    try:
        client.ping()
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()
    return True


def _paused_still(connection: Connection) -> set[str]:
    told = {
        alert.subject
        for alert in alerts.unfinished(connection)
        if alert.rule == catalogue.PROCESSOR_PAUSED.slug
    }
    return {processor for processor in told if processors.is_paused(connection, processor)}


def _unrecovered(connection: Connection, now: datetime) -> set[str]:
    # Twice the time that losses are told for: an alert is there a while longer than they are.
    losses = possible_losses.read(connection, now=now - possible_losses.WINDOW)
    return {loss.source for loss in losses}


def _disks(paths: Sequence[Path]) -> dict[str, Disk]:
    """Return the space of the folders that are here and may be looked at."""
    spaces: dict[str, Disk] = {}
    for path in paths:
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        spaces[str(path.absolute())] = Disk(
            free_bytes=usage.free, free_share=usage.free / usage.total
        )
    return spaces
