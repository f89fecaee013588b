"""The parts of a worker process, put together: the child process and the tests share this."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Engine

from ingest.dispatch import Dispatcher
from ingest.heartbeat import Heartbeat
from ingest.sentry.start import Reports
from ingest.settings import Settings
from ingest.sources.registry import readers
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import breakers, limits, schedules
from ingest.store.pipeline import processors as store
from ingest.store.pipeline.processors import Registered
from ingest.store.reports.heartbeats import ProcessIdentity
from ingest.store.server_time import server_time
from workers import guard, line
from workers.batches import BatchRunner
from workers.beside import Starter
from workers.counts import Tally, unshared
from workers.executor import Executor
from workers.recovery.crash_record import CrashRecorder, folder_for
from workers.recovery.leases import LeaseKeeper, Leases
from workers.registry import Registry
from workers.retry import Random
from workers.shutdown import Shutdown
from workers.task import TaskHandler
from workers.timeouts.signals import TimeLimit
from workers.timeouts.threads import Threads
from workers.tracing.base import Traces

HARD_LIMIT_GRACE_S = 5.0
"""Seconds between a processor's time limit and the end of a process that it does not obey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The parts of one worker process that its owner starts, calls and ends."""

    task: TaskHandler
    traces: Traces
    reports: Reports
    heartbeat: Heartbeat
    recorder: CrashRecorder
    leases: Leases
    tally: Tally
    folder: Path
    """Where the worker processes of this machine and database keep their crash records."""
    engine: Engine
    """For the statements that run beside the jobs: lease renewal and rescue."""

    def close(self) -> None:
        """Send the traces and reports that wait. Remove the crash record, unless a job is still
        held: then the record has to name it."""
        self.traces.close()
        self.reports.close()
        if not self.leases.is_holding:
            self.recorder.close()


def build_worker(
    settings: Settings,
    processors: Registry,
    *,
    process: ProcessIdentity,
    time_limit: TimeLimit,
    clock: Callable[[], float],
    shutdown: Shutdown,
    random: Random,
    folder: Path | None = None,
    engine: Engine | None = None,
    effects_engine: Callable[[int], Engine] | None = None,
    dispatcher: Dispatcher | None = None,
    leases: Leases | None = None,
    tally: Tally | None = None,
    traces: Traces | None = None,
    reports: Reports | None = None,
    grace_s: float = HARD_LIMIT_GRACE_S,
) -> Worker:
    """Put a worker process together. Nothing connects and no thread starts; the crash record is
    written.

    Args:
        settings: of this process.
        processors: those that the worker runs.
        process: its id is the name that jobs are claimed under. It must be new: a dead process's
            jobs are found by its name.
        time_limit: limits the calls of the main thread. It is in force already.
        clock: monotonic, in seconds.
        shutdown: whether the process has been told to end.
        random: uniform between two numbers.
        folder: for the crash record; default: the database's folder on this machine.
        engine: for our own statements; default: two new engines, so that a lease is renewed while
            the other's connection is in use.
        effects_engine: returns a guarded engine (workers.guard) with as many connections as its
            argument says; default: a new one at each call.
        dispatcher: default: one for the Redis of the settings.
        leases: default: a keeper that renews them.
        tally: what the process counts in; default: one that nobody reads.
        traces: what it is traced by; default: by nobody.
        reports: whom dead letters are told to; default: nobody.
        grace_s: seconds that a thread has to end after its time limit.

    Raises:
        SettingsError: an address is missing, or a source is not known.
    """
    folder = folder or folder_for(settings.database)
    engine, aside = (engine, engine) if engine else _engines(settings)
    effects_engine = effects_engine or partial(_guarded_engine, settings)
    leases = leases or LeaseKeeper(aside, lease_s=settings.lease_s)
    tally = tally or unshared([processor.name for processor in processors])
    traces = traces or Traces()
    reports = reports or Reports()
    dispatcher = dispatcher or traces.dispatcher(settings.redis, engine)
    effects = effects_engine
    runner = partial(
        BatchRunner,
        sources=readers(settings.sources),
        random=random,
        tally=tally,
        traces=traces,
        body_keys=settings.keys_of_bodies,
        redispatch_after_s=settings.redispatch_after_s,
    )
    recorder = CrashRecorder(folder, process.id)
    executor = Executor(
        engine,
        runner(engine=traces.watched(effects_engine(1)), recorder=recorder, time_limit=time_limit),
        worker=process.id,
        lease_s=settings.lease_s,
        keeper=leases,
        clock=clock,
        tally=tally,
        shutdown=shutdown,
        threads=_threads(
            processors,
            runner,
            lambda connections: traces.watched(effects(connections)),
            recorder,
            grace_s=grace_s,
            shutdown=shutdown,
        ),
        coroutines=_coroutines(
            processors,
            runner,
            settings,
            recorder,
            traces,
            grace_s=grace_s,
            shutdown=shutdown,
        ),
        traces=traces,
        reports=reports,
        release=settings.release,
    )
    return Worker(
        task=TaskHandler(
            engine,
            processors,
            executor,
            dispatcher,
            tally=tally,
            budget_s=settings.task_budget_s,
            redispatch_after_s=settings.redispatch_after_s,
            clock=clock,
            shutdown=shutdown,
            traces=traces,
        ),
        traces=traces,
        reports=reports,
        heartbeat=Heartbeat(settings.database, process, introduce=partial(register, processors)),
        recorder=recorder,
        leases=leases,
        tally=tally,
        folder=folder,
        engine=aside,
    )


