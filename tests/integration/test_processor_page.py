"""The page of one processor: what it is, what it did, what is left to do, and what is wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from ingest.heartbeat import identity
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import processors
from ingest.store.pipeline.processors import Registered
from ingest.store.reports import heartbeats, processor_work
from tests.conftest import Servers
from tests.integration.test_behind import LIMIT, REGISTERED, WAITING
from tests.integration.test_command_parity import Run, run
from tests.integration.test_live_pages import browser
from tests.integration.test_periods import minutes, note
from tests.support.asgi import Browser
from tests.support.deliver import deliver, order
from tests.support.rows import execute, rows
from tests.support.statistics import fill
from tests.support.work import explained
from workers import Event, processor

__all__ = ["browser", "run"]
NAME = "shop.billing/eu.invoice"
INVOICE = replace(
    REGISTERED,
    name=NAME,
    about="Write the invoice of an order.",
    retry_base_s=5,
    retry_max_delay_s=3600,
)
PAGE = f"/processors/{NAME}"
API = f"/api/v1/processors/{NAME}"


def register(engine: Engine, *registered: Registered) -> None:
    with engine.begin() as connection:
        processors.register(connection, registered or [INVOICE])


def shown(browser: Browser, page: str = PAGE) -> str:
    """What a page says, without its tags and with single spaces."""
    answer = browser.get(page)
    assert answer.status == 200
    main = answer.text.partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub("<[^>]*>", " ", main).split())


def get(browser: Browser, path: str = API) -> dict[str, Any]:
    answer = browser.get(path)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def failing(
    engine: Engine, database_url: str, make_worker: Callable[..., Any], declared: list[object]
) -> list[Any]:
    """Six orders that were worked on: of two processors one died of three of them, in two ways."""

    @processor("order.created", name=NAME, max_attempts=1)
    def invoice(event: Event, _db: Connection) -> None:
        """Write the invoice of an order.

        What follows is for those who read the code.
        """
        number = event.data["order_id"]
        if number in (3, 4):
            raise KeyError("total")
        if number == 5:
            raise ConnectionError("the bank is away")

    @processor("order.created", name="letters", max_attempts=1)
    def letters(event: Event, _db: Connection) -> None:
        if event.data["order_id"] == 5:
            raise ValueError("no paper")

    worker = make_worker()
    assert worker.registry.get(NAME).about == "Write the invoice of an order."
    assert worker.registry.get("letters").about is None
    register(engine, INVOICE, replace(REGISTERED, name="letters"))
    ids = deliver(database_url, [order(number) for number in range(6)])
    worker.process(ids)
    return ids


def test_it_says_what_the_processor_is_and_which_workers_have_it(
    engine: Engine, browser: Browser
) -> None:
    register(engine)
    process = identity("worker", random=lambda _: b"abc", queues=("events",), processors=(NAME,))
    with engine.begin() as connection:
        heartbeats.upsert(connection, process)
        heartbeats.upsert(connection, replace(process, id="other", processors=("letters",)))
    said = shown(browser)
    for told in (
        "Write the invoice of an order.",
        "an event at a time",
        "3, of up to 30 s",
        "after up to 5.0 s, doubling up to 1 h",
        f"{process.host}:{process.pid}",
    ):
        assert told.replace("5.0", "5") in said
    found = get(browser)
    assert (found["name"], found["about"]) == (NAME, INVOICE.about)
    assert [worker["id"] for worker in found["workers"]] == [process.id]
    assert found["workers"][0]["version"] == process.version


def test_what_a_worker_of_the_release_before_registered_is_shown_without_what_it_does_not_tell(
    engine: Engine, browser: Browser
) -> None:
    register(engine, replace(INVOICE, about=None, retry_base_s=None, retry_max_delay_s=None))
    assert "told once a worker of this release starts" in shown(browser)
    assert get(browser)["retry_base_s"] is None


def test_a_name_that_there_is_not_leads_to_those_that_there_are(
    engine: Engine, browser: Browser
) -> None:
    register(engine, INVOICE, replace(REGISTERED, name="letters"))
    answer = browser.get("/processors/leters")
    assert answer.status == 404
    links = re.findall(r'<li><a class="mono to-processor chip" href="([^"]*)"', answer.text)
    assert links == ["/processors/letters", PAGE]
    assert browser.get("/api/v1/processors/leters").status == 404
    assert "<script>" not in browser.get("/processors/%3Cscript%3E").text.partition("<main")[2]


def test_it_counts_its_own_jobs_and_groups_what_fails(
    failing: list[Any], engine: Engine, browser: Browser
) -> None:
    found = get(browser)
    work = found["work"]
    assert (work["dead"], work["pending"], work["running"], work["due"]) == (3, 0, 0, 0)
    assert work["is_least"] is False
    groups = [(group["error_type"], group["jobs"], group["dead"]) for group in found["failing"]]
    assert groups == [("KeyError", 2, 2), ("ConnectionError", 1, 1)]
    assert found["failing"][1]["message"] == "the bank is away"
    assert found["period"]["succeeded"] == 3
    assert found["period"]["failures"] == 3
    said = shown(browser)
    assert "the bank is away" in said
    assert "no paper" not in said
    execute(
        engine,
        "UPDATE jobs SET state = 'retrying', next_attempt_at = now() - interval '1 min',"
        " finished_at = NULL WHERE state = 'dead' AND event = :event",
        event=failing[5],
    )
    work = get(browser)["work"]
    assert (work["dead"], work["retrying"], work["due"]) == (2, 1, 1)
    assert work["due_since"] is not None


def test_dead_letters_are_replayed_after_a_preview_and_only_those_of_the_processor(
    failing: list[Any], engine: Engine, browser: Browser
) -> None:
    page = browser.get(PAGE).text
    form = re.search(
        r'<form method="post" action="/events/preview" data-bulk.*?</form>', page, re.S
    )
    assert form is not None
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[0]))
    assert fields["processor"] == NAME
    assert set(re.findall(r'name="id" value="([^"]*)"', form[0])) == set(map(str, failing[3:]))
    chosen = fields | {"action": "replay-selected", "id": str(failing[5])}
    preview = browser.post("/events/preview", chosen).text
    assert "This will replay 1 job" in preview
    assert f'name="processor" value="{NAME}"' in preview
    begun = browser.post("/bulk-actions", chosen | {"action": "replay", "reason": "it is back"})
    assert begun.status == 303
    put_back = rows(engine, "SELECT processor, event FROM jobs WHERE state = 'pending'")
    assert put_back == [{"processor": NAME, "event": failing[5]}]
    assert "it is back" in shown(browser)
    others = browser.post("/events/preview", {"action": "replay-all", "q": fields["q"]}).text
    assert "This will replay 2 jobs" in others


def test_it_is_paused_and_resumed_from_its_page_and_says_by_whom_and_why(
    engine: Engine, browser: Browser
) -> None:
    register(engine)
    paused = browser.post(f"{PAGE}/pause", {"reason": "a deploy", "from": "page"})
    assert (paused.status, paused.one("location")) == (303, PAGE)
    said = shown(browser)
    assert "Paused by local: a deploy" in said
    assert get(browser)["actions"][0]["reason"] == "a deploy"
    resumed = browser.post(f"{PAGE}/resume", {"from": "page"})
    assert resumed.one("location") == PAGE
    assert "Paused by" not in shown(browser)
    assert [action["action"] for action in get(browser)["actions"]] == ["resume", "pause"]


def test_parked_jobs_are_counted_with_the_reason(
    engine: Engine, database_url: str, browser: Browser
) -> None:
    register(engine)
    (event,) = deliver(database_url, [order(1)])
    execute(
        engine,
        "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
        " max_attempts, next_attempt_at, hinted_until) VALUES (:event, :name, 'slow', 'pending',"
        " 'delivery', 0, 0, 3, now(), 'infinity')",
        event=event,
        name=NAME,
    )
    execute(engine, "INSERT INTO parked VALUES (:name, 'slow', 'unconsumed')", name=NAME)
    work = get(browser)["work"]
    assert (work["pending"], work["due"]) == (1, 1)
    assert [(group["queue"], group["reason"], group["jobs"]) for group in work["parked"]] == [
        ("slow", "unconsumed", 1)
    ]
    assert "1 job in the queue slow is parked: no worker that has it consumes its queue." in shown(
        browser
    )


def test_parked_jobs_beyond_the_bound_make_the_count_of_the_last_queue_a_least_one(
    engine: Engine, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(engine)
    execute(
        engine,
        "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
        " max_attempts, next_attempt_at, hinted_until)"
        " SELECT gen_random_uuid(), :name, CASE WHEN n <= 4 THEN 'a' ELSE 'b' END, 'pending',"
        " 'delivery', 0, 0, 3, now(), 'infinity' FROM generate_series(1, 7) AS n",
        name=NAME,
    )

    def parked() -> list[tuple[str, int, bool]]:
        lanes = get(browser)["work"]["parked"]
        return sorted((lane["queue"], lane["jobs"], lane["is_least"]) for lane in lanes)

    assert parked() == [("a", 4, False), ("b", 3, False)]
    monkeypatch.setattr(processor_work, "EXAMINED", 6)
    assert parked() == [("a", 4, False), ("b", 2, True)]
    assert get(browser)["work"]["is_least"]


def test_rates_and_charts_are_of_the_chosen_time_and_of_nothing_else(
    engine: Engine, browser: Browser
) -> None:
    register(engine)
    for name, count in ((NAME, 600), ("letters", 70)):
        note(engine, "succeeded", name, count, ago=minutes(10))
        note(engine, "failed", name, count // 100, ago=minutes(300))
    hour, day = get(browser)["period"], get(browser, f"{API}?range=day")["period"]
    assert (hour["succeeded"], hour["failures"]) == (600, 0)
    assert (day["succeeded"], day["failures"]) == (600, 6)
    assert hour["p50_s"] == pytest.approx(0.93, rel=0.1)
    assert sum(span["succeeded"] for span in hour["spans"]) == 600
    page = browser.get(f"{PAGE}?range=day").text
    assert f"processor%3A{NAME.replace('/', '%2F')}" in page or "processor%3A" in page
    assert 'data-bar="1"' in page


def test_everything_that_names_a_processor_leads_to_its_page(
    failing: list[Any], engine: Engine, browser: Browser
) -> None:
    browser.post(f"{PAGE}/pause", {})
    execute(
        engine,
        "INSERT INTO alerts (rule, subject, sentence, value, since, seen_at, fired_at)"
        " VALUES ('dead_letters', :name, 'It has dead letters.', 3, now(), now(), now())",
        name=NAME,
    )
    for page in (
        "/processors",
        "/failures",
        "/audit-log",
        "/alerts",
        f"/events/{failing[3]}",
        f"/events?q=processor:{NAME}",
    ):
        assert f'href="{PAGE}"' in browser.get(page).text, page


def test_viewers_see_no_message_and_no_reason_where_bodies_are_masked(
    failing: list[Any], browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.post(f"{PAGE}/pause", {"reason": "a deploy"})
    monkeypatch.setattr("ingest.console.ui.masking.applies", lambda *_: True)
    for told in (shown(browser), browser.get(API).text):
        assert "the bank is away" not in told
        assert "a deploy" not in told


def test_a_command_shows_the_same(failing: list[Any], run: Run) -> None:
    (found,) = run("processors", "show", NAME, "--json")
    assert (found["about"], found["work"]["dead"]) == (INVOICE.about, 3)
    said = run("processors", "show", NAME)
    assert "waits up to 5 s, doubling up to 1 h" in said
    assert "KeyError" in said
    assert run("processors", "show", "leters", fails=True) == (
        "ingest: There is no processor leters: did you mean letters?"
    )


def test_what_is_read_is_bounded_whatever_waits(
    servers: Servers, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(servers.as_administrator(database_url), autocommit=True) as connection:
        connection.execute("SET search_path = ingest")
        fill(connection, WAITING)
        connection.execute("UPDATE jobs SET state = 'dead' WHERE state = 'succeeded'")
        connection.execute("ANALYZE")
    engine = create_engine(parse(database_url), role=Role.OPERATOR)
    register(engine, replace(REGISTERED, name="orders"))
    with engine.connect() as connection:
        known = processors.one(connection, "orders")
        monkeypatch.setattr(processor_work, "BUDGET_S", 600.0)
        monkeypatch.setattr(processor_work, "EXAMINED", 10 * WAITING)
        whole = processor_work.read(connection, known)
    assert (whole.pending, whole.dead, whole.is_least) == (WAITING, 2 * WAITING, False)
    monkeypatch.setattr(processor_work, "EXAMINED", LIMIT)
    with engine.connect() as connection:
        work, effort = explained(connection, lambda reading: processor_work.read(reading, known))
    assert (work.pending, work.running, work.dead, work.is_least) == (LIMIT, LIMIT, LIMIT, True)
    monkeypatch.setattr(processor_work, "BUDGET_S", 0.0)
    monkeypatch.setattr(processor_work, "FIRST", LIMIT // 2)
    with engine.connect() as connection:
        some = processor_work.read(connection, known)
    assert (some.pending, some.dead, some.is_least) == (LIMIT // 2, LIMIT // 2, True)
    engine.dispose()
    assert effort.rows <= 20 * LIMIT < WAITING, effort
