"""A shop on AwalChat: customers who write, order, and wait for their parcels.

Makes what the protocol allows, entity by entity in the order in which it happens. Whatever arrives
twice, late or out of order is the sender's doing (`ingest.simulation.sender`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

_ACTIVE_CUSTOMERS = 40
"""Whose events are interleaved."""
_ID_SPACE = 10**6
_SHOP_NUMBER = "966500000001"

_GREETINGS = (
    "السلام عليكم، هل المنتج متوفر؟",
    "مرحباً، أحتاج مساعدة في طلبي",
    "كم سعر التوصيل إلى جدة؟",
    "Hello, do you ship to Dammam?",
    "أبغى المقاس L باللون الأسود 🖤",
)
_ANSWERS = (
    "أكيد، متوفر الآن ✅",
    "Yes! Delivery takes two days.",
    "تم إرسال الطلب، شكراً لتسوقكم معنا",
    "رقم التتبع وصلكم على الجوال؟",
)
_NAMES = ("نورة العتيبي", "Fahad Al-Harbi", "سارة", "عبدالله القحطاني", "Maha", "محمد O'Neil")
_ORDER_STEPS = ("pending", "accepted", "shipped", "delivered", "completed")
_MESSAGE_STEPS = ("sent", "delivered", "read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """Something that happened at the shop, as the sender will tell it."""

    number: int
    """Counts from 0."""
    type: str
    timestamp: str
    """ISO 8601, UTC, seconds."""
    data: dict[str, Any]

    def body(self, sent_at: datetime | None = None) -> bytes:
        """Return the request's body. Its envelope says when it was sent, or when it happened."""
        timestamp = self.timestamp if sent_at is None else _spell(sent_at)
        envelope = {"event": self.type, "timestamp": timestamp, "data": self.data}
        return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def _spell(moment: datetime) -> str:
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


Step = tuple[str, str, dict[str, Any]]  # type, timestamp, data


