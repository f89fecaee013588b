"""Works on events: what a processor's author imports."""

from workers.breaker import Breaker, HTTPStatus5xx, HTTPStatusIn
from workers.control import Discard, RetryAfter, Snooze
from workers.event import Event
from workers.periodic import Due, periodic
from workers.registry import processor

__all__ = [
    "Breaker",
    "Discard",
    "Due",
    "Event",
    "HTTPStatus5xx",
    "HTTPStatusIn",
    "RetryAfter",
    "Snooze",
    "periodic",
    "processor",
]
