"""Pages that refresh themselves, and what a page says after an action."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine

from ingest.cli.author import author
from ingest.console import app
from ingest.store.engine import create_engine
from ingest.store.pipeline import processors
from ingest.store.reports import audit_log
from tests.integration.test_behind import REGISTERED
from tests.integration.test_periods import minutes, note
from tests.support.asgi import Answer, Browser

MakeSettings = Callable[..., Any]
LISTS = (
    *("/", "/events", "/failures", "/alerts", "/processors", "/sources", "/retention"),
    *("/erasures", "/audit-log", "/entities/order/790"),
)
STEADY = "/audit-log"
"""A page on which nothing changes by itself."""


@pytest.fixture
def browser(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """A console's only user."""
    engines: list[Engine] = []

    def kept(*arguments: Any, **options: Any) -> Engine:
        engines.append(create_engine(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(app, "create_engine", kept)
    yield Browser(app=app.create_app(make_settings()))
    for engine in engines:
        engine.dispose()


@pytest.fixture
def paused(engine: Engine, browser: Browser) -> Answer:
    """The answer to the form that pauses a processor."""
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])
    return browser.post("/processors/orders/pause", {"reason": "a deploy"})


def refresh(browser: Browser, page: str, tag: str | None) -> Answer:
    return browser.get(page, x_refresh="1", if_none_match=tag or "")


@pytest.mark.parametrize("page", LISTS)
def test_every_page_says_as_of_when_it_is_and_how_often_it_refreshes(
    browser: Browser, page: str
) -> None:
    answer = browser.get(page)
    assert answer.status == 200
    as_of = datetime.fromisoformat(answer.one("x-as-of") or "")
    assert abs(datetime.now(UTC) - as_of) < timedelta(minutes=10)
    foot = answer.text.partition('<footer class="foot" data-refresh="')[2]
    assert float(foot.partition('"')[0]) >= 1
    assert f'as of <time datetime="{answer.one("x-as-of")}"' in foot
    assert "data-hold" in foot


def test_a_refresh_of_what_has_not_changed_is_answered_without_the_page(
    engine: Engine, browser: Browser
) -> None:
    shown = browser.get(STEADY)
    again = refresh(browser, STEADY, shown.one("etag"))
    assert (again.status, again.body) == (304, b"")
    assert (again.one("x-as-of") or "") > (shown.one("x-as-of") or "")
    with engine.begin() as connection:
        audit_log.record(connection, by=author(), action="pause", target="crm")
    changed = refresh(browser, STEADY, shown.one("etag"))
    assert changed.status == 200
    assert changed.one("etag") != shown.one("etag")
    assert browser.get(STEADY, if_none_match=changed.one("etag") or "").status == 200


def test_a_page_tells_once_what_was_done_where_its_record_is_and_the_way_back(
    engine: Engine, browser: Browser, paused: Answer
) -> None:
    assert (paused.status, paused.one("location")) == (303, "/processors")
    told = "orders is paused: its jobs wait."
    assert told not in refresh(browser, "/processors", None).text  # of another tab
    page = browser.get("/processors").text
    assert told in page
    with engine.connect() as connection:
        last = audit_log.last(connection)
    record = f"/audit-log#action-{last}"
    assert f'href="{record}"' in page
    assert f'id="action-{last}"' in browser.get("/audit-log").text
    assert told not in browser.get("/processors").text
    (back,) = re.findall(r'action="(\S+)" class="inline"><button [^>]*data-key="u"', page)
    assert browser.post(back, {}).status == 303
    assert "orders is resumed: its jobs run again." in browser.get("/").text


def test_nobody_is_told_what_another_did_and_what_failed_is_not_told(
    engine: Engine, browser: Browser, paused: Answer
) -> None:
    assert paused.all("set-cookie")
    with engine.begin() as connection:
        audit_log.record(connection, by=author(), action="pause", target="crm")
        other = audit_log.last(connection)
    for number in (other, other + 1, "x", 10**30):
        browser.cookies = {"ingest_done": str(number)}
        assert "What was done" not in browser.get("/processors").text
    for path in ("/processors/orders/stop", "/processors/nothing/pause"):
        answer = browser.post(path, {})
        assert answer.status in (400, 404)
        assert not [each for each in answer.all("set-cookie") if "Max-Age=60" in each]


def test_a_bulk_action_says_of_how_many_jobs_it_is(browser: Browser) -> None:
    begun = browser.post("/bulk-actions", {"action": "discard", "q": "state:dead"})
    assert begun.one("location") == "/bulk-actions/1"
    page = browser.get("/events").text
    assert "Discard 1 has begun: 0 jobs." in page
    assert 'href="/bulk-actions/1">Its record' in page


def test_the_overview_is_narrowed_to_a_part_of_its_time_and_leads_to_its_events(
    engine: Engine, browser: Browser
) -> None:
    for ago, count in ((10, 7), (40, 30), (300, 500)):
        note(engine, "succeeded", "orders", count, ago=minutes(ago))
        note(engine, "refused", "too_large", count, ago=minutes(ago))
    now = datetime.now(UTC)

    def zoomed(since: str, until: str, more: str = "") -> str:
        return browser.get(f"/?since={quote(since)}&until={quote(until)}{more}").text

    def iso(ago: float) -> str:
        return (now - minutes(ago)).isoformat()

    page = zoomed(iso(15), iso(5))
    assert 'Processed</span>\n  <strong class="tile-value">7<' in page
    assert 'Refused</span>\n  <strong class="tile-value">7<' in page
    assert 'data-span="60"' in page
    assert re.search(r'href="/events\?q=since%3A\S+until%3A\S+" data-key="e"', page)
    assert 'href="?range=hour" data-key="Z"' in page
    assert re.search(r'href="\?since=\S+&amp;until=\S+&by=queue"', page)
    assert "orders <b>7</b>" in re.sub("</?a[^>]*>", "", zoomed(iso(15), iso(5), "&by=processor"))
    longer = zoomed(iso(310), iso(5))
    assert 'Processed</span>\n  <strong class="tile-value">537<' in longer
    assert 'data-span="900"' in longer
    assert 'href="?range=day" data-key="Z"' in longer
    for since, until in ((iso(5), iso(15)), ("x", iso(0)), (iso(-5), iso(-9)), ("20d", "1d")):
        assert "Zoom out" not in zoomed(since, until)
