"""The relay's process: sweeps, maintains and reports until it is stopped."""

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from datetime import date

from sqlalchemy.exc import SQLAlchemyError

from ingest import telemetry
from ingest.dispatch import Dispatcher
from ingest.errors import DispatchFailed
from ingest.presence import Presence, identity
from ingest.settings import Settings
from ingest.store import causes
from ingest.store.database import Role, create_engine
from workers import heartbeat
from workers.relay.maintenance import Minutely, Upkeep
from workers.relay.sweep import Relay

log = telemetry.logger(__name__)


def run(settings: Settings, stop: threading.Event, *, today: Callable[[], date]) -> None:
    """Sweep until `stop` is set, also while PostgreSQL or Redis is away.

    Args:
        settings: of this process.
        stop: set from a signal handler.
        today: returns the date in UTC.

    Raises:
        SettingsError: an address is missing.
    """
    engine = create_engine(settings.database, role=Role.RELAY)
    relay = Relay(engine, Dispatcher(settings.redis), settings)
    daily, minutely = Upkeep(engine, settings), Minutely(engine)
    log.info("relay_started", interval_s=settings.relay_interval_s)
    presence = Presence(settings.database, identity("relay", random=os.urandom))
    presence.start()
    problem: str | None = None
    while not stop.is_set():
        try:
            swept = relay.sweep()
            daily.attend(today(), now=time.monotonic())
            minutely.attend(now=time.monotonic())
        except (DispatchFailed, SQLAlchemyError) as error:
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
            if problem is not None:
                log.info("relay_resumes")
            problem = None
            if swept.rescued or swept.deliveries or swept.jobs:
                log.info("swept", **dataclasses.asdict(swept))
        heartbeat.beat(settings.heartbeat_file)
        stop.wait(settings.relay_interval_s)
    presence.leave()
    engine.dispose()
