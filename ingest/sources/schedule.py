"""The source `schedule`: the runs of periodic processors.

No sender uses it: it has no secret and no address, and nothing signs for it. A run is an event like
any other, named after its processor and the time when it was due. So a run that is made twice is
one event, and has its retries, its dead letter and its replays.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.sources.base import (
    CannotSign,
    Envelope,
    EventIdentity,
    Headers,
    Samples,
    Source,
    SourceSettings,
    WebhookRequest,
    column_type,
    join_event_id,
)

SLUG = "schedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of a periodic processor."""

    processor: str
    due_at: datetime
    """When it was due; of one that a person asked for, when they did."""
    previous_due_at: datetime | None = None
    """When the run before it was due; None: there was none."""
    missed: int = 0
    """Due times since then that have no run of their own."""
    by_hand: bool = False
    """Whether a person asked for it."""

    @property
    def body(self) -> bytes:
        """Return the body of its event."""
        previous = None if self.previous_due_at is None else _text(self.previous_due_at)
        return json.dumps(
            {
                "type": event_type(self.processor),
                "due_at": _text(self.due_at),
                "previous_due_at": previous,
                "missed": self.missed,
                "by_hand": self.by_hand,
            }
        ).encode()

    @property
    def name(self) -> EventIdentity:
        """Return what its event goes by. Two runs of one processor and one due time are the same,
        whatever else they say."""
        kind = event_type(self.processor)
        event_id = join_event_id(kind, _text(self.due_at), *(["by-hand"] if self.by_hand else []))
        return EventIdentity(
            event_id=event_id, type=kind, fingerprint=hashlib.sha256(event_id.encode()).digest()
        )


def event_type(processor: str) -> str:
    """Return the type of the runs of a processor."""
    return column_type(f"{SLUG}.{processor}")


class Schedule(Source):
    """Reads the stored runs."""

    slug = SLUG
    title = "Schedule"
    samples: ClassVar[Samples] = Samples(types=(), make=lambda *_: b"", makes_others=False)
    key_ids = ()

    def __init__(self) -> None:
        super().__init__(SourceSettings(secrets=()))

    def is_signed(self, headers: Headers) -> bool:
        """Return that it is not: nobody sends a run."""
        return False

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        """Refuse: nobody sends a run."""
        raise InvalidSignature("Nobody sends runs of a schedule.", reason="signature_missing")

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        """Raise CannotSign: nobody sends a run."""
        raise CannotSign("Nobody sends runs of a schedule.", reason="no_secret")

    def parse(self, body: bytes) -> Envelope:
        """Parse a stored run."""
        try:
            fields = json.loads(body)
            kind, due_at = fields["type"], datetime.fromisoformat(fields["due_at"])
        except (ValueError, TypeError, KeyError):
            raise InvalidEnvelope(
                "It is no run of a schedule: it lacks its type or its due time.",
                reason="invalid_body",
            ) from None
        data = {name: value for name, value in fields.items() if name != "type"}
        return Envelope(type=kind, occurred_at=due_at, data=data, fields=fields)

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        """Return what the event of a run goes by."""
        return Run(
            processor=envelope.type.removeprefix(f"{SLUG}."),
            due_at=datetime.fromisoformat(envelope.fields["due_at"]),
            by_hand=bool(envelope.fields.get("by_hand")),
        ).name


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
