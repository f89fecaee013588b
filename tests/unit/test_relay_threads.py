"""The relay's threads go on after whatever fails in them."""

import threading
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from ingest import heartbeat
from ingest.heartbeat import Heartbeat
from ingest.store.address import parse
from ingest.store.reports.heartbeats import ProcessIdentity
from ingest.store.retention.ages import Ages
from tests.support.lines import Lines
from tests.support.waiting import until
from workers.relay import grouping, measurement, retention
from workers.relay.grouping import Grouping
from workers.relay.measurement import Measurement
from workers.relay.retention import Retention

NOWHERE = parse("postgresql://ingest@/nowhere?host=/nowhere")


class BrokenEngine:
    """An engine that has a bug, which is no error of SQLAlchemy."""

    def __init__(self) -> None:
        self.begun = 0

    def begin(self) -> Any:
        self.begun += 1
        raise ZeroDivisionError

    connect = begin

    def dispose(self) -> None: ...


def of_grouping(engine: Any, stop: threading.Event, _patch: pytest.MonkeyPatch) -> Grouping:
    return Grouping(engine, stop=stop)


def of_retention(engine: Any, stop: threading.Event, patch: pytest.MonkeyPatch) -> Retention:
    patch.setattr(retention, "_EVERY_S", 0.01)
    ages = Ages(activity=timedelta(days=1))
    return Retention(engine, ages, stop=stop, clock=lambda: 0.0)


def of_measurement(engine: Any, stop: threading.Event, patch: pytest.MonkeyPatch) -> Measurement:
    # It measures until the process ends.
    patch.setattr(measurement, "pause_s", lambda _took_s: 86_400.0 if stop.is_set() else 0.01)
    return Measurement(engine, Ages(), clock=lambda: 0.0)


def of_presence(engine: Any, stop: threading.Event, patch: pytest.MonkeyPatch) -> Heartbeat:
    patch.setattr(heartbeat, "INTERVAL_S", 0.01)
    patch.setattr(heartbeat, "create_engine", lambda *_, **__: engine)
    process = ProcessIdentity(id="r", kind="relay", host="h", pid=1, version="1")
    presence = Heartbeat(NOWHERE, process)
    presence._ends = stop
    return presence


@pytest.mark.parametrize(
    ("module", "make", "told"),
    [
        (grouping, of_grouping, "grouping_waits"),
        (retention, of_retention, "retention_waits"),
        (measurement, of_measurement, "measurement_waits"),
        (heartbeat, of_presence, "presence_not_reported"),
    ],
    ids=["grouping", "retention", "measurement", "presence"],
)
def test_a_thread_goes_on_after_a_bug_and_tells_it(
    module: ModuleType,
    make: Callable[[Any, threading.Event, pytest.MonkeyPatch], Any],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = Lines()
    monkeypatch.setattr(module, "log", lines)
    monkeypatch.setattr(grouping, "_EVERY_S", 0.01)
    engine, stop = BrokenEngine(), threading.Event()
    part = make(engine, stop, monkeypatch)
    part.start()
    try:
        until(lambda: engine.begun >= 3, what="it has tried again")
    finally:
        stop.set()
    if module is not measurement:
        part._thread.join(300)
    assert set(lines.events) == {told}
    assert all(fields["reason"] == "internal" for _, fields in lines.kept)
    assert isinstance(lines.kept[0][1]["exc_info"], ZeroDivisionError)
