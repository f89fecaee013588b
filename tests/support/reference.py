"""The read model in plain Python, from the protocol's rules alone: what the tables must equal.

Events are applied in a fixed order that has nothing to do with their arrival, so the result depends
on the set of events and nothing else.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Row = dict[str, Any]
Model = dict[str, dict[Any, Row]]

STATUS_ORDER = ["sent", "failed", "delivered", "read"]
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


def moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def newest(events: Iterable[Row], time: str) -> Row | None:
    """The event with the newest `time`, ties broken by the event id."""
    ordered = sorted(
        events, key=lambda each: (moment(each["data"].get(time)) or LONG_AGO, each["event_id"])
    )
    return ordered[-1] if ordered else None


def read_model(bodies: Mapping[str, bytes]) -> Model:
    """The four tables and the history, of a set of events by their ids."""
    events = [
        json.loads(body, parse_float=Decimal) | {"event_id": event_id}
        for event_id, body in bodies.items()
    ]
    model: Model = {
        "messages": {},
        "conversations": {},
        "orders": {},
        "contacts": {},
        "order_status_changes": {},
    }
    for table, key_names in {
        "messages": ("message_id",),
        "conversations": ("conversation_id",),
        "orders": ("order_id",),
        "contacts": ("contact_id", "id"),
    }.items():
        prefix = {
            "messages": "message.",
            "conversations": "conversation.",
            "orders": "order.",
            "contacts": "contact.",
        }[table]
        groups: dict[Any, list[Row]] = defaultdict(list)
        for event in events:
            if event["event"].startswith(prefix):
                groups[_key(event, key_names)].append(event)
        model[table] = {key: _BUILD[table](group) for key, group in groups.items()}
    for event in events:
        if event["event"] == "order.status.updated":
            data = event["data"]
            model["order_status_changes"][data["order_id"], event["event_id"]] = {
                "old_status": data.get("old_status"),
                "new_status": data["new_status"],
                "updated_at": moment(data.get("updated_at")),
            }
    return model


def _key(event: Row, names: tuple[str, ...]) -> Any:
    return next(event["data"][name] for name in names if event["data"].get(name) is not None)


def _of(events: list[Row], event_type: str) -> list[Row]:
    return [event for event in events if event["event"] == event_type]


def _data(event: Row | None) -> Row:
    return event["data"] if event else {}


def _message(events: list[Row]) -> Row:
    content = _data(newest(_of(events, "message.received"), "timestamp"))
    statuses = sorted(
        _of(events, "message.status.updated"),
        key=lambda each: (
            STATUS_ORDER.index(each["data"]["status"])
            if each["data"]["status"] in STATUS_ORDER
            else -1,
            moment(each["data"].get("timestamp")) or LONG_AGO,
            each["event_id"],
        ),
    )
    status = _data(statuses[-1] if statuses else None)
    return {
        "conversation_id": content.get("conversation_id"),
        "from_number": content.get("from"),
        "to_number": content.get("to"),
        "type": content.get("type"),
        "body": content.get("body"),
        "timestamp": moment(content.get("timestamp")),
        "status": status.get("status"),
    }


def _conversation(events: list[Row]) -> Row:
    created = _data(newest(_of(events, "conversation.created"), "created_at"))
    updated = _data(newest(_of(events, "conversation.updated"), "updated_at"))
    return {
        "contact_id": created.get("contact_id"),
        "phone_number": created.get("phone_number"),
        "created_at": moment(created.get("created_at")),
        "status": updated.get("status"),
        "updated_at": moment(updated.get("updated_at")),
    }


def _order(events: list[Row]) -> Row:
    created = _data(newest(_of(events, "order.created"), "created_at"))
    updated = _data(newest(_of(events, "order.status.updated"), "updated_at"))
    return {
        "conversation_id": created.get("conversation_id"),
        "total": created.get("total"),
        "currency": created.get("currency"),
        "created_at": moment(created.get("created_at")),
        "status": updated.get("new_status") or created.get("status"),
        "updated_at": moment(updated.get("updated_at")),
    }


def _contact(events: list[Row]) -> Row:
    """Creations first, then updates, each by time; every field that an event has replaces it."""
    row: Row = {
        "name": None,
        "phone": None,
        "email": None,
        "contact_group_id": None,
        "is_favorite": None,
        "avatar": None,
        "created_at": None,
        "updated_at": None,
    }

    def place(event: Row) -> tuple[Any, ...]:
        is_update = event["event"] == "contact.updated"
        own = moment(event["data"].get("updated_at" if is_update else "created_at"))
        return (is_update, own or moment(event.get("timestamp")) or LONG_AGO, event["event_id"])

    for event in sorted(events, key=place):
        for name in row:
            if name in event["data"]:
                value = event["data"][name]
                row[name] = moment(value) if name.endswith("_at") else value
    return row


_BUILD = {
    "messages": _message,
    "conversations": _conversation,
    "orders": _order,
    "contacts": _contact,
}
