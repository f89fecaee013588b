"""Alerts from end to end: real processes tell a stand-in for Slack, once, and the console takes
over when no relay is left."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Stack
from tests.support.http_taker import Taker, running
from tests.support.waiting import end, until

FILE = """
interval_s = 0.2
throttle_s = 0
[channels.team]
kind = "slack"
url_env = "SLACK_URL"
rules = ["no_worker", "no_relay"]
[rules.no_worker]
for_s = 0
[rules.no_relay]
for_s = 0
"""
NO_WORKER = "Alert: No worker is alive: events are stored, and nobody processes them."
NO_RELAY = "Alert: No relay is alive: retries and lost messages wait."


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Taker]:
    with running() as server:
        monkeypatch.setenv("SLACK_URL", server.url)
        yield server


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path, slack: Taker) -> Iterator[Stack]:
    path = tmp_path / "alerts.toml"
    path.write_text(FILE)
    started = Stack(database_url, redis_url, tmp_path, alerts=str(path))
    yield started
    started.close()


def titles(slack: Taker) -> list[str]:
    """The first lines of what Slack was told."""
    texts = [json.loads(body)["text"] for _, body in list(slack.taken)]
    return [text.partition("\n")[0].strip("*") for text in texts]


def test_processes_tell_what_is_wrong_once_and_that_it_is_over(stack: Stack, slack: Taker) -> None:
    relays = [stack.relay(), stack.relay()]
    stack.console()
    until(lambda: titles(slack) == [NO_WORKER], what="Slack is told")
    assert "team: HTTP 200: ok" in stack.command("alerts", "test")
    (alert,) = (
        each
        for each in map(json.loads, stack.command("alerts", "list", "--json").splitlines())
        if each["rule"] == "no_worker"
    )
    page = stack.ask("/alerts").body.decode()
    assert "No worker is alive" in page
    assert "SECRET" not in page
    answer = stack.tell(f"/alerts/{alert['id']}/acknowledge", {"reason": "starting one"})
    assert (answer.status, answer.json["acknowledged_by"]) == (200, "local")
    log = json.dumps(stack.ask("/api/v1/audit-log").json)
    assert "acknowledge" in log
    assert titles(slack).count(NO_WORKER) == 1  # though two relays have evaluated all the while
    stack.worker()
    until(lambda: "Recovered: A worker is alive again." in titles(slack), what="it is over")
    for relay in relays:
        end(relay)
    until(lambda: NO_RELAY in titles(slack), what="the console takes over")
    assert "SECRET" not in stack.logs()
