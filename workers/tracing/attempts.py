"""Traces a worker's admissions and attempts, and what a relay dispatches.

Whether a delivery is traced was decided when it came: its stored headers say it. They are asked for
once a message and once a claim, outside the transactions of the pipeline. A job that is not traced
has no span, and neither have spans that its processor's own code would make.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from sqlalchemy import Engine

from ingest import queues
from ingest.dispatch import Dispatcher
from ingest.errors import LeaseLost
from ingest.redis_address import RedisAddress
from ingest.store.pipeline import trace_contexts
from ingest.store.pipeline.jobs import ClaimedJob, Failure, Outcome
from ingest.tracing import conventions, headers, spans
from ingest.tracing.dispatching import TracedDispatcher
from ingest.tracing.spans import Place, Tracing
from workers.registry import Processor
from workers.tracing import statements
from workers.tracing.base import Traces
from workers.tracing.statements import Noted

_REMEMBERED = 10_000
"""Jobs whose end was not told, such as those that another worker took over; older ones are
forgotten."""
_UNTRACED = trace.set_span_in_context(
    NonRecordingSpan(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(0))), Context()
)
"""The context of code that is not traced: spans below it are not sampled."""
_NO_FAULT = (Outcome.SNOOZED, Outcome.RELEASED)


Self = TypeVar("Self", bound="AttemptTraces")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _harmless(
    method: Callable[Concatenate[Self, Arguments], Result],
) -> Callable[Concatenate[Self, Arguments], Result | None]:
    """Let a method log its errors and return None: no job fails because it is traced."""

    def guarded(self: Self, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as bug:
            self.note_fault(bug)
            return None

    return guarded


class AttemptTraces(Traces):
    """Traces a process that works on jobs, or dispatches them."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._of_message: dict[UUID, SpanContext] = {}
        self._asked: frozenset[UUID] = frozenset()
        self._requests: dict[int, SpanContext] = {}
        """By job, of those that are traced."""
        self._attempts: dict[int, _Attempt] = {}
        trace.set_tracer_provider(tracing.provider)  # for processors' own spans

    def dispatcher(self, address: RedisAddress, engine: Engine) -> Dispatcher:
        """Return a dispatcher whose messages are traced."""

        def places(deliveries: Sequence[UUID], jobs: Sequence[int]) -> list[Place]:
            return self._places(engine, deliveries, jobs)

        return TracedDispatcher(address, self._tracing, places)

    def watched(self, engine: Engine) -> Engine:
        """Trace the statements of an engine."""
        statements.watch(engine)
        return engine

    @contextmanager
    def admission(self, engine: Engine, deliveries: Sequence[UUID]) -> Iterator[None]:
        """Trace an admission: a span in the trace of each delivery, of which all are told."""
        began_ns = time.time_ns()
        yield
        self._admitted(engine, deliveries, began_ns)

    @_harmless
    def _admitted(self, engine: Engine, deliveries: Sequence[UUID], began_ns: int) -> None:
        ended_ns = time.time_ns()
        self._of_message = self._ask(engine, deliveries)
        self._asked = frozenset(deliveries)
        for context in self._of_message.values():
            self._tracing.add(
                f"admit {queues.LIVE}",
                SpanKind.CONSUMER,
                Place(context),
                _messaging("admit", "receive", queues.LIVE)
                | {conventions.MESSAGING_BATCH: len(deliveries)},
                began_ns=began_ns,
                ended_ns=ended_ns,
            )

    @_harmless
    def claimed(self, engine: Engine, claimed: Sequence[ClaimedJob]) -> None:
        """Find out which of the jobs are traced."""
        missing = [job.event for job in claimed if job.event not in self._asked]
        found = self._of_message | (self._ask(engine, missing) if missing else {})
        self._requests |= {job.id: found[job.event] for job in claimed if job.event in found}
        if len(self._requests) > _REMEMBERED:
            self._requests.clear()
            self._attempts.clear()

    @contextmanager
    def call(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Iterator[None]:
        """Trace a call: a span for each job that is traced. A list has one more, which has its
        statements, links to the attempts of all, and stands in the trace of the first."""
        begun = self._begin(processor, claimed)
        if begun is None:
            with _attached(_UNTRACED):
                yield
            return
        attempts, span = begun
        error: str | None = None
        with statements.noting() as noted, _attached(trace.set_span_in_context(span, Context())):
            try:
                yield
            except BaseException as raised:
                error = type(raised).__qualname__
                raise
            finally:
                self._end_call(processor, attempts, span, noted, error)

    @contextmanager
    def commit(self, claimed: Sequence[ClaimedJob]) -> Iterator[None]:
        """Trace a commit, in the trace of each job, and end the attempts that it completes."""
        began_ns = time.time_ns()
        try:
            yield
        except LeaseLost as error:
            for job_id in error.job_ids:
                self._end(job_id, "lease_lost", error="LeaseLost")
            raise
        self._committed(claimed, began_ns)

    @_harmless
    def failed(self, failures: Sequence[Failure]) -> None:
        """End the attempts that failed."""
        for failure in failures:
            is_fault = failure.outcome not in _NO_FAULT
            error = (failure.error_type or str(failure.outcome)) if is_fault else None
            self._end(failure.id, str(failure.outcome), error=error)

    def note_fault(self, error: Exception) -> None:
        """Log an error of ours."""
        self._tracing.note_fault(error)

    def close(self) -> None:
        """Send what waits, for at most `sending.FLUSH_S` seconds."""
        self._tracing.close()

    def _ask(self, engine: Engine, deliveries: Sequence[UUID]) -> dict[UUID, SpanContext]:
        """Return the trace contexts of those deliveries that are traced."""
        with engine.begin() as connection:
            found = trace_contexts.of_deliveries(connection, deliveries)
        read = {id_: spans.read(headers.context_of(kept)) for id_, kept in found.items()}
        return {id_: context for id_, context in read.items() if context is not None}

    def _places(
        self, engine: Engine, deliveries: Sequence[UUID], job_ids: Sequence[int]
    ) -> list[Place]:
        """Return where the spans of a message stand: below a delivery's request, or beside the
        attempt that a job is dispatched for."""
        places = []
        if deliveries:
            places += [Place(context) for context in self._ask(engine, deliveries).values()]
        if job_ids:
            with engine.begin() as connection:
                jobs = trace_contexts.of_jobs(connection, job_ids)
            for job in jobs:
                request = spans.read(headers.context_of(job.headers))
                if request is not None:
                    place = spans.place_of_attempt(request, job.id, job.attempt + 1)
                    places.append(spans.beside(place))
        return places

    @_harmless
    def _begin(
        self, processor: Processor, claimed: Sequence[ClaimedJob]
    ) -> "tuple[list[_Attempt], Span] | None":
        """Return the attempts of those jobs that are traced, begun now or by an earlier call, and
        the span of the call; None: none is traced."""
        attempts = self._begin_attempts(processor, claimed)
        if not attempts:
            return None
        if not processor.batch:
            return attempts, attempts[0].span
        return attempts, self._begin_batch(processor, claimed, attempts)

    def _begin_attempts(
        self, processor: Processor, claimed: Sequence[ClaimedJob]
    ) -> "list[_Attempt]":
        attempts = []
        for job in claimed:
            request = self._requests.get(job.id)
            if request is None:
                continue
            if job.id not in self._attempts:
                self._attempts[job.id] = self._begin_attempt(processor, job, request)
            attempts.append(self._attempts[job.id])
        return attempts

    def _begin_attempt(
        self, processor: Processor, job: ClaimedJob, request: SpanContext
    ) -> "_Attempt":
        now = time.time_ns()
        span = self._tracing.start(
            f"process {processor.name}",
            SpanKind.CONSUMER,
            spans.place_of_attempt(request, job.id, job.attempt),
            _messaging("process", "process", processor.queue)
            | {
                conventions.MESSAGING_MESSAGE: str(job.event),
                conventions.PROCESSOR: processor.name,
                conventions.SOURCE: job.source,
                conventions.EVENT_TYPE: job.type,
                conventions.JOB: job.id,
                conventions.ATTEMPT: job.attempt,
            },
            began_ns=now,
        )
        return _Attempt(span, now)

    def _begin_batch(
        self, processor: Processor, claimed: Sequence[ClaimedJob], attempts: "list[_Attempt]"
    ) -> Span:
        members = [attempt.span.get_span_context() for attempt in attempts]
        span = self._tracing.start(
            f"process {processor.name} batch",
            SpanKind.CONSUMER,
            Place(members[0], tuple(members)),
            _messaging("process", "process", processor.queue)
            | {
                conventions.PROCESSOR: processor.name,
                conventions.MESSAGING_BATCH: len(claimed),
            },
            began_ns=time.time_ns(),
        )
        for attempt in attempts[1:]:
            attempt.span.add_link(span.get_span_context())
        return span

    @_harmless
    def _end_call(
        self,
        processor: Processor,
        attempts: "list[_Attempt]",
        span: Span,
        noted: Noted,
        error: str | None,
    ) -> None:
        ended_ns = time.time_ns()
        for attempt in attempts:
            attempt.ended_ns = ended_ns
        for statement in noted.statements:
            name = statements.operation(statement.text)
            self._tracing.add(
                name,
                SpanKind.CLIENT,
                Place(span.get_span_context()),
                {
                    conventions.DB_SYSTEM: conventions.POSTGRESQL,
                    conventions.DB_OPERATION: name,
                    conventions.DB_QUERY: statements.without_values(statement.text),
                },
                began_ns=statement.began_ns,
                ended_ns=statement.ended_ns,
                error=statement.error,
            )
        if noted.left_out:
            span.set_attribute(conventions.LEFT_OUT, noted.left_out)
        if processor.batch:
            if error is not None:
                spans.fail(span, error)
            span.end(ended_ns)

    @_harmless
    def _committed(self, claimed: Sequence[ClaimedJob], began_ns: int) -> None:
        ended_ns = time.time_ns()
        for job in claimed:
            attempt = self._attempts.get(job.id)
            if attempt is not None:
                self._add_commit(attempt, len(claimed), began_ns, ended_ns)
                self._end(job.id, str(Outcome.SUCCEEDED), ended_ns=ended_ns)

    def _add_commit(self, attempt: "_Attempt", size: int, began_ns: int, ended_ns: int) -> None:
        self._tracing.add(
            "COMMIT",
            SpanKind.CLIENT,
            Place(attempt.span.get_span_context()),
            {
                conventions.DB_SYSTEM: conventions.POSTGRESQL,
                conventions.DB_OPERATION: "COMMIT",
                conventions.DB_BATCH_SIZE: size,
            },
            began_ns=began_ns,
            ended_ns=ended_ns,
        )

    def _end(
        self, job_id: int, outcome: str, *, error: str | None = None, ended_ns: int | None = None
    ) -> None:
        self._requests.pop(job_id, None)
        attempt = self._attempts.pop(job_id, None)
        if attempt is None:
            return
        attempt.span.set_attribute(conventions.OUTCOME, outcome)
        if error is not None:
            spans.fail(attempt.span, error)
        attempt.span.end(ended_ns or attempt.ended_ns)


class _Attempt:
    """The span of an attempt, and when its last call ended."""

    __slots__ = ("ended_ns", "span")

    def __init__(self, span: Span, began_ns: int) -> None:
        self.span = span
        self.ended_ns = began_ns


@contextmanager
def _attached(context: Context) -> Iterator[None]:
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


def _messaging(name: str, kind: str, destination: str) -> dict[str, str | int]:
    return {
        conventions.MESSAGING_SYSTEM: conventions.CELERY,
        conventions.MESSAGING_OPERATION: name,
        conventions.MESSAGING_OPERATION_TYPE: kind,
        conventions.MESSAGING_DESTINATION: destination,
    }
