"""Parking the jobs that no worker can take, so that they never crowd out those that can be done.

What a live worker takes is in the database: each reports its processors and its queues. Nothing is
parked while no worker is alive at all: then nothing can be done anyway, and a deploy that stops all
of them moves no row. A processor or queue that is not served is parked only after a while, since a
deploy may bring it back. What is served again is unparked at the next sweep.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Engine

from ingest import logs, queues
from ingest.store.pipeline import jobs, processors
from ingest.store.pipeline.jobs import ParkedLane
from ingest.store.reports import heartbeats

PARK_AFTER_S = 30.0
"""The jobs of a processor or a queue are parked after nobody has served it for so long."""
SWEEP_LIMIT = 10_000
"""Jobs that one sweep parks, unparks or moves, of each processor and queue."""

Lane = tuple[str, str]
"""A processor and a queue."""

log = logs.logger(__name__)


class Parking:
    """Parks and unparks, and has jobs follow their processor to the queue that it has now."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float],
        after_s: float = PARK_AFTER_S,
        limit: int = SWEEP_LIMIT,
    ) -> None:
        """Park through `engine`.

        Args:
            clock: monotonic, in seconds.
            after_s: seconds for which a lane must lack a worker.
            limit: jobs that one sweep moves, of each processor and queue.
        """
        self._engine = engine
        self._clock = clock
        self._after_s = after_s
        self._limit = limit
        self._served_at: dict[Lane, float] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """Take it that each lane had a worker until now: no job waits, or no worker is alive."""
        self._began = self._clock()
        self._unserved: dict[str, list[str]] = {}

    def unserved(self, queue: str) -> Sequence[str]:
        """Return the processors whose jobs of `queue` no worker could take at the last sweep."""
        return self._unserved.get(queue, ())

    def sweep(self) -> None:
        """Look once; a bounded number of jobs is moved.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        with self._engine.begin() as connection:
            served = heartbeats.served(connection)
            if served is None:
                self.begin_anew()
                return
            self._unserved = {}
            self._served_at |= dict.fromkeys(served, self._clock())
            if not jobs.take_turn_to_park(connection):
                return
            present = processors.present_queues(connection)
            self._unpark(connection, served, present)
            for queue in jobs.queues(connection):
                self._move_or_park(connection, queue, served, present)

    def _unpark(
        self, connection: Connection, served: frozenset[Lane], present: dict[str, str]
    ) -> None:
        """Unpark what is served again. What is paused stays parked until it is resumed."""
        for lane in jobs.parked_lanes(connection):
            queue = _present_queue(lane.processor, lane.queue, present)
            if (lane.processor, queue) not in served:
                continue
            if processors.is_paused(connection, lane.processor):
                continue
            unparked = jobs.unpark_lane(connection, lane, queue=queue, limit=self._limit)
            log.info("unparked", processor=lane.processor, queue=queue, jobs=unparked)

    def _move_or_park(
        self,
        connection: Connection,
        queue: str,
        served: frozenset[Lane],
        present: dict[str, str],
    ) -> None:
        """Look at the jobs of `queue` that have been due longest. Move those whose processor has
        another queue now; park those that no worker takes."""
        for processor in jobs.due_processors(connection, queue, limit=self._limit):
            new_queue = _present_queue(processor, queue, present)
            if new_queue != queue and (processor, new_queue) in served:
                moved = jobs.follow(
                    connection,
                    processor,
                    from_queue=queue,
                    to_queue=new_queue,
                    limit=self._limit,
                )
                log.info("jobs_moved", processor=processor, queue=new_queue, jobs=moved)
            elif self._lacks_worker((processor, queue)):
                self._unserved.setdefault(queue, []).append(processor)
                lane = ParkedLane(
                    processor=processor, queue=queue, reason=_reason(processor, served)
                )
                parked = jobs.park_lane(connection, lane, limit=self._limit)
                log.warning(
                    "parked", processor=processor, queue=queue, reason=lane.reason, jobs=parked
                )

    def _lacks_worker(self, lane: Lane) -> bool:
        served_at = max(self._served_at.get(lane, self._began), self._began)
        return self._clock() - served_at >= self._after_s


def _present_queue(processor: str, queue: str, present: dict[str, str]) -> str:
    """Return the queue in which a job of `queue` belongs now; replays stay in their lane."""
    return queue if queue == queues.REPLAY else present.get(processor, queue)


def _reason(processor: str, served: frozenset[Lane]) -> str:
    is_known = any(processor == name for name, _ in served)
    return "unconsumed" if is_known else "unknown"
