"""A user's own processors: retried, dead, replayed, poisonous; their effects exactly once."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack
from tests.support.deliver import body, order
from tests.support.rows import execute
from tests.support.waiting import end, until

MakeStack = Callable[..., Stack]
LIMIT_S = "5"
"""Of an attempt, where one must be timed out, and its neighbours must not."""


@pytest.fixture
def make_shop(make_stack: MakeStack) -> MakeStack:
    """Stacks whose workers have the shop's processors."""

    def make(**environment: str) -> Stack:
        stack = make_stack(processors="shop_processors", read_model="false", **environment)
        shutil.copy(shop_processors.__file__, stack.folder)
        execute(
            stack.engine, "CREATE TABLE IF NOT EXISTS effects (what text, event text, attempt int)"
        )
        stack.receiver()
        return stack

    return make


def job(stack: Stack, order_id: int, processor: str = "whims") -> dict[str, Any]:
    shown = stack.show(f"order.created:{order_id}")
    (found,) = [each for each in shown["jobs"] if each["processor"] == processor]
    return dict(found)


def wait_for(stack: Stack, order_id: int, state: str, *, timeout_s: float = 300) -> dict[str, Any]:
    until(
        lambda: stack.value(
            "SELECT count(*) FROM jobs j JOIN events e ON e.id = j.event"
            " WHERE e.event_id = :name AND j.processor = 'whims' AND j.state = :state",
            name=f"order.created:{order_id}",
            state=state,
        ),
        what=f"order {order_id} is {state}",
        timeout_s=timeout_s,
    )
    return job(stack, order_id)


def effects(stack: Stack, what: str) -> list[tuple[int, int]]:
    """(order, attempt) of every effect."""
    found = stack.query(
        "SELECT split_part(e.event_id, ':', 2)::int AS number, f.attempt"
        " FROM effects f JOIN events e ON e.id::text = f.event WHERE f.what = :what ORDER BY 1",
        what=what,
    )
    return [(row["number"], row["attempt"]) for row in found]


def conversation(number: int, **more: Any) -> bytes:
    return body("conversation.created", {"conversation_id": number, **more})


@pytest.mark.parametrize("note", ["hangs", "holds"])
def test_a_thread_that_cannot_be_ended_takes_its_process_along_and_alone_is_blamed(
    make_shop: MakeStack, note: str
) -> None:
    stack = make_shop(concurrency="1", lease_s="5", attempt_timeout_s=LIMIT_S)
    stack.worker()
    stack.relay()
    stack.post_all([conversation(n) for n in range(4)] + [conversation(4, note=note)])
    stack.post_all([conversation(n) for n in range(5, 10)])
    until(
        lambda: (
            stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 9
            and stack.value("SELECT count(*) FROM jobs WHERE state = 'dead'") == 1
        ),
        what="the one is dead and the others are done",
        timeout_s=300,
    )
    dead = stack.query(
        "SELECT e.event_id, j.failures FROM jobs j JOIN events e ON e.id = j.event"
        " WHERE j.state = 'dead'"
    )
    assert dead == [{"event_id": "conversation.created:4", "failures": 2}]
    assert stack.value("SELECT max(failures) FROM jobs WHERE state = 'succeeded'") == 0
    assert [number for number, _ in effects(stack, "waits")] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_one_that_fails_twice_then_works(make_shop: MakeStack) -> None:
    stack = make_shop()
    stack.worker()
    stack.relay()
    stack.post(order(1, note="fails twice"))
    found = wait_for(stack, 1, "succeeded")
    attempts = found["attempts"]
    assert [each["number"] for each in attempts] == [1, 2, 3]
    assert [each["trigger"] for each in attempts] == ["delivery", "retry", "retry"]
    assert [each["outcome"] for each in attempts] == ["failed", "failed", "succeeded"]
    assert attempts[0]["error_type"] == "ConnectionError"
    assert attempts[0]["error_message"] == "the CRM is away"
    assert "in whims" in attempts[0]["traceback"]
    begun = [datetime.fromisoformat(each["started_at"]) for each in attempts]
    ended = [datetime.fromisoformat(each["finished_at"]) for each in attempts]
    # Full jitter: anything up to a ceiling that doubles, and the sweep that finds the job due.
    sweep_s = 60  # one a second, and what a loaded machine takes
    assert (begun[1] - ended[0]).total_seconds() < 0.2 + sweep_s
    assert (begun[2] - ended[1]).total_seconds() < 0.4 + sweep_s
    assert effects(stack, "whims") == [(1, 3)]
    assert effects(stack, "ledger") == [(1, 1)]


def test_one_that_always_fails_is_dead_then_replayed_after_the_mend(make_shop: MakeStack) -> None:
    stack = make_shop()
    broken = stack.folder / "broken"
    broken.touch()
    stack.worker()
    stack.relay()
    stack.post(order(1, note="fails"))
    stack.post(order(2))
    dead = wait_for(stack, 1, "dead")
    assert [each["outcome"] for each in dead["attempts"]] == ["failed"] * 3
    (listed,) = stack.command("events", "list", "--state", "dead", "--json").splitlines()
    event = json.loads(listed)["id"]
    planned = json.loads(stack.command("replay", "--state", "dead", "--dry-run", "--json"))
    assert (planned["jobs"], planned["dry_run"]) == (1, True)
    assert job(stack, 1)["state"] == "dead"

    broken.unlink()
    done = json.loads(
        stack.command("replay", event, "--processor", "whims", "--reason", "CRM is back", "--json")
    )
    assert (done["jobs"], done["running"]) == (1, 0)
    replayed = wait_for(stack, 1, "succeeded")
    assert [each["outcome"] for each in replayed["attempts"]] == ["failed"] * 3 + ["succeeded"]
    last = replayed["attempts"][-1]
    assert (last["number"], last["trigger"], last["replay_reason"]) == (4, "replay", "CRM is back")
    assert last["replayed_by"]
    assert last["replayed_at"]
    assert effects(stack, "whims") == [(1, 4), (2, 1)]
    assert effects(stack, "ledger") == [(1, 1), (2, 1)]


