"""The console's API over real processes: what it shows, what it changes, what it keeps."""

import json
import shutil
import signal
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.acceptance import shop_processors
from tests.acceptance.harness import Answer, Stack, request
from tests.support.rows import execute
from tests.support.waiting import until


@pytest.fixture
def make_console(make_stack: Callable[..., Stack]) -> Callable[..., Stack]:
    """A whole stack with the shop's processors and a console."""

    def make(**environment: str) -> Stack:
        stack = make_stack(processors="shop_processors", read_model="false", **environment)
        shutil.copy(shop_processors.__file__, stack.folder)
        execute(
            stack.engine, "CREATE TABLE IF NOT EXISTS effects (what text, event text, attempt int)"
        )
        stack.receiver()
        stack.worker()
        stack.relay()
        stack.console()
        return stack

    return make


def order(number: int, note: str = "") -> bytes:
    """An order, and what its processor is to do with it."""
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": note}
    return json.dumps({"event": "order.created", "data": data}).encode()


def events(stack: Stack, q: str = "") -> list[dict[str, Any]]:
    answer = stack.ask(f"/api/v1/events?q={q}")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json["items"]
    return found


def finished(stack: Stack, bulk_action: int) -> dict[str, Any]:
    """A replay or discard, once it has ended."""

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = stack.ask(f"/api/v1/bulk-actions/{bulk_action}").json
        return found if found["status"] != "running" else None

    found = until(ended, what="the bulk action ends")
    assert found is not None
    return found


def test_from_a_dead_letter_to_its_success(make_console: Callable[..., Stack]) -> None:
    stack = make_console()
    (stack.folder / "broken").touch()
    stack.post_all([order(number, "fails") for number in range(5)] + [order(99)])
    stack.wait_until_idle()
    groups = stack.ask("/api/v1/failures").json["items"]
    assert [(each["processor"], each["error_type"], each["jobs"]) for each in groups] == [
        ("whims", "ConnectionError", 5)
    ]
    assert "whims" in groups[0]["raised_at"]
    assert len(events(stack, "state:dead")) == 5
    (stack.folder / "broken").unlink()
    found = stack.tell("/bulk-actions", {"q": "state:dead", "dry_run": True}).json
    assert found["bulk_action"] is None
    assert found["counts"]["jobs"] == 5
    begun = stack.tell("/bulk-actions", {"q": "state:dead", "reason": "the CRM is back"}).json
    ended = finished(stack, begun["bulk_action"]["id"])
    assert (ended["status"], ended["counts"]["jobs"], ended["total"]) == ("finished", 5, 5)
    stack.wait_until_idle()
    assert events(stack, "state:dead") == []
    event = stack.ask(f"/api/v1/events/{groups[0]['example']}").json
    attempts = next(job for job in event["jobs"] if job["processor"] == "whims")["attempts"]
    assert [each["outcome"] for each in attempts] == ["failed", "failed", "failed", "succeeded"]
    assert attempts[-1]["replay_reason"] == "the CRM is back"
    done = stack.ask("/api/v1/audit-log").json["items"]
    assert [(each["by"], each["action"], each["reason"]) for each in done] == [
        ("local", "replay", "the CRM is back")
    ]


def test_a_replay_of_an_event_repeats_no_success_unless_all_jobs_are_asked_for(
    make_console: Callable[..., Stack],
) -> None:
    stack = make_console()
    (stack.folder / "broken").touch()
    stack.post_all([order(1, "fails")])
    stack.wait_until_idle()
    (stack.folder / "broken").unlink()
    (dead,) = [each["id"] for each in events(stack, "state:dead")]
    planned = stack.tell("/bulk-actions", {"ids": [dead], "dry_run": True}).json["counts"]
    assert (planned["jobs"], planned["succeeded"]) == (1, 1)
    said = stack.command("replay", dead, "--dry-run")
    assert "Would requeue 1 job" in said
    assert "--all-jobs" in said
    stack.tell(f"/events/{dead}/replay", {})
    stack.wait_until_idle()
    assert attempts_of(stack, dead) == {"ledger": 1, "whims": 4}
    refused = stack.tell(f"/events/{dead}/replay", {})
    assert (refused.status, refused.json["error"]) == (409, "all_succeeded")
    assert stack.tell(f"/events/{dead}/replay", {"all_jobs": True}).json["counts"]["jobs"] == 2
    stack.wait_until_idle()
    assert attempts_of(stack, dead) == {"ledger": 2, "whims": 5}
    assert "Requeued 2 jobs" in stack.command("replay", dead, "--all-jobs")


