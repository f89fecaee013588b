"""What the database keeps of the console's sessions, and consoles that share it."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from ingest.console.app import create_app
from ingest.console.auth.sessions import DatabaseSessions
from ingest.settings import Settings
from tests.support.asgi import Browser, running
from tests.support.console import PASSWORD, users
from tests.support.rows import execute, one

NOW = datetime.now(UTC)


def test_consoles_that_start_at_once_have_one_key(engine: Engine) -> None:
    made = [DatabaseSessions(engine, random=os.urandom) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(DatabaseSessions.signing_key, made))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert one(engine, "SELECT count(*) FROM ingest.console_keys") == 1


def test_another_installation_has_another_key(engine: Engine) -> None:
    kept = DatabaseSessions(engine, random=os.urandom)
    before = kept.signing_key()
    execute(engine, "DELETE FROM ingest.console_keys")
    assert kept.signing_key() != before


def test_an_ended_session_is_remembered_until_it_would_have_expired(engine: Engine) -> None:
    kept, other = (DatabaseSessions(engine, random=os.urandom) for _ in range(2))
    kept.end("a", NOW + timedelta(hours=12))
    kept.end("a", NOW + timedelta(hours=12))  # two tabs
    kept.end("expired", NOW - timedelta(hours=2))
    assert other.has_ended("a")
    assert not other.has_ended("b")
    kept.end("c", NOW + timedelta(hours=12))
    assert one(engine, "SELECT string_agg(id, ',' ORDER BY id) FROM ingest.ended_sessions") == "a,c"


def test_who_logs_out_of_one_console_is_out_of_the_other(
    make_settings: Callable[..., Settings],
) -> None:
    given = make_settings(console_users=users())
    first, second = create_app(given), create_app(given)
    with running(first), running(second):
        browser = Browser(app=first)
        assert browser.log_in("alice", PASSWORD).status == 303
        kept = dict(browser.cookies)
        for app in (first, second):
            assert Browser(app=app, cookies=kept).get("/api/v1/events").status == 200
        assert browser.post("/logout", {}).status == 303
        for app in (first, second):
            assert Browser(app=app, cookies=kept).get("/api/v1/events").status == 401
