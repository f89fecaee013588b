"""What may be shown of a request to erase a person: never what was searched for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ingest.erasure.person import Person
from ingest.erasure.run import Counts, Position
from ingest.store.erasure.records import Erasure


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A request, and how far it has got."""

    id: int
    status: str
    """`searching`, `found` (it waits to be confirmed), `erasing`, `finished` or `cancelled`."""
    requested_at: datetime
    requested_by: str
    reason: str | None
    source: str | None
    """Only what this one sent; None: all sources."""
    background: bool
    """Whether the console runs it; otherwise the command that began it does."""
    advanced_at: datetime | None
    """When its last batch ended."""
    finished_at: datetime | None
    problem: str | None
    """Why it waits, or was cancelled."""
    known: Mapping[str, int]
    """How many numbers, contacts and so on are known of the person; empty once it has ended."""
    shared: int
    """Conversations with somebody else, of which only what names the person is erased."""
    sources: Mapping[str, int]
    """Deliveries by source: found, or erased."""
    tables: Mapping[str, int]
    """Rows by table: found, or erased."""
    jobs: int
    """Given up, because they had not succeeded."""
    events: tuple[str, ...]
    """The ids of some of the events."""
    round: int
    rows_read: int


def of(erasure: Erasure) -> Report:
    """Return what may be shown of a request."""
    person = Person.from_json(erasure.identifiers or {})
    position, counts = Position(**erasure.position), Counts.from_json(erasure.counts)
    return Report(
        id=erasure.id,
        status=erasure.status,
        requested_at=erasure.requested_at,
        requested_by=erasure.requested_by,
        reason=erasure.reason,
        source=erasure.source,
        background=erasure.background,
        advanced_at=erasure.advanced_at,
        finished_at=erasure.finished_at,
        problem=erasure.problem,
        known={kind: count for kind, count in sizes(person).items() if count},
        shared=len(person.shared),
        sources=dict(sorted(counts.sources.items())),
        tables=dict(sorted(counts.tables.items())),
        jobs=counts.jobs,
        events=tuple(counts.sample),
        round=position.round,
        rows_read=position.read,
    )


def sizes(person: Person) -> dict[str, int]:
    """Return how much is known of a person, by kind."""
    return {
        "phone number": len(person.phones),
        "contact": len(person.contacts),
        "conversation": len(person.conversations - person.shared),
        "order": len(person.orders),
        "message": len(person.messages),
    }
