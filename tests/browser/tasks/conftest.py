"""A shop in which the tasks are done: everything runs, and somebody is told of alerts."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from ingest.alerts.catalogue import RULES
from tests.acceptance.harness import Stack
from tests.browser.tasks import task_processors
from tests.browser.tasks.counting import Counted, Hand
from tests.conftest import Servers, cloned
from tests.support.http_taker import Taker, running
from tests.support.redis_client import connect
from tests.support.rows import execute
from tests.support.waiting import end, until

ALERTS = """
interval_s = 0.2
throttle_s = 0
[channels.team]
kind = "slack"
url_file = "slack_url"
rules = ["dead_letters"]
""" + "".join(f"[rules.{slug}]\nenabled = false\n" for slug in RULES if slug != "dead_letters")


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Everything, and what it tells."""

    stack: Stack
    slack: Taker
    github_secrets: Path
    """The file with the secrets of the source `github`."""
    workers: list[Popen[bytes]]
    """The worker that runs, as the last."""

    def post(self, *bodies: bytes) -> None:
        """Have events arrive and be worked on."""
        answers = self.stack.post_all(bodies)
        assert {answer.status for answer in answers} == {200}
        self.stack.wait_until_idle()

    def begin_without_failures(self) -> None:
        """Have no dead letter of another test in a list that this test walks through by keys."""
        dead = "state = 'dead' AND discarded_at IS NULL"
        execute(self.stack.engine, f"UPDATE jobs SET discarded_at = now() WHERE {dead}")

    def deploy(self, module: str) -> None:
        """Replace the worker by one that has a further module of processors."""
        end(self.workers[-1])
        self.workers.append(self.stack.worker(processors=f"task_processors,{module}"))


def body(event_type: str, **data: Any) -> bytes:
    """What the shop's sender posts."""
    return json.dumps({"event": event_type, "data": data}, ensure_ascii=False).encode()


def order(number: int, **more: Any) -> bytes:
    """A new order."""
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": ""}
    return body("order.created", **(data | more))


@pytest.fixture(scope="module")
def shop(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """Everything, started once for a file's tests."""
    with connect(servers.redis_url) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("tasks")
    secrets = folder / "github_secrets"
    secrets.write_text("the_first_secret_of_GitHub")
    with cloned(servers, template) as url, running() as slack:
        (folder / "slack_url").write_text(slack.url)
        (folder / "alerts.toml").write_text(ALERTS)
        (folder / "sources.toml").write_text('[github]\npreset = "github"\n')
        shutil.copy(task_processors.__file__, folder)
        stack = Stack(
            url,
            servers.redis_url,
            folder,
            processors="task_processors",
            alerts=str(folder / "alerts.toml"),
            sources=str(folder / "sources.toml"),
            github_secrets_file=str(secrets),
        )
        try:
            stack.receiver()
            workers = [stack.worker()]
            stack.relay()
            stack.console()
            registered = "SELECT count(*) FROM processors WHERE name LIKE 'crm_%'"
            until(lambda: stack.value(registered) == 2, what="the worker has registered")
            yield Shop(stack=stack, slack=slack, github_secrets=secrets, workers=workers)
        finally:
            stack.close()


@pytest.fixture(params=["mouse", "keyboard"])
def hand(request: pytest.FixtureRequest) -> Hand:
    """What somebody uses."""
    chosen: Hand = request.param
    return chosen


@pytest.fixture
def page(browser: Browser, shop: Shop) -> Iterator[Page]:
    """A page of the console. What its scripts throw fails the test."""
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{shop.stack.console_port}",
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
        timezone_id="Asia/Riyadh",
        locale="en-GB",
    )
    opened = context.new_page()
    thrown: list[str] = []
    opened.on("pageerror", lambda error: thrown.append(str(error)))
    yield opened
    context.close()
    assert not thrown


@pytest.fixture
def counted(page: Page, hand: Hand) -> Counted:
    """The page, with what is done to it counted."""
    return Counted(page, hand)
