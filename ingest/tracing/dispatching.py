"""A dispatcher whose messages are traced: a span in the trace of each delivery that is traced."""

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from opentelemetry.trace import SpanKind

from ingest.dispatch import Dispatcher
from ingest.errors import DispatchFailed
from ingest.redis_address import RedisAddress
from ingest.tracing import conventions
from ingest.tracing.spans import Place, Tracing

Places = Callable[[Sequence[UUID], Sequence[int]], Sequence[Place]]
"""Returns where the spans of a message stand, of the ids of its deliveries and its jobs."""


class TracedDispatcher(Dispatcher):
    """Sends messages as its base does."""

    def __init__(self, address: RedisAddress, tracing: Tracing, places: Places) -> None:
        super().__init__(address)
        self._tracing = tracing
        self._places = places

    def dispatch(
        self, queue: str, *, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()
    ) -> None:
        """Send one message, as the base does."""
        places = self._places_of(deliveries, jobs)
        began_ns = time.time_ns()
        error: str | None = None
        try:
            super().dispatch(queue, deliveries=deliveries, jobs=jobs)
        except DispatchFailed as failed:
            error = failed.reason
            raise
        finally:
            ids = len(deliveries) + len(jobs)
            self._trace(queue, ids, places, began_ns=began_ns, error=error)

    def _places_of(self, deliveries: Sequence[UUID], jobs: Sequence[int]) -> Sequence[Place]:
        """Return where the spans stand. Asked before a worker knows of the jobs: an attempt that
        has ended already would have its span in the trace of the next one."""
        try:
            return self._places(deliveries, jobs)
        except Exception as bug:  # such as PostgreSQL, which is asked for the places
            self._tracing.note_fault(bug)
            return ()

    def _trace(
        self,
        queue: str,
        ids: int,
        places: Sequence[Place],
        *,
        began_ns: int,
        error: str | None,
    ) -> None:
        ended_ns = time.time_ns()
        try:
            for place in places:
                self._tracing.add(
                    f"send {queue}",
                    SpanKind.PRODUCER,
                    place,
                    {
                        conventions.MESSAGING_SYSTEM: conventions.CELERY,
                        conventions.MESSAGING_OPERATION: "send",
                        conventions.MESSAGING_OPERATION_TYPE: "send",
                        conventions.MESSAGING_DESTINATION: queue,
                        conventions.MESSAGING_BATCH: ids,
                    },
                    began_ns=began_ns,
                    ended_ns=ended_ns,
                    error=error,
                )
        except Exception as bug:
            self._tracing.note_fault(bug)
