"""What the console can do, commands do too: with the same effects, sentences and records."""

import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingest.cli import main
from tests.integration.test_pause import register
from tests.integration.test_relay import make_jobs
from tests.support.http_taker import running
from tests.support.rows import execute, one, rows

ME = getpass.getuser()

Run = Callable[..., Any]


@pytest.fixture
def run(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs a command; returns what it prints, read as JSON lines with `--json`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)

    def run(*command: str, fails: bool = False) -> Any:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ingest", *command])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert bool(ended.value.code) is fails, ended.value.code
        if isinstance(ended.value.code, str):
            return ended.value.code
        printed = capsys.readouterr().out
        return (
            [json.loads(line) for line in printed.splitlines()] if "--json" in command else printed
        )

    return run


def recorded(engine: Engine) -> list[tuple[Any, ...]]:
    """The audit log, the oldest first."""
    found = rows(engine, "SELECT by, via, action, target, reason FROM actions ORDER BY id")
    return [tuple(row.values()) for row in found]


def kill(engine: Engine, database_url: str, count: int) -> None:
    """Make dead jobs that failed in one way."""
    make_jobs(engine, database_url, count)
    execute(
        engine,
        "INSERT INTO attempts (job, number, trigger, worker, started_at, finished_at, outcome,"
        " error_type, error_message) SELECT id, 1, 'delivery', 'w', now(), now(), 'failed',"
        " 'KeyError', 'no price' FROM jobs",
    )
    execute(
        engine,
        "UPDATE jobs SET state = 'dead', attempt = 1, finished_at = now(), started_at = now(),"
        " next_attempt_at = NULL, hinted_until = NULL",
    )


def test_a_processor_is_paused_and_resumed(run: Run, engine: Engine) -> None:
    register(engine)
    said = run("processors", "pause", "orders", "--reason", "the CRM is down")
    assert said == "orders is paused: its jobs wait.\n"
    assert f"orders\tevents\t0\t0\t0\t0\tpaused by {ME}: the CRM is down\t\n" in run("processors")
    assert "notify\tevents\t0\t0\t0\t0\truns\t\n" in run("processors")
    (record,) = run("processors", "resume", "orders", "--json")
    assert (record["name"], record["paused_at"]) == ("orders", None)
    assert [each["name"] for each in run("processors", "--json")] == ["notify", "orders"]
    assert recorded(engine) == [
        (ME, "command line", "pause", "orders", "the CRM is down"),
        (ME, "command line", "resume", "orders", None),
    ]


def test_a_processor_that_is_not_there_is_said_with_those_that_are(
    run: Run, engine: Engine
) -> None:
    assert run("processors", "pause", "no.such", fails=True) == (
        "ingest: No worker has registered a processor no.such."
    )
    register(engine)
    assert run("processors", "resume", "no.such", fails=True) == (
        "ingest: No worker has registered a processor no.such. There is notify, orders."
    )
    assert recorded(engine) == []


def test_failures_are_shown_and_discarded(run: Run, engine: Engine, database_url: str) -> None:
    kill(engine, database_url, 3)
    (failing,) = run("failures", "--json")
    (group,) = failing["groups"]
    assert (group["jobs"], group["processor"], group["error_type"]) == (3, "p", "KeyError")
    assert failing["rejected"] == []
    assert "new\t3\t3\tp\tKeyError: no price\t-\t" in run("failures")
    event = str(one(engine, "SELECT event FROM jobs ORDER BY id LIMIT 1"))
    assert run("discard", "--query", "state:dead", "--dry-run") == "Would discard 3 jobs.\n"
    assert run("discard", event, "--reason", "a test order") == "Discarded 1 job.\n"
    (done,) = run("discard", "--query", "state:dead", "--json")
    assert (done["jobs"], done["dry_run"]) == (2, False)
    assert one(engine, "SELECT count(*) FROM jobs WHERE discarded_at IS NULL") == 0
    assert recorded(engine) == [
        (ME, "command line", "discard", event, "a test order"),
        (ME, "command line", "discard", "state:dead", None),
    ]
    first, second = run("audit-log", "--json")
    assert (first["target"], second["reason"]) == ("state:dead", "a test order")
    assert run("audit-log", "--limit", "1", "--before", str(first["id"])).split("\t")[2:5] == [
        ME,
        "command line",
        "discard",
    ]


def test_ctrl_c_ends_a_discard_and_no_console_goes_on_with_it(
    run: Run, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(engine, database_url, 3)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ingest.cli.discard.bulk_actions.advance", interrupted)
    run("discard", "--query", "state:dead", fails=True)
    monkeypatch.undo()
    assert one(engine, "SELECT status FROM replays") == "cancelled"
    assert one(engine, "SELECT count(*) FROM jobs WHERE discarded_at IS NULL") == 3


@pytest.mark.parametrize("command", [["discard"], ["discard", "abc", "--query", "state:dead"]])
def test_a_discard_of_nothing_in_particular_is_refused(run: Run, command: list[str]) -> None:
    sentence = run(*command, fails=True)
    assert sentence.startswith("ingest: Name the events: ids, or --query 'state:dead', not both.")


def test_a_query_that_is_not_understood_discards_nothing(run: Run, engine: Engine) -> None:
    assert run("discard", "--query", "stat:dead", fails=True).startswith("ingest: --query: ")
    assert recorded(engine) == []


def test_an_alert_is_acknowledged_and_a_channel_tested(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    execute(
        engine,
        "INSERT INTO alerts (rule, subject, sentence, value, since, seen_at, fired_at)"
        " VALUES ('no_worker', '', 'No worker is alive.', 1, now(), now(), now())",
    )
    number = str(one(engine, "SELECT id FROM alerts"))
    (alert,) = run("alerts", "ack", number, "--reason", "starting one", "--json")
    assert alert["acknowledged_by"] == ME
    assert run("alerts", "ack", "999", fails=True).startswith("ingest: ")
    assert "Not acknowledged any more: No worker is alive." in run("alerts", "unack", number)
    assert one(engine, "SELECT acknowledged_at FROM alerts") is None
    assert run("alerts", "unack", "999", fails=True).startswith("ingest: ")
    with running() as server:
        monkeypatch.setenv("SLACK_URL", server.url)
        told = tmp_path / "alerts.toml"
        told.write_text('[channels.team]\nkind = "slack"\nurl_env = "SLACK_URL"\n')
        monkeypatch.setenv("INGEST_ALERTS", str(told))
        assert run("alerts", "test", "team", "--json") == [
            {"channel": "team", "is_taken": True, "answer": "HTTP 200: ok"}
        ]
    assert "FAILED" in run("alerts", "test", fails=True)
    assert recorded(engine) == [
        (ME, "command line", "acknowledge", "no_worker", "starting one"),
        (ME, "command line", "unacknowledge", "no_worker", None),
        (ME, "command line", "test alert", "team, sent", None),
        (ME, "command line", "test alert", "team, failed", None),
    ]
