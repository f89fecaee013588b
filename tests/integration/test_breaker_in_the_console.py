"""An open breaker by page, API and command: what is shown, what can be done, what viewers see."""

import getpass
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine

from ingest.console.app import create_app
from ingest.settings import Settings
from ingest.store.reports import backlog, gauges
from tests.integration.conftest import Worker
from tests.integration.test_command_parity import Run, recorded, run
from tests.integration.test_failures_in_the_console import VIEWER
from tests.integration.test_live_pages import browser
from tests.integration.test_processor_page import get, shown
from tests.support.asgi import Browser, ask, running
from tests.support.breaking import NAME, House
from tests.support.console import TOKENS
from tests.support.rows import one
from workers import Breaker, Event, processor

__all__ = ["browser", "run"]
ME = getpass.getuser()
PAGE, API = f"/processors/{NAME}", f"/api/v1/processors/{NAME}"


@pytest.fixture
def house(engine: Engine, database_url: str, make_worker: Callable[..., Worker]) -> House:
    """A processor whose breaker is open, with its jobs parked."""

    @processor("order.created", name=NAME, breaker=Breaker(after=2, probe_every_s=3600))
    def crm(event: Event, db: Connection) -> None:
        raise ConnectionError("no route to +966512345678")

    house = House(engine, database_url, make_worker())
    house.deliver(5)
    assert house.sweep() == []
    return house


def test_its_page_says_since_when_why_and_when_the_next_probe_is(
    house: House, browser: Browser
) -> None:
    said = shown(browser, PAGE)
    for told in (
        "breaker open",
        "after 2 failures in a row (ConnectionError), and its jobs wait",
        "0 probes by now, the next",
        "it opens after 2 in a row of ConnectionError, TimeoutError, HTTPStatus5xx",
        "ConnectionError : no route to +966512345678",
        "until a probe succeeds",
    ):
        assert told in said, said
    assert "2 failures in a row, it opens after 2" in shown(browser, "/processors")
    assert "5 jobs parked until a probe succeeds" in shown(browser, "/processors")


def test_an_event_says_why_its_job_waits(house: House, browser: Browser, run: Run) -> None:
    event = one(house.engine, "SELECT event FROM jobs ORDER BY id DESC LIMIT 1")
    assert "waits until its target is back: the breaker is open" in shown(
        browser, f"/events/{event}"
    )
    assert "waits until its target is back: the breaker is open" in run(
        "events", "show", str(event)
    )
    (job,) = get(browser, f"/api/v1/events/{event}")["jobs"]
    assert (job["parked"], job["breaker_open"]) == (True, True)


def test_a_job_of_it_is_not_run_by_itself(house: House, browser: Browser) -> None:
    job = one(house.engine, "SELECT max(id) FROM jobs")
    answer = browser.post(f"/jobs/{job}/retry", {})
    assert answer.status == 409
    assert "probe it now, or close its breaker" in answer.text


def test_the_api_tells_of_it(house: House, browser: Browser) -> None:
    told = get(browser, API)
    breaker = told["breaker"]
    assert (breaker["failures"], breaker["opens_after"], breaker["probes"]) == (2, 2, 0)
    assert breaker["error_message"] == "no route to +966512345678"
    assert [group["reason"] for group in told["work"]["parked"]] == ["breaker_open"]


def test_viewers_see_no_message_where_bodies_are_masked(
    house: House, make_settings: Callable[..., Settings]
) -> None:
    viewers = create_app(make_settings(console_tokens=TOKENS, console_mask_viewers=True))
    with running(viewers):
        for path in (PAGE, "/processors", API, "/api/v1/processors"):
            said = ask(viewers, "GET", path, VIEWER).text
            assert "ConnectionError" in said
            assert "no route" not in said


def test_it_is_closed_and_probed_by_forms_with_a_record(house: House, browser: Browser) -> None:
    assert browser.post(f"{PAGE}/probe", {"reason": "it is back"}).status == 303
    assert "The target of crm is probed now, with one of its jobs." in browser.get(PAGE).text
    assert len(house.sweep()) == 1
    assert browser.post(f"{PAGE}/close", {"reason": "we know better"}).status == 303
    assert "The breaker of crm is closed: its jobs run." in browser.get(PAGE).text
    assert not house.is_open()
    assert [(action, reason) for _, _, action, _, reason in recorded(house.engine)] == [
        ("probe", "it is back"),
        ("close breaker", "we know better"),
    ]
    assert "we know better" in shown(browser, PAGE)
    assert browser.post(f"{PAGE}/close", {}).status == 409


def test_commands_do_the_same(house: House, run: Run) -> None:
    assert "breaker open since " in run("processors")
    said = run("processors", "show", NAME)
    assert "its target is down: the breaker is open, and only probes run" in said
    assert "after 2 in a row of ConnectionError, TimeoutError, HTTPStatus5xx" in said
    assert run("processors", "probe", NAME) == (
        "crm is probed now: if that job succeeds, the others run.\n"
    )
    assert len(house.sweep()) == 1
    (record,) = run("processors", "close", NAME, "--reason", "we know better", "--json")
    assert record["breaker"]["closed_by"] == ME
    assert run("processors", "close", NAME, fails=True) == (
        "ingest: crm is not held back: its breaker is closed."
    )
    assert run("processors", "probe", "nobody", fails=True) == (
        "ingest: No worker has registered a processor nobody. There is crm."
    )
    assert recorded(house.engine) == [
        (ME, "command line", "probe", NAME, None),
        (ME, "command line", "close breaker", NAME, "we know better"),
    ]


def test_a_paused_processor_is_not_probed(house: House, run: Run) -> None:
    house.pause()
    assert run("processors", "probe", NAME, fails=True) == (
        "ingest: crm is paused: resume it first."
    )
    assert "paused by sara" in run("processors")


def test_what_is_held_back_is_not_behind(house: House, run: Run) -> None:
    with house.engine.connect() as connection:
        assert backlog.oldest(connection).job is None
        parked = gauges.read(connection).parked
    assert parked == {(NAME, "events", "breaker_open"): 5}
    said = " ".join(run("doctor", fails=True).split())
    assert "are parked: its target is down, and its breaker open." in said
