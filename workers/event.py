"""The event as a processor sees it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from typing_extensions import TypeVar

Data = TypeVar("Data", default=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[Data]):
    """One occurrence, for one processor.

    In `data`, numbers with a fraction are `decimal.Decimal`, so that money keeps its digits. A
    processor of `Event[OrderCreated]` gets an `OrderCreated` there (workers.typed_data).
    """

    id: str
    """Ours: what `ingest events show` takes."""
    source: str
    """Whose event it is; of an edited one, whose event it was made of."""
    event_id: str
    """The sender's name for the occurrence; unique within the source. An edited event has a name of
    its own, which no sender gives."""
    type: str
    occurred_at: datetime | None
    """When it happened, if the sender said so readably; aware, UTC."""
    received_at: datetime
    data: Data
    body: bytes
    """The request's body exactly as received."""
    attempt: int
    """1 for the first attempt of this processor at this event."""
    idempotency_key: str
    """The same for every attempt and replay of this processor at this event: pass it to whatever
    the processor calls outside PostgreSQL, where an effect may happen more than once."""
    is_edited: bool = False
    """Whether an operator edited the body and sent it; the sender has never sent it so."""
