"""A worker in this process: the real parts, driven by hand."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest import settings
from ingest.dispatch import Dispatcher
from ingest.heartbeat import identity
from ingest.store.address import parse
from ingest.store.pipeline.jobs import Lease
from workers import guard, registry
from workers.recovery.leases import Leases
from workers.registry import Declaration, Registry
from workers.retry import Random
from workers.shutdown import Shutdown
from workers.timeouts.signals import Alarm
from workers.wiring import build_worker


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
    """One worker process's parts, as the child process has them but for what is given here."""

    def __init__(
        self,
        engine: Engine,
        database_url: str,
        folder: Path,
        declarations: list[Declaration],
        *,
        name: str = "test:1",
        effects: Engine | None = None,
        leases: Leases | None = None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Random = random.uniform,
        **options: Any,
    ) -> None:
        """`name` is the worker's; `effects` connects its processors; `options` are settings. Unless
        they say otherwise, a task has all the time that a loaded machine may take."""
        usual = {"retry_base_s": 0.001, "retry_max_delay_s": 0.001, "task_budget_s": 600}
        loaded = settings.load(database_url=database_url, **(usual | options))
        self.engine = engine
        self.sent = Sent()
        self.registry = Registry(declarations, loaded)
        self.shutdown = Shutdown(drain_s=loaded.worker_drain_s, clock=time.monotonic)
        self.alarm = Alarm(grace_s=60, shutdown=self.shutdown)
        if _in_main_thread():
            self.alarm.install()
        self._owns_effects = effects is None
        self.effects = effects or guard.create_engine(parse(database_url), pool_size=25)
        self._parts = build_worker(
            loaded,
            self.registry,
            process=replace(identity("worker", random=random.randbytes), id=name),
            time_limit=_MainThreadLimit(self.alarm),
            clock=clock,
            shutdown=self.shutdown,
            random=uniform,
            folder=folder,
            engine=engine,
            effects_engine=lambda _connections: self.effects,
            dispatcher=self.sent,
            leases=leases,
            grace_s=60,
        )

    def process(self, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()) -> None:
        """What the task does."""
        self._parts.task.process(deliveries, jobs)

    def only_place(self) -> None:
        """From now on read keys and place, and hand back what could be run."""
        self._parts.task._run = lambda refs, *, until: list(refs)  # type: ignore[method-assign]

    def close(self) -> None:
        """End as a process does."""
        self.alarm.rest()
        self._parts.recorder.close()
        if self._owns_effects:
            self.effects.dispose()

    def record(self, job: Lease) -> None:
        """Note that `job` runs, as what calls processors does."""
        self._parts.recorder.mark_running(job)

    def vanish(self) -> None:
        """End as a killed process does: the kernel gives up its lock, and its file stays."""
        self.alarm.rest()
        self._parts.recorder.release()


class NoLeases:
    """In place of the keeper of a process that stalls: it renews nothing."""

    is_holding = False

    def holding(self, _held: Sequence[Lease]) -> AbstractContextManager[None]:
        return nullcontext()


class _MainThreadLimit:
    """A worker's time limit, which has no effect in other threads: no signal arrives there."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm

    def __call__(self, seconds: float) -> AbstractContextManager[object]:
        return self._alarm(seconds) if _in_main_thread() else nullcontext()

    def rest(self) -> None:
        if _in_main_thread():
            self._alarm.rest()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Declaration]:
    """What `@processor` declares in this test, and nothing else."""
    declarations: list[Declaration] = []
    monkeypatch.setattr(registry, "declared", declarations)
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
