"""Delivery ids: UUIDs of version 7 (RFC 9562), whose first 48 bits are the time of receipt, and the
next 12 free ones the part of a millisecond. So the ids of a receiver follow its receipts.

The receiver makes them. So a batch whose commit is in doubt can be sent again without a second row,
and the id of a request is the id of its delivery. A day of deliveries is a range of ids.
"""

from datetime import UTC, datetime
from uuid import UUID

RANDOM_BYTES = 10
MAX_ELEMENTS = 10_000
"""The most events of one delivery. Meta, which sends the largest batches, sends up to 1,000."""


def delivery_id(milliseconds: float, random: bytes) -> UUID:
    """Return the id for a request received `milliseconds` after 1970; `random` is 10 bytes."""
    whole = int(milliseconds)
    part = int((milliseconds - whole) * 4096)
    low = int.from_bytes(random, "big") & ((1 << 62) - 1)
    return UUID(int=(whole << 80) | (0x7 << 76) | (part << 64) | (0b10 << 62) | low)


def element_id(delivery: UUID, position: int) -> UUID:
    """Return the id of an element of a delivery; `position` counts from 0.

    The ids of a delivery's elements follow its own, one after another, in their order. So storing
    the delivery again makes no second rows, and a range of ids finds the elements.
    """
    return UUID(int=delivery.int + 1 + position)


def last_element_id(delivery: UUID) -> UUID:
    """Return the greatest id that an element of a delivery may have."""
    return UUID(int=min(delivery.int + MAX_ELEMENTS, 2**128 - 1))


def position(delivery: UUID, element: UUID) -> int:
    """Return the position of an element in its delivery, from 0."""
    return element.int - delivery.int - 1


def first_id(moment: datetime) -> UUID:
    """Return the lower bound of every id received at or after `moment`."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80))


def received_at(identity: UUID) -> datetime:
    """Return the time of receipt that an id carries, in UTC, to the millisecond."""
    return datetime.fromtimestamp((identity.int >> 80) / 1000, UTC)
