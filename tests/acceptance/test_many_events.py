"""A delivery may hold many events: each is deduplicated, worked on and replayed by itself."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import Answer, Stack, request
from tests.acceptance.test_plugin import LEDGER_SECRET, PLUGIN, listed
from tests.support.rows import execute
from tests.support.waiting import until

PROCESSORS = """
from sqlalchemy import text
from workers import processor

@processor("entry.posted", max_attempts=1)
def note(event, db):
    db.execute(text("INSERT INTO notes VALUES (:number)"), {"number": event.data["number"]})
    if event.data.get("poison") and event.attempt == 1:
        raise ValueError("poisoned")
"""


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    (tmp_path / "of_the_user.py").write_text(PROCESSORS)
    made = make_stack(ledger_secrets=LEDGER_SECRET, processors="of_the_user")
    made.environment["PYTHONPATH"] = f"{PLUGIN}:{tmp_path}"
    execute(made.engine, "CREATE TABLE notes (number int)")
    return made


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "entry.posted", "number": number} | more


def batch(entries: Sequence[Any]) -> bytes:
    return json.dumps({"entries": entries}, indent=1).encode()


def post(stack: Stack, body: bytes) -> Answer:
    digest = hmac.new(LEDGER_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Ledger-Signature": f"sha256={digest}"}
    return request(stack.ports[0], "POST", "/webhooks/ledger", body, headers)


def shown(stack: Stack, delivery: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.command("deliveries", "show", delivery, "--json"))
    return found


def test_a_thousand_entries_half_of_them_known_make_the_other_half(stack: Stack) -> None:
    """Also when five such requests come at once: as many events, and no effect twice."""
    stack.receiver()
    stack.worker()
    stack.relay()
    assert post(stack, batch([entry(number) for number in range(500)])).status == 200
    until(lambda: stack.stats()["events"]["total"] == 500, what="the first half is admitted")
    broken = [{"number": 1}, "no object", None]
    body = batch([*map(entry, range(1, 500)), *broken, *map(entry, range(500, 998))])
    body += b" " * (128 * 1024)  # so long that a process of its own reads it
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: post(stack, body), range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    stack.wait_until_idle()
    stats = stack.stats()
    assert stats["events"]["total"] == 998
    assert stats["deliveries"] == {
        "accepted": 500 + 5 * 997,
        "rejected": 5 * 3,
        "duplicates": 5 * 499 + 4 * 498,
        "conflicts": 0,
    }
    assert Counter(
        row["number"] for row in stack.query("SELECT number FROM notes")
    ) == dict.fromkeys(range(998), 1)
    delivery = shown(stack, answers[0].headers["x-request-id"])
    assert delivery["body"] == body.decode()
    became = Counter(
        element["rejected"] or ("duplicate" if element["is_duplicate"] else "event")
        for element in delivery["elements"]
    )
    assert became["kind_missing"] == 3
    assert became["event"] + became["duplicate"] == 997
    assert [element["position"] for element in delivery["elements"]] == list(range(1_000))


def test_an_element_shows_its_place_fails_alone_and_is_replayed_alone(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    answer = post(stack, batch([entry(1), entry(2, poison=True), entry(3)]))
    delivery = answer.headers["x-request-id"]
    until(lambda: stack.stats()["events"]["total"] == 3, what="the elements are admitted")
    stack.wait_until_idle()
    (dead,) = listed(stack, "--state", "dead")
    event = json.loads(stack.command("events", "show", dead["id"], "--json"))
    assert (event["part_of"], event["position"]) == (delivery, 1)
    assert json.loads(event["body"]) == entry(2, poison=True)
    assert f"delivery {delivery}, element 2" in stack.command("events", "show", dead["id"])
    assert "entry.posted:3\tevent" in stack.command("deliveries", "show", delivery)
    stack.command("replay", dead["id"])
    stack.wait_until_idle()
    assert not listed(stack, "--state", "dead")
    assert "Skipped 3 jobs: succeeded already" in stack.command("replay", delivery)
    stack.command("replay", delivery, "--all-jobs")
    stack.wait_until_idle()
    numbers = Counter(row["number"] for row in stack.query("SELECT number FROM notes"))
    assert numbers == {1: 2, 2: 2, 3: 2}
    assert len(listed(stack, "--search", '"poison"')) == 1


def test_more_events_than_a_delivery_may_hold_are_rejected_together(stack: Stack) -> None:
    stack.receiver()
    answer = post(stack, batch([{}] * 10_001))
    assert (answer.status, answer.json["error"]) == (400, "too_many_events")
    assert post(stack, batch([])).json["error"] == "kind_missing"
