"""A change that fails after a part of it was committed or sent is not made again under its key."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from starlette.types import ASGIApp

from ingest.console.app import create_app
from ingest.console.pages import once
from ingest.console.services import commands, failures
from ingest.console.services import resending as resending_service
from ingest.settings import Settings
from ingest.store.bulk import changes, replay
from ingest.store.erasure import records
from ingest.store.reports import audit_log
from tests.integration.test_command_parity import kill
from tests.integration.test_keyed_requests import broken
from tests.integration.test_live_pages import browser
from tests.support.asgi import Answer, Browser, ask, running
from tests.support.deliver import order
from tests.support.failing import count, fail_jobs, group
from tests.support.http_taker import Taker
from tests.support.http_taker import running as taking
from tests.support.ports import free_port
from tests.support.rows import execute, one
from tests.support.waiting import until

__all__ = ["browser"]
IN_USE = (409, "idempotency_key_in_use")
CHANNEL = '[channels.team]\nkind = "slack"\nurl_env = "SLACK_URL"\n'


@pytest.fixture
def taker() -> Iterator[Taker]:
    """What takes test events and test messages."""
    with taking() as server:
        yield server


@pytest.fixture
def app(
    make_settings: Callable[..., Settings],
    taker: Taker,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[ASGIApp]:
    monkeypatch.setenv("SLACK_URL", taker.url)
    alerts = tmp_path / "alerts.toml"
    alerts.write_text(CHANNEL)
    receiver = f"http://127.0.0.1:{taker.server_port}"
    made = create_app(make_settings(receiver_url=receiver, alerts=alerts))
    with running(made):
        yield made


@pytest.fixture
def job(engine: Engine, database_url: str) -> int:
    """A dead job."""
    kill(engine, database_url, 1)
    return int(one(engine, "SELECT id FROM jobs"))


def ask_for(app: ASGIApp, path: str, key: str, **body: object) -> Answer:
    headers = [("host", "127.0.0.1:8001"), ("content-type", "application/json")]
    headers.append(("idempotency-key", key))
    return ask(app, "POST", f"/api/v1{path}", headers, json.dumps(body).encode())


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]


def fails(*_: object, **__: object) -> Any:
    raise broken("55P03")


def event_of(engine: Engine) -> UUID:
    return UUID(str(one(engine, "SELECT event FROM jobs")))


def count_of(table: str) -> Callable[[Engine, Taker], int]:
    return lambda engine, _taker: int(one(engine, f"SELECT count(*) FROM {table}"))


def sent(_engine: Engine, taker: Taker) -> int:
    return len(taker.taken)


FAILING: dict[str, tuple[str, dict[str, object], tuple[object, str], Callable[..., int]]] = {
    "a replay of a job": (
        "/jobs/{job}/replay",
        {},
        (replay, "operation"),
        count_of("replays"),
    ),
    "a retry of a dead job": (
        "/jobs/{job}/retry",
        {},
        (replay, "operation"),
        count_of("replays"),
    ),
    "an edited event": (
        "/events/{event}/resend",
        {"body": order(0, total=2).decode()},
        (resending_service, "_preview"),
        count_of("copies"),
    ),
    "the search for a person": (
        "/erasures",
        {"phones": ["+966512345678"]},
        (records, "read"),
        count_of("erasures"),
    ),
    "a test event": ("/test-event", {}, (audit_log, "record"), sent),
    "a test of a channel": ("/alert-channels/team/test", {}, (audit_log, "record"), sent),
}


@pytest.mark.parametrize("what", FAILING)
def test_its_key_is_not_given_back(
    app: ASGIApp,
    engine: Engine,
    taker: Taker,
    job: int,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    path, body, (module, name), made = FAILING[what]
    path, key = path.format(job=job, event=event_of(engine)), str(uuid4())
    with monkeypatch.context() as patched:
        patched.setattr(module, name, fails)
        assert ask_for(app, path, key, **body).status == 503
    assert told(ask_for(app, path, key, **body)) == IN_USE
    assert made(engine, taker) == 1


def test_a_pause_that_takes_nothing_back_is_made_once(
    app: ASGIApp, engine: Engine, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = ask_for(app, f"/jobs/{job}/replay", str(uuid4())).json()["id"]
    path, key = f"/bulk-actions/{begun}/pause", str(uuid4())
    with monkeypatch.context() as patched:
        patched.setattr(changes, "take_back_all", fails)
        assert ask_for(app, path, key).status == 503
    assert told(ask_for(app, path, key)) == IN_USE
    assert one(engine, "SELECT count(*) FROM actions WHERE action = 'pause'") == 1


def test_a_failure_that_cannot_be_shown_is_acknowledged_once(
    app: ASGIApp, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    path, key = f"/failures/{group(engine).id}/acknowledge", str(uuid4())
    with monkeypatch.context() as patched:
        patched.setattr(failures, "one", fails)
        assert ask_for(app, path, key).status == 503
    assert told(ask_for(app, path, key)) == IN_USE
    assert one(engine, "SELECT count(*) FROM actions") == 1


def test_a_receiver_that_answers_nothing_may_have_the_event(
    app: ASGIApp, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_TEST_TIMEOUT_S", 0.2)
    key = str(uuid4())
    taker.free.clear()
    assert told(ask_for(app, "/test-event", key)) == (409, "no_receiver")
    taker.free.set()
    assert told(ask_for(app, "/test-event", key)) == IN_USE


def test_a_form_that_fails_midway_is_not_done_again(
    browser: Browser, engine: Engine, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_WAITS_S", 0.0)
    path, form = f"/events/{event_of(engine)}/replay", {"once": "a" * 32}
    with monkeypatch.context() as patched:
        patched.setattr(replay, "operation", fails)
        assert browser.post(path, form).status == 503
    again = browser.post(path, form)
    assert again.status == 409
    assert "it is not known what that led to" in again.text
    assert one(engine, "SELECT count(*) FROM replays") == 1


def test_a_replay_that_is_held_up_is_begun_once_and_the_console_goes_on_with_it(
    app: ASGIApp, engine: Engine, job: int
) -> None:
    path, key = f"/jobs/{job}/replay", str(uuid4())
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM ingest.jobs FOR UPDATE")
        first = ask_for(app, path, key)
        assert (first.status, first.json()["counts"]["jobs"]) == (200, 0)
    assert ask_for(app, path, key).body == first.body
    until(lambda: one(engine, "SELECT state FROM jobs") == "pending")
    assert one(engine, "SELECT count(*) FROM replays") == 1


def test_what_was_refused_without_a_change_keeps_its_key_free(
    app: ASGIApp, engine: Engine, job: int
) -> None:
    begun = ask_for(app, f"/jobs/{job}/discard", str(uuid4())).json()["id"]
    execute(engine, "UPDATE jobs SET state = 'succeeded', discarded_at = NULL")
    refused = {
        f"/jobs/{job}/retry": "not_waiting",
        f"/bulk-actions/{begun}/pause": "has_ended",
    }
    for path, why in refused.items():
        key = str(uuid4())
        assert [told(ask_for(app, path, key)) for _ in range(2)] == [(409, why)] * 2


def test_a_test_event_that_nobody_takes_keeps_its_key_free(
    make_settings: Callable[..., Settings],
) -> None:
    nowhere = create_app(make_settings(receiver_url=f"http://127.0.0.1:{free_port()}"))
    key = str(uuid4())
    with running(nowhere):
        refused = [told(ask_for(nowhere, "/test-event", key)) for _ in range(2)]
    assert refused == [(409, "no_receiver")] * 2


def test_a_dead_job_whose_replay_is_not_begun_keeps_its_key_free(
    app: ASGIApp, engine: Engine, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = f"/jobs/{job}/retry", str(uuid4())
    with monkeypatch.context() as patched:
        patched.setattr(replay, "begin", fails)
        assert ask_for(app, path, key).status == 503
    assert ask_for(app, path, key).status == 200
    assert one(engine, "SELECT count(*) FROM replays") == 1
