"""An event's page over a real database, in this process."""

import re
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


@pytest.mark.parametrize("body", [b'{"secret_token":"x","type":"paid","id":"1"}', b"[]"])
def test_an_event_whose_source_cannot_sign_has_its_page(
    engine: Engine, database_url: str, make_settings: Callable[..., Settings], body: bytes
) -> None:
    """Moyasar sends its secret in the body. So there is no header to sign it by."""
    event = admitted(engine, database_url, "moyasar")
    execute(engine, "UPDATE deliveries SET body = :body", body=body)
    app = create_app(make_settings(sources={"moyasar": {"secrets": "s" * 20}}))
    with running(app):
        page = Browser(app=app).get(f"/events/{event}")
    assert page.status == 200
    assert "the console cannot sign deliveries of moyasar" in page.text
    assert 'id="tab-curl"' not in page.text
    assert f'action="/events/{event}/replay"' in page.text


def test_the_attempts_since_a_replay_are_told_apart_and_what_is_due_waits_for_a_worker(
    engine: Engine, database_url: str, make_settings: Callable[..., Settings]
) -> None:
    event = admitted(engine, database_url, "awalchat")
    execute(
        engine,
        "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
        " max_attempts, next_attempt_at, replay) VALUES (:event, 'crm', 'replay', 'pending',"
        " 'replay', 2, 0, 3, now() - interval '13 s', 7)",
        event=event,
    )
    execute(
        engine,
        "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome)"
        " SELECT id, number, 'retry', now(), now(), 'failed'"
        " FROM jobs, generate_series(1, 2) AS number",
    )
    app = create_app(make_settings())
    with running(app):
        browser = Browser(app=app)
        waiting = browser.get(f"/events/{event}").text
        execute(engine, "UPDATE jobs SET hinted_until = 'infinity'")
        parked = browser.get(f"/events/{event}").text
        execute(
            engine,
            "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome, replay)"
            " SELECT id, 3, 'replay', now(), now(), 'failed', 7 FROM jobs",
        )
        after = browser.get(f"/events/{event}").text
    assert '<h1 dir="auto"><span>Order 1 created</span></h1>' in waiting
    assert '<span class="num">3</span> failures since the replay' in waiting
    assert "due now, waits for a worker" in waiting
    assert "due, and parked" in parked
    for text, attempts in ((waiting, 2), (after, 3)):
        order = re.findall("Before the replay|Since the replay|>(?:1|2|3)</span>", text)
        assert order.index("Since the replay") == order.index("Before the replay") + 3
        assert text.count('title="Attempt ') == attempts
