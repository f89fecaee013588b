"""Makes the spans of a process.

A trace is one delivery's: from its request to its first attempts. A later attempt may come days
later, when no collector still holds that trace. So it begins a trace of its own, with links to the
request and to the attempt before. No column is needed for that: the ids of attempts are computed,
from the request's trace, the job and the attempt's number.
"""

import os
import random
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from threading import local
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from ingest import __version__, logs
from ingest.tracing import conventions, environment
from ingest.tracing.sending import Sending

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()

log = logs.logger(__name__)


class Place(NamedTuple):
    """Where a span stands: below a parent, or at the root of a trace of its own."""

    parent: SpanContext | None = None
    links: tuple[SpanContext, ...] = ()
    trace_id: int | None = None
    """Of a root; None: by chance."""
    span_id: int | None = None
    """None: by chance."""


class Tracing:
    """Makes spans, and sends those that are sampled."""

    def __init__(self, process: str) -> None:
        """Start the thread that sends. `process` is the kind of this process.

        What cannot be used, such as the file of a certificate, is told by the exporter, not here.
        """
        attributes = {"service.version": __version__, conventions.PROCESS: process}
        if not environment.names_service(os.environ):
            attributes["service.name"] = f"ingest-{process}"
        self._ids = _Ids()
        self._sampler = environment.sampler()
        self.provider = TracerProvider(
            sampler=_FollowsLinks(self._sampler),
            resource=Resource.create(attributes),
            shutdown_on_exit=False,  # it would wait for half a minute
            id_generator=self._ids,
        )
        self._sending = Sending(
            OTLPSpanExporter(),
            queue_size=environment.queue_size(os.environ),
            clock=time.monotonic,
        )
        self.provider.add_span_processor(self._sending)
        self._tracer = self.provider.get_tracer("ingest", __version__)
        self._faults = logs.Sampler(interval_s=60.0, clock=time.monotonic)

    def chance(self) -> int | None:
        """Return the id of a new trace if it is to be recorded, else None. It costs a tenth of a
        span that is not recorded."""
        trace_id = random.getrandbits(128) or 1
        result = self._sampler.should_sample(None, trace_id, "")
        return None if result.decision is Decision.DROP else trace_id

    def start(
        self,
        name: str,
        kind: SpanKind,
        place: Place,
        attributes: Attributes,
        *,
        began_ns: int,
    ) -> Span:
        """Begin a span. Unless it is sampled, it records nothing. `began_ns` is Unix time."""
        self._ids.next(place.trace_id, place.span_id)
        try:
            return self._tracer.start_span(
                name,
                _below(place.parent),
                kind,
                attributes,
                [Link(context) for context in place.links],
                began_ns,
                record_exception=False,
                set_status_on_exception=False,
            )
        finally:
            self._ids.next(None, None)

    def add(
        self,
        name: str,
        kind: SpanKind,
        place: Place,
        attributes: Attributes,
        *,
        began_ns: int,
        ended_ns: int,
        error: str | None = None,
    ) -> None:
        """Add a span that has ended; `error` is the type of what went wrong."""
        span = self.start(name, kind, place, attributes, began_ns=began_ns)
        if error is not None:
            fail(span, error)
        span.end(ended_ns)

    def note_fault(self, error: Exception) -> None:
        """Log an error of ours while something was traced; what was traced goes on."""
        if self._faults.lets_through("fault"):
            log.error("not_traced", exc_info=error)

    def close(self) -> None:
        """Send what waits, for at most `sending.FLUSH_S` seconds."""
        self._sending.close()


def fail(span: Span, error: str) -> None:
    """Mark a span as failed. `error` is a type or a reason: messages may quote data."""
    span.set_attribute(conventions.ERROR_TYPE, error)
    span.set_status(trace.StatusCode.ERROR)


def read(carried: Mapping[str, str]) -> SpanContext | None:
    """Return the trace context that headers carry; None: none, or none that is well formed."""
    context = trace.get_current_span(_PROPAGATOR.extract(carried, Context())).get_span_context()
    return context if context.is_valid else None


def written(context: SpanContext) -> dict[str, str]:
    """Return a trace context as headers."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, _below(context))
    return carrier


def place_of_attempt(request: SpanContext, job: int, attempt: int) -> Place:
    """Return where the span of an attempt stands.

    Args:
        request: the trace context that its delivery carries.
        job: the id of the job.
        attempt: its number, from 1.
    """
    own = _context_of_attempt(request, job, attempt)
    if attempt <= 1:
        return Place(request, span_id=own.span_id)
    before = _context_of_attempt(request, job, attempt - 1)
    return Place(None, (before, request), own.trace_id, own.span_id)


def _context_of_attempt(request: SpanContext, job: int, attempt: int) -> SpanContext:
    named = f"{request.trace_id:032x} {job} {attempt}".encode()
    digest = blake2b(named, digest_size=24).digest()
    trace_id = int.from_bytes(digest[:16]) if attempt > 1 else request.trace_id
    span_id = int.from_bytes(digest[16:])
    return SpanContext(trace_id or 1, span_id or 1, is_remote=True, trace_flags=_SAMPLED)


def beside(place: Place) -> Place:
    """Return where a span stands that has its place beside another's, with an id of its own."""
    return place._replace(span_id=None)


def _below(parent: SpanContext | None) -> Context:
    if parent is None:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


class _Ids(RandomIdGenerator):
    """Ids by chance, but for those of the next span where they are told."""

    def __init__(self) -> None:
        self._told = local()

    def next(self, trace_id: int | None, span_id: int | None) -> None:
        """Tell the ids of this thread's next span."""
        self._told.trace_id, self._told.span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        told: int | None = getattr(self._told, "trace_id", None)
        return super().generate_trace_id() if told is None else told

    def generate_span_id(self) -> int:
        told: int | None = getattr(self._told, "span_id", None)
        return super().generate_span_id() if told is None else told


class _FollowsLinks(Sampler):
    """Decides on a root with links as on the trace that the first of them names: a later attempt
    is recorded if the request was."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        """Decide whether a span is recorded."""
        is_root = not trace.get_current_span(parent_context).get_span_context().is_valid
        if links and is_root:
            linked = links[0].context
            return self._sampler.should_sample(
                _below(linked), linked.trace_id, name, kind, attributes, links, trace_state
            )
        return self._sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Return its name."""
        return f"FollowsLinks{{{self._sampler.get_description()}}}"
