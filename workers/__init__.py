"""Works on events: what a processor's author imports."""

from workers.event import Event
from workers.registry import Discard, Snooze, processor

__all__ = ["Discard", "Event", "Snooze", "processor"]
