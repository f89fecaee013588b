"""The read model in plain Python, from the protocol's rules alone: what the tables must equal.

Each entity's events are put into an order that has nothing to do with their arrival, and what each
says is written over what those before it said. So the result depends on the set of events and
nothing else.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Row = dict[str, Any]
Model = dict[str, dict[Any, Row]]

STATUS_ORDER = ["sent", "failed", "delivered", "read", "played", "deleted"]
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
UNREADABLE = object()


def moment(value: object) -> Any:
    """A time, or `UNREADABLE`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return UNREADABLE
    if re.fullmatch("[1-9][0-9]{9}", str(value)):
        return datetime.fromtimestamp(int(value), UTC)
    if re.fullmatch("[1-9][0-9]{12}", str(value)):
        return datetime.fromtimestamp(int(value) / 1000, UTC)
    if not re.fullmatch(r"[^WT]{10}T[0-9:.]{8,}(Z|[+-][0-9]{2}:[0-9]{2})", str(value)):
        return UNREADABLE
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return UNREADABLE


def text(value: object) -> Any:
    """A text, or `UNREADABLE`."""
    return value if isinstance(value, str) else UNREADABLE


def number(value: object) -> Any:
    """A whole number, or `UNREADABLE`."""
    is_number = isinstance(value, int | str) and re.fullmatch("-?[0-9]+", str(value))
    return int(str(value)) if is_number else UNREADABLE


def phone(value: object) -> Any:
    """A phone number as a text, or `UNREADABLE`."""
    return str(value) if isinstance(value, str) or number(value) is not UNREADABLE else UNREADABLE


def flag(value: object) -> Any:
    """A truth value, or `UNREADABLE`."""
    return {"true": True, "1": True, "false": False, "0": False}.get(
        str(value).lower() if isinstance(value, bool | int | str) else "", UNREADABLE
    )


def money(value: object) -> Any:
    """An amount, or `UNREADABLE`."""
    if isinstance(value, bool) or not re.fullmatch("-?[0-9.]+", str(value)):
        return UNREADABLE
    return Decimal(str(value))


COLUMNS: dict[str, dict[str, tuple[str, Callable[[object], Any]]]] = {
    "message.received": {
        "conversation_id": ("conversation_id", number),
        "from_number": ("from", phone),
        "to_number": ("to", phone),
        "type": ("type", text),
        "body": ("body", text),
        "timestamp": ("timestamp", moment),
    },
    "message.status.updated": {"status": ("status", text)},
    "conversation.created": {
        "contact_id": ("contact_id", number),
        "phone_number": ("phone_number", phone),
        "created_at": ("created_at", moment),
        "status": ("status", text),
    },
    "conversation.updated": {"status": ("status", text), "updated_at": ("updated_at", moment)},
    "order.created": {
        "conversation_id": ("conversation_id", number),
        "total": ("total", money),
        "currency": ("currency", text),
        "created_at": ("created_at", moment),
        "status": ("status", text),
    },
    "order.status.updated": {
        "status": ("new_status", text),
        "updated_at": ("updated_at", moment),
    },
}
COLUMNS["contact.created"] = COLUMNS["contact.updated"] = {
    "name": ("name", text),
    "phone": ("phone", phone),
    "email": ("email", text),
    "contact_group_id": ("contact_group_id", number),
    "is_favorite": ("is_favorite", flag),
    "avatar": ("avatar", text),
    "created_at": ("created_at", moment),
    "updated_at": ("updated_at", moment),
}
TIMES = {
    "message.received": "timestamp",
    "message.status.updated": "timestamp",
    "conversation.created": "created_at",
    "conversation.updated": "updated_at",
    "order.created": "created_at",
    "order.status.updated": "updated_at",
    "contact.created": "created_at",
    "contact.updated": "updated_at",
}
KEYS = {
    "messages": ("message_id",),
    "conversations": ("conversation_id",),
    "orders": ("order_id",),
    "contacts": ("contact_id", "id"),
}