def post_form(stack: Stack, path: str, **fields: str) -> Answer:
    """What the console answers to a page's form."""
    headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    return request(stack.console_port, "POST", path, urlencode(fields).encode(), headers)


def attempts_of(stack: Stack, event: str) -> dict[str, int]:
    """How many attempts each processor has made at an event."""
    jobs = stack.ask(f"/api/v1/events/{event}").json["jobs"]
    return {job["processor"]: len(job["attempts"]) for job in jobs}


def test_a_preview_counts_what_encrypted_bodies_hold(make_console: Callable[..., Stack]) -> None:
    stack = make_console(body_keys=b64encode(bytes(range(32))).decode())
    (stack.folder / "broken").touch()
    stack.post_all([order(1, "fails"), order(2, "fails")])
    stack.wait_until_idle()
    assert stack.value("SELECT count(body_key) FROM deliveries") == 2
    answer = post_form(
        stack, "/events/preview", action="replay-all", q="data.order_id:1 state:dead"
    )
    assert answer.status == 200
    assert b"This will replay 1 job" in answer.body


def test_what_is_discarded_is_asked_about_no_more(make_console: Callable[..., Stack]) -> None:
    stack = make_console()
    stack.post_all([order(number, "discards") for number in range(3)])
    stack.wait_until_idle()
    dead = events(stack, "state:dead")
    gone, *others = [each["id"] for each in dead]
    assert stack.tell(f"/events/{gone}/discard", {"reason": "a test"}).json["counts"]["jobs"] == 1
    assert [each["id"] for each in events(stack, "state:dead")] == others
    assert [each["id"] for each in events(stack, "state:discarded")] == [gone]
    assert stack.ask("/api/v1/failures").json["items"][0]["jobs"] == 2
    begun = stack.tell("/bulk-actions", {"everything": True, "dry_run": True}).json
    assert begun["counts"]["jobs"] == 2
    whims = stack.ask(f"/api/v1/events/{gone}").json["jobs"][1]
    assert whims["attempts"][-1]["outcome"] == "discarded"
    assert whims["attempts"][-1]["error_message"] == "Discarded by local: a test"


def test_a_paused_processor_waits_and_nothing_fails(make_console: Callable[..., Stack]) -> None:
    stack = make_console(redispatch_after_s="1", dispatch_grace_s="0.2", relay_interval_s="0.2")
    until(lambda: "whims" in names(stack), what="the worker has registered its processors")
    assert stack.tell("/processors/whims/pause", {"reason": "a deploy"}).status == 200
    stack.post_all([order(number) for number in range(50)])
    until(lambda: stack.value("SELECT count(*) FROM effects WHERE what = 'ledger'") == 50)
    until(
        lambda: stack.value("SELECT count(*) FROM jobs WHERE due_at = 'infinity'") == 50,
        what="the relay has put them aside",
    )
    assert stack.value("SELECT count(*) FROM effects WHERE what = 'whims'") == 0
    found = next(each for each in processors(stack) if each["name"] == "whims")
    assert (found["pending"], found["dead"]) == (50, 0)
    assert (found["paused_by"], found["pause_reason"]) == ("local", "a deploy")
    assert stack.tell("/processors/whims/resume").status == 200
    until(lambda: stack.value("SELECT count(*) FROM effects WHERE what = 'whims'") == 50)
    stack.wait_until_idle()
    assert stack.value("SELECT count(*) FROM attempts") == 0
    assert stack.tell("/processors/nobody/pause").status == 404


