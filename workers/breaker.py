"""Circuit breakers: when a processor's target is down, so that its jobs are to wait.

A breaker reads an error together with those that it was raised from or while handling: libraries
wrap the `ConnectionError` that says why. What `from None` hides is read too: httpx hides it so.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ingest import logs
from ingest.retry_after import retry_after_s
from ingest.store.pipeline.breaker_state import Sign
from ingest.store.pipeline.breakers import Declared
from ingest.store.pipeline.jobs import ClaimedJob, Failure, Outcome
from ingest.text import storable
from workers.control import Discard, RetryAfter, Snooze, asked_s

LONGEST_PROBE_S = 86_400.0
"""Between two probes, whatever was declared or asked for."""
MOST_FAILURES = 1_000_000
_LONGEST_CHAIN = 20
_LONGEST_WATCHES = 200
_STATUSES = range(100, 600)
_NOT_COUNTED = "The target was down and the breaker open; this attempt does not count."

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class HTTPStatusIn:
    """Whether an error holds one of some HTTP statuses. It knows errors by what they have, of
    whatever library: httpx, requests, aiohttp, urllib."""

    statuses: range | Collection[int]
    """Kept as a range or a frozen set, so that it can be compared and hashed."""
    name: str = "HTTPStatusIn"

    def __post_init__(self) -> None:
        """Check the statuses.

        Raises:
            TypeError, ValueError: no error ever has one of them.
        """
        if isinstance(self.statuses, (int, str)):
            raise TypeError(f"HTTPStatusIn takes several statuses: {{{self.statuses}}}")
        if not isinstance(self.statuses, range):
            object.__setattr__(self, "statuses", frozenset(self.statuses))
        if not all(status in _STATUSES for status in self.statuses) or not self.statuses:
            raise ValueError("HTTPStatusIn takes statuses of HTTP, from 100 to 599: {429, 503}")

    def __call__(self, error: BaseException) -> bool:
        """Return whether it does."""
        return status_of(error) in self.statuses


HTTPStatus5xx = HTTPStatusIn(range(500, 600), "HTTPStatus5xx")
"""An answer that says that the server is at fault."""

Target = type[BaseException] | Callable[[BaseException], bool]
"""An exception class, or a function of an exception that tells whether it is meant."""


@dataclass(frozen=True, slots=True, init=False)
class Breaker:
    """Parks a processor's jobs while its target is down, and probes the target."""

    on: tuple[Target, ...]
    after: int
    probe_every_s: float
    _classes: tuple[type[BaseException], ...] = field(repr=False, compare=False)

    def __init__(
        self,
        on: Target | Sequence[Target] = (ConnectionError, TimeoutError, HTTPStatus5xx),
        after: int = 10,
        probe_every_s: float = 30,
    ) -> None:
        """Open after `after` attempts in a row, over all workers, that failed with one of `on`.

        Args:
            on: exception classes, and functions of an exception that return whether it says that
                the target is down. `TimeoutError` stands for the processor's own time limit too.
            after: attempts in a row.
            probe_every_s: seconds from one probe to the next while it is open.

        Raises:
            TypeError, ValueError: that makes no breaker.
        """
        targets = tuple(on) if isinstance(on, (list, tuple, set, frozenset)) else (on,)
        if not targets:
            raise ValueError("a breaker needs an error to open on: on=(ConnectionError,)")
        for target in targets:
            _check_target(target)
        if isinstance(after, bool) or not isinstance(after, int):
            raise TypeError("after= is how many attempts in a row: a whole number")
        if not 1 <= after <= MOST_FAILURES:
            raise ValueError(f"after= must be from 1 to {MOST_FAILURES:,}")
        if isinstance(probe_every_s, bool) or not isinstance(probe_every_s, (int, float)):
            raise TypeError("probe_every_s= is a number of seconds")
        if not 0 < probe_every_s <= LONGEST_PROBE_S:
            raise ValueError(f"probe_every_s= must be above 0 and at most {LONGEST_PROBE_S:,.0f}")
        classes = tuple(target for target in targets if inspect.isclass(target))
        for name, value in {
            "on": targets,
            "after": after,
            "probe_every_s": float(probe_every_s),
            "_classes": classes,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def watches(self) -> str:
        """What it opens on, for people."""
        return ", ".join(map(_name, self.on))

    def of(self, processor: str) -> Declared:
        """Return it as a processor's, to be registered."""
        return Declared(
            processor=processor,
            watches=storable(self.watches, limit=_LONGEST_WATCHES),
            opens_after=self.after,
            probe_every_s=self.probe_every_s,
        )

    def sign_of(self, error: BaseException) -> Sign | None:
        """Return what an error says of the target; None: nothing.

        What a processor decides itself, by `Discard` or `Snooze`, says nothing, unless a `Discard`
        is declared an answer. An HTTP status that the breaker does not open on is one.
        """
        if isinstance(error, Snooze):
            return None
        if isinstance(error, Discard):
            return Sign.UP if type(error).is_answer is True else None
        errors = list(chain_of(error))
        if any(map(self._is_meant, errors)):
            return Sign.DOWN
        return Sign.UP if any(status_of(one) is not None for one in errors) else None

    def _is_meant(self, error: BaseException) -> bool:
        if isinstance(error, self._classes):
            return True
        return any(_holds(target, error) for target in self.on if not inspect.isclass(target))


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or while handling, hidden ones too; 20 at
    most."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen and len(seen) < _LONGEST_CHAIN:
        seen.add(id(one))
        yield one
        cause = _attribute(one, "__cause__")
        one = cause if cause is not None else _attribute(one, "__context__")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error: that of its `response`, or its own `status_code`,
    `status` or `code`; None: it has none."""
    response = _attribute(error, "response")
    for place, name in (
        (response, "status_code"),
        (response, "status"),
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
    ):
        status = _attribute(place, name)
        if isinstance(status, int) and not isinstance(status, bool) and status in _STATUSES:
            return int(status)
    return None


def back_in_s(error: BaseException, *, now: datetime | None = None) -> float | None:
    """Return in how many seconds the target asked to be tried again, a day at most: by a
    `RetryAfter`, or by the header `Retry-After` of the answer that an error holds; None: it did not
    say.

    `now` is the time that a date in the header is after; None: the clock's.
    """
    for one in chain_of(error):
        if isinstance(one, RetryAfter):
            seconds = asked_s(one, most=LONGEST_PROBE_S)
            if seconds > 0:
                return seconds
        for holder in (_attribute(one, "response"), one):
            value = _header(_attribute(holder, "headers"))
            wait_s = retry_after_s(value, now=now or datetime.now(UTC))
            if wait_s is not None:
                return wait_s
    return None


def marked(failure: Failure, breaker: Breaker | None, error: BaseException) -> Failure:
    """Return a failure with what its error says of the target. The job's next attempt is not before
    the target asked for it, either."""
    sign = breaker.sign_of(error) if breaker else None
    if sign is not Sign.DOWN:
        return replace(failure, sign=sign) if sign else failure
    wait_s, retry_in_s = back_in_s(error), failure.retry_in_s
    if wait_s is not None and retry_in_s is not None:
        retry_in_s = max(retry_in_s, wait_s)
    return replace(failure, sign=sign, target_back_in_s=wait_s, retry_in_s=retry_in_s)


def is_down(breaker: Breaker | None, failures: Sequence[Failure]) -> bool:
    """Return whether the calls of a slice have found the target to be down, so that the others need
    not be made."""
    if breaker is None or len(failures) < breaker.after:
        return False
    in_a_row = 0
    for failure in failures:
        if failure.sign is not None:
            in_a_row = in_a_row + 1 if failure.sign is Sign.DOWN else 0
    return in_a_row >= breaker.after


def answered(failures: list[Failure]) -> None:
    """Note that the target has answered after `failures`: they are in a row with none that
    follows."""
    failures[:] = [
        replace(failure, sign=Sign.OVER) if failure.sign is Sign.DOWN else failure
        for failure in failures
    ]


def not_called(job: ClaimedJob) -> Failure:
    """Return what follows for a job whose call was not made because the target is down."""
    return Failure(
        id=job.id,
        attempt=job.attempt,
        outcome=Outcome.RELEASED,
        retry_in_s=0.0,
        error_type="TargetDown",
        error_message="The target was down for the calls before; this one was not made.",
    )


def not_counted(failure: Failure) -> Failure:
    """Return what follows instead where the breaker was open: the job waits with the others."""
    return replace(
        failure,
        outcome=Outcome.RELEASED,
        retry_in_s=0.0,
        error_message=f"{failure.error_message} ({_NOT_COUNTED})",
        traceback=None,
    )


def _check_target(target: object) -> None:
    if inspect.isclass(target):
        if not issubclass(target, BaseException):
            raise TypeError(f"on= has {target.__name__}, which is no exception class")
        if issubclass(target, (Discard, Snooze)):
            raise ValueError(f"on= has {target.__name__}, which says nothing of the target")
        return
    if not callable(target):
        raise TypeError(
            f"on= has {target!r}: it takes exception classes, and functions of an exception"
        )


def _name(target: Target) -> str:
    name = getattr(target, "name", None) or getattr(target, "__name__", None)
    return name if isinstance(name, str) else type(target).__name__


def _holds(target: Target, error: BaseException) -> bool:
    try:
        return bool(target(error))
    except Exception as broken:  # a function of a user's own
        log.warning("breaker_function_failed", function=_name(target), exc_info=broken)
        return False


def _attribute(holder: object, name: str) -> Any:
    """Return an attribute, or None where there is none to be had: libraries have properties that
    raise."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None


def _header(headers: Any) -> str | None:
    """Return `Retry-After` from the headers of whatever library."""
    try:
        value = headers.get("Retry-After") or headers.get("retry-after")
    except Exception:
        return None
    return value if isinstance(value, str) else None
