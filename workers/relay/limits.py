"""Waking the lines of processors with limits, once a job of them may start.

Workers that run such jobs go on by themselves. What nobody would notice is that a rate allows the
next start, and that the worker of the last job is gone. So the relay looks at the lines that jobs
wait in, at the time at which a rate allows the next, and dispatches the first of them. It remembers
whom it woke: until a worker has taken jobs, it does not wake that line again for a while. A line
whose processor no live worker has is left alone: its jobs are parked.
"""

from collections import defaultdict
from collections.abc import Callable

from sqlalchemy import Engine

from ingest import queues
from ingest.dispatch import Dispatcher
from ingest.errors import DispatchFailed
from ingest.store.pipeline import jobs, limit_waits, processors, pulling
from ingest.store.pipeline.jobs import JobRef
from ingest.store.pipeline.limit_waits import WaitingLine
from ingest.store.reports import heartbeats
from workers.relay.lanes import Lanes

AGAIN_S = 1.0
"""After so long a line is woken again, though no worker has taken jobs of it."""
SOONEST_S = 0.02
"""Between two looks at lines with a rate."""
LATEST_S = 0.25
"""Likewise, while it is waited for a worker that was woken."""
MOST_MESSAGES = 16
"""Messages that wait for a worker in a queue, with one job each. Whoever gets one goes on with the
line, so that they are as many as workers are to be woken."""
_DISSOLVED = 1_000


class LimitWaking:
    """Wakes lines."""

    def __init__(
        self, engine: Engine, dispatcher: Dispatcher, *, clock: Callable[[], float]
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._engine = engine
        self._dispatcher = dispatcher
        self._clock = clock
        self._woken: dict[str, tuple[float | None, float]] = {}

    def sweep(self) -> float | None:
        """Wake the lines of which jobs may start now; return in how many seconds the next may, if
        that is known.

        Raises:
            DispatchFailed: Redis takes no messages.
            SQLAlchemyError: PostgreSQL is away.
        """
        lines, lanes = self._lines()
        self._woken = {
            line.processor: self._woken[line.processor]
            for line in lines
            if line.processor in self._woken
        }
        waits = [wait for line in lines if (wait := self._wake(line, lanes)) is not None]
        return max(SOONEST_S, min(waits)) if waits else None

    def _lines(self) -> tuple[list[WaitingLine], Lanes]:
        """Return the lines that a worker can go on with, and what workers take."""
        with self._engine.begin() as connection:
            lines = limit_waits.waiting_lines(connection)
            if not lines:
                return [], Lanes(served=None, present={})
            lanes = Lanes(
                served=heartbeats.served(connection),
                present=processors.present_queues(connection),
            )
        return [line for line in lines if lanes.has_worker(line.processor)], lanes

    def dissolve(self) -> None:
        """Take jobs out of the lines of processors that have no limits any more.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        with self._engine.begin() as connection:
            freed = limit_waits.dissolve(connection, limit=_DISSOLVED)
            if freed:
                jobs.forget_hint(connection, freed)

    def _wake(self, line: WaitingLine, lanes: Lanes) -> float | None:
        """Wake a line, if a job of it may start; return in how many seconds to look at it again."""
        most = pulling.allowed(
            line.bounds, line.log, running=line.running, now=line.now, at_most=MOST_MESSAGES
        )
        now = self._clock()
        since_s = self._since_woken(line, now)
        if most and line.has_ready:
            if since_s is None:
                self._woken[line.processor] = (line.pulled_at, now)
                self._dispatch(line.processor, lanes, most)
            return max(SOONEST_S, min(since_s or 0.0, LATEST_S)) if _is_rated(line) else None
        if not line.has_ready and since_s is None:
            # A key may wait for a job whose worker is gone: to look is to find out.
            self._woken[line.processor] = (line.pulled_at, now)
            self._dispatch(line.processor, lanes, 1)
        return _until_next(line)

    def _since_woken(self, line: WaitingLine, now: float) -> float | None:
        """Return how many seconds ago a line was woken, if that is to be waited for."""
        pulled_at, woken_at = self._woken.get(line.processor, (None, now - AGAIN_S))
        has_pulled = line.pulled_at != pulled_at and _is_rated(line)
        return None if has_pulled or now - woken_at >= AGAIN_S else now - woken_at

    def _dispatch(self, processor: str, lanes: Lanes, most: int) -> None:
        """Hint the first jobs of a line to queues that lead to a worker, one a message."""
        with self._engine.begin() as connection:
            refs = pulling.front(connection, processor, at_most=most)
        by_queue: dict[str, list[JobRef]] = defaultdict(list)
        for ref in refs:
            if (queue := lanes.queue_to(ref)) is not None:
                by_queue[queues.overdue(queue)].append(ref)
        for queue, of_queue in by_queue.items():
            room = max(0, MOST_MESSAGES - self._dispatcher.backlog(queue))
            try:
                for ref in of_queue[:room]:
                    self._dispatcher.dispatch(queue, jobs=[ref.id])
            except DispatchFailed:
                self._woken.pop(processor, None)
                raise


def _is_rated(line: WaitingLine) -> bool:
    """Return whether time alone lets a job of the line start."""
    return line.bounds.rate is not None or line.bounds.key_rate is not None


def _until_next(line: WaitingLine) -> float | None:
    """Return in how many seconds a rate allows the next start of a line; None: it is not known."""
    times = []
    rate = line.bounds.rate
    if rate is not None and line.has_ready:
        times.append(rate.next_at(line.log, line.now))
    if line.next_key_at is not None and line.next_key_at != float("inf"):
        times.append(line.next_key_at)
    later = [at for at in times if at > line.now]
    return min(later) - line.now if later else None
