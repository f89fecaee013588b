"""The parts of a worker process, as production puts them together."""

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ingest import settings
from ingest.heartbeat import identity
from ingest.store.pipeline.jobs import Lease
from workers import registry
from workers.recovery.crash_record import crash_records
from workers.registry import Registry
from workers.shutdown import Shutdown
from workers.timeouts.signals import Alarm
from workers.wiring import Worker, build_worker

NOWHERE: dict[str, Any] = {
    "database_url": "postgresql://u@127.0.0.1:1/none",
    "redis_url": "redis://127.0.0.1:1/0",
}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Worker:
    """A worker of a processor with several threads, whose servers are not there."""

    def work(event: Any, db: Any) -> None: ...

    monkeypatch.setattr(registry, "declared", [])
    registry.processor("order.created", threads=3)(work)
    loaded = settings.load(**NOWHERE)
    shutdown = Shutdown(drain_s=30, clock=time.monotonic)
    return build_worker(
        loaded,
        Registry(registry.declared, loaded),
        process=identity("worker", random=random.randbytes),
        time_limit=Alarm(grace_s=60, shutdown=shutdown),
        clock=time.monotonic,
        shutdown=shutdown,
        random=random.uniform,
        folder=tmp_path,
    )


def test_building_a_worker_needs_no_server_and_starts_no_thread(
    request: pytest.FixtureRequest,
) -> None:
    before = set(threading.enumerate())
    worker = request.getfixturevalue("worker")
    assert set(threading.enumerate()) <= before
    worker.close()


def test_a_worker_that_ends_holding_nothing_leaves_no_record(
    worker: Worker, tmp_path: Path
) -> None:
    worker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_ends_holding_a_job_leaves_its_record(worker: Worker, tmp_path: Path) -> None:
    job = Lease(id=7, attempt=1)
    with worker.leases.holding([job]):
        worker.recorder.mark_running(job)
        worker.close()
    worker.recorder.release()
    with crash_records(tmp_path) as records:
        assert [record.running for record in records] == [job]
