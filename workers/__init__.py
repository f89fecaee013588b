"""Works on events: what a processor's author imports."""

from workers.control import Discard, Snooze
from workers.event import Event
from workers.registry import processor

__all__ = ["Discard", "Event", "Snooze", "processor"]
