"""What the console says of who set a column is what the processors' merging says."""

from collections.abc import Mapping
from typing import Any

import pytest

from ingest.store.entities.origins import PROVENANCE
from workers.processors import (
    contacts,
    conversations,
    fields,
    messages,
    orders,
    whatsapp_messages,
)
from workers.processors.fields import Fields
from workers.processors.merge import Upsert

MERGES: dict[str, Upsert] = {
    "messages": messages._merge,
    "conversations": conversations._merge,
    "orders": orders._merge,
    "contacts": contacts._merge,
    "whatsapp_messages": whatsapp_messages._merge,
}
STATUS_OF_MESSAGE: Fields = {**messages._STATUS_FIELDS, "status": ("status", fields.status)}
STATUS_OF_ORDER: Fields = {**orders._UPDATED_FIELDS, "status": ("new_status", fields.status)}
SAYS: dict[str, Mapping[str, Fields]] = {
    "messages": {
        "message.received": messages._RECEIVED_FIELDS,
        "message.status.updated": STATUS_OF_MESSAGE,
    },
    "conversations": {
        "conversation.created": conversations._OF_CREATION,
        "conversation.updated": conversations._OF_UPDATE,
    },
    "orders": {"order.created": orders._OF_CREATION, "order.status.updated": STATUS_OF_ORDER},
    "contacts": {"contact.created": contacts._FIELDS, "contact.updated": contacts._FIELDS},
}


@pytest.mark.parametrize("table", MERGES)
def test_a_column_is_set_by_the_event_that_its_group_names(table: str) -> None:
    merged = {
        column: tuple(origin.event_id for origin in group.origins)
        for group in MERGES[table]._groups
        for column in group.columns
        if not column.endswith("_event_id")
    }
    assert PROVENANCE[table].origins == merged


@pytest.mark.parametrize("table", SAYS)
def test_an_event_speaks_of_the_columns_that_its_processor_reads(table: str) -> None:
    read = {
        event_type: {column: name for column, (name, _) in fields.items()}
        for event_type, fields in SAYS[table].items()
    }
    assert PROVENANCE[table].says == read


def row(**more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("status", "total", "created_event_id", "updated_event_id", "versions"))
    return empty | more


def test_the_first_column_that_names_an_event_tells_who_set_it() -> None:
    orders_ = PROVENANCE["orders"]
    created = row(status="new", total=1, created_event_id="c")
    assert orders_.origin_of(created, "status") == "c"
    updated = created | {"updated_event_id": "u"}
    assert (orders_.origin_of(updated, "status"), orders_.origin_of(updated, "total")) == ("u", "c")
    assert orders_.origin_of(created | {"total": None}, "total") is None


def test_versions_tell_it_where_there_are_some() -> None:
    known = row(status="a", total=1, created_event_id="c", versions={"total": "02024-01-01 older"})
    assert PROVENANCE["orders"].origin_of(known, "total") == "older"
    # The version of an update leaves its id out, and the column has it.
    mixed = known | {"updated_event_id": "u", "versions": {"status": "12024-01-01 "}}
    assert PROVENANCE["orders"].origin_of(mixed, "status") == "u"
