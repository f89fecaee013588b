"""The Celery application of a worker, which only distributes.

Redis only says that there is work. Retries, time limits, results and rescue are PostgreSQL's and
ours, so everything of Celery's that would hold state is off.
"""

from pathlib import Path
from uuid import UUID

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown

from ingest import broker, logs, queues
from ingest.settings import Settings
from ingest.store import causes
from workers import liveness
from workers.child import Child
from workers.counts import WorkerCounts
from workers.registry import Registry

log = logs.logger(__name__)


def create_app(
    settings: Settings,
    processors: Registry,
    consumed: tuple[str, ...] = (),
    *,
    counts: WorkerCounts | None = None,
    heartbeat_file: Path | None = None,
) -> Celery:
    """Return a Celery application with the one task. Nothing connects before a child process
    starts.

    Args:
        settings: of this process.
        processors: those that the worker runs.
        consumed: the queues that the worker consumes; default: all that the processors use.
        counts: what its processes add to; default: nobody reads what they count.
        heartbeat_file: touched as long as the worker's main loop runs.
    """
    app = Celery("workers", set_as_current=False)
    configure(app, settings)
    liveness.install(app, heartbeat_file)
    child = Child(settings, processors, consumed or processors.queues, counts)
    setup_logging.connect(_keep_logging, weak=False)
    worker_process_init.connect(child.start, weak=False)
    worker_process_shutdown.connect(child.stop, weak=False)

    @app.task(name=queues.TASK)  # type: ignore[untyped-decorator]
    def process(deliveries: list[str], job_ids: list[int]) -> None:
        try:
            child.process([UUID(delivery) for delivery in deliveries], job_ids)
        except Exception as error:
            # Most likely PostgreSQL is away. The claimed jobs are rescued, the others are
            # dispatched again.
            child.count_failure()
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
    """Set every option that is not Celery's default, with its reason."""
    broker.configure(
        app,
        settings.redis,
        # Acknowledgements are counted here and not in Redis. There they fail when it goes away, and
        # a worker whose messages all stay unacknowledged never fetches another (seen with kombu
        # 5.7.0). The relay dispatches again what a killed worker had fetched.
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
        # A user's processor may leak memory; a child is replaced before that matters.
        worker_max_memory_per_child=512 * 1024,
    )


def _keep_logging(**_signal: object) -> None:
    """Do nothing. A receiver of this signal keeps Celery from changing the logging that
    `ingest.logs` has set up."""
