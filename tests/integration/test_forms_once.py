"""A form is done once, however often it is sent: without a browser's script, over HTTP alone."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.errors import QueryCanceled
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ingest.console.pages import once
from ingest.store import keyed_requests as store
from ingest.store.pipeline import processors
from ingest.store.reports import audit_log
from tests.integration.test_behind import REGISTERED
from tests.integration.test_live_pages import LISTS, browser
from tests.support.asgi import Answer, Browser
from tests.support.rows import execute, one, rows

__all__ = ["browser"]
PAUSE = "/processors/orders/pause"


@pytest.fixture(autouse=True)
def _registered(engine: Engine) -> None:
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])


def token(answer: Answer) -> str:
    """The token of a page's forms, which all have the same."""
    (found,) = set(re.findall(r'name="once" value="([0-9a-f]{32})"', answer.text))
    return str(found)


def actions(engine: Engine) -> list[str]:
    return [row["action"] for row in rows(engine, "SELECT action FROM actions ORDER BY id")]


@pytest.mark.parametrize("page", [*LISTS, "/processors/orders"])
def test_each_form_of_a_page_has_its_token_and_each_page_another(
    browser: Browser, page: str
) -> None:
    browser.post(PAUSE, {})
    shown = browser.get(page)  # with the form that undoes it
    forms = re.findall('<form method="post".*?</form>', shown.text, re.DOTALL)
    assert forms
    assert all(form.count(f'name="once" value="{token(shown)}"') == 1 for form in forms)
    assert len(shown.body) == int(shown.one("content-length") or 0)
    browser.post(PAUSE, {})
    assert token(shown) != token(browser.get(page))


def test_the_same_form_again_does_nothing_more_and_shows_what_the_first_did(
    browser: Browser, engine: Engine
) -> None:
    form = {"reason": "a deploy", "once": token(browser.get("/processors"))}
    first = browser.post(PAUSE, form)
    assert "orders is paused: its jobs wait." in browser.get("/processors").text
    again = browser.post(PAUSE, form)
    assert (first.status, first.one("location")) == (again.status, again.one("location"))
    page = browser.get("/processors").text
    assert "Sent again, and done once: orders is paused: its jobs wait." in page
    assert "Sent again" not in browser.get("/processors").text
    assert actions(engine) == ["pause"]


def test_a_bulk_action_is_begun_once_and_its_page_is_shown_again(
    browser: Browser, engine: Engine
) -> None:
    preview = browser.post("/events/preview", {"action": "replay-all", "q": "state:dead"})
    form = {"action": "replay", "q": "state:dead", "once": token(browser.get("/processors"))}
    assert preview.status == 200
    locations = [browser.post("/bulk-actions", form).one("location") for _ in range(3)]
    assert locations == ["/bulk-actions/1"] * 3
    assert one(engine, "SELECT count(*) FROM replays") == 1


def test_two_forms_of_one_page_are_two(browser: Browser, engine: Engine) -> None:
    of_page = {"once": token(browser.get("/processors"))}
    browser.post(PAUSE, of_page)
    browser.post("/processors/orders/resume", of_page)
    assert actions(engine) == ["pause", "resume"]


def test_of_a_double_click_both_answers_are_those_of_the_one_that_was_done(
    browser: Browser, engine: Engine
) -> None:
    form = {"action": "discard", "q": "state:dead", "once": token(browser.get("/processors"))}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: browser.post("/bulk-actions", form), range(8)))
    assert {(answer.status, answer.one("location")) for answer in answers} == {
        (303, "/bulk-actions/1")
    }
    assert one(engine, "SELECT count(*) FROM replays") == 1


def test_a_form_with_other_values_is_not_done_again_and_says_why(
    browser: Browser, engine: Engine
) -> None:
    form = {"action": "discard", "q": "state:dead", "once": token(browser.get("/processors"))}
    browser.post("/bulk-actions", form)
    changed = browser.post("/bulk-actions", form | {"q": "state:dead type:order.*"})
    assert changed.status == 422
    assert "This form was sent already, with other values, and was done." in changed.text
    assert one(engine, "SELECT count(*) FROM replays") == 1


def test_a_form_that_was_refused_is_corrected_and_sent_again(
    browser: Browser, engine: Engine
) -> None:
    form = {"action": "replay", "q": "state:dead", "once": token(browser.get("/processors"))}
    assert browser.post("/bulk-actions", form | {"rate": "fast"}).status == 400
    assert browser.post("/bulk-actions", form | {"rate": "5"}).status == 303
    assert one(engine, "SELECT rate FROM replays") == 5


def test_a_console_that_was_killed_in_the_middle_is_told_and_nothing_is_done_twice(
    browser: Browser, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_WAITS_S", 0.0)
    form = {"once": token(browser.get("/processors"))}
    with monkeypatch.context() as patched:
        patched.setattr(store, "keep_answer", lambda *_: None)  # killed before it keeps it
        assert browser.post(PAUSE, form).status == 303
    again = browser.post(PAUSE, form)
    assert again.status == 409
    assert "its console was stopped in the middle: see in the audit log" in again.text
    assert actions(engine) == ["pause"]


def test_what_is_done_stays_done_though_the_database_fails_before_it_is_told(
    browser: Browser, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise DBAPIError("SELECT", None, QueryCanceled())

    form = {"once": token(browser.get("/processors"))}
    with monkeypatch.context() as patched:
        patched.setattr(audit_log, "last_of", fails)
        assert browser.post(PAUSE, form).status == 303
    assert browser.post(PAUSE, form).status == 303
    assert actions(engine) == ["pause"]


def test_a_day_later_a_token_is_forgotten(browser: Browser, engine: Engine) -> None:
    form = {"once": token(browser.get("/processors"))}
    browser.post(PAUSE, form)
    execute(engine, "UPDATE keyed_requests SET began_at = began_at - interval '25 h'")
    browser.post(PAUSE, form)
    assert actions(engine) == ["pause", "pause"]


def test_without_a_token_a_form_is_done_each_time_and_a_wrong_one_is_refused(
    browser: Browser, engine: Engine
) -> None:
    for _ in range(2):
        assert browser.post(PAUSE, {}).status == 303
    assert browser.post(PAUSE, {"once": "guessed"}).status == 400
    assert actions(engine) == ["pause", "pause"]
