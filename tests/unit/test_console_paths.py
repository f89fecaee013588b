"""Numbers in the console's paths, of any length."""

import pytest
from starlette.types import ASGIApp

from ingest import settings
from ingest.console.app import create_app
from tests.support.asgi import ask

HOST = ("host", "127.0.0.1:8001")
JSON = ("content-type", "application/json")
NOBODY = {"database_url": "postgresql://127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    """A console whose servers are away."""
    return create_app(settings.load(standalone=True, **NOBODY))


@pytest.mark.parametrize("digits", [19, 5_000, 60_000])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/bulk-actions/{}"),
        ("POST", "/bulk-actions/{}/cancel"),
        ("POST", "/jobs/{}/retry"),
        ("GET", "/api/v1/bulk-actions/{}"),
        ("POST", "/api/v1/bulk-actions/{}/pause"),
        ("POST", "/api/v1/bulk-actions/{}/resume"),
        ("POST", "/api/v1/bulk-actions/{}/cancel"),
        ("POST", "/api/v1/jobs/{}/retry"),
        ("POST", "/api/v1/jobs/{}/replay"),
        ("POST", "/api/v1/jobs/{}/discard"),
    ],
)
def test_a_number_that_no_id_can_be_leads_nowhere(
    app: ASGIApp, method: str, path: str, digits: int
) -> None:
    answer = ask(app, method, path.format("9" * digits), [HOST, JSON], b"{}")
    assert answer.status == 404


@pytest.mark.parametrize("digits", [19, 5_000])
def test_a_page_before_such_a_number_is_a_bad_request_or_the_first(
    app: ASGIApp, digits: int
) -> None:
    for path in ("/api/v1/bulk-actions", "/api/v1/audit-log"):
        answer = ask(app, "GET", f"{path}?cursor=older.{'9' * digits}", [HOST])
        assert (answer.status, answer.json()["error"]) == (400, "bad_query")


def test_a_number_of_eighteen_digits_is_looked_for(app: ASGIApp) -> None:
    answer = ask(app, "GET", f"/api/v1/bulk-actions/{'9' * 18}", [HOST])
    assert (answer.status, answer.json()["error"]) == (503, "connection_refused")


@pytest.mark.parametrize("name", ["order", "conversation", "contact", "phone", "message", "id"])
def test_a_search_for_such_a_number_is_answered(app: ASGIApp, name: str) -> None:
    answer = ask(app, "GET", f"/api/v1/events?q={name}:{'9' * 1_900}", [HOST])
    assert answer.status in (400, 503)
