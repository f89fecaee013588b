"""Traces what a receiver stores: the request, the commit that it shares, the message to workers.

The writer gives each batch before it commits. So nothing is done for a request that is refused
before: a stranger makes no span, and what a sender's own context asks for is only heard when its
signature was good.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Protocol
from uuid import UUID

from opentelemetry.trace import Span, SpanContext, SpanKind

from ingest.dispatch import Dispatcher
from ingest.errors import IngestError
from ingest.redis_address import RedisAddress
from ingest.sources.base import Source
from ingest.store.pipeline.deliveries import Delivery
from ingest.tracing import conventions, headers, spans
from ingest.tracing.dispatching import TracedDispatcher
from ingest.tracing.spans import Place, Tracing

_ROUTE = "/webhooks/{source}"
_REMEMBERED = 20_000
"""Contexts of deliveries that the workers were not told of yet; older ones are forgotten."""


class Waiting(Protocol):
    """A delivery that waits for its commit."""

    delivery: Delivery
    committed: asyncio.Future[None]


class RequestTraces:
    """Traces the batches of a writer."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._to_send: dict[UUID, SpanContext] = {}

    def keep_contexts(self, sources: dict[str, Source]) -> dict[str, Source]:
        """Let each source keep the sender's trace context with its deliveries; return them."""
        for source in sources.values():  # a class's attribute, which this instance overrides
            vars(source)["kept_headers"] = source.kept_headers | headers.NAMES
        return sources

    def dispatcher(self, address: RedisAddress) -> Dispatcher:
        """Return a dispatcher whose messages are traced."""
        return TracedDispatcher(address, self._tracing, self._places)

    @contextlib.contextmanager
    def commit(self, batch: Sequence[Waiting]) -> Iterator[None]:
        """Trace a batch that is committed inside the block, and let its deliveries carry that."""
        began_ns = time.time_ns()
        traced = [(waiting, span) for waiting in batch if (span := self._begin(waiting))]
        try:
            yield
        finally:
            for waiting, span in traced:
                try:
                    self._end(waiting, span, began_ns, len(batch))
                except Exception as bug:  # the writer goes on
                    self._tracing.note_fault(bug)

    def close(self) -> None:
        """Send what waits, for at most `sending.FLUSH_S` seconds."""
        self._tracing.close()

    def _begin(self, waiting: Waiting) -> Span | None:
        """Return the span of a request that is recorded."""
        try:
            return self._trace(waiting)
        except Exception as bug:  # the delivery is stored all the same
            self._tracing.note_fault(bug)
            return None

    def _trace(self, waiting: Waiting) -> Span | None:
        delivery = waiting.delivery
        carried = headers.carried(delivery.headers)
        parent = spans.read(carried) if carried else None
        chance = None if parent else self._tracing.chance()
        if parent is None and chance is None:
            if carried:  # nothing that a worker could read
                waiting.delivery = _carrying(delivery, {})
            return None
        span = self._tracing.start(
            f"POST {_ROUTE}",
            SpanKind.SERVER,
            Place(parent, trace_id=chance),
            {
                conventions.HTTP_METHOD: "POST",
                conventions.HTTP_ROUTE: _ROUTE,
                conventions.URL_PATH: f"/webhooks/{delivery.source}",
                conventions.SOURCE: delivery.source,
                conventions.DELIVERY: str(delivery.id),
            },
            began_ns=int(delivery.received_at.timestamp() * 1e6) * 1_000,
        )
        context = span.get_span_context()
        waiting.delivery = _carrying(delivery, spans.written(context))
        if not span.is_recording():
            return None
        self._remember(waiting.delivery, context)
        return span

    def _remember(self, delivery: Delivery, context: SpanContext) -> None:
        for event in delivery.events():
            self._to_send[event.id] = context
        while len(self._to_send) > _REMEMBERED:
            with contextlib.suppress(KeyError, StopIteration, RuntimeError):  # another thread's
                del self._to_send[next(iter(self._to_send))]

    def _end(self, waiting: Waiting, span: Span, began_ns: int, size: int) -> None:
        ended_ns = time.time_ns()
        status, reason = _outcome(waiting)
        self._tracing.add(
            "INSERT deliveries",
            SpanKind.CLIENT,
            Place(span.get_span_context()),
            {
                conventions.DB_SYSTEM: conventions.POSTGRESQL,
                conventions.DB_OPERATION: "INSERT",
                conventions.DB_COLLECTION: "deliveries",
                conventions.DB_BATCH_SIZE: size,
            },
            began_ns=began_ns,
            ended_ns=ended_ns,
            error=reason if status >= 500 else None,
        )
        span.set_attribute(conventions.HTTP_STATUS, status)
        if status >= 500:
            for event in waiting.delivery.events():
                self._to_send.pop(event.id, None)
            spans.fail(span, reason)
        elif reason:
            span.set_attribute(conventions.ERROR_TYPE, reason)
        span.end(ended_ns)

    def _places(self, deliveries: Sequence[UUID], _jobs: Sequence[int]) -> list[Place]:
        contexts = [self._to_send.pop(delivery, None) for delivery in deliveries]
        by_span = {context.span_id: context for context in contexts if context is not None}
        return [Place(context) for context in by_span.values()]  # elements share one


def _carrying(delivery: Delivery, context: dict[str, str]) -> Delivery:
    """Return the same delivery with a trace context, its elements too."""
    kept = headers.replaced(delivery.headers, context)
    elements = tuple(element._replace(headers=kept) for element in delivery.elements)
    return delivery._replace(headers=kept, elements=elements)


def _outcome(waiting: Waiting) -> tuple[int, str]:
    """Return the status that a request is answered, and the reason, if there is one."""
    committed = waiting.committed
    if committed.cancelled():
        return 499, "sender_disconnected"  # nginx's number for that
    error = committed.exception() if committed.done() else None
    if error is not None:
        return 503, error.reason if isinstance(error, IngestError) else type(error).__qualname__
    if waiting.delivery.rejected is not None:
        return 400, waiting.delivery.rejected
    return 200, ""
