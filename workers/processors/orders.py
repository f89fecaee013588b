"""`orders` and `order_status_changes`: what was ordered, where it stands, how it got there.

An order has the status of its newest change, by the changes' times. Of several at one time the last
copy that an operator has set right counts. Without one that change counts which ends in a status
that those changes lead to more often than away from: where they are a chain (pending to accepted,
accepted to shipped), its end. Where that leaves several (a gap, a branch) or none (a circle), or
where there are more than `MOST_AT_ONCE`, the greatest event id decides.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ingest.sources import operator
from ingest.store import arrays, schema
from ingest.store.sql import statement
from workers.event import Event
from workers.processors import feeds, fields, unreadable
from workers.processors.merge import LONG_AGO, Entities, Group, Origin, Upsert, last_event_place
from workers.registry import processor

MOST_AT_ONCE = 100
"""So many changes of an order at one time are looked at, whatever a sender does."""

_CREATED_FIELDS: fields.Fields = {
    "conversation_id": ("conversation_id", fields.whole_number),
    "total": ("total", fields.amount),
    "currency": ("currency", fields.text),
    "created_at": ("created_at", fields.moment),
}
_STATUS_FIELDS: fields.Fields = {"status": ("status", fields.status)}
_UPDATED_FIELDS: fields.Fields = {"updated_at": ("updated_at", fields.moment)}
_CHANGE_FIELDS: fields.Fields = {"old_status": ("old_status", fields.text)}
_OF_CREATION = {**_CREATED_FIELDS, **_STATUS_FIELDS}
# An order begins with the status that it was created with, which any update replaces. Of updates of
# one time the chain decides (`_settle`), and until then the one that was there first.
_CREATED = Origin(time="created_at", event_id="created_event_id", rank="0")
_UPDATED = Origin(time="updated_at", event_id="updated_event_id", rank="1", ties_by_id=False)
_IS_UPDATE = "{row}.last_event_id IS DISTINCT FROM {row}.created_event_id"
_merge = Upsert(
    schema.orders,
    "order_id",
    Group(columns=(*_CREATED_FIELDS, "created_event_id"), origins=(_CREATED,)),
    Group(columns=("status",), origins=(_UPDATED, _CREATED)),
    Group(columns=(*_UPDATED_FIELDS, "updated_event_id"), origins=(_UPDATED,)),
    last_event=last_event_place(_IS_UPDATE, ties_by_id=f"NOT ({_IS_UPDATE})"),
)
Change = Mapping[str, Any]


@processor("order.created", "order.status.updated", name="orders", batch=True)
def keep_orders(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each order and one for each change of its status."""
    orders = Entities()
    changes: list[Change] = []
    unread = fields.Unreadable()
    for event in feeds.of_model(events, feeds.SHOP):
        order_id = fields.entity_id(event.data, "order_id")
        if event.type == "order.created":
            _created(order_id, event, orders, unread)
        else:
            changes.append(_updated(order_id, event, orders, unread))
    _merge(db, orders)
    if changes:
        _keep(db, changes)
        _settle(db, changes)
    unreadable.note(db, "orders", unread)


def _created(order_id: int, event: Event, orders: Entities, unread: fields.Unreadable) -> None:
    said = fields.said(event.data, _OF_CREATION, unread)
    said["created_event_id"] = event.event_id
    orders.offer(order_id, event, said, moment=said.get("created_at"), rank=0)


def _updated(order_id: int, event: Event, orders: Entities, unread: fields.Unreadable) -> Change:
    status = fields.required_status(event.data, "new_status")
    said = fields.said(event.data, _UPDATED_FIELDS, unread)
    moment = said.get("updated_at")
    said |= {"status": status, "updated_event_id": event.event_id}
    orders.offer(order_id, event, said, moment=moment, rank=1, ties_by_id=False)
    return fields.said(event.data, _CHANGE_FIELDS, unread) | {
        "order_id": order_id,
        "event_id": event.event_id,
        "new_status": status,
        "updated_at": moment,
        "sent_at": event.occurred_at if moment is None else None,
    }


