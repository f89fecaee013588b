"""What attempts that ended do to a circuit breaker: the decision, apart from the writing of it.

A closed breaker counts the attempts in a row that say that the target is down, and opens at a
number. While it is open one job at a time may run, the probe. A probe that the target answers
closes it.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol


class Sign(enum.StrEnum):
    """What an attempt's error says of the target."""

    DOWN = "down"
    UP = "up"
    """The target has answered, though the attempt failed."""
    OVER = "over"
    """The target was down, and has answered a later call since."""


class Ended(Protocol):
    """An attempt that ended without success."""

    @property
    def id(self) -> int:
        """The job."""

    @property
    def attempt(self) -> int:
        """Its number."""

    @property
    def sign(self) -> Sign | None:
        """What it says of the target; None: nothing."""

    @property
    def error_type(self) -> str | None:
        """The class of the error."""

    @property
    def target_back_in_s(self) -> float | None:
        """When the target asked to be tried again; None: it did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A breaker at one moment."""

    failures: int = 0
    """Attempts in a row that said that the target is down; while it is open, probes among them."""
    is_open: bool = False
    probe: tuple[int, int] | None = None
    """The job that may run while it is open, and the number that its attempt has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What attempts have changed."""

    state: State
    uncounted: frozenset[int] = frozenset()
    """The jobs whose attempt spends nothing: the breaker was open, and they were no probe."""
    last: Ended | None = None
    """The last attempt that counts and said that the target is down."""
    back_in_s: float = 0.0
    """When the target asked to be tried again, in seconds; 0: it did not say."""


def decide(state: State, ended: Iterable[Ended], *, opens_after: int) -> Decision:
    """Return what attempts change, in the order in which they ended."""
    uncounted: set[int] = set()
    last: Ended | None = None
    back_in_s = 0.0
    for attempt in ended:
        is_probe = state.probe == (attempt.id, attempt.attempt)
        is_down = attempt.sign is Sign.DOWN
        if is_down:
            back_in_s = max(back_in_s, attempt.target_back_in_s or 0.0)
        was_down = is_down or attempt.sign is Sign.OVER
        if was_down and state.is_open and not is_probe:
            uncounted.add(attempt.id)
            continue
        if is_down:
            last = attempt
        state = _after(state, attempt.sign, is_probe=is_probe, opens_after=opens_after)
    return Decision(state=state, uncounted=frozenset(uncounted), last=last, back_in_s=back_in_s)


def _after(state: State, sign: Sign | None, *, is_probe: bool, opens_after: int) -> State:
    """Return the state after an attempt that counts."""
    if sign is Sign.UP and (is_probe or not state.is_open):
        return State()
    if is_probe:
        state = replace(state, probe=None)
    if sign is not Sign.DOWN:
        return state
    failures = state.failures + 1
    return replace(state, failures=failures, is_open=state.is_open or failures >= opens_after)
