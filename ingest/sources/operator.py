"""The source `operator`: events that an operator made of another's, with its body edited.

No sender uses it and nothing signs for it: it has no class, no secret and no address. Such an event
has a name of its own, which says whose event it was made of; that source reads its body. So its
processors run as they would for the sender, and dedupe never takes it for the sender's own event.
"""

from uuid import UUID

from ingest.sources.base import join_event_id

SLUG = "operator"
MARK = "~"
"""Before the last parts of a copy's event id. Of ASCII it sorts last: of two events of one time the
read model takes the greater id, which is then the one that an operator has set right. Where more
than the time and the id decides, that comes first: a message's status only moves forward. Of an
order's changes a copy counts before their chain does."""
NUMBER_LENGTH = 36
"""Characters that a copy's event id ends with: of two copies the later has the greater ones."""
COPIES = f"%:{MARK}%:{MARK}{'_' * NUMBER_LENGTH}"
"""What SQL's LIKE knows the event ids of copies by."""


def event_id(event_type: str, source: str, delivery: UUID) -> str:
    """Return the id of a copy. Of an event's copies, the later has the greater one.

    Args:
        event_type: its own, which may not be that of its origin.
        source: whose event its origin is.
        delivery: its own, which begins with the time.
    """
    return join_event_id(event_type, source, str(delivery), mark=MARK)


def reader(slug: str, event_id: str | None) -> str:
    """Return the slug of the source that reads the body of an event of the source `slug`."""
    if slug != SLUG or event_id is None:
        return slug
    parts = event_id.rsplit(f":{MARK}", 2)
    return parts[1] if len(parts) == 3 else slug
