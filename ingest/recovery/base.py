"""What a source says of missed deliveries, and what the recovery exchanges with its sender."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ingest.errors import IngestError

Say = Callable[[str], None]
"""Tells a person, in a sentence, why it takes longer."""


class RecoveryFailed(IngestError):
    """The sender's API cannot be used, or it refuses. The message holds no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissedDelivery:
    """A delivery that the sender counts as failed."""

    id: str
    """The sender's name of the delivery."""
    sent_at: datetime
    answered: str
    """What became of it, in the sender's words."""
    headers: Sequence[tuple[bytes, bytes]]
    """Those of its headers that name the event."""
    fields: Mapping[str, Any]
    """Those of its body's fields that name the event."""


class RedeliveryRefused(IngestError):
    """The sender does not send this delivery again; others it may."""


class SenderApi(Protocol):
    """A connection to the API of a sender."""

    async def missed(self, since: datetime) -> list[MissedDelivery]:
        """Return the deliveries since then of which no attempt succeeded, the oldest first.

        Raises:
            RecoveryFailed: the sender does not tell.
        """

    async def redeliver(self, delivery: MissedDelivery) -> None:
        """Ask the sender to send a delivery again.

        Raises:
            RedeliveryRefused: it will not send this one.
            RecoveryFailed: it cannot be asked for any.
        """


class Recovery(Protocol):
    """How missed deliveries of a source are recovered."""

    @property
    def longest(self) -> timedelta:
        """Return how long the sender keeps what it sent."""

    def connect(self, *, say: Say) -> AbstractAsyncContextManager[SenderApi]:
        """Connect to the sender's API.

        Raises:
            RecoveryFailed: it is not said where to ask, or with which token.
        """
