"""Delivery ids: UUIDs of version 7 (RFC 9562), whose first 48 bits are the time of receipt.

The receiver makes them. So a batch whose commit is in doubt can be sent again without a second row,
and the id of a request is the id of its delivery. A day of deliveries is a range of ids.
"""

from datetime import UTC, datetime
from uuid import UUID

RANDOM_BYTES = 10


def delivery_id(milliseconds: int, random: bytes) -> UUID:
    """Return the id for a request received `milliseconds` after 1970; `random` is 10 bytes."""
    tail = int.from_bytes(random, "big") & ((1 << 74) - 1)
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return UUID(int=(milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low)


def first_id(moment: datetime) -> UUID:
    """Return the lower bound of every id received at or after `moment`."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80))


def received_at(identity: UUID) -> datetime:
    """Return the time of receipt that an id carries, in UTC, to the millisecond."""
    return datetime.fromtimestamp((identity.int >> 80) / 1000, UTC)