def _engines(settings: Settings) -> tuple[Engine, Engine]:
    return (
        create_engine(settings.database, role=Role.WORKER),
        create_engine(settings.database, role=Role.WORKER),
    )


def _guarded_engine(settings: Settings, connections: int) -> Engine:
    return guard.create_engine(settings.database, pool_size=connections)


def _threads(
    processors: Registry,
    runner: Callable[..., BatchRunner],
    effects_engine: Callable[[int], Engine],
    recorder: CrashRecorder,
    *,
    grace_s: float,
    shutdown: Shutdown,
) -> Threads | None:
    """Return as many threads as the processor with the most has; None: no processor has several."""
    most = max((processor.threads for processor in processors), default=1)
    if most == 1:
        return None
    return Threads(
        lambda thread_recorder, deadlines: runner(
            engine=effects_engine(most), recorder=thread_recorder, time_limit=deadlines
        ),
        recorder,
        most=most,
        grace_s=grace_s,
        shutdown=shutdown,
    )


def _coroutines(
    processors: Registry,
    runner: Callable[..., BatchRunner],
    settings: Settings,
    recorder: CrashRecorder,
    traces: Traces,
    *,
    grace_s: float,
    shutdown: Shutdown,
) -> Starter | None:
    """Return what runs async processors; None: there is none."""
    most = max((processor.connections for processor in processors if processor.is_async), default=0)
    if most == 0:
        return None
    # Imported here: asyncio and SQLAlchemy's part for it, which other workers go without.
    from workers.coroutines.calls import CallRunner
    from workers.coroutines.connection import create_engine as create_async_engine
    from workers.coroutines.effects import Connections
    from workers.coroutines.loop import Coroutines
    from workers.timeouts.watchdog import Watchdog

    engine = create_async_engine(settings.database)
    calls = CallRunner(
        runner=runner(
            engine=traces.watched(engine.sync_engine), recorder=recorder, time_limit=None
        ),
        connections=Connections(engine, most=most),
        shutdown=shutdown,
        grace_s=grace_s,
        watchdog=Watchdog(slack_s=grace_s / 2),
    )
    return Coroutines(calls, recorder)


def register(processors: Registry, connection: Connection) -> None:
    """Store which processors this worker has, and when the periodic ones are due."""
    store.register(
        connection,
        [
            Registered(
                name=processor.name,
                types=processor.types,
                queue=processor.queue,
                batch=processor.batch,
                threads=processor.connections,
                max_attempts=processor.max_attempts,
                timeout_s=processor.timeout_s,
                ordered_by=processor.order.ordered_by if processor.order else None,
                on_dead=processor.order.on_dead if processor.order else None,
                about=processor.about,
                retry_base_s=processor.rules.base_s,
                retry_max_delay_s=processor.rules.cap_s,
            )
            for processor in processors
        ],
    )
    breakers.register(
        connection,
        [
            processor.breaker.of(processor.name)
            for processor in processors
            if processor.breaker is not None
        ],
        [processor.name for processor in processors if processor.breaker is None],
    )
    limits.register(
        connection,
        [line.declared(processor) for processor in processors if processor.limits],
        [processor.name for processor in processors if not processor.limits],
    )
    now = server_time(connection)
    periodic = [
        schedules.Declared(
            processor=processor.name,
            expression=processor.schedule.expression,
            zone=processor.schedule.zone,
            missed=processor.schedule.missed,
            overlap=processor.schedule.overlap,
            next_due_at=processor.schedule.next_after(now),
        )
        for processor in processors
        if processor.schedule is not None
    ]
    others = [processor.name for processor in processors if processor.schedule is None]
    schedules.register(connection, periodic, others)
