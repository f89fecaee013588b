"""The limits of a processor in the console, in the API and on the command line."""

from typing import Any

import pytest
from sqlalchemy import Engine

from ingest.rates import parse
from ingest.store.pipeline import limit_waits, limits, processors
from ingest.store.pipeline.limits import Bounds, DeclaredLimits
from tests.integration.test_behind import REGISTERED
from tests.integration.test_command_parity import Run, recorded, run
from tests.integration.test_live_pages import browser
from tests.integration.test_processor_page import get, shown
from tests.support.asgi import Browser
from tests.support.rows import execute

__all__ = ["browser", "run"]
NAME = REGISTERED.name
PAGE, API = f"/processors/{NAME}", f"/api/v1/processors/{NAME}"
DECLARED = DeclaredLimits(
    processor=NAME, limit_by="contact_id", bounds=Bounds(concurrency=20, rate=parse("50/s"))
)


@pytest.fixture(autouse=True)
def _registered(engine: Engine) -> None:
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])


@pytest.fixture
def limited(engine: Engine) -> None:
    """The processor declares limits."""
    with engine.begin() as connection:
        limits.register(connection, [DECLARED], [])


def in_force(browser: Browser) -> dict[str, Any]:
    found: dict[str, Any] = get(browser, API)["limits"]["in_force"]
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.usefixtures("limited")
def test_the_page_shows_the_limits_sets_others_and_takes_them_back(
    engine: Engine, browser: Browser
) -> None:
    assert "0 at once now, of 20 ; 50/s, 0 started in the last window; 0 in line" in " ".join(
        shown(browser, PAGE).replace(" ,", ",").split()
    )
    form = {"concurrency": " 5 ", "rate": "", "key_rate": "10 / 5s", "reason": "it is slow"}
    assert browser.post(f"{PAGE}/limit", form).status == 303
    assert in_force(browser) == {"concurrency": 5, "rate": "50/s", "key_rate": "10/5s"}
    assert f"{NAME} has new limits, for the next jobs on." in browser.get(PAGE).text
    assert get(browser, API)["limits"]["declared"]["concurrency"] == 20
    assert browser.post(f"{PAGE}/as-declared", {}).status == 303
    assert in_force(browser) == {"concurrency": 20, "rate": "50/s"}
    assert [entry[2:] for entry in recorded(engine)] == [
        ("limit", NAME, "it is slow"),
        ("limit as declared", NAME, None),
    ]


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    ("jobs", "told"), [(0, ""), (1, "1 job waits"), (3, "at least 3 jobs wait")]
)
def test_the_list_of_processors_says_how_many_jobs_wait_for_a_limit(
    engine: Engine, browser: Browser, monkeypatch: pytest.MonkeyPatch, jobs: int, told: str
) -> None:
    monkeypatch.setattr(limit_waits, "COUNTED", 3)
    execute(
        engine,
        "INSERT INTO limited_jobs (job, processor, key, claimed)"
        " SELECT number, :name, gen_random_uuid(), false FROM generate_series(1, :jobs) AS number",
        name=NAME,
        jobs=jobs,
    )
    page = " ".join(shown(browser, "/processors").split())
    assert told in page
    assert ("for a limit" in page) is (jobs > 0)


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"rate": "50"}, "is no rate: write 50/s, 1000/m, 500/h or 10/5s."),
        ({"concurrency": "many"}, "concurrency is a whole number."),
        ({"concurrency": "0"}, "concurrency is 1 to 100,000 jobs at once."),
        ({"rate": "0/s"}, "a rate allows 1 to 1,000,000 starts."),
    ],
)
def test_a_limit_that_makes_no_sense_is_told_and_changes_nothing(
    engine: Engine, browser: Browser, form: dict[str, str], told: str
) -> None:
    answer = browser.post(f"{PAGE}/limit", form)
    assert answer.status == 400
    assert told in answer.text
    assert in_force(browser) == {"concurrency": 20, "rate": "50/s"}
    assert recorded(engine) == []


def test_a_processor_that_declares_none_is_told_how_it_could_be_limited(
    engine: Engine, browser: Browser, run: Run
) -> None:
    answer = browser.post(f"{PAGE}/limit", {"concurrency": "5"})
    assert answer.status == 409
    assert "Declare one, for example concurrency=1000" in answer.text
    assert "Declare one" in run("processors", "limit", NAME, "--rate", "5/s", fails=True)
    assert "Declare one" in run("processors", "limit", NAME, fails=True)
    assert "Limits" not in shown(browser, PAGE)
    assert get(browser, API)["limits"] is None


def test_a_limit_of_keys_needs_keys(engine: Engine, browser: Browser, run: Run) -> None:
    without_keys = DeclaredLimits(processor=NAME, limit_by=None, bounds=Bounds(concurrency=9))
    with engine.begin() as connection:
        limits.register(connection, [without_keys], [])
    told = run("processors", "limit", NAME, "--key-rate", "5/s", fails=True)
    assert told.endswith("declares no limit_by: there are no keys to limit.")


@pytest.mark.usefixtures("limited")
def test_the_command_changes_one_limit_and_leaves_the_others(browser: Browser, run: Run) -> None:
    run("processors", "limit", NAME, "--concurrency", "5")
    run("processors", "limit", NAME, "--rate", "7/m", "--reason", "it is slow")
    assert in_force(browser) == {"concurrency": 5, "rate": "7/m"}
    said = run("processors", "limit", NAME)
    assert "at once: 0 now of 5\n" in said
    assert "rate: 7/m; 0 started in the last window\n" in said
    (record,) = run("processors", "limit", NAME, "--as-declared", "--json")
    assert record["in_force"]["rate"] == "50/s"
    assert record["set_by"] is None
    told = run("processors", "limit", NAME, "--as-declared", "--rate", "1/s", fails=True)
    assert told == "ingest: --as-declared goes with no other limit."
