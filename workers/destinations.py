"""The processors of destinations: each forwards events to its HTTP endpoint.

A request holds no transaction open, and a process makes many at once: one event loop, on a thread
of its own, serves the threads of all destinations.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest.destinations import message, sending
from ingest.destinations.answer import Meaning, Verdict
from ingest.destinations.description import MOST_THREADS, Destination
from ingest.destinations.message import Message
from ingest.outgoing import NoAnswer
from ingest.store import content_types
from workers.breaker import Breaker, HTTPStatus5xx
from workers.control import Discard, RetryAfter
from workers.event import Event
from workers.limits import limits_of
from workers.order import order_of
from workers.registry import Declaration, Processor

_GRACE_S = 5.0
"""What a call may take beside its request, before the worker ends it."""
_LOOK_S = 0.25
"""How soon a thread that waits for an answer sees that it has to end."""

_Result = TypeVar("_Result")


class RefusedByDestination(Exception):
    """A destination did not take an event."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is that of its answer."""
        super().__init__(message)
        self.status = status


class RefusedUntil(RetryAfter):
    """Likewise, and it said when to try again."""

    def __init__(self, message: str, seconds: float, status: int) -> None:
        """Try again in `seconds`."""
        super().__init__(message, seconds)
        self.status = status


class GoneAway(Discard):
    """A destination wants no further attempt at an event."""

    is_answer = True


class Loop:
    """An event loop on a thread of its own, started by the first call, since a worker's processes
    are forked before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` comes to. What is raised in the thread that waits cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            while not wait([future], timeout=_LOOK_S).done:
                pass
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = _running_loop()
            return self._loop


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that runs on a new thread. Raises RuntimeError: there can be no more threads;
    then nothing is left of the loop."""
    loop = asyncio.new_event_loop()
    # It resolves names. One that takes its time must not hold up the others.
    loop.set_default_executor(ThreadPoolExecutor(MOST_THREADS))
    try:
        threading.Thread(target=loop.run_forever, name="destinations", daemon=True).start()
    except BaseException:
        loop.close()
        raise
    return loop


class Forwarder:
    """The function of a destination's processor."""

    def __init__(
        self,
        destination: Destination,
        loop: Loop,
        environ: Mapping[str, str],
        *,
        now: Callable[[], datetime],
    ) -> None:
        """Secrets are read from `environ`, or their files, for each request."""
        self._destination = destination
        self._loop = loop
        self._environ = environ
        self._now = now

    def __repr__(self) -> str:
        return f"[[destination]] {self._destination.name}"

    def check(self) -> None:
        """Read address and secrets. Raises SettingsError."""
        sending.target(self._destination, self._environ)

    def __call__(self, event: Event, database: Engine | Connection) -> None:
        """Forward an event.

        Raises:
            GoneAway, RefusedUntil, RefusedByDestination: the answer was no success.
            NoAnswer: there was none.
            SettingsError: a secret is missing.
        """
        verdict = self._loop.run(
            sending.send(
                self._destination,
                sending.target(self._destination, self._environ),
                self._message(event, database),
                event.idempotency_key,
                attempt=event.attempt,
                now=self._now(),
            )
        )
        _raise_unless_taken(verdict)

    def _message(self, event: Event, database: Engine | Connection) -> Message:
        if self._destination.body == "json":
            return message.of_event(event)
        if isinstance(database, Connection):
            content_type = content_types.of(database, UUID(event.id))
        else:
            with database.connect() as connection:
                content_type = content_types.of(connection, UUID(event.id))
        return Message(body=event.body, content_type=content_type)


def declarations(destinations: Iterable[Destination]) -> list[Declaration]:
    """Return a processor for each destination."""
    loop = Loop()
    return [_declaration(destination, loop) for destination in destinations]


def check(processors: Iterable[Processor]) -> None:
    """Read the addresses and secrets of those processors that are destinations.

    Raises:
        SettingsError: one is missing or of no use.
    """
    for processor in processors:
        if isinstance(processor.function, Forwarder):
            processor.function.check()


def _declaration(destination: Destination, loop: Loop) -> Declaration:
    return Declaration(
        function=Forwarder(destination, loop, os.environ, now=lambda: datetime.now(UTC)),
        types=destination.types,
        name=destination.name,
        batch=False,
        queue=destination.queue,
        threads=destination.threads,
        max_attempts=destination.max_attempts,
        timeout_s=destination.timeout_s + _GRACE_S,
        retry_base_s=destination.retry_base_s,
        retry_max_delay_s=destination.retry_max_delay_s,
        order=order_of(destination.ordered_by or None, destination.on_dead),
        limits=limits_of(
            concurrency=destination.concurrency,
            rate=destination.rate,
            limit_by=destination.limit_by or None,
            key_concurrency=destination.key_concurrency,
            key_rate=destination.key_rate,
        ),
        sources=destination.sources,
        is_outside=True,
        breaker=_breaker(destination),
    )


def _breaker(destination: Destination) -> Breaker | None:
    """Return when a destination is down: it gave no answer, or one of 5xx. A 429 is an answer."""
    if (rules := destination.breaker) is None:
        return None
    return Breaker(
        on=(NoAnswer, TimeoutError, HTTPStatus5xx),
        after=rules.after,
        probe_every_s=rules.probe_every_s,
    )


def _raise_unless_taken(verdict: Verdict) -> None:
    if verdict.meaning is Meaning.GONE:
        raise GoneAway(verdict.sentence)
    if verdict.meaning is Meaning.REFUSED:
        if verdict.retry_after_s is not None:
            raise RefusedUntil(verdict.sentence, verdict.retry_after_s, verdict.status)
        raise RefusedByDestination(verdict.sentence, verdict.status)
