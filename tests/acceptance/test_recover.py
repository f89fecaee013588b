"""`ingest recover` asks for what was missed: a stand-in for GitHub sends it again, and it comes."""

import hashlib
import hmac
import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.cli import main
from ingest.sources import registry
from tests.acceptance.harness import Stack, request
from tests.support.github import HOOK, TOKEN, Github, standing_in
from tests.support.ports import free_port

SECRET = "a_secret_of_the_tests_0123456789"
SOURCES = """
[hub]
preset = "github"

[hub.recover]
url = "{url}"
hooks = "{hook}"
token_env = "HUB_TOKEN"
"""


@pytest.fixture
def github() -> Iterator[Github]:
    with standing_in() as github:
        yield github


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path, github: Github) -> Stack:
    (tmp_path / "sources.toml").write_text(SOURCES.format(url=github.url, hook=HOOK))
    stack = make_stack(sources=str(tmp_path / "sources.toml"), hub_secrets=SECRET)
    stack.environment["HUB_TOKEN"] = TOKEN
    return stack


def sender_to(port: Callable[[], int]) -> Callable[[dict[str, Any]], int]:
    """Return what sends a delivery as GitHub does, and returns the status that it counts."""

    def send(attempt: dict[str, Any]) -> int:
        body = json.dumps({"action": attempt["action"], "guid": attempt["guid"]}).encode()
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "X-Hub-Signature-256": f"sha256={digest}",
            "X-GitHub-Event": attempt["event"],
            "X-GitHub-Delivery": attempt["guid"],
        }
        try:
            return request(port(), "POST", "/webhooks/hub", body, headers).status
        except OSError:
            return 502

    return send


@pytest.fixture
def recover(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs the command in this process, which is a second faster than in one of its own."""
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)

    def run(*options: str) -> dict[str, Any]:
        capsys.readouterr()
        command = ["ingest", "recover", "hub", "--json", "--rate", "100", *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert not ended.value.code
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {name: told[name] for name in ("failed", "known", "asked")}

    yield run
    registry.use({})


def test_what_was_missed_is_sent_again_and_what_is_here_is_not_asked_for(
    stack: Stack, github: Github, recover: Callable[..., dict[str, Any]]
) -> None:
    send = sender_to(lambda: stack.ports[-1])
    closed = sender_to(free_port)
    for guid in ("missed-1", "missed-2"):
        issue = {"event": "issues", "action": "opened", "guid": guid}
        github.attempt(guid, closed(issue))
    github.attempt("missed-3", 502, event="push", action=None, ago=timedelta(hours=20))
    stack.receiver()
    slow = {"event": "issues", "action": "closed", "guid": "slow"}
    assert send(slow) == 200
    github.attempt("slow", 504, action="closed")  # the answer came after GitHub's ten seconds
    github.send = send
    assert recover("--since", "12h") == {"failed": 3, "known": 1, "asked": 2}
    assert sorted(github.redelivered) == ["missed-1", "missed-2"]
    assert recover() == {"failed": 2, "known": 1, "asked": 1}
    assert github.redelivered[2:] == ["missed-3"]
    rows = stack.query("SELECT event_id FROM unadmitted ORDER BY event_id")
    assert [row["event_id"] for row in rows] == [
        "issues.closed:slow",
        "issues.opened:missed-1",
        "issues.opened:missed-2",
        "push:missed-3",
    ]
    assert TOKEN not in stack.logs()
