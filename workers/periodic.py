"""Declaring a processor that runs at set times, instead of for events that senders send."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ingest import queues
from ingest.sources import schedule as runs
from ingest.sources.base import TYPE_LIMIT
from workers import registry, schedules
from workers.breaker import Breaker
from workers.registry import Function
from workers.schedules import Missed


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The data of a run, for processors that take `Event[Due]`; all times are in UTC."""

    due_at: datetime
    """When it was due; of one that a person asked for, when they did."""
    previous_due_at: datetime | None
    """When the run before it was due; None: there was none."""
    missed: int
    """Due times since then that have no run of their own."""
    by_hand: bool
    """Whether a person asked for it."""


def periodic(
    expression: str,
    *,
    zone: str = "UTC",
    missed: Missed = "latest",
    overlap: bool = False,
    name: str | None = None,
    queue: str = queues.LIVE,
    max_attempts: int | None = None,
    timeout_s: float | None = None,
    retry_base_s: float | None = None,
    retry_max_delay_s: float | None = None,
    breaker: Breaker | None = None,
) -> Callable[[Function], Function]:
    """Declare a function as a processor that runs at set times, once whatever the number of relays
    and workers.

    The function gets `(event, db)` as any processor does. `event.data` has `due_at`,
    `previous_due_at`, `missed` and `by_hand`; of an `Event[Due]` it is a `Due`.

    Args:
        expression: a cron expression: minute, hour, day of month, month, day of week.
        zone: the time zone in which it is read, as the IANA database names it.
        missed: what becomes of due times at which no run could begin: `latest`, one run for all of
            them; `all`, one for each of the newest 100; `none`, no run a minute after its time.
        overlap: whether a run may begin while another is unfinished. Otherwise what falls due
            meanwhile is missed.
        name: identifies the processor and its runs; default: module and function.
        queue, max_attempts, timeout_s, retry_base_s, retry_max_delay_s, breaker: as of
            `@processor`.

    Raises:
        TypeError, ValueError: the declaration makes no sense.
    """
    schedule = schedules.check(expression, zone, missed, overlap=overlap)

    def declare(function: Function) -> Function:
        own_name = name or f"{function.__module__}.{function.__qualname__}"
        kind = f"{runs.SLUG}.{own_name}"
        if "*" in kind or len(kind) > TYPE_LIMIT:
            raise ValueError(
                f"{own_name[:50]!r} cannot be the name of a periodic processor: give it a name="
                f" without `*`, of at most {TYPE_LIMIT - len(runs.SLUG) - 1} characters"
            )
        registry.processor(
            kind,
            name=own_name,
            queue=queue,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            retry_base_s=retry_base_s,
            retry_max_delay_s=retry_max_delay_s,
            breaker=breaker,
        )(function)
        registry.declared[-1] = replace(registry.declared[-1], schedule=schedule)
        return function

    return declare
