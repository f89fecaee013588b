"""Failures by page, API and command: what is shown, what can be done, and what viewers see."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine
from starlette.types import ASGIApp

from ingest.console.app import create_app
from ingest.console.ui.masking import HIDDEN
from ingest.settings import Settings
from ingest.store.failures import fields
from tests.integration.test_command_parity import ME, Run, recorded, run
from tests.support.asgi import Browser, ask, running
from tests.support.console import TOKENS, VIEWER_TOKEN
from tests.support.deliver import deliver, order
from tests.support.failing import PLACE, count, fail_jobs, group, running_job
from tests.support.rows import execute, one, rows

__all__ = ["run"]  # a fixture

HOST = ("host", "127.0.0.1:8001")
VIEWER = [HOST, ("authorization", f"Bearer {VIEWER_TOKEN}"), ("content-type", "application/json")]


@pytest.fixture
def app(engine: Engine, make_settings: Callable[..., Settings]) -> Iterator[ASGIApp]:
    made = create_app(make_settings())
    with running(made):
        yield made


@pytest.fixture
def failure(engine: Engine, database_url: str) -> int:
    """The number of a group that two jobs fail in the way of."""
    fail_jobs(engine, database_url, 2, release="2026.11.3")
    count(engine)
    return group(engine).id


def get(app: ASGIApp, path: str) -> Any:
    answer = ask(app, "GET", f"/api/v1{path}", [HOST])
    assert answer.status == 200, answer.text
    return answer.json()


def post(app: ASGIApp, path: str, *, status: int = 200, **body: object) -> Any:
    headers = [HOST, ("content-type", "application/json")]
    answer = ask(app, "POST", f"/api/v1{path}", headers, json.dumps(body).encode())
    assert answer.status == status, answer.text
    return answer.json()


def test_the_list_is_of_a_state_and_says_how_many_are_in_each(
    app: ASGIApp, engine: Engine, database_url: str, failure: int
) -> None:
    fail_jobs(engine, database_url, error_type="ValueError", first=10)
    count(engine)
    post(app, f"/failures/{failure}/acknowledge")
    listed = get(app, "/failures")
    assert [item["error_type"] for item in listed["items"]] == ["ValueError"]
    assert listed["counts"] == {"open": 1, "acknowledged": 1, "resolved": 0, "muted": 0}
    (item,) = get(app, "/failures?state=acknowledged")["items"]
    assert (item["id"], item["jobs"], item["dead"], item["attempts"]) == (failure, 2, 2, 2)
    assert (item["place"], sum(item["trend"])) == (PLACE, 2)
    assert item["changed_by"] == "local"
    found = get(app, "/failures?state=all&sort=attempts")["items"]
    assert [item["attempts"] for item in found] == [2, 1]
    assert len(get(app, f"/events?q={quote(item['query'])}")["items"]) == 2
    assert ask(app, "GET", "/api/v1/failures?state=closed", [HOST]).status == 400


def test_a_group_that_no_relay_has_recorded_is_open_and_has_no_number(
    app: ASGIApp, engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url)
    listed = get(app, "/failures")
    assert [(item["id"], item["state"]) for item in listed["items"]] == [(None, "open")]
    assert listed["counts"]["open"] == 1
    assert "/events/" in ask(app, "GET", "/failures", [HOST]).text
    assert get(app, "/failures?state=muted")["items"] == []


def test_everything_that_can_be_done_is_done_by_the_api(
    app: ASGIApp, engine: Engine, failure: int
) -> None:
    assert post(app, f"/failures/{failure}/assign", to="noura")["assigned_to"] == "noura"
    assert get(app, "/failures?assigned_to=noura")["items"][0]["id"] == failure
    assert get(app, "/failures?assigned_to=amal")["items"] == []
    assert post(app, f"/failures/{failure}/note", text="since the deploy")["by"] == "local"
    muted = post(app, f"/failures/{failure}/mute", times=10, reason="known")
    assert (muted["state"], muted["muted_to"]) == ("muted", 12)
    assert post(app, f"/failures/{failure}/reopen")["state"] == "open"
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert post(app, f"/failures/{failure}/mute", until=until)["muted_until"] is not None
    waiting = post(app, f"/failures/{failure}/resolve", when_succeeded=True)
    assert (waiting["state"], waiting["resolves_itself"]) == ("muted", True)
    resolved = post(app, f"/failures/{failure}/resolve", in_release="2026.11.4")
    assert (resolved["state"], resolved["resolved_in"]) == ("resolved", "2026.11.4")
    assert post(app, f"/failures/{failure}/assign")["assigned_to"] is None
    details = get(app, f"/failures/{failure}")
    assert [note["text"] for note in details["notes"]] == ["since the deploy"]
    assert [release["release"] for release in details["releases"]] == ["2026.11.3"]
    assert [event["state"] for event in details["events"]] == ["dead", "dead"]
    assert "line 12, in total" in details["traceback"]
    assert sum(details["counts"]) == 2
    assert [done["action"] for done in details["actions"]][::-1] == [
        "assign failure",
        "note on failure",
        "mute failure",
        "reopen failure",
        "mute failure",
        "resolve failure when all has succeeded",
        "resolve failure",
        "assign failure",
    ]
    assert details["actions"][5]["reason"] == "known"


@pytest.mark.parametrize(
    ("verb", "body", "error"),
    [
        ("mute", {"times": 2, "until": "2099-01-01T00:00:00Z"}, "bad_mute"),
        ("mute", {"until": "2020-01-01T00:00:00Z"}, "bad_time"),
        ("mute", {"times": 0}, "bad_body"),
        ("resolve", {"in_release": "2", "when_succeeded": True}, "bad_resolution"),
        ("assign", {"to": "two\nlines"}, "bad_name"),
        ("note", {"text": "   "}, "bad_body"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    app: ASGIApp, engine: Engine, failure: int, verb: str, body: dict[str, Any], error: str
) -> None:
    assert post(app, f"/failures/{failure}/{verb}", status=400, **body)["error"] == error
    assert rows(engine, "SELECT * FROM actions") == []


def test_a_failure_that_is_not_there_is_none(app: ASGIApp) -> None:
    for verb, body in (("acknowledge", {}), ("note", {"text": "a"})):
        refused = post(app, f"/failures/99/{verb}", status=404, **body)
        assert refused["message"] == "There is no failure 99."
    assert ask(app, "GET", "/failures/99", [HOST]).status == 404


def test_the_page_acts_and_says_what_was_done(app: ASGIApp, engine: Engine, failure: int) -> None:
    console = Browser(app=app)
    assert f'href="/failures/{failure}"' in console.get("/failures").text
    page = console.get(f"/failures/{failure}").text
    assert "no price for +966500000001" in page
    assert "2026.11.3" in page

    def act(verb: str, **form: str) -> str:
        answer = console.post(f"/failures/{failure}/{verb}", form)
        assert answer.status == 303, answer.text
        return console.get(f"/failures/{failure}").text

    assert "is acknowledged: somebody looks after it." in act("acknowledge", reason="mine")
    assert "muted until <span" in act("mute", **{"for": "", "times": "5"})
    assert "muted until <time" in act("mute", **{"for": "1 day"})
    assert "muted for ever" in act("mute", **{"for": ""})
    assert "Assigned: failure" in act("assign", to="local")
    assert "since the deploy" in act("note", text="since the deploy")
    page = act("resolve", how="next")
    assert "in the next release: attempts of the releases that had it are no return" in page
    undo = re.search(r'action="(/failures/\d+/reopen)" class="inline"', page)
    assert undo is not None
    assert console.post(undo[1], {}).status == 303
    assert group(engine).state == "open"
    assert "to be resolved when everything of it has succeeded" in act("resolve", how="succeeded")
    for verb, form in (("mute", {"times": "many"}), ("resolve", {"how": "magic"})):
        assert console.post(f"/failures/{failure}/{verb}", form).status == 400
    listed = console.get("/failures?assigned_to=local").text
    assert "assigned to <bdi>local</bdi>" in listed


def test_a_viewer_sees_it_masked_and_changes_nothing(
    engine: Engine, make_settings: Callable[..., Settings], app: ASGIApp, failure: int
) -> None:
    post(app, f"/failures/{failure}/note", text="Omar +966500000001 complains")
    viewers = create_app(make_settings(console_tokens=TOKENS, console_mask_viewers=True))
    with running(viewers):
        shown = [
            ask(viewers, "GET", path, VIEWER)
            for path in (
                "/failures",
                f"/failures/{failure}",
                "/api/v1/failures",
                f"/api/v1/failures/{failure}",
            )
        ]
        for answer in shown:
            assert answer.status == 200
            assert "966500000001" not in answer.text
            assert "Omar" not in answer.text
            assert "KeyError" in answer.text
        assert "/acknowledge" not in shown[1].text
        for verb in ("acknowledge", "resolve", "mute", "reopen", "assign", "note"):
            path = f"/api/v1/failures/{failure}/{verb}"
            assert ask(viewers, "POST", path, VIEWER, b'{"text": "a"}').status in (400, 403)
    assert group(engine).state == "open"
    assert len(rows(engine, "SELECT * FROM failure_notes")) == 1


def test_what_the_bodies_have_in_common_is_told(
    engine: Engine,
    database_url: str,
    make_settings: Callable[..., Settings],
    app: ASGIApp,
    run: Run,
) -> None:
    fail_jobs(engine, database_url, 4, country="SA")
    others = [order(100 + number, country="AE", total=5) for number in range(5)]
    for event in deliver(database_url, [*others, order(105, country="SA", total=5)]):
        running_job(engine, event)
    count(engine)
    number = group(engine).id
    found = get(app, f"/failures/{number}")["fields"]
    assert [(field["path"], field["value"], field["events"]) for field in found] == [
        ("data.total", None, 4),
        ("data.country", "SA", 4),
    ]
    assert [round(field["others_share"], 2) for field in found] == [0, 0.17]
    page = Browser(app=app).get(f"/failures/{number}").text
    assert "is absent" in page
    assert "4 of 4" in page
    assert "data.country\tSA\t4 of 4\t17%" in run("failures", "show", str(number))
    viewers = create_app(make_settings(console_tokens=TOKENS, console_mask_viewers=True))
    with running(viewers):
        masked = ask(viewers, "GET", f"/api/v1/failures/{number}", VIEWER).json()["fields"]
    assert [field["value"] for field in masked] == [None, HIDDEN]
    execute(engine, "UPDATE deliveries SET body = NULL")
    assert get(app, f"/failures/{number}")["fields"] == []


def test_bodies_are_read_for_a_bounded_time(engine: Engine, database_url: str) -> None:
    fail_jobs(engine, database_url, 4, country="SA")
    for event in deliver(database_url, [order(100 + number) for number in range(4)]):
        running_job(engine, event)
    count(engine)
    seconds = itertools.count()
    with engine.connect() as connection:
        assert fields.read(connection, group(engine).key)
        assert not fields.read(connection, group(engine).key, clock=lambda: next(seconds))


def test_the_page_says_that_an_attempt_is_no_longer_kept(
    app: ASGIApp, engine: Engine, failure: int
) -> None:
    execute(engine, "DELETE FROM attempts")
    execute(engine, "DELETE FROM jobs")
    page = Browser(app=app).get(f"/failures/{failure}").text
    assert "the attempt is no longer kept" in page
    assert get(app, f"/failures/{failure}")["failure"]["example"] is None


def test_everything_that_can_be_done_is_done_by_commands(
    run: Run, engine: Engine, failure: int
) -> None:
    number = str(failure)
    assert run("failures", "acknowledge", number, "--reason", "mine") == (
        f"Failure {number} is acknowledged.\n"
    )
    assert run("failures", "assign", number, "noura") == (
        f"Failure {number} is assigned to noura.\n"
    )
    assert run("failures", "note", number, "since the deploy") == (
        f"The note on failure {number} is kept.\n"
    )
    assert run("failures", "mute", number, "--times", "5") == (
        f"Failure {number} is muted until it has failed 5 times more.\n"
    )
    assert run("failures", "mute", number, "--for", "2h").startswith(
        f"Failure {number} is muted until 20"
    )
    assert run("failures", "mute", number) == f"Failure {number} is muted for ever.\n"
    assert run("failures", "reopen", number) == f"Failure {number} is open.\n"
    assert run("failures", "resolve", number, "--when-succeeded") == (
        f"Failure {number} is resolved once everything of it has succeeded.\n"
    )
    (resolved,) = run("failures", "resolve", number, "--in-release", "next", "--json")
    assert (resolved["state"], resolved["resolved_in"]) == ("resolved", "next")
    assert run("failures", "assign", number, "--nobody").endswith("assigned to nobody.\n")
    assert recorded(engine)[0] == (
        ME,
        "command line",
        "acknowledge failure",
        f"failure {number}",
        "mine",
    )
    (listed,) = run("failures", "--state", "resolved", "--json")
    assert [item["id"] for item in listed["groups"]] == [failure]
    assert listed["counts"]["resolved"] == 1
    shown = run("failures", "show", number)
    for piece in (
        "KeyError: no price",
        PLACE,
        "2026.11.3",
        "since the deploy",
        "line 12, in total",
    ):
        assert piece in shown
    (details,) = run("failures", "show", number, "--json")
    assert details["failure"]["id"] == failure
    assert [note["text"] for note in details["notes"]] == ["since the deploy"]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["show", "99"], "There is no failure 99."),
        (["acknowledge", "99"], "There is no failure 99."),
        (["mute", "1", "--for", "soon"], "'soon' is not a span: write 30m, 2h or 7d."),
        (
            ["mute", "1", "--for", "2h", "--times", "3"],
            "Mute it until a time or a number, not both.",
        ),
        (["assign", "1"], "Name somebody, or --nobody."),
        (
            ["--state", "closed"],
            "'closed' is not a state: use open, acknowledged, resolved, muted, all.",
        ),
        (
            ["--sort", "age"],
            "'age' is no order: use jobs, last_seen, first_seen, attempts.",
        ),
    ],
)
def test_a_mistake_gets_a_sentence(
    run: Run, engine: Engine, command: list[str], sentence: str
) -> None:
    assert run("failures", *command, fails=True) == f"ingest: {sentence}"
    assert one(engine, "SELECT count(*) FROM actions") == 0
