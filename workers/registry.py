"""Which function works on which event type."""

import importlib
import importlib.metadata
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ingest import queues
from ingest.destinations import files
from ingest.errors import SettingsError
from ingest.settings import MOST_SECONDS, Settings
from ingest.sources import registry as sources
from ingest.sources.base import column_type
from ingest.store.pipeline.jobs import ANY_SOURCE, NewJobs
from ingest.text import storable
from workers.breaker import Breaker
from workers.event_key import KeyedBy
from workers.limits import Limits, limits_of
from workers.order import WAIT, Order, order_of
from workers.retry import RetryPolicy
from workers.schedules import Schedule
from workers.typed_data import BadModel, Model, model_of

MOST_ATTEMPTS = 1_000
MOST_THREADS = 100
IN_FLIGHT = 100
MOST_IN_FLIGHT = 1_000
MOST_CONNECTIONS = 20
"""Connections of a worker process for its async processors: so many calls at once may be between
their first use of `db` and their end."""
_LONGEST_ABOUT = 200
_NO_TYPE = "[]?"
"""What patterns of other kinds have: `*` is the only one here."""
BUILT_IN = "workers.processors"
ENTRY_POINTS = "ingest.processors"

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What `@processor` was given; None where the settings decide."""

    function: Callable[..., object]
    types: tuple[str, ...]
    name: str
    batch: bool
    queue: str
    threads: int
    max_attempts: int | None
    timeout_s: float | None
    retry_base_s: float | None
    retry_max_delay_s: float | None
    order: Order | None = None
    limits: Limits | None = None
    sources: tuple[str, ...] = ()
    is_outside: bool = False
    schedule: Schedule | None = None
    breaker: Breaker | None = None
    is_async: bool = False
    in_flight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A registered function and its rules."""

    name: str
    types: tuple[str, ...]
    function: Callable[..., object]
    batch: bool
    """Whether the function takes a list of events."""
    queue: str
    threads: int
    """How many of its jobs a worker process runs at once, on threads."""
    max_attempts: int
    timeout_s: float
    rules: RetryPolicy
    """When to try again."""
    model: Model | None = None
    """What the data of its events must be; None: any object."""
    order: Order | None = None
    """What its jobs are kept in order by; None: they run in any order."""
    limits: Limits | None = None
    """How many of its jobs run at once, or start in a time, over all workers; None: any number."""
    sources: tuple[str, ...] = ()
    """Only events of these; none: of all."""
    is_outside: bool = False
    """Whether it has no effects in PostgreSQL: it is called before the transaction in which its
    jobs succeed, and gets the engine instead of a connection."""
    schedule: Schedule | None = None
    """When it is due; None: it runs for events that senders send."""
    breaker: Breaker | None = None
    """When its target is down, so that its jobs wait; None: they are tried whatever fails."""
    is_async: bool = False
    in_flight: int = 1
    """How many calls of an async one a worker process has at once, on its event loop."""

    @property
    def connections(self) -> int:
        """How many of its calls a worker process lets use `db` at once."""
        return min(self.in_flight, MOST_CONNECTIONS) if self.is_async else self.threads

    @property
    def about(self) -> str | None:
        """The first line of the function's docstring; None: it has none."""
        function = inspect.unwrap(self.function)
        lines = (inspect.getdoc(function) or "").splitlines() if inspect.isroutine(function) else []
        return storable(lines[0], limit=_LONGEST_ABOUT) if lines else None


declared: list[Declaration] = []
"""What `@processor` has declared in this process, in the order of the imports."""


