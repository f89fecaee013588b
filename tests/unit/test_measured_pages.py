"""The list of pages that are measured, and whose reads are counted, has every page and search."""

from datetime import UTC, datetime
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.templating import Jinja2Templates

from ingest.console.dependencies import Console
from ingest.console.pages import routes
from ingest.console.pages.site import Site
from ingest.console.services.ranges import Range
from ingest.console.services.traffic import Split
from ingest.console.ui import paths as console_paths
from ingest.query import FILTERS, parse
from ingest.query_parts import parts
from ingest.store.search.filters import EVENT_STATES, MARKS
from tests.support.console_paths import Stored, paths, searches

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
EVENT = "01890a5d-ac96-774b-bcce-b302099a8057"
ABOUT = Stored(
    now=NOW,
    old=EVENT,
    dead=EVENT,
    repeated=EVENT,
    rejected=EVENT,
    message="wamid.A",
    error="KeyError",
    raised='"/app/shop.py", line 7, in total',
    key="0123abcd",
    order="790",
    event_id="order.created:790",
    conversation="123",
    phone="966500000000",
    contact="55",
    large_conversation="1",
    large_phone="966500000001",
    replay="1",
    erasure="1",
    processor="orders",
    failure="1",
)
_ENDLESS = {"stream"}
"""Routes that answer for as long as somebody listens."""


def test_every_page_is_in_the_list() -> None:
    console_paths.register()
    pages = {
        route.name: route
        for route in routes.routes(
            Site(console=cast(Console, None), templates=Jinja2Templates("none"))
        )
        if isinstance(route, Route) and "GET" in (route.methods or ())
    }
    visited = {name for name, route in pages.items() if any(_matches(route, p) for p in _paths())}
    assert pages.keys() - visited == _ENDLESS


def test_every_filter_state_and_mark_is_searched_by() -> None:
    all_parts = [part for q in searches(ABOUT) for part in parts(q)]
    assert {part.key for part in all_parts} >= FILTERS.keys()
    assert {part.value for part in all_parts if part.key == "state"} == {*EVENT_STATES}
    assert {part.value for part in all_parts if part.key == "is"} == {*MARKS}
    assert any(part.key is None and part.is_quoted for part in all_parts)


@pytest.mark.parametrize("name", sorted(FILTERS.keys() - {"since", "until"}))
def test_every_filter_that_may_be_negated_is_negated(name: str) -> None:
    can_be = not parse(f'-{name}:"1"', now=NOW).problems or name in ("state", "is", "deliveries")
    negated = {part.key for q in searches(ABOUT) for part in parts(q) if part.is_negated}
    assert (name in negated) == can_be


def test_every_search_is_understood() -> None:
    for q in searches(ABOUT):
        assert not parse(q, now=NOW).problems, q


def test_every_period_and_grouping_of_the_overview_is_in_the_list() -> None:
    asked = {urlsplit(path).query for path in _paths() if urlsplit(path).path == "/"}
    for period in Range:
        assert f"range={period}" in asked
        assert {f"by={split}&range={period}" for split in Split} <= asked
    assert any(parse_qs(query).get("sort") == ["oldest"] for query in _queries("/events"))


def _queries(page: str) -> list[str]:
    return [urlsplit(path).query for path in _paths() if urlsplit(path).path == page]


def _paths() -> list[str]:
    return list(paths(ABOUT, lambda entity: f"/entities/{entity.kind}/{entity.value}"))


def _matches(route: Route, path: str) -> bool:
    scope = {"type": "http", "method": "GET", "path": urlsplit(path).path, "headers": []}
    return route.matches(Request(scope).scope)[0] is Match.FULL
