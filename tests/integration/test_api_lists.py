"""The lists of the API: one form, and cursors that lead through all of them, both ways."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from sqlalchemy import Engine
from starlette.types import ASGIApp

from ingest.console.app import create_app
from ingest.settings import Settings
from tests.integration.conftest import Worker
from tests.integration.test_command_parity import kill
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.asgi import ask, running
from tests.support.deliver import deliver, order
from tests.support.rows import execute, rows
from workers.registry import Declaration

MakeWorker = Callable[..., Worker]
HOST = [("host", "127.0.0.1:8001")]


@pytest.fixture
def app(engine: Engine, make_settings: Callable[..., Settings]) -> Iterator[ASGIApp]:
    made = create_app(make_settings())
    with running(made):
        yield made


@pytest.fixture
def worker(declared: list[Declaration], make_worker: MakeWorker) -> Worker:
    declared += BUILT_IN
    return make_worker()


def get(app: ASGIApp, path: str) -> Any:
    answer = ask(app, "GET", f"/api/v1{path}", HOST)
    assert answer.status == 200, answer.text
    return answer.json()


def walk(app: ASGIApp, path: str, cursor: str = "next_cursor") -> Iterator[dict[str, Any]]:
    """The pages of a list, from the first one to the last."""
    sign, query = "&" if "?" in path else "?", ""
    while True:
        page = get(app, path + query)
        assert {"items", "next_cursor", "as_of"} <= page.keys()
        yield page
        if page[cursor] is None:
            return
        query = f"{sign}cursor={page[cursor]}"


def ids(pages: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for page in pages for item in page["items"]]


def test_cursors_lead_through_all_events_and_back(
    app: ASGIApp, database_url: str, worker: Worker
) -> None:
    events = deliver(database_url, [order(number) for number in range(5)])
    worker.process(events)
    for sort in ("newest", "oldest"):
        wanted = [str(event) for event in sorted(events, reverse=sort == "newest")]
        pages = list(walk(app, f"/events?limit=2&sort={sort}"))
        assert [len(page["items"]) for page in pages] == [2, 2, 1]
        assert ids(pages) == wanted
        back = get(app, f"/events?limit=2&sort={sort}&cursor={pages[-1]['previous_cursor']}")
        assert ids([back]) == wanted[2:4]
        assert pages[0]["previous_cursor"] is None


def test_cursors_lead_through_what_is_numbered(app: ASGIApp, engine: Engine) -> None:
    for _ in range(5):
        execute(engine, "INSERT INTO actions (by, action, target) VALUES ('amal', 'pause', 'p')")
        execute(engine, "INSERT INTO replays (requested_by, selection) VALUES ('amal', '{}')")
    for path in ("/audit-log", "/bulk-actions"):
        assert [len(page["items"]) for page in walk(app, f"{path}?limit=5")] == [5]
        found = ids(list(walk(app, f"{path}?limit=2")))
        assert found == sorted(found, reverse=True)
        assert len(found) == 5


def test_cursors_lead_through_the_events_of_an_order(
    app: ASGIApp, database_url: str, worker: Worker
) -> None:
    bodies = [order(790, total=1)]
    bodies += [order(790, total=1).replace(b"created", b"updated_%d" % n) for n in range(2)]
    worker.process(deliver(database_url, bodies))
    for sort in ("newest", "oldest"):
        path = f"/entities/order/790?limit=2&order={sort}"
        first = get(app, path)["events"]
        second = get(app, f"{path}&cursor={first['next_cursor']}")["events"]
        pages = (first, second)
        received = [item["event"]["received_at"] for page in pages for item in page["items"]]
        assert len(received) == 3
        assert received == sorted(received, reverse=sort == "newest")
        assert (first["previous_cursor"], second["next_cursor"]) == (None, None)
        back = get(app, f"{path}&cursor={second['previous_cursor']}")["events"]
        assert back["items"] == first["items"]


def test_an_event_is_found_by_what_its_sender_calls_it(
    app: ASGIApp, database_url: str, worker: Worker
) -> None:
    (event, other) = deliver(database_url, [order(1), order(2)])
    worker.process([event, other])
    path = "/events/by-sender-id?source={}&event_id={}"
    found = get(app, path.format("awalchat", quote("order.created:1")))
    assert found == get(app, f"/events/{event}")
    for source, name in (("awalchat", "order.created:3"), ("github", "order.created:1")):
        answer = ask(app, "GET", f"/api/v1{path.format(source, quote(name))}", HOST)
        assert (answer.status, answer.json()["error"]) == (404, "not_found")
    missing = ask(app, "GET", "/api/v1/events/by-sender-id?source=awalchat", HOST)
    assert (missing.status, missing.json()["message"]) == (400, "event_id: Field required.")


def test_the_deliveries_of_an_event_begin_with_the_one_that_it_was_made_of(
    app: ASGIApp, engine: Engine, database_url: str, worker: Worker
) -> None:
    """A duplicate that was received before, and admitted later, has a smaller id."""
    early, first, *later = deliver(database_url, [order(1), order(1), order(1, total=9), order(1)])
    worker.process([first])
    worker.process([early, *later])
    pages = list(walk(app, f"/events/{first}/deliveries?limit=1"))
    assert ids(pages) == [str(one) for one in (first, early, *later)]
    found = [item for page in pages for item in page["items"]]
    assert [item["is_first"] for item in found] == [True, False, False, False]
    assert [item["conflict"] for item in found] == [False, False, True, False]
    (whole,) = walk(app, f"/events/{first}/deliveries")
    assert whole["items"] == found
    missing = ask(app, "GET", f"/api/v1/events/{UUID(int=1)}/deliveries", HOST)
    assert missing.status == 404


def test_a_delivery_is_shown_as_it_was_sent(
    app: ASGIApp, database_url: str, worker: Worker
) -> None:
    first, again, waiting = deliver(database_url, [order(1), order(1), order(2)])
    worker.process([first, again])
    shown = get(app, f"/deliveries/{again}")
    assert (shown["event"], shown["body"], shown["rejected"]) == (
        str(first),
        order(1).decode(),
        None,
    )
    assert shown["elements"] == []
    assert get(app, f"/deliveries/{waiting}")["event"] is None


def test_what_can_be_searched_by_is_said(app: ASGIApp, database_url: str, worker: Worker) -> None:
    worker.process(deliver(database_url, [order(1)]))
    words = get(app, "/search-words")
    assert words["values"]["type"] == ["order.created"]
    assert words["filters"]["state"].startswith("one of ")


def test_sources_tell_the_use_of_their_keys(app: ASGIApp, engine: Engine) -> None:
    execute(
        engine,
        "INSERT INTO activity VALUES (date_trunc('minute', now()), 'key', 'awalchat 0123abcd',"
        " 0, 0, 7)",
    )
    (found,) = (one for one in get(app, "/sources")["items"] if one["slug"] == "awalchat")
    (key,) = (one for one in found["keys"] if one["key_id"] == "0123abcd")
    assert key["hour"] == {"deliveries": 7, "share": 1.0}
    assert key["is_configured"] is False


def test_the_search_of_a_failure_group_finds_its_events(
    app: ASGIApp, engine: Engine, database_url: str
) -> None:
    kill(engine, database_url, 2)
    (group,) = get(app, "/failures")["items"]
    found = get(app, f"/events?q={quote(group['query'])}")
    assert len(found["items"]) == group["jobs"] == 2
    assert len(rows(engine, "SELECT 1 FROM events")) == 2


def test_the_pages_of_the_api_are_shown(app: ASGIApp) -> None:
    page = ask(app, "GET", "/docs?q=replay", HOST)
    assert page.status == 200
    assert 'href="/docs/replay_event"' in page.text
    assert 'href="/docs/list_events"' not in page.text
    shown = ask(app, "GET", "/docs/replay_event", HOST)
    assert "curl -sS http://127.0.0.1:8001/api/v1/events/" in shown.text
    assert "Authorization" not in shown.text
    assert ask(app, "GET", "/docs/no_such", HOST).status == 404
