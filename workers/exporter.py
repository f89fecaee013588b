"""The process that serves a worker's metrics.

It is a fork of the worker, made before the worker's other processes, so that no thread or socket of
it is in any of them, and a slow scrape delays no job. It ends with the worker.
"""

import os

from ingest import logs
from ingest.monitoring import endpoint as monitoring
from ingest.settings import Settings
from workers import forks
from workers.counts import WorkerCounts

log = logs.logger(__name__)


def start(settings: Settings, counts: WorkerCounts) -> None:
    """Start it, if the settings name a port. Main thread only."""
    parent = os.getpid()
    endpoint = monitoring.endpoint(settings, "worker", [counts.read], pid=parent)
    if endpoint is None or os.fork():
        return
    try:
        forks.end_with(parent)
        endpoint.run()
    except Exception as bug:
        log.error("metrics_ended", exc_info=bug)
    finally:  # this process never goes on as the worker that it was forked from
        os._exit(1)
