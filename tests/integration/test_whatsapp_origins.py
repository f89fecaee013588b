"""Which event set which field of a contact of WhatsApp, whatever order the events came in."""

import itertools
from collections.abc import Mapping

import pytest
from sqlalchemy import Engine

from ingest.store.entities import rows
from tests.integration.test_whatsapp_read_model import (
    PHONE,
    USER,
    apply,
    event,
    id_update,
    message,
    update,
)

NEXT, NUMBER = "US.99", "16505559999"
BY_NUMBER = message(**{"from": PHONE, "type": "text", "timestamp": "1749416380"})
NAMED = message(
    **{"from": PHONE, "from_user_id": USER, "type": "image", "timestamp": "1749416390"},
)
MOVED = id_update(USER, NEXT, 1749416400, wa_id=NUMBER)
PROFILE = {
    "profile": {"name": "Sara", "username": "sara"},
    "user_id": NEXT,
}


def named_since(at: int) -> bytes:
    """A message of the new user id, with a profile beside it."""
    told = {"id": "wamid.2", "timestamp": str(at), "from_user_id": NEXT, "type": "text"}
    return update("messages", told, contact=PROFILE)


def origins(engine: Engine, kind: str, value: str) -> Mapping[str, str | None]:
    """By column of the one contact: the event that set it."""
    with engine.connect() as connection:
        found = rows.known(connection, kind, value)
    (row,) = [row for row in found.rows if row.table == "whatsapp_contacts"]
    return {field.column: field.event_id for field in row.fields}


def of(body: bytes) -> str:
    return event(body).event_id


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_each_field_names_its_event_in_any_order(engine: Engine, order: tuple[int, ...]) -> None:
    bodies = [BY_NUMBER, NAMED, MOVED, named_since(1749416410)]
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = ingest")
        for number in order:
            apply(connection, [bodies[number]])
    set_by = {
        "user_id": of(MOVED),
        "phone": of(MOVED),
        "name": of(bodies[3]),
        "username": of(bodies[3]),
    }
    assert origins(engine, "contact", NEXT) == set_by
    assert origins(engine, "phone", NUMBER) == set_by


def test_an_older_event_that_came_later_sets_nothing(engine: Engine) -> None:
    older, newer = named_since(1749416300), named_since(1749416500)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = ingest")
        apply(connection, [newer])
        apply(connection, [older])
    assert origins(engine, "contact", NEXT)["name"] == of(newer)


def test_what_no_event_led_to_names_none(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = ingest")
        apply(connection, [BY_NUMBER])
    assert origins(engine, "contact", PHONE) == {"phone": None}
