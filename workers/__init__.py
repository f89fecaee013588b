"""Works on events: what a processor's author imports."""

from workers.control import Discard, RetryAfter, Snooze
from workers.event import Event
from workers.registry import processor

__all__ = ["Discard", "Event", "RetryAfter", "Snooze", "processor"]