def read_model(bodies: Mapping[str, bytes]) -> Model:
    """The four tables and the history, of a set of events by their ids."""
    events = [
        json.loads(body, parse_float=Decimal) | {"event_id": event_id}
        for event_id, body in bodies.items()
    ]
    model: Model = {}
    for table, names in KEYS.items():
        groups: dict[Any, list[Row]] = defaultdict(list)
        for event in events:
            if event["event"].startswith(table.removesuffix("s") + "."):
                groups[_key(event, names)].append(event)
        model[table] = {key: _row(table, group) for key, group in groups.items()}
    model["order_status_changes"] = {
        (_key(event, ("order_id",)), event["event_id"]): {
            "old_status": event["data"].get("old_status"),
            "new_status": event["data"]["new_status"],
            "updated_at": _said(event).get("updated_at"),
        }
        for event in events
        if event["event"] == "order.status.updated"
    }
    return model


def _key(event: Row, names: tuple[str, ...]) -> Any:
    given = next(event["data"][name] for name in names if event["data"].get(name) is not None)
    return given if names == KEYS["messages"] else number(given)


def _row(table: str, events: Iterable[Row]) -> Row:
    """What an entity's events say, the later ones over the earlier ones."""
    ordered = sorted(events, key=_PLACES[table])
    if table == "orders":
        ordered = _chained(ordered)
    types = [each for each in COLUMNS if each.startswith(table.removesuffix("s") + ".")]
    row: Row = {column: None for each in types for column in COLUMNS[each]}
    for event in ordered:
        row |= _said(event)
    return row | {"last_event_at": _time(ordered[-1]), "last_event_id": ordered[-1]["event_id"]}


def _said(event: Row) -> Row:
    """What an event says, by column."""
    said: Row = {}
    for column, (name, read) in COLUMNS[event["event"]].items():
        value = event["data"].get(name)
        if value is None:
            if name in event["data"] and event["event"].startswith("contact."):
                said[column] = None
        elif read(value) is not UNREADABLE:
            said[column] = read(value)
    if event["event"] == "message.status.updated":
        said["status"] = _known(said["status"])
    return said


def _time(event: Row) -> datetime | None:
    """When an event happened: by its data, otherwise by its envelope."""
    for value in (event["data"].get(TIMES[event["event"]]), event.get("timestamp")):
        if moment(value) is not UNREADABLE:
            found: datetime = moment(value)
            return found
    return None


def _known(status: str) -> str:
    return status.lower() if status.lower() in STATUS_ORDER else status


def _is_update(event: Row) -> bool:
    return not event["event"].endswith(".created")


def _of_message(event: Row) -> tuple[Any, ...]:
    if event["event"] == "message.received":
        return (-2, _time(event) or LONG_AGO, event["event_id"])
    status = _known(event["data"]["status"])
    rank = STATUS_ORDER.index(status) if status in STATUS_ORDER else -1
    return (rank, _time(event) or LONG_AGO, event["event_id"])


def _of_conversation(event: Row) -> tuple[Any, ...]:
    return (_time(event) or LONG_AGO, _is_update(event), event["event_id"])


def _updates_last(event: Row) -> tuple[Any, ...]:
    return (_is_update(event), _time(event) or LONG_AGO, event["event_id"])


_PLACES: dict[str, Callable[[Row], tuple[Any, ...]]] = {
    "messages": _of_message,
    "conversations": _of_conversation,
    "orders": _updates_last,
    "contacts": _updates_last,
}


def _chained(ordered: list[Row]) -> list[Row]:
    """The same, but that which ends the chain of the newest changes is the last: its status is
    arrived at more often than left. The newest copy that an operator sent comes after it."""
    if not _is_update(ordered[-1]):
        return ordered
    last = _time(ordered[-1]) or LONG_AGO
    newest = [each for each in ordered if _is_update(each) and (_time(each) or LONG_AGO) == last]
    visits = Counter(each["data"]["new_status"] for each in newest)
    visits.subtract(each["data"].get("old_status") for each in newest)
    end = max(
        newest,
        key=lambda each: (
            _copy(each["event_id"]),
            visits[each["data"]["new_status"]] > 0,
            each["event_id"],
        ),
    )
    return [*(each for each in ordered if each is not end), end]


def _copy(event_id: str) -> str:
    """The number of an operator's copy, the later the greater; empty: the event is the sender's."""
    parts = event_id.split(":")
    is_copy = len(parts) == 3 and parts[1].startswith("~") and len(parts[2]) == len("~") + 36
    return parts[2] if is_copy and parts[2].startswith("~") else ""
