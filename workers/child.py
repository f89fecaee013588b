"""A child process of the Celery worker: its start, its work and its end."""

import os
import random
import threading
import time
from collections.abc import Sequence
from uuid import UUID

from ingest import logs
from ingest.heartbeat import identity
from ingest.monitoring import catalogue
from ingest.sentry import start as sentry
from ingest.settings import Settings
from workers import forks, process_state
from workers.counts import WorkerCounts
from workers.recovery import rescue
from workers.registry import Registry
from workers.retry import RetryPolicy
from workers.shutdown import Shutdown
from workers.timeouts.signals import Alarm
from workers.tracing import base as tracing
from workers.wiring import HARD_LIMIT_GRACE_S, Worker, build_worker

_LOOK_S = 0.25

log = logs.logger(__name__)


class Child:
    """Owns the worker's parts. They are built after the fork, since a connection does not survive
    one."""

    def __init__(
        self,
        settings: Settings,
        processors: Registry,
        consumed: tuple[str, ...],
        counts: WorkerCounts | None = None,
    ) -> None:
        """Serve the queues `consumed`, and add to `counts`."""
        self._settings = settings
        self._processors = processors
        self._consumed = consumed
        self._counts = counts
        self._worker: Worker | None = None
        self._parent = os.getpid()  # the pool forks this process later

    def start(self, **_signal: object) -> None:
        """Build and start the worker's parts. Called by Celery's signal, where Celery would log an
        error and go on without the parts.

        Raises:
            SystemExit: the parts could not be built.
        """
        try:
            self._start()
        except Exception as error:
            log.exception("child_not_started")
            raise SystemExit(1) from error

    def process(self, deliveries: Sequence[UUID], job_ids: Sequence[int]) -> None:
        """Do what one message asks for (see `TaskHandler.process`)."""
        if self._worker is None:
            raise RuntimeError("the child process has not started")
        self._worker.task.process(deliveries, job_ids)

    def count_failure(self) -> None:
        """Count a message that was given up."""
        if self._worker is not None:
            self._worker.tally.add(catalogue.TASK_FAILURES)

    def stop(self, **_signal: object) -> None:
        """End what the child has started. Called by Celery's signal."""
        if self._worker is not None:
            self._worker.heartbeat.leave()
        process_state.end_children()
        if self._worker is not None:
            self._worker.close()

    def _start(self) -> None:
        # A process group that is told to end tells its children too. Their parent ends them, when
        # what they run is done.
        process_state.allow_children()
        shutdown = Shutdown(drain_s=self._settings.worker_drain_s, clock=time.monotonic)
        alarm = Alarm(grace_s=HARD_LIMIT_GRACE_S, shutdown=shutdown)
        alarm.install()
        self._worker = worker = build_worker(
            self._settings,
            self._processors,
            process=identity(
                "worker",
                random=os.urandom,
                queues=self._consumed,
                processors=tuple(processor.name for processor in self._processors),
            ),
            time_limit=alarm,
            clock=time.monotonic,
            shutdown=shutdown,
            random=random.uniform,
            tally=self._counts.take() if self._counts else None,
            traces=tracing.traces(self._settings, "worker"),
            reports=sentry.reports(self._settings),
        )
        worker.heartbeat.start()
        # In a thread: Celery kills a child that is not up within 4 seconds, and PostgreSQL may
        # be away.
        threading.Thread(target=self._rescue, args=(worker,), daemon=True).start()
        threading.Thread(target=self._end_with_parent, args=(worker,), daemon=True).start()

    def _end_with_parent(self, worker: Worker) -> None:
        """End this process when its parent was killed, once it holds no job: nobody gives it
        further ones. Its pipe does not tell, while its siblings hold the other end too."""
        forks.wait_for_end(self._parent)
        pause = threading.Event()  # never set
        while worker.leases.is_holding:
            pause.wait(_LOOK_S)
        log.warning("parent_lost")
        try:
            self.stop()
        finally:
            os._exit(1)

    def _rescue(self, worker: Worker) -> None:
        """Record what the dead processes of this machine were running."""
        rules = RetryPolicy(
            base_s=self._settings.retry_base_s, cap_s=self._settings.retry_max_delay_s
        )
        try:
            recovered = rescue.recover_crashed(
                worker.engine,
                worker.folder,
                rules,
                random=random.uniform,
                reports=worker.reports,
            )
            worker.tally.add(catalogue.CRASHED_JOBS, recovered)
        except Exception as error:  # the leases end, or the next child tries again
            log.warning("wrecks_not_recorded", exc_info=error)
