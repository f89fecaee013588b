"""How long to wait before the next attempt."""

from collections.abc import Callable
from dataclasses import dataclass

Random = Callable[[float, float], float]
"""Uniform between its two arguments, as `random.uniform`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How the waits grow."""

    base_s: float
    """The longest wait after the first failure, seconds; doubles with each further one."""
    cap_s: float
    """The longest wait after any failure, seconds."""


def ceiling(failures: int, rules: RetryPolicy) -> float:
    """Return the longest wait after that many failures (at least 1), in seconds."""
    doublings = min(failures - 1, 60)  # 2**60 s is past any cap, and a float still holds it
    return min(rules.cap_s, rules.base_s * 2.0**doublings)


def delay(failures: int, rules: RetryPolicy, *, random: Random) -> float:
    """Exponential back-off with full jitter, in seconds: anything up to the ceiling, so that jobs
    that failed together do not come back together."""
    return random(0.0, ceiling(failures, rules))
