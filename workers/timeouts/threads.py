"""Many jobs of one processor at once, each on a thread, a connection and in a transaction of its
own: for processors that wait for others more than they compute."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ingest import logs
from ingest.store.pipeline.jobs import ClaimedJob, Lease
from workers.batches import BatchRunner, Result
from workers.recovery.crash_record import CrashRecorder
from workers.registry import Processor
from workers.shutdown import Shutdown
from workers.timeouts.deadlines import Deadlines

log = logs.logger(__name__)


class ThreadRecorder:
    """Which job each thread runs. The flight record has room for one: it names none while several
    run, and the one to blame once that is known."""

    def __init__(self, flight: CrashRecorder) -> None:
        self._flight = flight
        self._running: dict[int, Lease] = {}

    def mark_running(self, job: Lease) -> None:
        """Note that this thread runs `job` now."""
        self._running[threading.get_ident()] = job

    def mark_idle(self) -> None:
        """Note that this thread runs no job."""
        self._running.pop(threading.get_ident(), None)

    def give_up(self, thread: int) -> None:
        """End the process over the job of a thread that does not end in time."""
        blamed = self._running.get(thread)
        if blamed is not None:
            self._flight.mark_running(blamed)
        log.error("processor_stuck", job=blamed.id if blamed else None)
        os._exit(1)


class Threads:
    """The threads of a worker process."""

    def __init__(
        self,
        slices: Callable[[ThreadRecorder, Deadlines], BatchRunner],
        flight: CrashRecorder,
        *,
        most: int,
        grace_s: float,
        shutdown: Shutdown,
    ) -> None:
        """At most `most` jobs at once; `slices` makes what runs them, with as many connections."""
        recorder = ThreadRecorder(flight)
        self._deadlines = Deadlines(grace_s=grace_s, on_stuck=recorder.give_up, shutdown=shutdown)
        self._slices = slices(recorder, self._deadlines)
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="job")

    def start(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Future[Result]:
        """Run one claimed job on a thread."""
        return self._pool.submit(self._run, processor, claimed)

    def _run(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Result:
        try:
            return self._slices.run(processor, claimed)
        finally:
            self._deadlines.forget()  # should its block not have come to that
