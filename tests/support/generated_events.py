"""What happens at a sender, generated: days of a shop that keeps to the protocol, and others.

A happening is an envelope as a dict. What a set of happenings comes to is said here in plain Python
from the protocol's rules: which of them are one occurrence, and which no processor can use.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeGuard

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Happening = dict[str, Any]

TYPES = (
    "message.received",
    "message.status.updated",
    "conversation.created",
    "conversation.updated",
    "order.created",
    "order.status.updated",
    "contact.created",
    "contact.updated",
)
_BEGINS = datetime(2024, 1, 20, 10, tzinfo=UTC)
_STEPS = ("pending", "accepted", "shipped", "delivered", "completed")
_PROGRESS = (("sent", "delivered", "read"), ("sent", "failed"), ("failed", "delivered"))


def spell(happening: Happening) -> bytes:
    """One of the ways to write a happening down."""
    return json.dumps(happening).encode()


def retried(happening: Happening) -> bytes:
    """As the sender's retry may carry it: stamped and spelled anew, the same content."""
    stamped = happening | {"timestamp": "2024-01-20T23:59:59Z"}
    turned = dict(reversed(stamped.items()))
    return json.dumps(turned, ensure_ascii=False, separators=(",", ":")).encode()


@st.composite
def shop_days(draw: DrawFn) -> list[Happening]:
    """The whole lives of a few entities, each in its own order; several may share a second."""
    kinds = draw(st.lists(st.sampled_from(sorted(_LIVES)), min_size=1, max_size=4))
    return [each for number, kind in enumerate(kinds, 1) for each in _LIVES[kind](draw, number)]


def _life(
    draw: DrawFn, created: Happening, updated: str, changes: Sequence[Happening], *, key: str
) -> list[Happening]:
    """A creation and its changes, each at a time that is not before the last one's."""
    seconds = draw(
        st.lists(st.integers(0, 4), min_size=1 + len(changes), max_size=1 + len(changes))
    )
    first, *later = [(_BEGINS + timedelta(seconds=each)).isoformat() for each in sorted(seconds)]
    is_message = updated.startswith("message.")
    created_at, updated_at = ["timestamp"] * 2 if is_message else ["created_at", "updated_at"]
    event_type = "message.received" if is_message else updated.partition(".")[0] + ".created"
    return [
        _happening(event_type, first, created | {created_at: first}),
        *(
            _happening(updated, moment, {key: created[key], updated_at: moment} | change)
            for change, moment in zip(changes, later, strict=True)
        ),
    ]


def _message_life(draw: DrawFn, number: int) -> list[Happening]:
    progress = draw(st.sampled_from(_PROGRESS))
    progress = progress[: draw(st.integers(0, len(progress)))]
    received = {
        "message_id": f"wamid.{number}",
        "conversation_id": draw(st.integers(1, 2)),
        "from": "966500000000",
        "to": "966500000001",
        "type": "text",
        "body": draw(st.sampled_from(["مرحباً", "Where is my order?", "🌹"])),
    }
    changes = [{"status": status} for status in progress]
    return _life(draw, received, "message.status.updated", changes, key="message_id")


def _conversation_life(draw: DrawFn, number: int) -> list[Happening]:
    statuses = draw(st.lists(st.sampled_from(["active", "bot", "closed"]), max_size=4))
    created = {"conversation_id": number, "contact_id": 7, "phone_number": "9665"}
    changes = [{"status": status} for status in statuses]
    return _life(draw, created, "conversation.updated", changes, key="conversation_id")


def _order_life(draw: DrawFn, number: int) -> list[Happening]:
    reached = draw(st.integers(0, len(_STEPS) - 1))
    created = {
        "order_id": number,
        "conversation_id": draw(st.integers(1, 2)),
        "status": "pending",
        "total": draw(st.sampled_from([1250.5, 7, 0.25])),
        "currency": "SAR",
    }
    changes = [
        {"old_status": old, "new_status": new} for old, new in pairwise(_STEPS[: reached + 1])
    ]
    return _life(draw, created, "order.status.updated", changes, key="order_id")


def _contact_life(draw: DrawFn, number: int) -> list[Happening]:
    changes = draw(st.lists(_contact_change, max_size=3))
    created = {"id": number, "name": "نورة", "phone": "9665", "email": None, "is_favorite": False}
    return _life(draw, created, "contact.updated", changes, key="id")


_contact_change: SearchStrategy[Happening] = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["سارة", "Fahad"]),
        "email": st.none() | st.just("a@b"),
        "is_favorite": st.booleans(),
    },
)
_LIVES: dict[str, Callable[[DrawFn, int], list[Happening]]] = {
    "message": _message_life,
    "conversation": _conversation_life,
    "order": _order_life,
    "contact": _contact_life,
}


def _happening(event_type: str, moment: str, data: dict[str, Any]) -> Happening:
    return {"event": event_type, "timestamp": moment, "data": data}