def processor(
    *types: str,
    name: str | None = None,
    batch: bool = False,
    queue: str = queues.LIVE,
    threads: int = 1,
    in_flight: int | None = None,
    max_attempts: int | None = None,
    timeout_s: float | None = None,
    retry_base_s: float | None = None,
    retry_max_delay_s: float | None = None,
    ordered_by: KeyedBy | None = None,
    on_dead: str = WAIT,
    breaker: Breaker | None = None,
    concurrency: int | None = None,
    rate: str | None = None,
    limit_by: KeyedBy | None = None,
    key_concurrency: int | None = None,
    key_rate: str | None = None,
) -> Callable[[Function], Function]:
    """Declare a function as a processor of events of `types`.

    The function gets `(event, db)`, or `(events, db)` with `batch`. `db` is a SQLAlchemy
    `Connection` inside a transaction of ours, or an `AsyncConnection` of an `async def`: what is
    written through it is committed together with the job's success, or not at all. Returning is
    success; raising is a failed attempt.

    Args:
        types: event types, as the sender names them; `*` in one stands for any characters, as in
            searches: `order.*`, or `*` for all. An event makes one job for a processor, however
            many of its types it is of.
        name: identifies the processor's jobs; default: module and function. Renaming it makes it
            another processor.
        batch: take a list of events instead of one. A list that fails is halved until the events
            that fail are found, so the function must not keep anything between calls.
        queue: the lane its jobs take; a slow processor in a queue of its own delays no other.
        threads: how many of its jobs one worker process runs at once, each on a thread, a
            connection and in a transaction of its own. For a function that waits for others (an
            HTTP call) and may be called from several threads; give what it calls a time-out.
        in_flight: of an `async def`, how many calls one worker process has at once, on one event
            loop; default: 100. A list (`batch`) is one at a time.
        max_attempts: how often to try before the job is a dead letter.
        timeout_s: time of one call, seconds.
        retry_base_s: longest wait before the second attempt, seconds; doubles with each further
            one.
        retry_max_delay_s: longest wait before any attempt, seconds.
        ordered_by: run the jobs of one key one after another, in the order in which their events
            were received: a field of the data (`order_id`, `order.id`), several, or a function of
            the event that returns the key. An event without the field, or with None, has no order.
        on_dead: with an order, what becomes of the jobs behind a dead letter: they `wait` until it
            is replayed or discarded, or `skip` it.
        breaker: when what the function calls is down: its jobs wait then, and one now and then
            finds out whether it is back.
        concurrency: how many of its jobs run at once, over all workers.
        rate: how many start in any window of time, over all workers: `50/s`, `1000/m`, `10/5s`.
        limit_by: whose jobs get equal shares of that, as `ordered_by` names keys; and what the
            limits of a key are for. Events without the field share one share, with no limit of
            their own.
        key_concurrency: how many jobs of one key run at once.
        key_rate: how many jobs of one key start in any window of time.

    Raises:
        TypeError, ValueError: the declaration makes no sense.
    """
    if not types or not all(isinstance(event_type, str) for event_type in types):
        raise TypeError("@processor needs event types: @processor('order.created')")
    for event_type in types:
        if not event_type or event_type.split() != [event_type] or set(event_type) & set(_NO_TYPE):
            raise ValueError(
                f"{event_type!r} is no event type: name one (order.created) or a pattern (order.*)"
            )
    if queue == queues.REPLAY:
        raise ValueError(f"the queue {queues.REPLAY!r} is for replays")
    _check_whole("threads", threads, MOST_THREADS)
    if in_flight is not None:
        _check_whole("in_flight", in_flight, MOST_IN_FLIGHT)
    if max_attempts is not None:
        _check_whole("max_attempts", max_attempts, MOST_ATTEMPTS)
    for option, seconds in {
        "timeout_s": timeout_s,
        "retry_base_s": retry_base_s,
        "retry_max_delay_s": retry_max_delay_s,
    }.items():
        if seconds is not None:
            _check_seconds(option, seconds)
    if batch and threads > 1:
        raise ValueError("a processor takes a list or has threads, not both")
    if batch and in_flight is not None:
        raise ValueError("a processor takes a list or has in_flight=, not both")
    order = order_of(ordered_by, on_dead)
    if breaker is not None and not isinstance(breaker, Breaker):
        raise TypeError("breaker= takes a Breaker: breaker=Breaker(on=(ConnectionError,))")
    limits = limits_of(
        concurrency=concurrency,
        rate=rate,
        limit_by=limit_by,
        key_concurrency=key_concurrency,
        key_rate=key_rate,
    )

    def declare(function: Function) -> Function:
        _check_signature(function)
        is_async = _is_async(function)
        if is_async and threads > 1:
            raise ValueError("an async processor has in_flight=, and no threads")
        if in_flight is not None and not is_async:
            raise ValueError("in_flight is for `async def`; give a plain function threads=")
        declared.append(
            Declaration(
                function=function,
                types=tuple(column_type(event_type) for event_type in types),
                name=name or f"{function.__module__}.{function.__qualname__}",
                batch=batch,
                queue=queue,
                threads=threads,
                max_attempts=max_attempts,
                timeout_s=timeout_s,
                retry_base_s=retry_base_s,
                retry_max_delay_s=retry_max_delay_s,
                order=order,
                breaker=breaker,
                is_async=is_async,
                in_flight=(in_flight or IN_FLIGHT) if is_async and not batch else 1,
                limits=limits,
            )
        )
        return function

    return declare


