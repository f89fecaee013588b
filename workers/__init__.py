"""Works on events: what a processor's author imports."""

from workers.control import Discard, RetryAfter, Snooze
from workers.event import Event
from workers.periodic import Due, periodic
from workers.registry import processor

__all__ = ["Discard", "Due", "Event", "RetryAfter", "Snooze", "periodic", "processor"]
