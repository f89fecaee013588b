"""The tables that may name a person beside the ledger: what names whom in them, and erasing it.

A test holds that every column that could hold a text is accounted for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    Table,
    Text,
    Uuid,
    bindparam,
    delete,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from ingest.store import schema
from ingest.store.sql import OWN, statement

ERASED = "(erased)"
_ROWS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table whose texts may name a person."""

    table: Table
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Which columns say whose a row is, by kind (`ingest.erasure.person.Named`)."""
    removes: bool = False
    """Whether a row that mentions the person is removed as a whole."""

    @property
    def name(self) -> str:
        """Return the table's name."""
        return self.table.name

    @property
    def keys(self) -> list[Column[Any]]:
        """Return the columns of the primary key."""
        return list(self.table.primary_key.columns)

    @property
    def texts(self) -> list[Column[Any]]:
        """Return the columns that hold texts which somebody wrote."""
        return [
            column
            for column in self.table.columns
            if isinstance(column.type, Text | JSONB) and column.computed is None
        ]


READ_MODEL = (
    TextTable(
        table=schema.messages,
        fields={
            "phone": ["from_number"],
            "conversation": ["conversation_id"],
            "message": ["message_id"],
        },
    ),
    TextTable(
        table=schema.conversations,
        fields={
            "phone": ["phone_number"],
            "contact": ["contact_id"],
            "conversation": ["conversation_id"],
        },
    ),
    TextTable(
        table=schema.orders, fields={"order": ["order_id"], "conversation": ["conversation_id"]}
    ),
    TextTable(table=schema.order_status_changes, fields={"order": ["order_id"]}),
    TextTable(table=schema.contacts, fields={"phone": ["phone"], "contact": ["contact_id"]}),
    TextTable(
        table=schema.whatsapp_messages,
        fields={
            "phone": ["contact_phone"],
            "contact": ["contact_user_id"],
            "message": ["message_id"],
        },
    ),
    TextTable(
        table=schema.whatsapp_message_statuses,
        fields={
            "phone": ["recipient_phone"],
            "contact": ["recipient_user_id"],
            "message": ["message_id"],
        },
    ),
    TextTable(
        table=schema.whatsapp_identities,
        fields={
            "phone": ["phone", "identity"],
            "contact": ["identity", "contact_id", "successor"],
        },
    ),
    TextTable(
        table=schema.whatsapp_contacts,
        fields={"phone": ["phone", "contact_id"], "contact": ["contact_id", "user_id"]},
    ),
    TextTable(table=schema.whatsapp_templates),
    TextTable(table=schema.whatsapp_accounts),
)
OPERATORS = (
    TextTable(table=schema.replays),
    TextTable(table=schema.actions),
    TextTable(table=schema.copies),
    TextTable(table=schema.processors),
    TextTable(table=schema.failure_groups),
    TextTable(table=schema.failure_notes),
)
"""What operators wrote."""
REQUESTS = (TextTable(table=schema.refusals, removes=True),)
VIEWS = (TextTable(table=schema.views, removes=True),)
"""A search of which a part was erased would mean something else."""


_EXISTS = statement("SELECT to_regclass('ingest.' || CAST(:name AS text)) IS NOT NULL")


def rows_after(
    connection: Connection, source: TextTable, after: Sequence[Any] | None, *, rows: int = _ROWS
) -> list[Mapping[str, Any]]:
    """Return the rows of the next batch: keys, texts, and what says whose they are.

    There are none where the read model has no tables (`INGEST_READ_MODEL=false`).
    """
    if not connection.execute(_EXISTS, {"name": source.name}).scalar_one():
        return []
    names = dict.fromkeys(
        [
            *(column.name for column in (*source.keys, *source.texts)),
            *(name for columns in source.fields.values() for name in columns),
        ]
    )
    query = select(*(source.table.c[name] for name in names)).order_by(*source.keys).limit(rows)
    if after is not None:
        bounds = [
            bindparam(f"after_{column.name}", _as_key(column, value), type_=column.type)
            for column, value in zip(source.keys, after, strict=True)
        ]
        query = query.where(tuple_(*source.keys) > tuple_(*bounds))
    mappings = connection.execute(query.execution_options(**{OWN: True})).mappings()
    return [dict(row) for row in mappings]


def key_of(source: TextTable, row: Mapping[str, Any]) -> list[Any]:
    """Return the key of a row, as JSON can hold it."""
    return [
        str(row[column.name]) if isinstance(column.type, Uuid) else row[column.name]
        for column in source.keys
    ]


def _as_key(column: Column[Any], value: Any) -> Any:
    return UUID(value) if isinstance(column.type, Uuid) else value


def texts_of(source: TextTable, row: Mapping[str, Any]) -> list[str]:
    """Return every text of a row."""
    return [text for column in source.texts for text in _texts(row[column.name])]


def remove(connection: Connection, source: TextTable, row: Mapping[str, Any]) -> None:
    """Remove a row."""
    where = [column == row[column.name] for column in source.keys]
    connection.execute(delete(source.table).where(*where).execution_options(**{OWN: True}))


def blank(
    connection: Connection,
    source: TextTable,
    row: Mapping[str, Any],
    *,
    is_personal: Callable[[str], bool],
) -> None:
    """Erase the texts of a row that name the person, and keep the rest of it. A row whose key names
    the person is removed."""
    values = {
        column.name: _blanked(row[column.name], column, is_personal)
        for column in source.texts
        if any(map(is_personal, _texts(row[column.name])))
    }
    if source.removes or any(column.name in values for column in source.keys):
        remove(connection, source, row)
    elif values:
        where = [column == row[column.name] for column in source.keys]
        statement = update(source.table).where(*where).values(values)
        connection.execute(statement.execution_options(**{OWN: True}))


def _blanked(value: Any, column: Column[Any], is_personal: Callable[[str], bool]) -> Any:
    if isinstance(column.type, JSONB):
        return _redacted(value, is_personal)
    return None if column.nullable else ERASED


def _redacted(value: Any, is_personal: Callable[[str], bool]) -> Any:
    """Return a JSON value with the texts replaced that name the person."""
    if isinstance(value, dict):
        return {
            ERASED if is_personal(name) else name: _redacted(item, is_personal)
            for name, item in value.items()
        }
    if isinstance(value, list):
        if (named := _as_search(value)) is not None and is_personal(named):
            return [value[0], ERASED]
        return [_redacted(item, is_personal) for item in value]
    return ERASED if any(map(is_personal, _texts(value))) else value


def _texts(value: Any) -> list[str]:
    """Return the texts and numbers that a value is made of."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _texts(item)]
    if isinstance(value, list):
        texts = [text for item in value for text in _texts(item)]
        return texts if (named := _as_search(value)) is None else [*texts, named]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def _as_search(value: list[Any]) -> str | None:
    """Return a pair of texts as a search spells it, `contact:55`; None: it is no pair. What a bulk
    action was told to take is stored as such pairs."""
    if len(value) == 2 and all(isinstance(item, str) for item in value):
        return ":".join(value)
    return None
