"""An event's page over a real database, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingest.console.app import create_app
from ingest.settings import Settings
from tests.support.asgi import Browser, running
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def admitted(engine: Engine, database_url: str, source: str) -> str:
    """Return the id of an event of a source, as it is stored."""
    (delivery,) = deliver(database_url, [order(1)])
    execute(engine, "UPDATE deliveries SET source = :source", source=source)
    execute(
        engine,
        "INSERT INTO events (id, source, event_id, type, fingerprint, received_at)"
        " SELECT id, source, 'one', 'order.created', '', received_at FROM deliveries",
    )
    return str(delivery)


@pytest.mark.parametrize(("source", "is_signed"), [("awalchat", True), ("another", False)])
def test_a_secret_signs_deliveries_of_its_own_source_only(
    engine: Engine,
    database_url: str,
    make_settings: Callable[..., Settings],
    source: str,
    is_signed: bool,
) -> None:
    event = admitted(engine, database_url, source)
    assert one(engine, "SELECT count(*) FROM events") == 1
    app = create_app(make_settings())
    with running(app):
        page = Browser(app=app).get(f"/events/{event}")
    assert page.status == 200
    assert ("X-Awal-Webhook-Signature" in page.text) is is_signed
    said = "the console cannot sign deliveries of another"
    assert (said in page.text) is not is_signed
