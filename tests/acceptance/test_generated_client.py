"""A client that is generated from the API's document does an operator's work, under good names.

The generator has an environment of its own, because it needs other versions than we do:
`python3 -m venv .venv-client`, and there `pip install -r tests/client/requirements.lock`.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ingest.console.auth import credentials
from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack
from tests.conftest import Servers, cloned
from tests.support.deliver import order
from tests.support.redis_client import connect
from tests.support.rows import execute
from tests.support.servers.setups import installed
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
TOKEN = "token_of_the_deploy_script"
CONFIG = "post_hooks: []\n"  # nobody reads the generated code: it need not be formatted


@pytest.fixture(scope="module")
def shop(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack with an order that has failed for good, and one that went well."""
    with connect(servers.redis_url) as client:
        client.flushall()
    with cloned(servers, template) as url:
        stack = Stack(
            url,
            servers.redis_url,
            tmp_path_factory.mktemp("shop"),
            processors="shop_processors",
            console_tokens=f"deploy:operator:{credentials.digest(TOKEN)}",
        )
        try:
            (stack.folder / "shop_processors.py").write_text(
                Path(shop_processors.__file__).read_text()
            )
            execute(stack.engine, "CREATE TABLE effects (what text, event text, attempt integer)")
            for start in (stack.receiver, stack.worker, stack.relay, stack.console):
                start()
            (stack.folder / "broken").touch()
            stack.post_all([order(1, note="fails"), order(2), order(2)])
            stack.wait_until_idle()
            (stack.folder / "broken").unlink()
            yield stack
        finally:
            stack.close()


@pytest.fixture(scope="module")
def generated(shop: Stack) -> Iterator[Any]:
    """The client's package, generated as docs/api.md says."""
    answer = shop.ask("/api/v1/openapi.json", authorization=f"Bearer {TOKEN}")
    document, config = shop.folder / "openapi.json", shop.folder / "client.yaml"
    document.write_bytes(answer.body)
    config.write_text(CONFIG)
    generator = installed(ROOT / ".venv-client/bin/openapi-python-client", "openapi-python-client")
    command = [str(generator), "generate"]
    command += ["--path", str(document), "--config", str(config), "--fail-on-warning"]
    command += ["--output-path", str(shop.folder / "ingest-client")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(shop.folder / "ingest-client"))
    try:
        yield importlib.import_module("ingest_client")
    finally:
        sys.path.remove(str(shop.folder / "ingest-client"))


@pytest.fixture(scope="module")
def api(shop: Stack, generated: Any) -> Iterator[Any]:
    """The client, with an operator's token."""
    address = f"http://127.0.0.1:{shop.console_port}"
    with generated.AuthenticatedClient(base_url=address, token=TOKEN) as client:
        yield client


def call(api: Any, tag: str, name: str, *arguments: Any, **more: Any) -> Any:
    """What an operation returns."""
    module = importlib.import_module(f"ingest_client.api.{tag}.{name}")
    return module.sync(*arguments, client=api, **more)


def model(name: str, *values: Any, **fields: Any) -> Any:
    return getattr(importlib.import_module("ingest_client.models"), name)(*values, **fields)


def test_a_generated_client_does_an_operators_work(shop: Stack, api: Any) -> None:
    listed = call(api, "events", "list_events", limit=1)
    assert (len(listed.items), listed.count.number) == (1, 2)
    rest = call(api, "events", "list_events", limit=1, cursor=listed.next_cursor)
    assert rest.next_cursor is None
    (dead,) = call(api, "events", "list_events", q="state:dead").items
    assert (dead.event_id, dead.state, dead.title) == ("order.created:1", "dead", "Order 1 created")

    known = call(
        api, "events", "get_event_by_sender_id", source="awalchat", event_id="order.created:2"
    )
    assert call(api, "events", "get_event", known.id).type_ == "order.created"
    deliveries = call(api, "events", "list_event_deliveries", known.id).items
    assert [each.is_first for each in deliveries] == [True, False]
    sent = call(api, "deliveries", "get_delivery", deliveries[1].id)
    assert json.loads(sent.body)["data"]["order_id"] == 2

    (group,) = call(api, "failures", "list_failures").items
    found = call(api, "events", "list_events", q=group.query).items
    assert [each.id for each in found] == [dead.id]

    key = str(uuid4())
    replays = [
        call(
            api,
            "events",
            "replay_event",
            dead.id,
            body=model("ReplayInput", reason="the CRM is back"),
            idempotency_key=key,
        )
        for _ in "ab"
    ]
    first, again = (each.bulk_action for each in replays)
    assert first.id == again.id
    ended = until(
        lambda: _ended(call(api, "bulk_actions", "get_bulk_action", first.id)),
        what="the replay ends",
    )
    assert (ended.work.succeeded, ended.reason) == (1, "the CRM is back")
    assert len(call(api, "bulk_actions", "list_bulk_actions").items) == 1
    assert sum(failure.jobs for failure in call(api, "failures", "list_failures").items) == 0

    for change, is_paused in (("pause_processor", True), ("resume_processor", False)):
        call(api, "processors", change, "whims", body=model("ReasonInput", reason="a deploy"))
        day = model("ListProcessorsRange", "day")
        processors = call(api, "processors", "list_processors", range_=day).items
        paused = {each.name for each in processors if each.paused_at}
        assert paused == ({"whims"} if is_paused else set())
    log = call(api, "audit_log", "list_audit_log").items
    assert [each.action for each in log] == ["resume", "pause", "replay"]

    csv = model("ExportEventsForm", "csv")
    exported = call(api, "events", "export_events", q="type:order.*", format_=csv)
    assert exported.count("order.created:") == 2
    refused = call(api, "events", "list_events", q="stat:dead")
    assert refused.error == "bad_query"


def _ended(bulk_action: Any) -> Any:
    return bulk_action if bulk_action.status == "finished" else None
