"""The Celery application of a worker: the distributor, and nothing more.

Redis only says that there is work. Retries, time limits, results and rescue are PostgreSQL's and
ours, so everything of Celery's that would hold state is off.
"""

import logging
import os
import random
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from celery.utils.log import get_multiprocessing_logger
from sqlalchemy import Connection, Engine

from ingest import broker, logs, queues
from ingest.dispatch import Dispatcher
from ingest.heartbeat import Heartbeat, identity
from ingest.settings import Settings
from ingest.sources.registry import configured
from ingest.store import causes
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline.processors import Registered, register
from workers import guard, liveness, process_state, registry, shares
from workers.batches import BatchRunner, Recorder
from workers.executor import Executor
from workers.recovery import rescue
from workers.recovery.crash_record import CrashRecorder, folder_for
from workers.recovery.leases import LeaseKeeper
from workers.registry import Registry
from workers.retry import RetryPolicy
from workers.shares import Share
from workers.task import TaskHandler
from workers.timeouts.signals import Alarm, TimeLimit
from workers.timeouts.threads import Threads

HARD_LIMIT_GRACE_S = 5.0

log = logs.logger(__name__)


def run(settings: Settings, *, consumed: tuple[str, ...] = ()) -> int:
    """Run a worker until SIGTERM; returns its exit code.

    Args:
        settings: of this process.
        consumed: the queues to consume; default: all that the registered processors use.

    Raises:
        SettingsError: an address is missing, or a module of processors cannot be imported.
    """
    processors = registry.load(settings)
    parts = shares.plan(
        consumed or processors.queues, settings.worker_processes, processes=settings.concurrency
    )
    _tell_idle_queues(processors, consumed, settings)
    log.info(
        "worker_starting",
        processors=sorted(each.name for each in processors),
        processes={share.name: share.processes for share in parts},
    )
    return shares.run(
        parts,
        lambda share, file: _work(settings, processors, share, heartbeat_file=file),
        heartbeat_file=settings.heartbeat_file,
    )


def _tell_idle_queues(processors: Registry, consumed: tuple[str, ...], settings: Settings) -> None:
    """Warn of queues that somebody names and no processor here uses.

    No reason not to start: in a rolling deploy the setting may come before the code, or go after
    it."""
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
    settings: Settings, processors: Registry, share: Share, *, heartbeat_file: Path | None
) -> int:
    """Run a Celery worker for the queues of a share; returns its exit code."""
    get_multiprocessing_logger().propagate = True
    logging.captureWarnings(True)
    app = create_app(settings, processors, share.queues, heartbeat_file=heartbeat_file)
    worker: Any = app.Worker(
        hostname=f"worker-{os.getpid()}@{socket.gethostname()}",
        pool="prefork",
        concurrency=share.processes,
        queues=[lane for queue in share.queues for lane in _lanes(queue)],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel=settings.log_level,
        quiet=True,  # no banner: logs are one JSON line an event
    )
    worker.start()
    return int(worker.exitcode or 0)


def _lanes(queue: str) -> tuple[str, str]:
    """By turns, so that neither waits for the other to be empty."""
    return (queue, queues.overdue(queue))


def create_app(
    settings: Settings,
    processors: Registry,
    consumed: tuple[str, ...] = (),
    *,
    heartbeat_file: Path | None = None,
) -> Celery:
    """A Celery application with the one task. Nothing connects before a child process starts.

    `consumed` are the queues that its worker consumes; default: all that the processors use."""
    app = Celery("workers", set_as_current=False)
    configure(app, settings)
    liveness.install(app, heartbeat_file)
    child = _Child(settings, processors, consumed or processors.queues)
    setup_logging.connect(_keep_logging, weak=False)
    worker_process_init.connect(child.start, weak=False)
    worker_process_shutdown.connect(child.stop, weak=False)

    @app.task(name=queues.TASK)  # type: ignore[untyped-decorator]
    def process(deliveries: list[str], job_ids: list[int]) -> None:
        try:
            child.work.process([UUID(each) for each in deliveries], job_ids)
        except Exception as error:
            # PostgreSQL away, most likely. What was claimed is rescued, what was not is hinted
            # again.
            cause = causes.explain(error, settings.database)
            log.error(
                "task_failed",
                reason=cause.reason,
                cause=cause.sentence,
                deliveries=len(deliveries),
                jobs=len(job_ids),
                exc_info=None if cause.is_known else error,
            )

    return app


