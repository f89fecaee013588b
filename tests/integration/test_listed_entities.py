"""From a row of the list to everything about the order, conversation or person that it is about."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingest.entities import listed
from ingest.entities.entity import Entity
from ingest.store.search.filters import EventFilter
from tests.integration.test_command_parity import Run, run
from tests.integration.test_erasure import SOURCES
from tests.integration.test_live_pages import browser
from tests.support.asgi import Browser
from tests.support.deliver import body, deliver
from tests.support.rows import execute
from tests.support.states import listed as list_events

__all__ = ["browser", "run"]
PHONE = "966512345678"


@pytest.fixture(autouse=True)
def _stored(engine: Engine, database_url: str) -> None:
    """An order of a conversation, a message, a conversation's phone number, and a bare type."""
    said = {"message_id": "wamid.1", "conversation_id": 12, "from": PHONE, "body": "hello"}
    deliver(
        database_url,
        [
            body("order.created", {"order_id": 789, "conversation_id": 12}),
            body("message.received", said),
            body("contact.updated", {"phone": f"+{PHONE}", "name": "Sara"}),
            body("unknown.type", {"anything": 1}),
        ],
    )
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(engine, "DELETE FROM unadmitted")


def test_the_most_telling_of_what_a_body_names_is_what_its_event_is_about(engine: Engine) -> None:
    found = list_events(engine, EventFilter())
    with engine.connect() as connection:
        about = listed.about(connection, SOURCES, found)
    assert {event.type: about.get(event.id) for event in found} == {
        "order.created": Entity("order", "789"),
        "message.received": Entity("conversation", "12"),
        "contact.updated": Entity("phone", PHONE),
        "unknown.type": None,
    }


def test_a_body_that_is_gone_or_too_large_names_nothing(engine: Engine) -> None:
    execute(engine, "UPDATE deliveries SET body = NULL")
    found = list_events(engine, EventFilter())
    with engine.connect() as connection:
        assert listed.about(connection, SOURCES, found) == {}
        assert listed.about(connection, SOURCES, ()) == {}


def test_a_body_that_its_source_reads_no_more_names_nothing(
    engine: Engine, browser: Browser, run: Run
) -> None:
    execute(engine, "UPDATE deliveries SET body = 'no JSON'")
    (order,) = [one for one in list_events(engine, EventFilter()) if one.type == "order.created"]
    assert browser.get("/events").text.count('class="chip entity"') == 0
    for page in (f"/events/{order.id}", "/entities/order/789", "/events?q=789"):
        assert browser.get(page).status == 200, page
    assert {line["about"] for line in run("events", "list", "--json")} == {None}


def test_each_row_of_the_page_leads_to_what_it_is_about(browser: Browser) -> None:
    page = browser.get("/events").text
    links = re.findall(r'<a class="chip entity" href="([^"]*)"><bdi>([^<]*)<', page)
    assert ("/entities/order/789", "Order 789") in links
    assert ("/entities/conversation/12", "Conversation 12") in links
    (sealed,) = [href for href, title in links if title == f"Phone number {PHONE}"]
    assert PHONE not in sealed
    assert browser.get(sealed).status == 200


def test_viewers_see_no_number_in_it(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.console.ui.masking.applies", lambda *_: True)
    page = browser.get("/events").text
    assert PHONE not in page
    assert "Order 789" in page


def test_a_terminal_tells_it_and_so_does_json(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = {line["type"]: line["about"] for line in run("events", "list", "--json")}
    assert lines["order.created"] == {"kind": "order", "value": "789"}
    assert lines["unknown.type"] is None
    monkeypatch.setattr("ingest.cli.output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert "  order 789  " in run("events", "list")