def processors(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.ask("/api/v1/processors").json["items"]
    return found


def names(stack: Stack) -> set[str]:
    return {each["name"] for each in processors(stack)}


def test_no_history_is_gone_after_a_restart(make_console: Callable[..., Stack]) -> None:
    stack = make_console()
    (stack.folder / "broken").touch()
    stack.post_all([order(number, "fails") for number in range(4)] + [order(9)] * 3)
    forged = {"x-awal-webhook-signature": "0"}
    request(stack.ports[0], "POST", "/webhooks/awalchat", order(1), forged)
    stack.wait_until_idle()
    stack.tell("/processors/ledger/pause", {"reason": "why not"})
    until(
        lambda: told(stack)["answers"] and told(stack)["refusals"],
        what="the receiver has reported",
    )
    before = told(stack)
    stack.close()
    stack.processes.clear()
    stack.ports.clear()
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.console()
    assert told(stack) == before
    assert before["accepted"] == 7
    assert before["duplicates"] == 2
    assert before["failed"] == 12
    assert before["refusals"] == ["timestamp_missing"]


def told(stack: Stack) -> dict[str, Any]:
    """What the console says of the past."""
    overview = stack.ask("/api/v1/overview?range=day").json
    buckets = overview["buckets"]
    sums = {
        name: sum(each[name] for each in buckets)
        for name in ("accepted", "duplicates", "succeeded", "failed")
    }
    return {
        **sums,
        "answers": sum(each["answer_p50_s"] is not None for each in buckets),
        "events": [each["id"] for each in events(stack)],
        "groups": [each["message"] for each in stack.ask("/api/v1/failures").json["items"]],
        "refusals": [each["reason"] for each in stack.ask("/api/v1/refusals").json["items"]],
        "actions": [each["target"] for each in stack.ask("/api/v1/audit-log").json["items"]],
        "paused": [each["name"] for each in processors(stack) if each["paused_at"]],
    }


def test_a_replay_goes_on_after_the_console_was_killed(make_console: Callable[..., Stack]) -> None:
    stack = make_console()
    stack.post_all([order(number) for number in range(1_200)])
    stack.wait_until_idle()
    begun = stack.tell("/bulk-actions", {"q": "state:succeeded", "rate": 5_000}).json[
        "bulk_action"
    ]["id"]
    until(lambda: stack.ask(f"/api/v1/bulk-actions/{begun}").json["counts"]["jobs"] > 0)
    paused = stack.tell(f"/bulk-actions/{begun}/pause").json
    assert paused["status"] == "paused"
    stack.processes[-1].kill()
    stack.console()
    assert stack.ask(f"/api/v1/bulk-actions/{begun}").json["status"] == "paused"
    stack.tell(f"/bulk-actions/{begun}/resume")
    ended = finished(stack, begun)
    assert (ended["status"], ended["counts"]["jobs"]) == ("finished", ended["total"])
    assert stack.tell(f"/bulk-actions/{begun}/cancel").status == 409


def test_a_replay_at_a_rate_is_cancelled_half_way_and_nothing_of_it_runs_later(
    make_console: Callable[..., Stack],
) -> None:
    stack = make_console()
    (stack.folder / "broken").touch()
    stack.post_all([order(number, "fails") for number in range(30)])
    stack.wait_until_idle()
    (stack.folder / "broken").unlink()
    begun = stack.tell("/bulk-actions", {"q": "state:dead", "rate": 1}).json["bulk_action"]["id"]

    def replayed() -> dict[str, Any]:
        found: dict[str, Any] = stack.ask(f"/api/v1/bulk-actions/{begun}").json
        return found

    until(lambda: replayed()["work"]["succeeded"] >= 2, what="some of it has run")
    assert replayed()["status"] == "running"
    paused = stack.tell(f"/bulk-actions/{begun}/pause").json
    assert (paused["status"], paused["work"]["pending"]) == ("paused", 0)
    assert paused["work"]["taken_back"] >= 10
    resumed = stack.tell(f"/bulk-actions/{begun}/resume").json
    assert resumed["status"] == "running"
    until(lambda: replayed()["work"]["taken_back"] == 0, what="it goes on")
    cancelled = stack.tell(f"/bulk-actions/{begun}/cancel", {"reason": "enough"}).json
    assert (cancelled["status"], cancelled["work"]["pending"]) == ("cancelled", 0)
    stack.wait_until_idle()
    work = replayed()["work"]
    assert work["succeeded"] + work["taken_back"] == 30
    for state, number in (("dead", work["taken_back"]), ("succeeded", work["succeeded"])):
        assert len(events(stack, f"state:{state}")) == number
    assert len(events(stack, f"taken_back:{begun}")) == work["taken_back"]
    assert len(events(stack, f"replay:{begun}+state:succeeded")) == work["succeeded"]
    assert stack.value("SELECT count(*) FROM effects WHERE what = 'whims'") == work["succeeded"]
    again = post_form(stack, f"/bulk-actions/{begun}/cancel")
    assert (again.status, again.headers["location"]) == (
        303,
        f"/bulk-actions/{begun}?notice=has_ended",
    )
    page = request(stack.console_port, "GET", again.headers["location"]).body
    assert b"It had already finished" in page
    assert b"taken back" in request(stack.console_port, "GET", "/audit-log").body


def test_the_command_line_replays_waits_and_takes_back_on_ctrl_c(
    make_console: Callable[..., Stack],
) -> None:
    stack = make_console()
    (stack.folder / "broken").touch()
    stack.post_all([order(number, "fails") for number in range(6)])
    stack.wait_until_idle()
    # Where a script runs the tests in the background, they inherit that SIGINT is ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = stack.start("replay", "--state", "dead", "--rate", "0.01", "--wait")
    signal.signal(signal.SIGINT, inherited)
    waiting = "SELECT count(*) FROM jobs WHERE state = 'pending' AND replay IS NOT NULL"
    until(lambda: stack.value(waiting) >= 5, what="it waits")
    command.send_signal(signal.SIGINT)
    assert command.wait(300) == 130
    assert stack.value(waiting) == 0
    shown = json.loads(stack.command("bulk-actions", "show", "1", "--json"))
    assert (shown["status"], shown["work"]["pending"]) == ("cancelled", 0)
    assert shown["work"]["taken_back"] >= 5
    stack.wait_until_idle()
    (stack.folder / "broken").unlink()
    said = stack.command("replay", "--state", "dead", "--wait")
    assert "Replay 2 is finished." in said
    assert "succeeded\t6" in said
    assert "has already ended" in stack.command("bulk-actions", "cancel", "2", ok=False)
    assert "There is no bulk action 9." in stack.command("bulk-actions", "pause", "9", ok=False)
    listed = stack.command("bulk-actions", "list").splitlines()
    assert [line.split("\t")[:4] for line in listed] == [
        ["2", "replay", "finished", "6 of 6"],
        ["1", "replay", "cancelled", listed[1].split("\t")[3]],
    ]
    assert [each["replay"] for each in stack.ask("/api/v1/audit-log").json["items"]] == [2, 1]


def test_who_is_alive_is_shown(make_console: Callable[..., Stack]) -> None:
    stack = make_console()

    def alive() -> dict[str, int]:
        found = [each["kind"] for each in stack.ask("/api/v1/overview").json["processes"]]
        return {kind: found.count(kind) for kind in set(found)}

    until(lambda: alive() == {"receiver": 1, "worker": 2, "relay": 1, "console": 1})
    sent = stack.tell("/test-event", {"type": "order.created"}).json
    assert sent["status"] == 200
    until(lambda: len(events(stack, "type:order.created")) == 1)


def test_elsewhere_than_on_this_machine_it_wants_credentials(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    refused = stack.command("console", "--host", "192.0.2.1", "--port", "1", ok=False)
    assert "without credentials" in refused