class Registry:
    """The processors of a worker, by name."""

    def __init__(self, declarations: Iterable[Declaration], settings: Settings) -> None:
        """Complete `declarations` with the defaults of `settings`.

        Raises:
            SettingsError: two processors have one name.
        """
        self._by_name: dict[str, Processor] = {}
        for declaration in declarations:
            completed = _complete(declaration, settings)
            if completed.name in self._by_name:
                raise _duplicate(self._by_name[completed.name], completed)
            self._by_name[completed.name] = completed

    def __iter__(self) -> Iterator[Processor]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Processor | None:
        """Return the processor of that name, if this worker has it."""
        return self._by_name.get(name)

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that a worker with these processors must consume."""
        return tuple(
            sorted({queues.LIVE, queues.REPLAY, *(registered.queue for registered in self)})
        )

    def new_jobs(self, claimed: Callable[[Processor], int] = lambda _: 0) -> list[NewJobs]:
        """Return which jobs admission makes of an event of each type, and how many of a processor's
        jobs it claims at once."""
        return [
            NewJobs(
                type=event_type,
                source=source,
                processor=registered.name,
                queue=registered.queue,
                max_attempts=registered.max_attempts,
                claimed=claimed(registered),
                is_ordered=registered.order is not None,
            )
            for registered in self
            for event_type in registered.types
            for source in registered.sources or (ANY_SOURCE,)
        ]


def load(settings: Settings) -> Registry:
    """Import every module with processors and register what they declare.

    Raises:
        SettingsError: a module cannot be imported; the message names it.
    """
    # As `python -m` does: INGEST_PROCESSORS names modules from here.
    sys.path.insert(0, str(Path.cwd()))
    if settings.read_model:
        importlib.import_module(BUILT_IN)
    plugged_in = importlib.metadata.entry_points(group=ENTRY_POINTS)
    for module in (*settings.processors, *(entry_point.module for entry_point in plugged_in)):
        _import(module)
    declarations = [
        declaration
        for declaration in declared
        if settings.read_model or not declaration.function.__module__.startswith(BUILT_IN)
    ]
    return Registry([*declarations, *_destinations(settings)], settings)


def _destinations(settings: Settings) -> Sequence[Declaration]:
    described = files.read(settings.source_files, sources.classes())
    if not described:
        return ()
    from workers import destinations  # an HTTP client, 0.2 s of CPU: others go without

    return destinations.declarations(described)


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except BaseException as error:  # whatever a user's module does when it is imported
        message = f": {lines[0]}" if (lines := str(error).splitlines()) else ""
        raise SettingsError(
            f"The processors in {module} cannot be imported:"
            f" {_where(error)}{type(error).__name__}{message}",
            reason="processors_not_imported",
        ) from error


def _where(error: BaseException) -> str:
    """Return the file and line of the user's code that an import failed at."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent != Path(__file__).parent
        and frame.filename != importlib.__file__
        and not frame.filename.startswith("<frozen")
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""


def _duplicate(first: Processor, second: Processor) -> SettingsError:
    return SettingsError(
        f"Two processors are named {first.name}: give one a name= of its own."
        f" They are in {_declared_at(first)} and in {_declared_at(second)}.",
        reason="duplicate_processor",
    )


def _declared_at(registered: Processor | Declaration) -> str:
    """Return the file and line of a processor's function, or its name where it has none."""
    code = getattr(inspect.unwrap(registered.function), "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else repr(registered.function)


def _complete(declaration: Declaration, settings: Settings) -> Processor:
    return Processor(
        name=declaration.name,
        types=declaration.types,
        function=declaration.function,
        batch=declaration.batch,
        queue=declaration.queue,
        threads=declaration.threads,
        max_attempts=declaration.max_attempts or settings.max_attempts,
        timeout_s=declaration.timeout_s or settings.attempt_timeout_s,
        rules=RetryPolicy(
            base_s=declaration.retry_base_s or settings.retry_base_s,
            cap_s=declaration.retry_max_delay_s or settings.retry_max_delay_s,
        ),
        model=_model(declaration),
        order=declaration.order,
        limits=declaration.limits,
        sources=declaration.sources,
        is_outside=declaration.is_outside,
        schedule=declaration.schedule,
        breaker=declaration.breaker,
        is_async=declaration.is_async,
        in_flight=declaration.in_flight,
    )


def _model(declaration: Declaration) -> Model | None:
    try:
        return model_of(declaration.function, batch=declaration.batch)
    except BadModel as error:
        raise SettingsError(
            f"The processor {declaration.name} ({_declared_at(declaration)}): {error}",
            reason="bad_model",
        ) from error


def _check_whole(option: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} is a whole number")
    if value <= 0:
        raise ValueError(f"{option} must be above 0")
    if value > most:
        raise ValueError(f"{option} must be at most {most}")


def _check_seconds(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{option} is a number of seconds")
    if not 0 < value <= MOST_SECONDS:
        raise ValueError(f"{option} must be above 0 and at most {MOST_SECONDS:,}")


def _check_signature(function: Callable[..., object]) -> None:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise TypeError(f"{function.__qualname__} must take two arguments, (event, db)") from None


def _is_async(function: Callable[..., object]) -> bool:
    of_object = getattr(type(function), "__call__", None)  # noqa: B004 - it is not called here
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(of_object)
