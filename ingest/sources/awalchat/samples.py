"""Bodies as AwalChat sends them, for `ingest send`: its documented examples, and others like
them."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Any

DOCUMENTED: tuple[bytes, ...] = (
    (
        b'{"event":"message.received","timestamp":"2024-01-20T10:30:00Z",'
        b'"data":{"message_id":"wamid.HBgMOTY2NTAwMDAwMDAwFQIAERgS...","conversation_id":123,'
        b'"from":"96650000000","to":"96650000001","type":"text","body":"Hello, I need help",'
        b'"timestamp":"2024-01-20T10:30:00Z"}}'
    ),
    (
        b'{"event":"message.status.updated","timestamp":"2024-01-20T10:31:00Z",'
        b'"data":{"message_id":"wamid.HBgMOTY2NTAwMDAwMDAwFQIAERgS...","status":"delivered",'
        b'"timestamp":"2024-01-20T10:31:00Z"}}'
    ),
    (
        b'{"event":"conversation.created","timestamp":"2024-01-20T10:30:00Z",'
        b'"data":{"conversation_id":123,"contact_id":456,"phone_number":"96650000000",'
        b'"created_at":"2024-01-20T10:30:00Z"}}'
    ),
    (
        b'{"event":"conversation.updated","timestamp":"2024-01-20T10:35:00Z",'
        b'"data":{"conversation_id":123,"status":"active",'
        b'"updated_at":"2024-01-20T10:35:00Z"}}'
    ),
    (
        b'{"event":"order.created","timestamp":"2024-01-20T11:00:00Z","data":{"order_id":789,'
        b'"conversation_id":123,"status":"pending","total":1250.00,"currency":"SAR",'
        b'"created_at":"2024-01-20T11:00:00Z"}}'
    ),
    (
        b'{"event":"order.status.updated","timestamp":"2024-01-20T11:30:00Z",'
        b'"data":{"order_id":789,"old_status":"pending","new_status":"accepted",'
        b'"updated_at":"2024-01-20T11:30:00Z"}}'
    ),
)

_TEXTS = ("مرحباً، أحتاج مساعدة", "هل المقاس متوفر؟", "Where is my order?", "شكراً جزيلاً 🌹")
_NAMES = ("نورة", "Fahad", "سارة", "Abdullah")
_ORDER_STEPS = ("pending", "accepted", "shipped", "delivered", "completed")


def make(event_type: str, random: Random, now: datetime) -> bytes:
    """Return a new event of `event_type` that happened `now`; a type that we do not know gets an id
    only."""
    stamp = _stamp(now)
    build = _BUILDERS.get(event_type, _unknown)
    envelope = {"event": event_type, "timestamp": stamp, "data": build(random, stamp)}
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def types() -> tuple[str, ...]:
    """Return the documented event types."""
    return tuple(_BUILDERS)


def _stamp(moment: datetime) -> str:
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _phone(random: Random) -> str:
    return f"9665{random.randrange(10**8):08d}"


def _message_id(random: Random) -> str:
    return f"wamid.{random.getrandbits(96):024X}"


def _message_received(random: Random, stamp: str) -> dict[str, Any]:
    return {
        "message_id": _message_id(random),
        "conversation_id": random.randrange(1, 10_000),
        "from": _phone(random),
        "to": "966500000001",
        "type": "text",
        "body": random.choice(_TEXTS),
        "timestamp": stamp,
    }


def _message_status_updated(random: Random, stamp: str) -> dict[str, Any]:
    status = random.choice(("sent", "delivered", "read"))
    return {"message_id": _message_id(random), "status": status, "timestamp": stamp}


def _conversation_created(random: Random, stamp: str) -> dict[str, Any]:
    return {
        "conversation_id": random.randrange(1, 10**9),
        "contact_id": random.randrange(1, 10_000),
        "phone_number": _phone(random),
        "created_at": stamp,
    }


def _conversation_updated(random: Random, stamp: str) -> dict[str, Any]:
    status = random.choice(("active", "unassigned", "closed"))
    return {"conversation_id": random.randrange(1, 10**9), "status": status, "updated_at": stamp}


def _order_created(random: Random, stamp: str) -> dict[str, Any]:
    return {
        "order_id": random.randrange(1, 10**9),
        "conversation_id": random.randrange(1, 10_000),
        "status": "pending",
        "total": random.randrange(10_00, 5_000_00) / 100,
        "currency": "SAR",
        "created_at": stamp,
    }


def _order_status_updated(random: Random, stamp: str) -> dict[str, Any]:
    step = random.randrange(1, len(_ORDER_STEPS))
    return {
        "order_id": random.randrange(1, 10**9),
        "old_status": _ORDER_STEPS[step - 1],
        "new_status": _ORDER_STEPS[step],
        "updated_at": stamp,
    }


def _contact(random: Random, stamp: str) -> dict[str, Any]:
    return {
        "id": random.randrange(1, 10**9),
        "name": random.choice(_NAMES),
        "phone": _phone(random),
        "email": None,
        "is_favorite": False,
        "created_at": stamp,
    }


def _unknown(random: Random, _stamp: str) -> dict[str, Any]:
    return {"id": random.randrange(1, 10**9)}


_BUILDERS: Mapping[str, Callable[[Random, str], dict[str, Any]]] = {
    "message.received": _message_received,
    "message.status.updated": _message_status_updated,
    "conversation.created": _conversation_created,
    "conversation.updated": _conversation_updated,
    "order.created": _order_created,
    "order.status.updated": _order_status_updated,
    "contact.created": _contact,
    "contact.updated": _contact,
}
