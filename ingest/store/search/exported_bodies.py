"""The bodies of some events, decrypted, or why they are not there."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from ingest.store.encryption.opening import to_show
from ingest.store.sql import statement

ERASED = "erased, or deleted at the end of its retention"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedBody:
    """A body as it was received, or why it is not known."""

    body: bytes | None
    missing: str | None


def bodies(connection: Connection, events: Sequence[UUID]) -> dict[UUID, ExportedBody]:
    """Return the body of each event."""
    found = dict.fromkeys(events, ExportedBody(body=None, missing=ERASED))
    for row in connection.execute(_BODIES, {"events": list(events)}):
        shown = to_show(connection, row.body, delivery=row.id, key=row.body_key)
        missing = None if shown.body is not None else shown.unreadable or ERASED
        found[row.id] = ExportedBody(body=shown.body, missing=missing)
    return found


_BODIES = statement(
    "SELECT id, body, body_key FROM ingest.deliveries WHERE id = ANY(CAST(:events AS uuid[]))"
)
