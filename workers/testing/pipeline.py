"""Runs processors for a test: in a transaction that is never committed."""

import copy
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from random import Random
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest.settings import Settings
from ingest.sources import schedule
from ingest.sources.base import Headers
from ingest.sources.registry import readers
from ingest.sources.schedule import Run
from ingest.store.pipeline.jobs import ClaimedJob, Failure, Lease, Outcome
from workers import outcome, registry
from workers.batches import BatchRunner, Call
from workers.counts import unshared
from workers.event import Event
from workers.registry import Processor, Registry
from workers.testing import attempts
from workers.testing.attempts import Attempt
from workers.testing.events import EventMaker
from workers.testing.faults import Fault, crashing
from workers.testing.limits import CallLimit
from workers.timeouts.signals import TimedOut
from workers.transaction import Effects

_SEED = 20_000
_CHECK = "SAVEPOINT ingest_check", "SET CONSTRAINTS ALL IMMEDIATE", "ROLLBACK TO ingest_check"
_MOST_ATTEMPTS = 1_000


class NotDeclared(Exception):
    """The function is no processor of the event's type."""


class Pipeline:
    """Makes events and runs processors, as a worker does, in one transaction for the whole test.

    At the end of the test the transaction is rolled back.
    """

    def __init__(self, engine: Engine, settings: Settings, *, fault: Fault = Fault.NONE) -> None:
        """Run on a guarded engine (workers.guard), with what `fault` says in each call."""
        self._engine = engine
        self._settings = settings
        self._fault = fault
        self._effects = Effects(engine)
        self._maker = EventMaker(
            readers(settings.sources),
            settings.default_source,
            random=Random(_SEED),  # noqa: S311 - samples, not secrets
        )

    @property
    def db(self) -> Connection:
        """Return the connection that processors get: for what a test prepares and looks up."""
        return self._effects.db

    def event(
        self,
        event_type: str,
        *,
        source: str | None = None,
        at: datetime | None = None,
        data: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Event:
        """Return a sample of an event: what its sender's documentation shows, with random values.

        Args:
            event_type: as the sender names it: `order.created`.
            source: whose event it is. Default: the only source that documents the type, or that of
                `INGEST_DEFAULT_SOURCE`.
            at: when it happened and was received; default: now.
            data: fields of its data to set, as `fields`, for those named like an argument.
            fields: fields of its data to set.

        Raises:
            NoSample: there is no sample of such an event.
            ValueError: the sender's data is no object that fields can be put in.
        """
        given = {**(data or {}), **fields}
        return self._maker.sample(event_type, source=source, at=at or _now(), fields=given)

    def read(
        self,
        body: bytes,
        *,
        source: str | None = None,
        headers: Headers = (),
        at: datetime | None = None,
    ) -> Event:
        """Return the event of a body, as it would be stored.

        Args:
            body: as the sender sends it.
            source: whose body it is; default: `INGEST_DEFAULT_SOURCE`.
            headers: those of its request, lower-case, where the sender names id or type there.
            at: when it was received; default: now.

        Raises:
            InvalidEnvelope: the body is no event of the source.
        """
        return self._maker.read(body, source=source, headers=headers, at=at or _now())

    def due(
        self,
        function: Callable[..., object],
        at: datetime | None = None,
        *,
        previous_due_at: datetime | None = None,
        missed: int = 0,
        by_hand: bool = False,
    ) -> Event:
        """Return the event that a periodic processor is called with when it is due.

        Args:
            function: the processor.
            at: when it is due; default: now.
            previous_due_at: when the run before was due; None: there was none.
            missed: due times since then that have no run of their own.
            by_hand: whether a person asked for it.

        Raises:
            NotDeclared: the function is no periodic processor.
        """
        names = [processor.name for processor in self._declared(function) if processor.schedule]
        if not names:
            raise NotDeclared(f"{_name(function)} is not periodic: it lacks @periodic(...)")
        due_at = _now() if at is None else at
        run = Run(
            processor=names[0],
            due_at=due_at,
            previous_due_at=previous_due_at,
            missed=missed,
            by_hand=by_hand,
        )
        return self._maker.read(run.body, source=schedule.SLUG, headers=(), at=due_at)

    def run(self, function: Callable[..., object], event: Event[Any]) -> Attempt:
        """Run a processor on one event, once, and return what the attempt came to.

        Effects stay for the rest of the test if it succeeded. A batch processor gets a list of one.

        Raises:
            NotDeclared: the function is no processor of the event's type.
        """
        return self.run_all(function, [event])[0]

    def run_all(
        self, function: Callable[..., object], events: Sequence[Event[Any]]
    ) -> list[Attempt]:
        """Run a processor on each event, once, in this order; a batch processor gets them in one
        list. Return the attempts in the order of the events.

        Raises:
            NotDeclared: the function is no processor of an event's type.
        """
        processor = self._processor(function, events)
        order = list(reversed(events)) if self._fault is Fault.REORDER else list(events)
        lists = [order] if processor.batch else [[event] for event in order]
        by_event = {
            event.id: attempt
            for events_of_call in lists
            for event, attempt in zip(
                events_of_call, self._disturbed(processor, events_of_call), strict=True
            )
        }
        return [by_event[event.id] for event in events]

    def run_until_done(self, function: Callable[..., object], event: Event[Any]) -> list[Attempt]:
        """Run a processor on one event until it has succeeded or is dead, without the waits.

        Raises:
            NotDeclared: the function is no processor of the event's type.
            RuntimeError: it snoozes without an end.
        """
        made: list[Attempt] = []
        failures = 0
        while len(made) < _MOST_ATTEMPTS:
            number = made[-1].number + 1 if made else event.attempt
            processor = self._processor(function, [event])
            (attempt,) = self._disturbed(
                processor, [replace(event, attempt=number)], failures=failures
            )
            made.append(attempt)
            if attempt.state != "retrying":
                return made
            failures += attempt.outcome is not Outcome.SNOOZED
        raise RuntimeError(f"{event.type} is not done after {len(made)} attempts")

    def _disturbed(
        self, processor: Processor, events: Sequence[Event[Any]], *, failures: int | None = None
    ) -> list[Attempt]:
        """Call the processor, with the fault of this test. `failures` is how many attempts have
        failed; None: all before this one."""
        if self._fault is Fault.CRASH:
            dying = replace(processor, function=crashing(processor.function))
            ended = self._attempt(dying, events, failures=failures)
            if all(attempt.outcome is not Outcome.RELEASED for attempt in ended):
                return ended
            events = _again(events)
        made = self._attempt(processor, events, failures=failures)
        if self._fault is Fault.DUPLICATE and all(attempt.succeeded for attempt in made):
            made = self._attempt(processor, _again(events), failures=failures)
        return made

    def _attempt(
        self, processor: Processor, events: Sequence[Event[Any]], *, failures: int | None
    ) -> list[Attempt]:
        """Call the processor once for one event, or for a list."""
        self._effects.release_savepoint()  # what the test wrote stays, however the call ends
        runner = _Runner(
            engine=self._engine,
            sources={},
            recorder=_NoRecord(),
            time_limit=CallLimit(),
            random=_longest,
            tally=unshared([processor.name]),
            clock=time.time,
            events=dict(enumerate(events)),
        )
        checked = replace(processor, function=_checking(processor.function))
        calls = [
            runner.call(checked, _job(number, event, checked, failures), event.body)
            for number, event in enumerate(events)
        ]
        failed = {
            failure.id: attempts.failure(failure)
            for failure in _without_key(processor, events, failures)
        }
        if to_call := [call for call in calls if call.job.id not in failed]:
            result = runner.try_calls(checked, to_call, self._effects)
            failed |= {failure.id: attempts.failure(failure) for failure in result.failures}
        if not self._effects.is_intact():
            self._start_afresh()
        return [
            failed.get(number) or attempts.success(event.attempt)
            for number, event in enumerate(events)
        ]

    def _start_afresh(self) -> None:
        """Begin another transaction: the call has ended its own, and what the test wrote is gone
        with it."""
        self._effects.__exit__(None, None, None)
        self._effects = Effects(self._engine).__enter__()

    def _processor(
        self, function: Callable[..., object], events: Sequence[Event[Any]]
    ) -> Processor:
        processors = self._declared(function)
        name = _name(function)
        if not processors:
            raise NotDeclared(f"{name} is no processor: it lacks @processor(...)")
        for processor in processors:
            if all(_is_of(processor, event) for event in events):
                return _plain(processor)
        missed = next(event.type for event in events if not _is_of(processors[-1], event))
        types = ", ".join(event_type for known in processors for event_type in known.types)
        raise NotDeclared(f"{name} is a processor of {types}, not of {missed}")

    def _declared(self, function: Callable[..., object]) -> list[Processor]:
        declarations = [
            declaration
            for declaration in registry.declared
            if inspect.unwrap(declaration.function) is inspect.unwrap(function)
        ]
        return list(Registry(declarations, self._settings))

    def __enter__(self) -> Self:
        self._effects.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._effects.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runner(BatchRunner):
    """Runs slices of a test's events."""

    events: Mapping[int, Event[Any]]
    """By the ids of their jobs."""

    def call(self, processor: Processor, job: ClaimedJob, body: bytes) -> Call:
        """Return a job with a new copy of its event."""
        event = self.events[job.id]
        own = replace(
            event,
            data=copy.deepcopy(event.data),
            idempotency_key=f"{event.id}:{processor.name}",
        )
        return Call(job=job, event=own)


class _NoRecord:
    """In place of the record of what runs, for those who would find the process dead."""

    def mark_running(self, job: Lease) -> None:
        """Note nothing."""

    def mark_idle(self) -> None:
        """Note nothing."""


def _job(number: int, event: Event[Any], processor: Processor, failures: int | None) -> ClaimedJob:
    return ClaimedJob(
        id=number,
        processor=processor.name,
        attempt=event.attempt,
        failures=event.attempt - 1 if failures is None else failures,
        trigger="event",
        event=UUID(event.id),
        source=event.source,
        event_id=event.event_id,
        type=event.type,
        received_at=event.received_at,
        body=event.body,
    )


def _without_key(
    processor: Processor, events: Sequence[Event[Any]], failures: int | None
) -> Iterator[Failure]:
    """Return what becomes of events whose key cannot be told: a worker reads it from the plain
    data, before it calls the processor."""
    owners = (processor.order, processor.limits)
    keys = [owner.key for owner in owners if owner is not None and owner.key is not None]
    for number, event in enumerate(events):
        try:
            for key in keys:
                with CallLimit()(processor.timeout_s):
                    key.of(replace(event, data=copy.deepcopy(event.data)))
        except (Exception, TimedOut) as error:
            job = _job(number, event, processor, failures)
            yield outcome.of_unreadable_key(job, processor, error)


def _checking(function: Callable[..., object]) -> Callable[[Any, Connection], None]:
    """Return a processor after which deferred constraints are checked, as its commit would."""

    def call(argument: Any, db: Connection) -> None:
        function(argument, db)
        for statement in _CHECK:
            db.exec_driver_sql(statement)

    return call


def _plain(processor: Processor) -> Processor:
    if not processor.is_async:
        return processor
    from workers.testing.coroutines import awaited  # asyncio, which other tests go without

    return awaited(processor)


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _is_of(processor: Processor, event: Event[Any]) -> bool:
    return any(fnmatchcase(event.type, pattern) for pattern in processor.types)


def _again(events: Sequence[Event[Any]]) -> list[Event[Any]]:
    return [replace(event, attempt=event.attempt + 1) for event in events]


def _longest(_low: float, high: float) -> float:
    """Return the longest wait, in place of a random one."""
    return high


def _now() -> datetime:
    return datetime.now(UTC)
