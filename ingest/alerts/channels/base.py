"""What every channel is given, and how it says that it failed."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ingest.alerts.notices import Message
from ingest.errors import IngestError

TIMEOUT_S = 10.0
"""What a channel may take for one exchange over the network."""


class ChannelFailed(IngestError):
    """A message was not taken. The sentence holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message, and what stays the same in every attempt to send it."""

    id: UUID
    made_at: datetime
    message: Message
