"""The rows of the read model that are about one entity, and which event set what in them.

Each statement follows an index and is bounded, however much there is of the entity.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping

from ingest.store.entities.origins import PROVENANCE
from ingest.store.schema import CHANGED_AT
from ingest.store.search.related import NUMBERED, is_bigint
from ingest.store.sql import statement

MOST = 20
"""Rows of a table, and changes of a status, that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column of a row."""

    column: str
    value: Any
    event_id: str | None
    """The sender's id of the event that set it; None: the row does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A row of the read model."""

    table: str
    key: str
    """What it is called: the value of its key."""
    fields: tuple[Field, ...]
    """Those that have a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a status that is kept."""

    status_before: str | None
    status: str
    at: Any
    """When, as the event says; None: it does not."""
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the read model knows of an entity."""

    rows: tuple[ModelRow, ...] = ()
    changes: tuple[Change, ...] = ()
    """Of its status, newest first."""
    linked: tuple[tuple[str, str], ...] = ()
    """Kinds and values of the entities that its rows lead to."""


_HAS_READ_MODEL = statement("SELECT to_regclass('ingest.orders') IS NOT NULL")


def has_read_model(connection: Connection) -> bool:
    """Return whether there are tables of the read model (`INGEST_READ_MODEL`)."""
    return bool(connection.execute(_HAS_READ_MODEL).scalar_one())


def known(connection: Connection, kind: str, value: str) -> Known:
    """Return what the read model knows of an entity; nothing, if its id cannot be one there."""
    tables = [one for one in _ROWS[kind] if _fits(one[0], kind, value)]
    rows = [
        _row(table, key, row)
        for table, key, query in tables
        for row in _read(connection, query, value)
    ]
    if not _fits("", kind, value):
        return Known(rows=tuple(rows))
    changes = [Change(**row) for query in _CHANGES[kind] for row in _read(connection, query, value)]
    linked = [
        (row["kind"], row["value"])
        for query in _LINKED[kind]
        for row in _read(connection, query, value)
    ]
    return Known(rows=tuple(rows), changes=tuple(changes), linked=tuple(dict.fromkeys(linked)))


def is_known(connection: Connection, kind: str, value: str) -> bool:
    """Return whether the read model has a row of an entity."""
    return any(
        _read(connection, query, value)
        for table, _, query in _ROWS[kind]
        if _fits(table, kind, value)
    )


def _read(connection: Connection, query: Any, value: str) -> Sequence[RowMapping]:
    return connection.execute(query, {"value": value, "most": MOST}).mappings().all()


def _fits(table: str, kind: str, value: str) -> bool:
    """Return whether a value can be a key: the tables of one read model have numbers."""
    return kind not in NUMBERED or table.startswith(_WITH_TEXT_KEYS) or is_bigint(value)


_WITH_TEXT_KEYS = "whatsapp_"


def _row(table: str, key: str, row: RowMapping) -> ModelRow:
    provenance = PROVENANCE[table]
    return ModelRow(
        table=table,
        key=str(row[key]),
        fields=tuple(
            Field(column=name, value=row[name], event_id=provenance.origin_of(dict(row), name))
            for name in provenance.origins
            if row[name] is not None
        ),
    )


_EVENTS = statement(
    """
    SELECT event_id, id FROM ingest.events
    WHERE source = ANY(CAST(:sources AS text[])) AND event_id = ANY(CAST(:event_ids AS text[]))
    """
)


def events_called(
    connection: Connection, sources: Sequence[str], event_ids: Sequence[str]
) -> dict[str, UUID]:
    """Return the events that go by these ids at one of some sources. An id that two of them use is
    left out: which event a row means, it does not tell."""
    found = _events(connection, sources, event_ids)
    times = Counter(row.event_id for row in found)
    return {row.event_id: row.id for row in found if times[row.event_id] == 1}


def is_any_called(connection: Connection, sources: Sequence[str], event_ids: Sequence[str]) -> bool:
    """Return whether an event of some sources goes by one of these ids."""
    return bool(_events(connection, sources, event_ids))


def _events(
    connection: Connection, sources: Sequence[str], event_ids: Sequence[str]
) -> Sequence[Any]:
    parameters = {"sources": list(sources), "event_ids": list(event_ids)}
    return connection.execute(_EVENTS, parameters).all()


_BIGINT = "CAST(CAST(:value AS text) AS bigint)"
_PHONE = "ingest.normal_phone(CAST(:value AS text))"


def _rows_of(table: str, condition: str) -> Any:
    return statement(f"SELECT * FROM ingest.{table} WHERE {condition} LIMIT :most")


# A contact's row is made of its identities' rows (workers.processors.whatsapp_identities): of each
# column the newest version counts. The event that led to the last identity set the user id.
_IDENTITIES = 1_000
_VERSIONS_OF_CONTACT = f"""
    SELECT jsonb_object_agg(field, version) FROM (
        SELECT DISTINCT ON (field) said.version,
               CASE said.field WHEN 'successor' THEN 'user_id' ELSE said.field END AS field
        FROM (
            SELECT * FROM ingest.whatsapp_identities
            WHERE contact_id = whatsapp_contacts.contact_id LIMIT {_IDENTITIES}
        ) AS identities
        CROSS JOIN LATERAL jsonb_each_text(versions) AS said (field, version)
        WHERE to_jsonb(identities) ->> said.field = CASE said.field
            WHEN 'successor' THEN whatsapp_contacts.contact_id
            ELSE to_jsonb(whatsapp_contacts) ->> said.field
        END
        ORDER BY field, said.version COLLATE "C" DESC, identities.identity COLLATE "C" DESC
    ) AS newest