_numbers = st.sampled_from([*[1] * 8, *[2] * 4, None, "x", 2**70, True])
_message_ids = st.sampled_from([*["wamid.1"] * 6, *["wamid.2"] * 3, "", None, 7])
_others = st.sampled_from([1, 2, 3, "3", "x", None, 2**63])
_times = st.sampled_from(
    [
        "2024-01-20T10:00:00Z",
        "2024-01-20T10:00:01Z",
        "2024-01-20T13:00:01+03:00",
        "2024-01-20T10:00:00.5Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",  # the zero time of some languages
        "yesterday",
        "20240120",
        1705744801,
        "1705744800500",
        17,
        None,
    ]
)
_statuses = st.sampled_from(
    ["sent", "delivered", "read", "failed", "played", "READ", "sold"] * 2 + [7, None]
)
_texts = st.sampled_from(["a", "ب", "", "🌹", None])
_totals = st.sampled_from([1250.5, 7, -1, "12.50", "much", None])


_VALUES: dict[str, SearchStrategy[Any]] = {
    **dict.fromkeys(("conversation_id", "contact_id", "contact_group_id"), _others),
    **dict.fromkeys(("timestamp", "created_at", "updated_at"), _times),
    **dict.fromkeys(("status", "new_status"), _statuses),
    **dict.fromkeys(("body", "old_status", "name", "email"), _texts),
    "total": _totals,
}
_FIELDS = {
    "message.received": ("message_id", "conversation_id", "body", "timestamp"),
    "message.status.updated": ("message_id", "status", "timestamp"),
    "conversation.created": ("conversation_id", "contact_id", "status", "created_at"),
    "conversation.updated": ("conversation_id", "status", "updated_at"),
    "order.created": ("order_id", "status", "total", "created_at"),
    "order.status.updated": ("order_id", "old_status", "new_status", "updated_at"),
    "contact.created": ("id", "name", "email", "created_at"),
    "contact.updated": ("contact_id", "name", "contact_group_id", "updated_at"),
    "ticket.escalated": ("id",),
}
"""Of each type what names the entity, which is always there, and what may be missing."""


def _unruly(event_type: str) -> SearchStrategy[Happening]:
    key, *others = _FIELDS[event_type]
    data = st.fixed_dictionaries(
        {key: _message_ids if key == "message_id" else _numbers},
        optional={name: _VALUES[name] for name in others},
    )
    given = st.sampled_from([None, None, 5, "e:1"])
    return st.fixed_dictionaries(
        {"event": st.just(event_type), "data": data}, optional={"timestamp": _times, "id": given}
    )


unruly_days: SearchStrategy[list[Happening]] = st.lists(
    st.one_of(*map(_unruly, _FIELDS)), min_size=3, max_size=12
)


def content(body: bytes) -> str:
    """What a delivery says, whenever it was sent and however it is spelled."""
    fields = json.loads(body)
    return _canonical({name: each for name, each in fields.items() if name != "timestamp"})


def occurrence(body: bytes) -> tuple[str, ...]:
    """What two deliveries share exactly if they are of one occurrence."""
    fields = json.loads(body)
    event_type, data = fields["event"], fields["data"]
    given = next(
        (each for each in (fields.get("id"), fields.get("event_id")) if _names(each)), None
    )
    if given is not None:
        return (event_type, "given", str(given))
    named = [_first_name(data, fields_) for fields_ in _NAMES.get(event_type, ((),))]
    if None not in named:
        return (event_type, "named", *map(str, named))
    dated = any(data.get(each) is not None for each in ("updated_at", "timestamp", "created_at"))
    return (event_type, _canonical(data if dated else [data, fields.get("timestamp")]))


_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "message.received": (("message_id",),),
    "message.status.updated": (("message_id",), ("status",)),
    "conversation.created": (("conversation_id",),),
    "order.created": (("order_id",),),
    "contact.created": (("contact_id", "id"),),
}


def _names(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | str) and value != ""


def _first_name(data: dict[str, Any], fields: Sequence[str]) -> Any:
    return next((data[each] for each in fields if _names(data.get(each))), None)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def is_usable(body: bytes) -> bool:
    """Whether the read model can take the event in."""
    fields = json.loads(body)
    event_type, data = fields["event"], fields["data"]
    return _has_key(event_type, data) and _has_status(event_type, data) and _in_range(data)


def _has_key(event_type: str, data: dict[str, Any]) -> bool:
    if event_type.startswith("message."):
        return isinstance(data.get("message_id"), str) and data["message_id"] != ""
    names = {"order": ("order_id",), "conversation": ("conversation_id",)}
    family = names.get(event_type.partition(".")[0], ("contact_id", "id"))
    key = next((data[each] for each in family if data.get(each) is not None), None)
    return _is_whole(key) and abs(key) < 2**63


def _has_status(event_type: str, data: dict[str, Any]) -> bool:
    required = {"message.status.updated": "status", "order.status.updated": "new_status"}
    if event_type in required:
        return isinstance(data.get(required[event_type]), str)
    return isinstance(data.get("status"), str | None)


def _in_range(data: dict[str, Any]) -> bool:
    others = (data.get(each) for each in ("conversation_id", "contact_id", "contact_group_id"))
    return all(abs(each) < 2**63 for each in others if _is_whole(each))


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
