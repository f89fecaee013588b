"""The relay's process: sweeps, maintains and reports until it is stopped."""

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date

from sqlalchemy.exc import SQLAlchemyError

from ingest import logs
from ingest.alerts import watch as alerts
from ingest.errors import DispatchFailed
from ingest.heartbeat import Heartbeat, identity
from ingest.monitoring import endpoint as monitoring
from ingest.monitoring.samples import Read
from ingest.sentry import start as sentry
from ingest.settings import Settings
from ingest.store import causes
from ingest.store.engine import Role, create_engine
from workers import liveness
from workers.relay.grouping import Grouping
from workers.relay.maintenance import DailyMaintenance, MinuteTasks
from workers.relay.measurement import Measurement
from workers.relay.retention import Retention
from workers.relay.sweep import Relay
from workers.relay.sweep_counts import SweepCounts
from workers.tracing import base as tracing

log = logs.logger(__name__)


def run(settings: Settings, stop: threading.Event, *, today: Callable[[], date]) -> None:
    """Sweep until `stop` is set, also while PostgreSQL or Redis is away.

    Args:
        settings: of this process.
        stop: set from a signal handler.
        today: returns the date in UTC.

    Raises:
        SettingsError: an address is missing, the file of the alerts cannot be used, or traces
            or reports cannot be made.
    """
    configuration = alerts.load(settings)
    engine = create_engine(settings.database, role=Role.RELAY)
    traces = tracing.traces(settings, "relay")
    dispatcher = traces.dispatcher(settings.redis, engine)
    reports = sentry.reports(settings)
    relay = Relay(engine, dispatcher, settings, reports=reports)
    counts = SweepCounts(clock=time.time)
    retention_engine = create_engine(settings.database, role=Role.RELAY)
    retention = Retention(retention_engine, settings.ages, stop=stop, clock=time.time)
    _serve_metrics(settings, [counts.read, dispatcher.read, retention.read])
    daily, minutely = DailyMaintenance(engine, settings), MinuteTasks(engine)
    log.info("relay_started", interval_s=settings.relay_interval_s)
    process = identity("relay", random=os.urandom)
    presence = Heartbeat(settings.database, process)
    presence.start()
    retention.start()
    Grouping(create_engine(settings.database, role=Role.RELAY, pool_size=1), stop=stop).start()
    watch = alerts.Watch(settings, configuration, by=process.id)
    watch.start()
    problem: str | None = None
    while not stop.is_set():
        began = time.monotonic()
        try:
            swept = relay.sweep()
            daily.run_if_due(today(), now=time.monotonic())
            minutely.run_if_due(now=time.monotonic())
        except (DispatchFailed, SQLAlchemyError) as error:
            counts.failed()
            cause = causes.explain(error, settings.database)
            if cause.reason != problem:
                log.warning(
                    "relay_waits",
                    reason=cause.reason,
                    cause=cause.sentence,
                    exc_info=None if cause.is_known else error,
                )
            problem = cause.reason
        else:
            counts.succeeded(swept, time.monotonic() - began)
            if problem is not None:
                log.info("relay_resumes")
            problem = None
            if swept.rescued or swept.deliveries or swept.jobs:
                log.info("swept", **dataclasses.asdict(swept))
        liveness.beat(settings.heartbeat_file)
        _rest(relay, stop, settings.relay_interval_s)
    watch.stop()
    presence.leave()
    traces.close()
    reports.close()
    engine.dispose()


def _rest(relay: Relay, stop: threading.Event, seconds: float) -> None:
    """Wait for the next sweep; meanwhile wake lines when a rate allows the next start."""
    ends_at = time.monotonic() + seconds
    while (look_at := relay.look_at) is not None and look_at < ends_at:
        if stop.wait(max(0.0, look_at - time.monotonic())):
            return
        with suppress(DispatchFailed, SQLAlchemyError):  # the sweep says why
            relay.wake_limited()
    stop.wait(max(0.0, ends_at - time.monotonic()))


def _serve_metrics(settings: Settings, reads: Sequence[Read]) -> None:
    """Serve metrics if the settings name a port, and then measure what they tell. Both end with the
    process."""
    if settings.metrics_port("relay") is None:
        return
    engine = create_engine(settings.database, role=Role.RELAY)
    measurement = Measurement(engine, settings.ages, clock=time.time)
    endpoint = monitoring.endpoint(settings, "relay", [*reads, measurement.read])
    assert endpoint is not None
    measurement.start()
    endpoint.start()
