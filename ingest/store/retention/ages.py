"""The ages at which things go."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How long each kind is kept; None: for ever."""

    events: timedelta | None = None
    """Finished events with their jobs and attempts, and duplicates of events that are gone."""
    past_events: timedelta | None = None
    """The memory of removed events, from their receipt on."""
    refusals: timedelta | None = None
    activity: timedelta | None = None
    audit: timedelta | None = None
    """Actions, and bulk actions from their end on."""
    failures: timedelta | None = None
    """Groups of failures with their notes, from the last failed attempt on."""

    @property
    def are_all_unset(self) -> bool:
        """Return whether everything is kept for ever."""
        return self == Ages()
