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


class Pause(threading.Event):
    """Between two measurements. Its thread measures until the process ends; here, until `stop`, and
    then it rests for good."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop
        self.is_for_good = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._stop.is_set():
            return super().wait(0.01)
        self.is_for_good.set()
        return super().wait()


def of_measurement(engine: Any, stop: threading.Event, _patch: pytest.MonkeyPatch) -> Measurement:
    made = Measurement(engine, Ages(), clock=lambda: 0.0)
    made._pause = Pause(stop)
    return made


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
    # What it does later would be no longer in this test's hands.
    if module is measurement:
        assert part._pause.is_for_good.wait(300)
    else:
        part._thread.join(300)
        assert not part._thread.is_alive()
    assert set(lines.events) == {told}
    assert all(fields["reason"] == "internal" for _, fields in lines.kept)
    assert isinstance(lines.kept[0][1]["exc_info"], ZeroDivisionError)
