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
        began_ns = time.time_ns()
        error: str | None = None
        try:
            super().dispatch(queue, deliveries=deliveries, jobs=jobs)
        except DispatchFailed as failed:
            error = failed.reason
            raise
        finally:
            self._trace(queue, deliveries, jobs, began_ns=began_ns, error=error)

    def _trace(
        self,
        queue: str,
        deliveries: Sequence[UUID],
        jobs: Sequence[int],
        *,
        began_ns: int,
        error: str | None,
    ) -> None:
        ended_ns = time.time_ns()
        try:
            for place in self._places(deliveries, jobs):
                self._tracing.add(
                    f"send {queue}",
                    SpanKind.PRODUCER,
                    place,
                    {
                        conventions.MESSAGING_SYSTEM: conventions.CELERY,
                        conventions.MESSAGING_OPERATION: "send",
                        conventions.MESSAGING_OPERATION_TYPE: "send",
                        conventions.MESSAGING_DESTINATION: queue,
                        conventions.MESSAGING_BATCH: len(deliveries) + len(jobs),
                    },
                    began_ns=began_ns,
                    ended_ns=ended_ns,
                    error=error,
                )
        except Exception as bug:  # such as PostgreSQL, which is asked for the places
            self._tracing.note_fault(bug)
