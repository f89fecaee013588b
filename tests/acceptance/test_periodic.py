"""Periodic processors through real processes: two relays, two workers, console and commands."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.acceptance import periodic_processors
from tests.acceptance.harness import Stack
from tests.support.rows import execute
from tests.support.waiting import ENDS_WITHIN_S, until

MakeStack = Callable[..., Stack]


@pytest.fixture
def make_periodic(make_stack: MakeStack) -> MakeStack:
    """Stacks with the periodic processors and a console."""

    def make(**environment: str) -> Stack:
        stack = make_stack(processors="periodic_processors", read_model="false", **environment)
        shutil.copy(periodic_processors.__file__, stack.folder)
        execute(
            stack.engine, "CREATE TABLE runs (processor text, due_at timestamptz, by_hand boolean)"
        )
        return stack

    return make


def runs(stack: Stack, processor: str) -> int:
    count: int = stack.value("SELECT count(*) FROM runs WHERE processor = :name", name=processor)
    return count


def is_due(stack: Stack, processor: str) -> None:
    """Nine minutes were missed."""
    until(lambda: stack.value("SELECT count(*) FROM schedules") == 2, what="it is registered")
    execute(
        stack.engine,
        "UPDATE schedules SET next_due_at = date_trunc('minute', now()) - interval '9 min'"
        " WHERE processor = :name",
        name=processor,
    )


def test_two_relays_and_two_workers_make_each_run_once(make_periodic: MakeStack) -> None:
    stack = make_periodic(concurrency="2")
    for start in (stack.worker, stack.worker, stack.relay, stack.relay):
        start()
    is_due(stack, "minutely")
    until(lambda: runs(stack, "minutely") >= 10, what="all have run")
    made = stack.query("SELECT due_at, count(*) AS times FROM runs GROUP BY due_at ORDER BY due_at")
    assert {row["times"] for row in made} == {1}
    first = made[0]["due_at"]
    assert [row["due_at"] for row in made] == [
        first + timedelta(minutes=number) for number in range(len(made))
    ]
    assert stack.value("SELECT count(*) FROM duplicates") == 0
    assert stack.value("SELECT count(*) FROM unhandled") == 0


def test_console_and_commands_show_run_and_record(make_periodic: MakeStack) -> None:
    stack = make_periodic(concurrency="1")
    for start in (stack.worker, stack.relay, stack.console):
        start()
    is_due(stack, "yearly")
    until(lambda: runs(stack, "yearly") == 1, what="it has run")
    said = stack.command("processors", "run", "yearly", "--reason", "after the outage")
    assert said.startswith("yearly runs now: ingest events show ")
    until(lambda: runs(stack, "yearly") == 2, what="it has run by hand")
    assert stack.value("SELECT count(*) FROM runs WHERE by_hand") == 1

    shown = stack.command("processors", "show", "yearly")
    assert "schedule\t0 0 1 1 * (Asia/Riyadh)\n" in shown
    assert "rules\tmissed: latest; runs do not overlap\n" in shown
    assert "last run\tsucceeded, event " in shown
    record = json.loads(stack.command("processors", "show", "yearly", "--json"))
    listed = map(json.loads, stack.command("processors", "list", "--json").splitlines())
    items = stack.ask("/api/v1/processors").json["items"]
    for answer in (record, *(known for known in (*listed, *items) if known["name"] == "yearly")):
        assert answer["schedule"]["expression"] == "0 0 1 1 *"
        assert answer["schedule"]["last_state"] == "succeeded"

    answer = stack.tell("/processors/yearly/run", {"reason": "once more"})
    event = stack.ask(f"/api/v1/events/{answer.json['event']}").json
    assert (event["source"], event["type"]) == ("schedule", "schedule.yearly")
    page = stack.ask("/processors").body.decode()
    assert "Run now" in page
    assert "Asia/Riyadh" in page
    assert stack.ask(f"/events/{answer.json['event']}").status == 200
    done = stack.ask("/api/v1/audit-log").json["items"]
    assert [(entry["action"], entry["target"], entry["reason"]) for entry in done] == [
        ("run", "yearly", "once more"),
        ("run", "yearly", "after the outage"),
    ]
    refused = stack.command("processors", "run", "other", ok=False)
    assert "No worker has registered a periodic processor other." in refused


@pytest.mark.parametrize(
    ("declaration", "sentence"),
    [
        ('@periodic("61 * * * *")', "'61 * * * *' is no cron expression: bad minute"),
        ('@periodic("* * * * *", zone="Atlantis")', "'Atlantis' is no time zone: name one of"),
    ],
)
def test_a_worker_does_not_start_with_what_makes_no_schedule(
    make_stack: MakeStack, declaration: str, sentence: str
) -> None:
    stack = make_stack(processors="wrong", read_model="false")
    (stack.folder / "wrong.py").write_text(
        f"from workers import periodic\n\n\n{declaration}\ndef run(event, db): ...\n"
    )
    worker = stack.start("worker")
    assert worker.wait(ENDS_WITHIN_S) == 1
    said = [line for line in stack.logs().splitlines() if line.startswith("ingest: ")]
    assert len(said) == 1
    assert "wrong.py, line 4: BadSchedule: " in said[0]
    assert sentence in said[0]
