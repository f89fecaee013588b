"""Parking the jobs that no worker can take, so that they never crowd out those that can be done.

What a live worker takes is in the database: each reports its processors and its queues. Nothing is
parked while no worker is alive at all: then nothing can be done anyway, and a deploy that stops all
of them moves no row. A processor or queue that is not served is parked only after a while, since a
deploy may bring it back. What is served again is unparked at the next sweep.

A job that waits in the line of a limit is parked likewise, and keeps its place there: whoever goes
on with the line takes it in its turn.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Engine

from ingest import logs
from ingest.store.pipeline import jobs, limit_waits, processors
from ingest.store.pipeline.jobs import ParkedLane
from ingest.store.pipeline.limit_waits import InLine
from ingest.store.reports import heartbeats
from workers.relay.lanes import Lane, present_queue

PARK_AFTER_S = 30.0
"""The jobs of a processor or a queue are parked after nobody has served it for so long."""
SWEEP_LIMIT = 10_000
"""Jobs that one sweep parks, unparks or moves, of each processor and queue."""

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
        self._looked_at: dict[str, InLine] = {}
        """The last job that was looked at in each line that no worker takes."""
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
            looked_at = self._look_into_lines(connection, present)
            self._unpark(connection, served, present)
            for queue in jobs.queues(connection):
                self._move_or_park(connection, queue, served, present)
        self._looked_at = looked_at

    def _look_into_lines(
        self, connection: Connection, present: dict[str, str]
    ) -> dict[str, InLine]:
        """Have jobs that wait in lines that no worker takes count as due, the next of each line:
        the relay takes them for known. Return how far each was looked at."""
        looked_at: dict[str, InLine] = {}
        for processor in limit_waits.processors(connection):
            if not self._lacks_worker((processor, present.get(processor, ""))):
                continue
            before = self._looked_at.get(processor, limit_waits.BEFORE_ALL)
            following = limit_waits.following(
                connection, processor, after=before, limit=self._limit
            )
            jobs.forget_hint(connection, [one.job for one in following])
            looked_at[processor] = following[-1] if following else before
        return looked_at

    def _unpark(
        self, connection: Connection, served: frozenset[Lane], present: dict[str, str]
    ) -> None:
        """Unpark what is served again. What is paused stays parked until it is resumed."""
        for lane in jobs.parked_lanes(connection):
            queue = present_queue(lane.processor, lane.queue, present)
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
            new_queue = present_queue(processor, queue, present)
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


def _reason(processor: str, served: frozenset[Lane]) -> str:
    is_known = any(processor == name for name, _ in served)
    return "unconsumed" if is_known else "unknown"
