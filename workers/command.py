"""The command `ingest worker`: parts the queues and runs a Celery worker for each share."""

import logging
import os
import signal
import socket
from pathlib import Path
from typing import Any

from celery.signals import worker_shutting_down
from celery.utils.log import get_multiprocessing_logger

from ingest import logs, queues
from ingest.sentry import start as sentry
from ingest.settings import Settings
from ingest.tracing import start as tracing
from workers import exporter, process_state, registry, shares, shutdown
from workers.celery_app import create_app
from workers.counts import WorkerCounts
from workers.registry import Registry
from workers.shares import Share

_SPARE_ROWS = 8
"""Rows of counts for processes that begin while those that they replace still end."""

log = logs.logger(__name__)


def run(settings: Settings, *, consumed: tuple[str, ...] = ()) -> int:
    """Run a worker until SIGTERM; return its exit code.

    Args:
        settings: of this process.
        consumed: the queues to consume; default: all that the registered processors use.

    Raises:
        SettingsError: an address is missing, a module of processors cannot be imported, a
            destination lacks its secret, or traces or reports cannot be made.
    """
    tracing.check(settings)
    sentry.check(settings)
    processors = registry.load(settings)
    if any(processor.is_outside for processor in processors):
        from workers import destinations  # an HTTP client, 0.2 s of CPU: others go without

        destinations.check(processors)
    parts = shares.plan(
        consumed or processors.queues, settings.worker_processes, processes=settings.concurrency
    )
    warn_of_idle_queues(processors, consumed, settings)
    log.info(
        "worker_starting",
        processors=sorted(processor.name for processor in processors),
        processes={share.name: share.processes for share in parts},
    )
    counts = WorkerCounts(
        [processor.name for processor in processors],
        processes=_SPARE_ROWS + sum(share.processes for share in parts),
    )
    exporter.start(settings, counts)
    return shares.run(
        parts,
        lambda share, file: _work(settings, processors, share, counts, heartbeat_file=file),
        heartbeat_file=settings.heartbeat_file,
    )


def warn_of_idle_queues(
    processors: Registry, consumed: tuple[str, ...], settings: Settings
) -> None:
    """Warn of queues that a setting or an argument names and no processor here uses.

    The worker starts all the same: in a rolling deploy the setting may come before the code, or go
    after it."""
    named = {queue for group in settings.worker_processes for queue in group}
    for where, names in (("INGEST_WORKER_PROCESSES", named), ("--queues", set(consumed))):
        if idle := sorted(names - set(processors.queues)):
            log.warning(
                "queues_without_processor",
                named_in=where,
                queues=idle,
                known=processors.queues,
            )


def _work(
    settings: Settings,
    processors: Registry,
    share: Share,
    counts: WorkerCounts,
    *,
    heartbeat_file: Path | None,
) -> int:
    """Run a Celery worker for the queues of a share; return its exit code."""
    get_multiprocessing_logger().propagate = True
    logging.captureWarnings(True)
    app = create_app(
        settings, processors, share.queues, counts=counts, heartbeat_file=heartbeat_file
    )
    worker: Any = app.Worker(
        hostname=f"worker-{os.getpid()}@{socket.gethostname()}",
        pool="prefork",
        concurrency=share.processes,
        # The lanes of a queue take turns, so that none waits for another to be empty.
        queues=[lane for queue in share.queues for lane in queues.lanes(queue)],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel=settings.log_level,
        quiet=True,  # no banner: logs are one JSON line an event
    )
    signal.signal(shutdown.SIGNAL, process_state.heed_nothing)  # until a child has begun

    def tell_children(**_signal: object) -> None:
        shutdown.tell(worker.pool.info["processes"])

    worker_shutting_down.connect(tell_children)
    worker.start()
    return int(worker.exitcode or 0)
