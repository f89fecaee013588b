"""Erasing a person by the console's forms and by its API, over real processes."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from ingest.console.auth.credentials import digest
from ingest.erasure.spellings import Spellings
from tests.acceptance.harness import Answer, Stack, request
from tests.integration.test_erasure import OMAR, SARA, about_omar, about_sara, holds
from tests.support.waiting import until

OPERATOR, VIEWER = "token_of_the_operator", "token_of_the_viewer"


def send(stack: Stack, path: str, token: str = OPERATOR, **fields: str) -> Answer:
    """Post a form."""
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/x-www-form-urlencoded",
        "origin": f"http://127.0.0.1:{stack.console_port}",
    }
    return request(stack.console_port, "POST", path, urlencode(fields).encode(), headers)


def see(stack: Stack, path: str, token: str = OPERATOR) -> Answer:
    return stack.ask(path, authorization=f"Bearer {token}")


def ended(stack: Stack, number: int, *statuses: str) -> dict[str, Any]:
    """A request, once it is in one of these states."""

    def read() -> dict[str, Any] | None:
        shown: dict[str, Any] = see(stack, f"/api/v1/erasures/{number}").json
        return shown if shown["status"] in statuses else None

    shown = until(read, what=f"erasure {number} is {statuses}")
    assert shown is not None
    return shown


def test_persons_are_erased_by_forms_and_by_the_api(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(
        console_tokens=f"op:operator:{digest(OPERATOR)};looks:viewer:{digest(VIEWER)}"
    )
    stack.receiver()
    stack.worker()
    stack.console()
    answers = stack.post_all([*about_sara(), *about_omar()])
    assert {answer.status for answer in answers} == {200}
    stack.wait_until_idle()

    # By forms: the number is in what is posted, and in no answer.
    ordered = send(stack, "/erasures", phones="+966 51 234 5678", reason="asked")
    assert (ordered.status, ordered.headers["location"]) == (303, "/erasures/1")
    ended(stack, 1, "found")
    page = see(stack, "/erasures/1").body.decode()
    assert "Known of this person: 1 phone number, 1 contact" in page
    assert "This cannot be undone." in page
    assert send(stack, "/erasures/1/erase", typed=OMAR).status == 400
    assert send(stack, "/erasures/1/erase", typed=SARA).status == 303
    ended(stack, 1, "finished")
    assert not holds(stack.engine)
    assert "VACUUM (FULL, ANALYZE) ingest.deliveries" in see(stack, "/erasures/1").body.decode()
    for path in ("/erasures", "/erasures/1", "/audit-log"):
        assert not Spellings({SARA}).are_in(see(stack, path).body)

    # By the API.
    headers = {"authorization": f"Bearer {OPERATOR}"}
    asked = {"phones": [OMAR], "reason": "asked, too"}
    assert stack.tell("/erasures", asked, **headers).json["status"] == "searching"
    assert ended(stack, 2, "found")["sources"] == {"awalchat": 4}
    assert stack.tell("/erasures/2/erase", **headers).json["status"] == "erasing"
    ended(stack, 2, "finished")
    assert not holds(stack.engine, OMAR)
    listed = see(stack, "/api/v1/erasures").json["items"]
    assert [(row["id"], row["status"], row["requested_by"]) for row in listed] == [
        (2, "finished", "op"),
        (1, "finished", "op"),
    ]

    # Viewers do not even look, and no log has a number.
    for path in ("/erasures", "/erasures/1", "/api/v1/erasures", "/api/v1/erasures/1"):
        assert see(stack, path, VIEWER).status == 403, path
    assert send(stack, "/erasures", VIEWER, phones=SARA).status == 403
    assert "Erasures" not in see(stack, "/retention", VIEWER).body.decode()
    assert send(stack, "/erasures", phones="nobody").status == 400
    for number in (SARA, OMAR, "51 234 5678"):
        assert number not in stack.logs()


def test_retention_is_shown(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(body_retention_days="7", event_retention_days="30")
    stack.receiver()
    stack.console()
    assert stack.post(about_sara()[0]).status == 200
    shown = stack.ask("/api/v1/retention").json
    ages = {kind["kind"]: kind["age_days"] for kind in shown["kinds"]}
    assert (ages["events"], ages["audit"], shown["bodies"]["age_days"]) == (30, None, 7)
    assert shown["bodies"]["bytes"] > 0
    page = stack.ask("/retention").body.decode()
    assert "No event is removed now. Code of older releases was refused its start" in page
    assert "7 days" in page
