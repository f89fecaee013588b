"""The event loop of a worker process, on a thread of its own, and what watches over it."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from ingest import logs
from ingest.store.pipeline.jobs import ClaimedJob
from workers.batches import Result
from workers.coroutines.calls import CallRunner, Running
from workers.recovery.crash_record import CrashRecorder
from workers.registry import Processor
from workers.timeouts.signals import Interrupted

log = logs.logger(__name__)

_LOOK_S = 0.25
_BLOCKED_S = 1.0
"""A loop that does not answer for so long is told of."""


class Coroutines:
    """Runs calls on the loop, from the worker's main thread."""

    def __init__(self, runner: CallRunner, flight: CrashRecorder) -> None:
        """The process ends over a call that does not end, and `flight` names its job."""
        self._runner = runner
        self._flight = flight
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Future[Result]:
        """Run claimed jobs in one call."""
        ended: Future[Result] = Future()
        self._started().call_soon_threadsafe(self._begin, processor, claimed, ended)
        return ended

    def _begin(
        self, processor: Processor, claimed: Sequence[ClaimedJob], ended: Future[Result]
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._runner.run(processor, claimed))
        task.add_done_callback(lambda task: _settle(task, ended))

    def _started(self) -> asyncio.AbstractEventLoop:
        """Return the loop. It is started after the fork, by the first call."""
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name="loop", daemon=True)
            thread.start()
            watch = _Watch(loop, thread, self._runner, self._flight)
            threading.Thread(target=watch.run, name="loop watch", daemon=True).start()
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop. If it ends, end the process: jobs that wait for it would wait for ever, with
    their leases renewed. A task that exits ends its loop."""
    try:
        loop.run_forever()
    finally:
        log.error("loop_ended")
        os._exit(1)


class _Watch:
    """Ends what the loop cannot end by itself."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: threading.Thread,
        runner: CallRunner,
        flight: CrashRecorder,
    ) -> None:
        self._loop = loop
        self._thread = thread
        self._runner = runner
        self._flight = flight
        self._grace_s = runner.grace_s
        self._pause = threading.Event()  # never set; time.sleep fails under libfaketime
        self._has_answered = True
        self._asked_at = 0.0
        self._is_told = False

    def run(self) -> None:
        """Look after the loop, for ever."""
        while True:
            self._pause.wait(_LOOK_S)
            running = list(self._runner.running.values())
            now = time.monotonic()
            if running and now >= self._runner.shutdown.ends_at:
                self._loop.call_soon_threadsafe(self._interrupt)
            if not self._has_answered:
                self._look_at_blocked(now)
                continue
            for call in running:
                if call.told is not None and now >= call.told_at + self._grace_s:
                    self._give_up(call)
            if running:
                self._has_answered, self._is_told, self._asked_at = False, False, now
                self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._has_answered = True

    def _interrupt(self) -> None:
        for call in list(self._runner.running.values()):
            call.end(Interrupted)

    def _look_at_blocked(self, now: float) -> None:
        """Say once which call blocks the loop, and where; end the process if it never stops."""
        task = asyncio.current_task(self._loop)
        call = self._runner.running.get(task) if task is not None else None
        if now >= self._asked_at + _BLOCKED_S and not self._is_told:
            self._is_told = True
            log.warning(
                "loop_blocked",
                processor=call.processor.name if call else None,
                job=call.calls[0].job.id if call else None,
                seconds=round(now - self._asked_at, 1),
                where=_where(self._thread),
            )
        if call is not None:
            ends = min(call.ends, self._runner.shutdown.ends_at)
            if now >= max(ends, self._asked_at) + self._grace_s:
                self._give_up(call)

    def _give_up(self, call: Running) -> None:
        """End the process over a call."""
        job = call.calls[0].held
        if len(call.calls) == 1:
            self._flight.mark_running(job)
        log.error("processor_stuck", processor=call.processor.name, job=job.id)
        os._exit(1)


def _settle(task: asyncio.Task[Result], ended: Future[Result]) -> None:
    if task.cancelled():
        ended.set_exception(RuntimeError("the task of a call was cancelled"))
    elif (error := task.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(task.result())


def _where(thread: threading.Thread) -> str | None:
    """Return what a thread runs: the file, line and function of its innermost frame."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to ask
    if frame is None:
        return None
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}, in {frame.f_code.co_name}"
