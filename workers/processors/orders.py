"""`orders` and `order_status_changes`: what was ordered, where it stands, how it got there."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ingest.store import arrays, tables
from ingest.store.sql import statement
from workers.event import Event
from workers.processors import fields
from workers.processors.merge import LAST_EVENT, LONG_AGO, Entities, Group, Upsert, place, sql_place
from workers.registry import processor

_CREATED = Group(
    columns=("conversation_id", "total", "currency", "created_at", "created_event_id"),
    place=sql_place("created_at", "created_event_id"),
)
# An order begins with the status it was created with, which any update replaces. A row whose status
# is still that one has no `updated_event_id`, and its place is that of its creation.
_IS_UPDATED = "{row}.updated_event_id IS NOT NULL"
_STATUS = Group(
    columns=("status", "updated_at", "updated_event_id"),
    place=(
        f"{_IS_UPDATED}, coalesce(CASE WHEN {_IS_UPDATED} THEN {{row}}.updated_at"
        f" ELSE {{row}}.created_at END, '{LONG_AGO}'),"
        " coalesce({row}.updated_event_id, {row}.created_event_id, '') COLLATE \"C\""
    ),
)
_merge = Upsert(tables.orders, "order_id", _CREATED, _STATUS, LAST_EVENT)


@processor("order.created", "order.status.updated", name="orders", batch=True)
def keep_orders(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each order and one for each change of its status."""
    orders = Entities()
    changes: list[dict[str, Any]] = []
    for event in events:
        order_id = fields.entity_id(event.data, "order_id")
        if event.type == "order.created":
            _created(order_id, event, orders)
        else:
            changes.append(_updated(order_id, event, orders))
    _merge(db, orders.rows())
    if changes:
        changes.sort(key=lambda change: (change["order_id"], change["event_id"]))
        names = ("order_id", "event_id", "old_status", "new_status", "updated_at")
        db.execute(
            _KEEP_CHANGES,
            {name: arrays.literal(change[name] for change in changes) for name in names},
        )


def _created(order_id: int, event: Event, orders: Entities) -> None:
    moment = fields.moment(event.data, "created_at")
    created = {
        "conversation_id": fields.optional_id(event.data, "conversation_id"),
        "total": fields.amount(event.data, "total"),
        "currency": fields.text(event.data, "currency"),
        "created_at": moment,
        "created_event_id": event.event_id,
    }
    begins = {
        "status": fields.status(event.data, "status"),
        "updated_at": None,
        "updated_event_id": None,
    }
    orders.offer(order_id, _CREATED, place(moment, event), created)
    orders.offer(order_id, _STATUS, (False, *place(moment, event)), begins)
    orders.touch(order_id, moment, event)


def _updated(order_id: int, event: Event, orders: Entities) -> dict[str, Any]:
    moment = fields.moment(event.data, "updated_at")
    status = fields.required_status(event.data, "new_status")
    updated = {"status": status, "updated_at": moment, "updated_event_id": event.event_id}
    orders.offer(order_id, _STATUS, (True, *place(moment, event)), updated)
    orders.touch(order_id, moment, event)
    return {
        "order_id": order_id,
        "event_id": event.event_id,
        "old_status": fields.text(event.data, "old_status"),
        "new_status": status,
        "updated_at": moment,
    }


_KEEP_CHANGES = statement(
    """
    INSERT INTO ingest.order_status_changes (order_id, event_id, old_status, new_status, updated_at)
    SELECT * FROM unnest(CAST(:order_id AS bigint[]), CAST(:event_id AS text[]),
                         CAST(:old_status AS text[]), CAST(:new_status AS text[]),
                         CAST(:updated_at AS timestamptz[]))
    ON CONFLICT DO NOTHING
    """
)
