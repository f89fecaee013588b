"""Periodic processors through real processes: two relays, two workers, console and commands."""

import json
import shutil
from collections.abc import Callable

import pytest

from tests.acceptance import periodic_processors
from tests.acceptance.harness import Stack
from tests.support.rows import execute
from tests.support.waiting import until

MakeStack = Callable[..., Stack]


@pytest.fixture
def make_periodic(make_stack: MakeStack) -> MakeStack:
    """Stacks with the periodic processors and a console."""

    def make(**environment: str) -> Stack:
        stack = make_stack(processors="periodic_processors", read_model="false", **environment)
        shutil.copy(periodic_processors.__file__, stack.folder)
        execute(stack.engine, "CREATE TABLE runs (due_at timestamptz, by_hand boolean)")
        return stack

    return make


def is_due(stack: Stack) -> None:
    """Five minutes were missed."""
    execute(
        stack.engine,
        "UPDATE schedules SET next_due_at = date_trunc('minute', now()) - interval '4 min'",
    )


def runs(stack: Stack) -> int:
    count: int = stack.value("SELECT count(*) FROM runs")
    return count


def test_two_relays_and_two_workers_make_each_run_once(make_periodic: MakeStack) -> None:
    stack = make_periodic(concurrency="2")
    for start in (stack.worker, stack.worker, stack.relay, stack.relay):
        start()
    until(lambda: stack.value("SELECT count(*) FROM schedules"), what="it is registered")
    for number in range(1, 6):
        execute(stack.engine, "UPDATE schedules SET last_event = NULL")
        execute(
            stack.engine,
            "UPDATE schedules SET next_due_at = date_trunc('day', now()) - :ago * interval '1 day'",
            ago=number,
        )
        before = runs(stack)
        until(lambda before=before: runs(stack) > before, what="it has run")  # type: ignore[misc]
    stack.wait_until_idle()
    assert stack.value("SELECT count(*) FROM (SELECT DISTINCT due_at FROM runs) AS d") == runs(
        stack
    )
    assert stack.value("SELECT count(*) FROM deliveries WHERE source = 'schedule'") == runs(stack)
    assert stack.value("SELECT count(*) FROM duplicates") == 0
    assert stack.value("SELECT count(*) FROM unhandled") == 0


def test_console_and_commands_show_run_and_record(make_periodic: MakeStack) -> None:
    stack = make_periodic(concurrency="1")
    for start in (stack.worker, stack.relay, stack.console):
        start()
    until(lambda: stack.value("SELECT count(*) FROM schedules"), what="it is registered")
    is_due(stack)
    until(lambda: runs(stack) > 0, what="it has run")
    stack.wait_until_idle()
    said = stack.command("processors", "run", "minutely", "--reason", "after the outage")
    assert said.startswith("minutely runs now: ingest events show ")
    until(lambda: stack.value("SELECT count(*) FROM runs WHERE by_hand"), what="by hand")
    stack.wait_until_idle()

    shown = stack.command("processors", "show", "minutely")
    assert "schedule   * * * * * (Asia/Riyadh)\n" in shown
    assert "rules      missed: latest; runs do not overlap\n" in shown
    assert "last run   succeeded, event " in shown
    record = json.loads(stack.command("processors", "show", "minutely", "--json"))
    (listed,) = map(json.loads, stack.command("processors", "list", "--json").splitlines())
    (item,) = stack.ask("/api/v1/processors").json["items"]
    for answer in (record, listed, item):
        assert answer["schedule"]["expression"] == "* * * * *"
        assert answer["schedule"]["last_state"] == "succeeded"

    answer = stack.tell("/processors/minutely/run", {"reason": "once more"})
    event = stack.ask(f"/api/v1/events/{answer.json['event']}").json
    assert (event["source"], event["type"]) == ("schedule", "schedule.minutely")
    page = stack.ask("/processors").body.decode()
    assert "Run now" in page
    assert "Asia/Riyadh" in page
    assert stack.ask(f"/events/{answer.json['event']}").status == 200
    done = stack.ask("/api/v1/audit-log").json["items"]
    assert [(entry["action"], entry["target"], entry["reason"]) for entry in done] == [
        ("run", "minutely", "once more"),
        ("run", "minutely", "after the outage"),
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
    assert worker.wait(60) == 1
    said = [line for line in stack.logs().splitlines() if line.startswith("ingest: ")]
    assert len(said) == 1
    assert "wrong.py, line 4: BadSchedule: " in said[0]
    assert sentence in said[0]
