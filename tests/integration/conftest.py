"""A worker in this process: the real parts, driven by hand."""

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest import settings
from ingest.dispatch import Dispatcher
from ingest.sources.registry import configured
from ingest.store.address import parse
from workers import guard, registry
from workers.batches import BatchRunner
from workers.executor import Executor
from workers.recovery.crash_record import CrashRecorder
from workers.recovery.leases import LeaseKeeper
from workers.registry import Declaration, Registry
from workers.task import TaskHandler
from workers.timeouts.signals import Alarm
from workers.timeouts.threads import Threads


class Sent(Dispatcher):
    """A dispatcher that keeps what it is given, in place of Redis."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[UUID], list[int]]] = []

    def dispatch(
        self, queue: str, *, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()
    ) -> None:
        self.messages.append((queue, list(deliveries), list(jobs)))

    def backlog(self, queue: str) -> int:
        return 0


class Worker:
    """One worker process's parts."""

    def __init__(
        self,
        engine: Engine,
        database_url: str,
        folder: Path,
        declarations: list[Declaration],
        **given: Any,
    ) -> None:
        options = settings.load(
            database_url=database_url,
            **({"retry_base_s": 0.001, "retry_max_delay_s": 0.001} | given),
        )
        self.engine = engine
        self.sent = Sent()
        self.registry = Registry(declarations, options)
        self.recorder = CrashRecorder(folder, "test:1")
        in_main_thread = threading.current_thread() is threading.main_thread()
        self.alarm = Alarm(grace_s=60)
        if in_main_thread:
            self.alarm.install()
        self.effects = guard.create_engine(parse(database_url), pool_size=25)
        runner = BatchRunner(
            engine=self.effects,
            sources=configured(options.sources),
            recorder=self.recorder,
            time_limit=self.alarm if in_main_thread else _NoLimit(),
            random=random.uniform,
        )
        keeper = LeaseKeeper(engine, lease_s=options.lease_s)
        self.executor = Executor(
            engine,
            runner,
            worker="test:1",
            lease_s=options.lease_s,
            keeper=keeper,
            clock=time.monotonic,
            threads=Threads(
                lambda recorder, limit: dataclasses.replace(
                    runner, recorder=recorder, time_limit=limit
                ),
                keeper,
                self.recorder,
                most=10,
                grace_s=60,
            ),
        )
        self.work = TaskHandler(
            engine,
            self.registry,
            self.executor,
            self.sent,
            budget_s=options.task_budget_s,
            redispatch_after_s=options.redispatch_after_s,
            clock=time.monotonic,
        )

    def process(self, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()) -> None:
        """What the task does."""
        self.work.process(deliveries, jobs)

    def process_in_thread(self, deliveries: Sequence[UUID]) -> None:
        """The same, from a thread."""
        unlimited = dataclasses.replace(self.executor._slices, time_limit=_NoLimit())
        self.executor._slices = unlimited
        self.process(deliveries)

    def close(self) -> None:
        """End as a process does."""
        self.alarm.rest()
        self.recorder.close()
        self.effects.dispose()


class _NoLimit:
    """The time limit of a worker that runs in a thread, where no signal arrives."""

    def __call__(self, seconds: float) -> Any:
        return nullcontext()

    def rest(self) -> None: ...


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Declaration]:
    """What `@processor` declares in this test, and nothing else."""
    declarations: list[Declaration] = []
    monkeypatch.setattr(registry, "_declared", declarations)
    return declarations


@pytest.fixture
def make_worker(
    engine: Engine, database_url: str, tmp_path: Path, declared: list[Declaration]
) -> Iterator[Callable[..., Worker]]:
    """Makes workers with the processors declared so far."""
    made: list[Worker] = []

    def make(**given: Any) -> Worker:
        made.append(Worker(engine, database_url, tmp_path, declared, **given))
        return made[-1]

    yield make
    for worker in made:
        worker.close()