class Shop:
    """An endless stream of occurrences, the same for the same `random` and start."""

    def __init__(self, random: Random, *, opened_at: datetime) -> None:
        """`opened_at` is the shop's own time (UTC) when its first customer writes."""
        self._random = random
        self._now = opened_at
        # Shops made from different seeds share no entity.
        self._next_id = random.randrange(1, 9_000_000) * _ID_SPACE

    def occurrences(self) -> Iterator[Occurrence]:
        """Yield all that happens, for ever."""
        customers = [self._customer() for _ in range(_ACTIVE_CUSTOMERS)]
        number = 0
        while True:
            place = self._random.randrange(len(customers))
            step = next(customers[place], None)
            if step is None:
                self._now += timedelta(seconds=self._random.randrange(5, 90))
                customers[place] = self._customer()
                continue
            event_type, timestamp, data = step
            yield Occurrence(number=number, type=event_type, timestamp=timestamp, data=data)
            number += 1

    def _customer(self) -> Iterator[Step]:
        """Yield one customer's dealings with the shop, from the first word to the last parcel."""
        clock = _Clock(self._now, self._random)
        contact, conversation = self._id(), self._id()
        phone = f"9665{self._random.randrange(10**8):08d}"
        if self._random.random() < 0.4:
            yield from self._contact_created(clock, contact, phone)
        yield from self._conversation_created(clock, conversation, contact, phone)
        yield from self._talk(clock, conversation, phone)
        for _ in range(self._random.choice((0, 0, 1, 1, 2))):
            yield from self._order(clock, conversation)
            if self._random.random() < 0.3:
                yield from self._talk(clock, conversation, phone)
        if self._random.random() < 0.2:
            yield from self._contact_updated(clock, contact, phone)
        yield from self._conversation_updated(clock, conversation, "closed")

    def _contact_created(self, clock: "_Clock", contact: int, phone: str) -> Iterator[Step]:
        now = clock.tick(30)
        yield (
            "contact.created",
            now,
            {
                "id": contact,
                "name": self._random.choice(_NAMES),
                "phone": phone,
                "email": None,
                "is_favorite": False,
                "created_at": now,
            },
        )

    def _contact_updated(self, clock: "_Clock", contact: int, phone: str) -> Iterator[Step]:
        now = clock.tick(600)
        change: dict[str, Any] = self._random.choice(
            (
                {"is_favorite": True},
                {"email": f"c{contact}@example.com"},
                {"name": self._random.choice(_NAMES), "phone": phone},
            )
        )
        yield "contact.updated", now, {"id": contact, **change, "updated_at": now}

    def _conversation_created(
        self, clock: "_Clock", conversation: int, contact: int, phone: str
    ) -> Iterator[Step]:
        now = clock.tick(5)
        yield (
            "conversation.created",
            now,
            {
                "conversation_id": conversation,
                "contact_id": contact,
                "phone_number": phone,
                "created_at": now,
            },
        )

    def _conversation_updated(
        self, clock: "_Clock", conversation: int, status: str
    ) -> Iterator[Step]:
        now = clock.tick(60)
        yield (
            "conversation.updated",
            now,
            {"conversation_id": conversation, "status": status, "updated_at": now},
        )

    def _talk(self, clock: "_Clock", conversation: int, phone: str) -> Iterator[Step]:
        """Yield what the customer writes, what an agent answers, and the answers' statuses."""
        for turn in range(self._random.randrange(1, 4)):
            yield self._message(clock, conversation, phone, _SHOP_NUMBER, _GREETINGS)
            if turn == 0:
                yield from self._conversation_updated(clock, conversation, "active")
            answer = self._message(clock, conversation, _SHOP_NUMBER, phone, _ANSWERS)
            yield answer
            yield from self._statuses(clock, answer[2]["message_id"])

    def _message(
        self, clock: "_Clock", conversation: int, sender: str, to: str, texts: tuple[str, ...]
    ) -> Step:
        now = clock.tick(120)
        return (
            "message.received",
            now,
            {
                "message_id": f"wamid.{self._random.getrandbits(96):024X}",
                "conversation_id": conversation,
                "from": sender,
                "to": to,
                "type": "text",
                "body": self._random.choice(texts),
                "timestamp": now,
            },
        )

    def _statuses(self, clock: "_Clock", message_id: str) -> Iterator[Step]:
        reached = self._random.choice((1, 2, 3, 3))
        steps = [*_MESSAGE_STEPS[:reached]]
        if reached == 1 and self._random.random() < 0.2:
            steps.append("failed")
        for status in steps:
            now = clock.tick(20)
            yield (
                "message.status.updated",
                now,
                {"message_id": message_id, "status": status, "timestamp": now},
            )

    def _order(self, clock: "_Clock", conversation: int) -> Iterator[Step]:
        order, now = self._id(), clock.tick(300)
        yield (
            "order.created",
            now,
            {
                "order_id": order,
                "conversation_id": conversation,
                "status": _ORDER_STEPS[0],
                "total": self._random.randrange(15_00, 5_000_00) / 100,
                "currency": "SAR",
                "created_at": now,
            },
        )
        for step in range(1, self._random.randrange(1, len(_ORDER_STEPS) + 1)):
            now = clock.tick(3_600)
            yield (
                "order.status.updated",
                now,
                {
                    "order_id": order,
                    "old_status": _ORDER_STEPS[step - 1],
                    "new_status": _ORDER_STEPS[step],
                    "updated_at": now,
                },
            )

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id


class _Clock:
    """One customer's time: each thing happens at least a second after the one before."""

    def __init__(self, now: datetime, random: Random) -> None:
        self._now = now
        self._random = random

    def tick(self, up_to_s: int) -> str:
        self._now += timedelta(seconds=self._random.randrange(1, up_to_s + 1))
        return _spell(self._now)