def _keep(db: Connection, changes: Sequence[Change]) -> None:
    kept = sorted(changes, key=lambda change: (change["order_id"], change["event_id"]))
    names = ("order_id", "event_id", "old_status", "new_status", "updated_at", "sent_at")
    db.execute(
        _KEEP_CHANGES, {name: arrays.literal(change.get(name) for change in kept) for name in names}
    )


def _settle(db: Connection, changes: Iterable[Change]) -> None:
    """Set the status of those orders that may have several changes at their newest time: it has
    them here, or the row names another change than the newest one here."""
    newest: dict[int, tuple[datetime, list[str]]] = {}
    for change in changes:
        moment = change["updated_at"] or change["sent_at"] or LONG_AGO
        known, event_ids = newest.get(change["order_id"], (moment, []))
        if moment >= known:
            kept = event_ids if moment == known else []
            newest[change["order_id"]] = (moment, [*kept, change["event_id"]])
    ids = [event_ids[0] if len(event_ids) == 1 else None for _, event_ids in newest.values()]
    asked = {"order_ids": arrays.literal(newest), "event_ids": arrays.literal(ids)}
    unsettled = list(db.execute(_UNSETTLED, asked).scalars())
    if unsettled:
        db.execute(_SETTLE, {"order_ids": arrays.literal(sorted(unsettled))})


_KEEP_CHANGES = statement(
    """
    INSERT INTO ingest.order_status_changes (order_id, event_id, old_status, new_status,
                                             updated_at, sent_at)
    SELECT * FROM unnest(CAST(:order_id AS bigint[]), CAST(:event_id AS text[]),
                         CAST(:old_status AS text[]), CAST(:new_status AS text[]),
                         CAST(:updated_at AS timestamptz[]), CAST(:sent_at AS timestamptz[]))
    ON CONFLICT DO NOTHING
    """
)
_UNSETTLED = statement(
    """
    SELECT orders.order_id
    FROM unnest(CAST(:order_ids AS bigint[]), CAST(:event_ids AS text[])) AS newest (id, event_id)
    JOIN ingest.orders AS orders ON orders.order_id = newest.id
    WHERE orders.updated_event_id IS DISTINCT FROM newest.event_id
    """
)
# The rows of the orders are locked since they were merged, so that all changes which others have
# merged are seen here, or see those here.
_SETTLE = statement(
    f"""
    WITH newest AS MATERIALIZED (
        SELECT requested.order_id, change.*
        FROM unnest(CAST(:order_ids AS bigint[])) AS requested (order_id)
        CROSS JOIN LATERAL (
            SELECT {schema.CHANGED_AT} AS at FROM ingest.order_status_changes AS last
            WHERE last.order_id = requested.order_id
            ORDER BY {schema.CHANGED_AT} DESC LIMIT 1
        ) AS last
        CROSS JOIN LATERAL (
            SELECT event_id, old_status, new_status, coalesce(updated_at, sent_at) AS dated
            FROM ingest.order_status_changes AS change
            WHERE change.order_id = requested.order_id AND {schema.CHANGED_AT} = last.at
            ORDER BY event_id COLLATE "C" DESC LIMIT {MOST_AT_ONCE} + 1
        ) AS change
    ), weighed AS (
        SELECT order_id, event_id, new_status, dated,
               CASE WHEN event_id LIKE '{operator.COPIES}'
                    THEN right(event_id, {operator.NUMBER_LENGTH}) END AS copy,
               count(*) OVER (PARTITION BY order_id) <= {MOST_AT_ONCE}
               AND count(*) OVER (PARTITION BY order_id, new_status) > (
                   SELECT count(*) FROM newest AS away
                   WHERE away.order_id = newest.order_id AND away.old_status = newest.new_status
               ) AS is_end
        FROM newest
    ), settled AS (
        SELECT DISTINCT ON (order_id) order_id, event_id, new_status, dated FROM weighed
        ORDER BY order_id, copy COLLATE "C" DESC NULLS LAST, is_end DESC,
                 event_id COLLATE "C" DESC
    )
    UPDATE ingest.orders AS orders
    SET status = new_status, updated_event_id = event_id, last_event_id = event_id,
        last_event_at = dated
    FROM settled WHERE orders.order_id = settled.order_id
    """
)