"""


def _whatsapp_contacts(condition: str) -> Any:
    return statement(
        f"""
        SELECT whatsapp_contacts.*, ({_VERSIONS_OF_CONTACT}) AS versions
        FROM ingest.whatsapp_contacts WHERE {condition} LIMIT :most
        """
    )


# By kind: the tables, what their keys are called, and the statement.
_ROWS: Mapping[str, Sequence[tuple[str, str, Any]]] = {
    "order": [("orders", "order_id", _rows_of("orders", f"order_id = {_BIGINT}"))],
    "conversation": [
        (
            "conversations",
            "conversation_id",
            _rows_of("conversations", f"conversation_id = {_BIGINT}"),
        )
    ],
    "contact": [
        ("contacts", "contact_id", _rows_of("contacts", f"contact_id = {_BIGINT}")),
        ("whatsapp_contacts", "contact_id", _whatsapp_contacts("contact_id = :value")),
    ],
    "message": [
        ("messages", "message_id", _rows_of("messages", "message_id = :value")),
        ("whatsapp_messages", "message_id", _rows_of("whatsapp_messages", "message_id = :value")),
    ],
    "phone": [
        ("contacts", "contact_id", _rows_of("contacts", f"phone_normal = {_PHONE}")),
        (
            "conversations",
            "conversation_id",
            _rows_of("conversations", f"phone_number_normal = {_PHONE}"),
        ),
        ("whatsapp_contacts", "contact_id", _whatsapp_contacts(f"phone = {_PHONE}")),
    ],
}
_CHANGES: Mapping[str, Sequence[Any]] = {
    "phone": [],
    "conversation": [],
    "contact": [],
    "order": [
        statement(
            f"""
        SELECT old_status AS status_before, new_status AS status,
               coalesce(updated_at, sent_at) AS at, event_id
        FROM ingest.order_status_changes WHERE order_id = {_BIGINT}
        ORDER BY {CHANGED_AT} DESC, event_id COLLATE "C" DESC LIMIT :most
        """
        )
    ],
    "message": [
        statement(
            """
        SELECT NULL AS status_before, status, at, event_id
        FROM ingest.whatsapp_message_statuses WHERE message_id = :value
        ORDER BY at DESC NULLS LAST, event_id LIMIT :most
        """
        )
    ],
}
_ORDERS_OF = """SELECT 'order' AS kind, CAST(order_id AS text) AS value FROM (
    SELECT order_id FROM ingest.orders WHERE conversation_id = {of} LIMIT :most
) AS orders"""
_LINKED: Mapping[str, Sequence[Any]] = {
    "order": [
        statement(
            f"""
            SELECT link.kind, link.value FROM ingest.orders
            LEFT JOIN ingest.conversations USING (conversation_id)
            CROSS JOIN LATERAL (VALUES
                ('conversation', CAST(orders.conversation_id AS text)),
                ('contact', CAST(conversations.contact_id AS text)),
                ('phone', conversations.phone_number_normal)
            ) AS link (kind, value)
            WHERE orders.order_id = {_BIGINT} AND link.value IS NOT NULL LIMIT :most
            """
        )
    ],
    "message": [
        statement(
            """
            SELECT link.kind, link.value FROM ingest.messages CROSS JOIN LATERAL (VALUES
                ('conversation', CAST(conversation_id AS text)),
                ('phone', from_number_normal)
            ) AS link (kind, value)
            WHERE message_id = :value AND link.value IS NOT NULL LIMIT :most
            """
        ),
        statement(
            """
            SELECT 'phone' AS kind, contact_phone AS value FROM ingest.whatsapp_messages
            WHERE message_id = :value AND contact_phone IS NOT NULL LIMIT :most
            """
        ),
    ],
    "conversation": [
        statement(
            f"""
            SELECT link.kind, link.value FROM ingest.conversations CROSS JOIN LATERAL (VALUES
                ('contact', CAST(contact_id AS text)), ('phone', phone_number_normal)
            ) AS link (kind, value)
            WHERE conversation_id = {_BIGINT} AND link.value IS NOT NULL LIMIT :most
            """
        ),
        statement(_ORDERS_OF.format(of=_BIGINT)),
    ],
    "contact": [
        statement(
            f"""
            SELECT 'phone' AS kind, phone_normal AS value FROM ingest.contacts
            WHERE contact_id = {_BIGINT} AND phone_normal IS NOT NULL LIMIT :most
            """
        ),
        statement(
            f"""
            SELECT 'conversation' AS kind, CAST(conversation_id AS text) AS value
            FROM ingest.conversations WHERE contact_id = {_BIGINT} LIMIT :most
            """
        ),
    ],
    "phone": [
        statement(
            f"""
            SELECT 'contact' AS kind, CAST(contact_id AS text) AS value
            FROM ingest.contacts WHERE phone_normal = {_PHONE} LIMIT :most
            """
        ),
        statement(
            f"""
            SELECT 'conversation' AS kind, CAST(conversation_id AS text) AS value
            FROM ingest.conversations WHERE phone_number_normal = {_PHONE} LIMIT :most
            """
        ),
    ],
}
