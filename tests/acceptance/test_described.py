"""A source from a file works everywhere, without a line of Python."""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.harness import Stack, request
from tests.support.waiting import until

SECRET = "a_secret_of_the_tests_0123456789"
SOURCES = """
[hub]
preset = "github"

[bot]
preset = "telegram"
secrets_env = "BOT"
"""
PROCESSORS = """
from workers import processor

@processor("issues.opened")
def note(event, db):
    assert (event.type, event.source) == ("issues.opened", "hub")
"""


def test_what_it_describes_is_received_worked_on_listed_and_sent(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    (tmp_path / "of_the_user.py").write_text(PROCESSORS)
    (tmp_path / "sources.toml").write_text(SOURCES)
    stack = make_stack(
        sources=str(tmp_path / "sources.toml"), hub_secrets=SECRET, processors="of_the_user"
    )
    stack.environment |= {"PYTHONPATH": str(tmp_path), "BOT": SECRET}
    stack.receiver()
    stack.worker()
    stack.relay()
    body = b'{"action":"opened","issue":{"number":1}}'
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-Hub-Signature-256": f"sha256={digest}",
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": "g-1",
    }
    for _ in range(2):
        assert request(stack.ports[0], "POST", "/webhooks/hub", body, headers).status == 200
    assert request(stack.ports[0], "POST", "/webhooks/hub", body + b" ", headers).status == 401
    url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/bot"
    stack.command("send", "message", "--source", "bot", "--url", url, "--count", "3")
    sentence = stack.command("send", "other", "--source", "bot", "--url", url, ok=False)
    assert "There is no sample of other: there are message" in sentence

    def listed() -> list[dict[str, str]]:
        said = stack.command("events", "list", "--json")
        return [json.loads(line) for line in said.splitlines()]

    until(lambda: len(listed()) == 4, what="the events are admitted")
    stack.wait_until_idle()
    (event,) = [event for event in listed() if event["source"] == "hub"]
    assert (event["event_id"], event["state"]) == ("issues.opened:g-1", "succeeded")
    sources = [json.loads(line) for line in stack.command("sources", "--json").splitlines()]
    assert [source["source"] for source in sources][-2:] == ["hub", "bot"]
