"""One order, customer or conversation: its events in time order, its rows, what stays hidden."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ingest.console.app import create_app
from ingest.entities import offer, timeline
from ingest.entities.entity import entity
from ingest.entities.timeline import Order, Place, Timeline
from ingest.settings import Settings
from ingest.sources import registry
from tests.integration.conftest import Worker
from tests.integration.test_erasure import OMAR, SARA, SOURCES, about_omar, about_sara, erase
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.asgi import Browser, ask, running
from tests.support.console import TOKENS, VIEWER_TOKEN
from tests.support.deliver import body, deliver
from tests.support.erasing import store
from tests.support.rows import execute
from workers.registry import Declaration

MakeWorker = Callable[..., Worker]
SHOPIFY = SOURCES["shop-one"]
STORY = (
    body("order.created", {"order_id": 790, "conversation_id": 8, "status": "pending"}),
    body(
        "order.status.updated",
        {"order_id": 790, "new_status": "paid", "updated_at": "2024-02-01T00:00:00Z"},
    ),
    body(
        "order.status.updated",
        {"order_id": 790, "new_status": "late", "updated_at": "2024-01-01T00:00:00Z"},
    ),
    body("order.status.updated", {"order_id": 790, "new_status": 12}),
)


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    registry.use({})


@pytest.fixture
def worker(declared: list[Declaration], make_worker: MakeWorker) -> Worker:
    declared += BUILT_IN
    return make_worker()


def read(engine: Engine, kind: str, value: str, **place: Any) -> Timeline:
    with engine.connect() as connection:
        return timeline.read(connection, SOURCES, entity(kind, value), Place(**place))


def told(stored: Timeline) -> list[tuple[str, list[tuple[str, str, str]]]]:
    return [
        (entry.event.type, [(said.column, said.value, said.fate) for said in entry.said])
        for entry in stored.entries
    ]


def test_the_events_of_an_order_tell_what_its_row_has_from_each(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(deliver(database_url, [*about_omar(), *STORY]))
    stored = read(engine, "order", "790", order=Order.OLDEST)
    created, paid, late, unusable = stored.entries
    assert told(stored) == [
        (
            "order.created",
            [("conversation_id", "8", "set"), ("status", "pending", "replaced")],
        ),
        (
            "order.status.updated",
            [("status", "paid", "set"), ("updated_at", "2024-02-01T00:00:00Z", "set")],
        ),
        (
            "order.status.updated",
            [("status", "late", "replaced"), ("updated_at", "2024-01-01T00:00:00Z", "replaced")],
        ),
        ("order.status.updated", [("status", "12", "not applied")]),
    ]
    (job,) = unusable.jobs
    assert (job.state, job.attempts[0].error_message) == ("dead", "new_status is not a string")
    (row,) = stored.rows
    set_by = {field.column: (field.value, field.event) for field in row.fields}
    assert set_by["status"] == ("paid", paid.event.id)
    assert set_by["conversation_id"] == ("8", created.event.id)
    assert [change.status for change in stored.changes] == ["paid", "late"]
    assert stored.changes[1].event == late.event.id
    assert [one.title for one in stored.linked] == [
        "Conversation 8",
        "Contact 6",
        f"Phone number {OMAR}",
    ]
    assert [one.title for one in created.names] == ["Conversation 8"]


@pytest.mark.parametrize("order", list(Order))
def test_pages_there_and_back_are_the_whole_story(
    engine: Engine, database_url: str, worker: Worker, order: Order
) -> None:
    worker.process(deliver(database_url, [*about_omar(), *about_sara(), *STORY]))
    whole = [entry.event.id for entry in read(engine, "order", "790", order=order).entries]
    assert len(whole) == 4
    assert whole == sorted(whole, reverse=order is Order.NEWEST)
    on = "older" if order is Order.NEWEST else "newer"
    pages = [read(engine, "order", "790", order=order, limit=3)]
    assert (pages[0].older, pages[0].newer).count(None) == 1
    bound = {"older": {"before": pages[0].older}, "newer": {"after": pages[0].newer}}[on]
    pages.append(read(engine, "order", "790", order=order, limit=3, **bound))
    assert [entry.event.id for page in pages for entry in page.entries] == whole
    assert all(page.total == 4 for page in pages)
    assert getattr(pages[1], on) is None
    back = {"older": {"after": pages[1].newer}, "newer": {"before": pages[1].older}}[on]
    again = read(engine, "order", "790", order=order, limit=3, **back)
    assert [entry.event.id for entry in again.entries] == whole[:3]


def test_a_person_is_shown_across_senders_with_and_without_a_read_model(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    registry.use({"shop-one": type(SHOPIFY)})
    shopify = b'{"id": 790, "topic": "orders/paid", "phone": "+966 59 876 5432"}'
    worker.process(deliver(database_url, [*about_omar(), *about_sara(), *STORY]))
    worker.process(store(database_url, SHOPIFY, [shopify]))
    of_omar = read(engine, "phone", "+966 59 876 5432")
    assert of_omar.sources == {"awalchat": 7, "shop-one": 1}
    assert {row.table for row in of_omar.rows} == {"contacts", "conversations"}
    both = read(engine, "order", "790")
    assert both.sources == {"awalchat": 4, "shop-one": 1}
    only = read(engine, "order", "790", source="shop-one")
    assert [entry.event.source for entry in only.entries] == ["shop-one"]
    assert [one.title for one in only.entries[0].names] == [f"Phone number {OMAR}"]


def test_without_a_read_model_there_are_just_the_events(engine: Engine, database_url: str) -> None:
    deliver(database_url, list(STORY))
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    with engine.begin() as connection:
        for table in ("orders", "conversations", "contacts", "messages"):
            connection.execute(text(f"DROP TABLE {table}"))
    stored = read(engine, "order", "790")
    assert (stored.total, stored.rows, stored.changes) == (4, (), ())


def test_an_erased_person_and_an_erased_order_say_so(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(deliver(database_url, [*about_sara(), *about_omar()]))
    assert read(engine, "order", "70").erasures == read(engine, "phone", SARA).erasures == ()
    erase(engine)
    order = read(engine, "order", "70")
    assert [entry.erasure is not None for entry in order.entries] == [True]
    assert order.rows == ()
    person = read(engine, "phone", SARA)
    assert person.entries == ()
    assert person.erasures == order.erasures != ()
    assert read(engine, "order", "80").erasures == ()


def test_a_plain_number_offers_what_is_called_by_it(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(deliver(database_url, [*about_omar(), *STORY]))

    def offered(typed: str) -> list[str]:
        with engine.connect() as connection:
            return [one.title for one in offer.offered(connection, SOURCES, typed, ())]

    assert offered("790") == ["Order 790"]
    assert offered("8") == ["Conversation 8"]
    assert offered("+966 59 876 5432") == [f"Phone number {OMAR}"]
    assert offered("791") == []


def test_no_address_and_no_masked_page_holds_a_phone_number(
    engine: Engine,
    database_url: str,
    make_settings: Callable[..., Settings],
    worker: Worker,
) -> None:
    worker.process(deliver(database_url, [*about_omar(), *STORY]))
    masked = make_settings(console_tokens=TOKENS, console_mask_viewers=True)
    viewer = create_app(masked)
    operator = create_app(make_settings())
    event = read(engine, "order", "790").entries[-1].event.id
    with running(operator), running(viewer):
        seen = Browser(app=operator)
        found = seen.get("/events?q=790").text
        assert 'href="/entities/order/790"' in found
        assert 'href="/entities/order/790"' in seen.get(f"/events/{event}").text
        order_page = seen.get("/entities/order/790").text
        (address,) = set(re.findall(r'href="(/entities/phone/[^"?]+)"', order_page))
        assert OMAR not in address
        person = seen.get(address).text
        assert f"Phone number {OMAR}" in person
        assert seen.get(f"/entities/phone/{OMAR}").status == 404
        assert seen.get(f"{address[:-2]}AA").status == 404
        headers = [("host", "127.0.0.1:8001"), ("authorization", f"Bearer {VIEWER_TOKEN}")]

        for path in (address, "/entities/order/790", "/entities/contact/6", "/events?q=790"):
            page = ask(viewer, "GET", path, headers)
            assert page.status == 200, path
            assert OMAR not in page.text, path
            assert "Omar" not in page.text, path
            assert OMAR[:8] not in page.text, path
        assert 'href="/entities/order/790"' in ask(viewer, "GET", "/events?q=790", headers).text
        told_by_api = ask(viewer, "GET", f"/api/v1{address}", headers)
        assert told_by_api.json()["entity"]["title"] == "Phone number ••••••••••32"
        assert OMAR not in told_by_api.text