@pytest.mark.parametrize("note", ["exits", "loops", "swallows"])
def test_poison_spends_its_attempts_and_harms_no_neighbour(make_shop: MakeStack, note: str) -> None:
    stack = make_shop(concurrency="1", attempt_timeout_s=LIMIT_S)
    # Stored before there is a worker, so that poison and neighbours meet in one batch.
    for number in range(20):
        assert stack.post(order(number, **({"note": note} if number == 7 else {}))).status == 200
    stack.worker()
    stack.relay()
    dead = wait_for(stack, 7, "dead")
    outcomes = [each["outcome"] for each in dead["attempts"] if each["outcome"] != "released"]
    assert len(outcomes) == 3
    assert set(outcomes) == {"timed_out" if note == "loops" else "lost"}
    stack.wait_until_idle()
    neighbours = [number for number in range(20) if number != 7]
    assert [number for number, _ in effects(stack, "whims")] == neighbours
    assert [number for number, _ in effects(stack, "ledger")] == list(range(20))
    failures = stack.query("SELECT failures, count(*) FROM jobs GROUP BY 1 ORDER BY 1")
    assert failures == [{"failures": 0, "count": 39}, {"failures": 3, "count": 1}]


def test_discard_and_snooze(make_shop: MakeStack) -> None:
    stack = make_shop()
    stack.worker()
    stack.relay()
    stack.post(order(1, note="discards"))
    stack.post(order(2, note="snoozes"))
    dead = wait_for(stack, 1, "dead")
    assert [(each["outcome"], each["error_message"]) for each in dead["attempts"]] == [
        ("discarded", "not for us")
    ]
    snoozed = wait_for(stack, 2, "succeeded")
    assert [each["outcome"] for each in snoozed["attempts"]] == ["snoozed", "succeeded"]
    assert snoozed["failures"] == 0


def test_a_worker_that_stalls_past_its_lease_takes_no_effect(make_shop: MakeStack) -> None:
    """Two workers: the first is stopped in mid-job, the second takes over, the first goes on."""
    # A stop that outlasts the attempt's own time would end the first worker at once.
    stack = make_shop(lease_s="2", concurrency="1", attempt_timeout_s="600")
    (stack.folder / "stall").touch()
    first = stack.worker()
    stack.relay()
    stack.post(body("contact.created", {"id": 7}))
    until(
        lambda: stack.value("SELECT count(*) FROM jobs WHERE state = 'running'"),
        what="the first worker runs it",
    )
    family = [first.pid, *_children(first.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    stack.worker()
    until(
        lambda: stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'"),
        what="the second worker has taken over",
    )
    (stack.folder / "stall").unlink()
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    until(lambda: "lease_lost" in stack.logs(), what="the first worker notices")
    (job_,) = stack.show("contact.created:7")["jobs"]
    assert job_["attempt"] > 1
    assert job_["attempts"][-1]["trigger"] == "rescue"
    taken = stack.query("SELECT attempt FROM effects WHERE what = 'stalls'")
    assert taken == [{"attempt": job_["attempt"]}]


def _children(pid: int) -> list[int]:
    printed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(each) for each in printed.split()]


def test_an_unhandled_type_is_replayed_when_a_processor_is_registered(
    make_stack: MakeStack, make_shop: MakeStack
) -> None:
    before = make_stack(read_model="false")
    before.receiver()
    worker = before.worker()
    before.post(order(1))
    before.post(body("ticket.escalated", {"ticket_id": 5}))
    until(lambda: before.value("SELECT count(*) FROM events") == 2, what="both are admitted")
    assert before.stats()["events"] == {"total": 2, "unhandled": 2}
    end(worker)

    after = make_shop()
    after.worker()
    after.relay()
    done = json.loads(after.command("replay", "--type", "order.*", "--json"))
    assert (done["jobs"], done["events"]) == (0, 1)
    found = wait_for(after, 1, "succeeded")
    assert found["attempts"][0]["trigger"] == "replay"
    assert found["queue"] == "replay"
    assert after.stats()["events"] == {"total": 2, "unhandled": 1}


def test_a_module_that_cannot_be_imported_stops_the_worker_and_loses_nothing(
    make_shop: MakeStack, tmp_path: Path
) -> None:
    stack = make_shop()
    (stack.folder / "bad_deploy.py").write_text("1 / 0")
    worker = stack.start("worker", processors="bad_deploy")
    assert worker.wait(300) == 1
    assert "bad_deploy.py, line 1: ZeroDivisionError" in stack.logs()
    assert stack.post(order(1)).status == 200
    stack.worker()
    stack.relay()
    wait_for(stack, 1, "succeeded")
    assert effects(stack, "ledger") == [(1, 1)]