def configure(app: Celery, settings: Settings) -> None:
    """Every option that is not Celery's default, with its reason."""
    broker.configure(
        app,
        settings.redis,
        # Acknowledgements are counted here and not in Redis. There they fail when it goes away, and
        # a worker whose messages all stay unacknowledged never fetches another (seen with kombu
        # 5.7.0). What a killed worker had fetched, the relay hints again.
        ack_emulation=False,
        socket_timeout=5,
        socket_connect_timeout=2,
        health_check_interval=10,
    )
    app.conf.update(
        # Outcomes are rows. Events and remote control cost half the throughput and leak keys.
        result_backend=None,
        task_ignore_result=True,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_enable_remote_control=False,
        # A message counts against the prefetch limit until its work is done, so that what a busy
        # worker cannot begin stays in Redis for another.
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # no limit on repeats: a poison event would loop
        worker_prefetch_multiplier=1,
        # A blip of Redis must not end a transaction in PostgreSQL.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_default_queue=queues.LIVE,
        task_serializer="json",
        accept_content=["json"],
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Leaks are a user's processor's; a child is replaced before they matter.
        worker_max_memory_per_child=512 * 1024,
    )


class _Child:
    """What a child process owns; made after the fork, since connections do not survive one."""

    def __init__(self, settings: Settings, processors: Registry, consumed: tuple[str, ...]) -> None:
        self._settings = settings
        self._processors = processors
        self._consumed = consumed
        self._recorder: CrashRecorder | None = None
        self._keeper: LeaseKeeper | None = None
        self._presence: Heartbeat | None = None
        self.work: TaskHandler

    def start(self, **_signal: object) -> None:
        """Connected to the child's start, where Celery would log our error and go on without us."""
        try:
            self._start()
        except Exception as error:
            log.exception("child_not_started")
            raise SystemExit(1) from error

    def _start(self) -> None:
        settings = self._settings
        # A process group that is told to end tells its children too; it is their parent who ends
        # them, when what they run is done.
        process_state.allow_children()
        engine = create_engine(settings.database, role=Role.WORKER)
        aside = create_engine(settings.database, role=Role.WORKER)
        folder = folder_for(settings.database)
        # Like no other before or after it: a dead process's jobs are found by its name.
        process = identity(
            "worker",
            random=os.urandom,
            queues=self._consumed,
            processors=tuple(each.name for each in self._processors),
        )
        self._recorder = CrashRecorder(folder, process.id)
        self._presence = Heartbeat(settings.database, process, introduce=self._register)
        self._presence.start()
        # From a thread: Celery kills a child that is not up within 4 seconds, and PostgreSQL may
        # be away.
        threading.Thread(target=self._rescue, args=(aside, folder), daemon=True).start()
        alarm = Alarm(grace_s=HARD_LIMIT_GRACE_S)
        alarm.install()
        self._keeper = keeper = LeaseKeeper(aside, lease_s=settings.lease_s)
        executor = Executor(
            engine,
            self._slices(self._recorder, alarm),
            worker=process.id,
            lease_s=settings.lease_s,
            keeper=keeper,
            clock=time.monotonic,
            threads=self._threads(self._recorder, keeper),
        )
        self.work = TaskHandler(
            engine,
            self._processors,
            executor,
            Dispatcher(settings.redis),
            budget_s=settings.task_budget_s,
            redispatch_after_s=settings.redispatch_after_s,
            clock=time.monotonic,
        )

    def _slices(
        self, recorder: Recorder, time_limit: TimeLimit, *, connections: int = 1
    ) -> BatchRunner:
        return BatchRunner(
            engine=guard.create_engine(self._settings.database, pool_size=connections),
            sources=configured(self._settings.sources),
            recorder=recorder,
            time_limit=time_limit,
            random=random.uniform,
        )

    def _threads(self, flight: CrashRecorder, keeper: LeaseKeeper) -> Threads | None:
        most = max((each.threads for each in self._processors), default=1)
        if most == 1:
            return None
        return Threads(
            partial(self._slices, connections=most),
            keeper,
            flight,
            most=most,
            grace_s=HARD_LIMIT_GRACE_S,
        )

    def _register(self, connection: Connection) -> None:
        """Which processors this worker has."""
        register(
            connection,
            [
                Registered(
                    name=each.name,
                    types=each.types,
                    queue=each.queue,
                    batch=each.batch,
                    threads=each.threads,
                    max_attempts=each.max_attempts,
                    timeout_s=each.timeout_s,
                )
                for each in self._processors
            ],
        )

    def _rescue(self, engine: Engine, folder: Path) -> None:
        rules = RetryPolicy(
            base_s=self._settings.retry_base_s, cap_s=self._settings.retry_max_delay_s
        )
        try:
            rescue.recover_crashed(engine, folder, rules, random=random.uniform)
        except Exception as error:  # the leases end, or the next child tries again
            log.warning("wrecks_not_recorded", exc_info=error)

    def stop(self, **_signal: object) -> None:
        """Connected to the child's end. What it still holds, the record must go on telling."""
        if self._presence is not None:
            self._presence.leave()
        process_state.end_children()
        if self._recorder is not None and not (self._keeper and self._keeper.is_holding):
            self._recorder.close()


def _keep_logging(**_signal: object) -> None:
    """Connected, so that Celery leaves the logging alone that `ingest.logs` set up."""
