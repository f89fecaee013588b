"""Applications in any language are told of events: signed, retried, dead and replayed as for any
processor, with an id that stays the same."""

import base64
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.acceptance.harness import Stack, request
from tests.support.deliver import body, order
from tests.support.http_taker import Taker, running
from tests.support.servers.setups import installed
from tests.support.signing import signed_headers
from tests.support.waiting import until

MakeStack = Callable[..., Stack]
PATIENCE_S = 300.0
"""How long a test waits, on whatever machine."""

APPLICATION = Path(__file__).parents[1] / "standardwebhooks"
SECRET, OLDER = ("whsec_" + base64.b64encode(bytes([part] * 32)).decode() for part in (1, 2))
DESCRIBED = """
[[destination]]
name = "crm"
url_env = "CRM_URL"
types = ["order.*"]
secrets_env = "CRM_SECRETS"
headers = {{ x-shop = "riyadh" }}
headers_env = {{ authorization = "CRM_TOKEN" }}
allow_http = true
allow_private = true
retry_base_s = 0.2
retry_max_delay_s = 0.5
max_attempts = 1000
{more}
"""


@pytest.fixture
def taker() -> Iterator[Taker]:
    with running() as server:
        yield server


@pytest.fixture
def forwarding(make_stack: MakeStack, tmp_path: Path) -> Callable[..., Stack]:
    """Stacks whose workers forward orders to an address."""

    def make(url: str, more: str = "") -> Stack:
        file = tmp_path / "sources.toml"
        file.write_text(DESCRIBED.format(more=more))
        stack = make_stack(sources=str(file), read_model="false", concurrency="1")
        stack.environment |= {
            "CRM_URL": url,
            "CRM_SECRETS": f"{SECRET},{OLDER}",
            "CRM_TOKEN": "Bearer of-the-tests",
        }
        stack.receiver()
        stack.worker()
        stack.relay()
        return stack

    return make


class Application:
    """The Node application, and what it has told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.told: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(json.loads(line))

    def of(self, what: str) -> list[Any]:
        return [line[what] for line in list(self.told) if what in line]


@contextmanager
def node_application(secret: str) -> Iterator[Application]:
    node = shutil.which("node")
    program = installed(Path(node) if node else None, "Node.js")
    installed(APPLICATION / "node_modules/standardwebhooks", "the npm package standardwebhooks")
    command = [str(program), str(APPLICATION / "application.js"), secret]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Application(process)
        finally:
            process.kill()


def test_the_events_of_an_endpoint_that_is_down_wait_and_spend_nothing(
    forwarding: Callable[..., Stack], taker: Taker
) -> None:
    taker.status, taker.headers = 503, {"retry-after": "1"}
    stack = forwarding(taker.url, "[destination.breaker]\nafter = 4\nprobe_every_s = 0.3")
    stack.post_all(order(number) for number in range(40))
    until(
        lambda: stack.value("SELECT coalesce(max(probes), 0) FROM breakers") >= 2,
        what="it is probed",
    )
    taker.status, taker.headers = 200, {}
    stack.wait_until_idle()
    probes = stack.logs().count("breaker_probes")
    spent = "SELECT count(*) FROM attempts WHERE outcome = 'failed'"
    assert stack.value(spent) == 4 + probes - 1
    assert stack.value("SELECT error_type FROM breakers") == "RefusedUntil"
    assert stack.stats()["jobs"]["dead"] == 0
    assert stack.stats()["jobs"]["succeeded"] == 40


def test_a_node_application_that_fails_half_of_the_time_gets_everything(
    forwarding: Callable[..., Stack],
) -> None:
    with node_application(OLDER) as application:
        until(lambda: application.of("port"), what="the application listens")
        stack = forwarding(f"http://127.0.0.1:{application.of('port')[0]}/hooks")
        stack.post_all(order(number, total=12.5) for number in range(60))
        until(
            lambda: len(set(application.of("taken"))) == 60,
            what="everything has arrived",
            timeout_s=PATIENCE_S,
        )
        stack.wait_until_idle()
    assert set(application.of("taken")) == {f"order.created:{number}" for number in range(60)}
    assert not application.of("refused")
    failed, answered = len(application.of("failed")), len(application.of("taken"))
    assert abs(failed - answered) <= 1
    counts = stack.stats()["jobs"]
    assert (counts["succeeded"], counts["dead"]) == (60, 0)


def test_a_node_application_that_fails_half_of_the_time_gets_each_keys_events_in_order(
    forwarding: Callable[..., Stack],
) -> None:
    with node_application(OLDER) as application:
        until(lambda: application.of("port"), what="the application listens")
        address = f"http://127.0.0.1:{application.of('port')[0]}/hooks"
        stack = forwarding(address, 'ordered_by = "customer_id"\n')
        posted = [order(number, customer_id=number % 6) for number in range(60)]
        stack.post_all(posted, connections=1)
        until(
            lambda: len(set(application.of("taken"))) == 60,
            what="everything has arrived",
            timeout_s=PATIENCE_S,
        )
        stack.wait_until_idle()
    for customer in range(6):
        expected = [f"order.created:{number}" for number in range(customer, 60, 6)]
        assert [name for name in application.of("taken") if name in expected] == expected
    assert application.of("failed")
    assert stack.value("SELECT count(*) FROM ordered_jobs") == 0


def wait_for(stack: Stack, number: int, *states: str) -> dict[str, Any]:
    """The job of an order once it is in one of the states."""

    def job() -> dict[str, Any]:
        (found,) = stack.show(f"order.created:{number}")["jobs"]
        return dict(found)

    until(
        lambda: stack.value(
            "SELECT count(*) FROM jobs j JOIN events e ON e.id = j.event"
            " WHERE e.event_id = :name AND j.state = ANY(:states)",
            name=f"order.created:{number}",
            states=list(states),
        ),
        what=f"order {number} is {states}",
        timeout_s=PATIENCE_S,
    )
    return job()


def test_a_request_is_as_documented_and_has_one_id_in_every_attempt_and_replay(
    forwarding: Callable[..., Stack], taker: Taker
) -> None:
    taker.status, taker.answer = 500, b"no\x00t now: Bearer of-the-tests <b>" + b"x" * 5000
    stack = forwarding(taker.url)
    stack.post(order(7, total=12.5))
    stack.post(body("conversation.created", {"conversation_id": 1}))
    until(lambda: len(taker.taken) >= 2, what="it is tried again", timeout_s=PATIENCE_S)
    taker.status = 204
    job = wait_for(stack, 7, "succeeded")
    stack.command("replay", "order.created:7", "--all-jobs")
    until(lambda: job["attempts"][-1]["number"] < int(taker.taken[-1][0]["webhook-attempt"]))
    wait_for(stack, 7, "succeeded")

    event = stack.show("order.created:7")
    for headers, sent in taker.taken:
        assert headers["webhook-id"] == f"{event['id']}:crm"
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"].startswith("webhook-ingest/")
        assert (headers["x-shop"], headers["authorization"]) == ("riyadh", "Bearer of-the-tests")
        for secret in (SECRET, OLDER):  # rotated: each receiver has one of them
            assert Webhook(secret).verify(sent, headers)["event_id"] == "order.created:7"
    document = json.loads(taker.taken[0][1])
    assert {name: value for name, value in document.items() if name != "received_at"} == {
        "id": event["id"],
        "type": "order.created",
        "source": "awalchat",
        "event_id": "order.created:7",
        "occurred_at": document["occurred_at"],
        "is_edited": False,
        "data": json.loads(event["body"])["data"],
    }
    numbers = [int(headers["webhook-attempt"]) for headers, _ in taker.taken]
    assert numbers == list(range(1, len(numbers) + 1))
    failed = job["attempts"][0]
    assert failed["error_type"] == "RefusedByDestination"
    assert failed["error_message"].startswith("HTTP 500: not now: … <b>xxx")
    assert len(failed["error_message"]) < 250
    assert stack.value("SELECT count(*) FROM jobs") == 1
    assert "not now" not in stack.logs()
    assert "of-the-tests" not in stack.logs()


def test_answers_that_say_what_follows_are_obeyed(
    forwarding: Callable[..., Stack], taker: Taker
) -> None:
    taker.status, taker.answer = 410, b"unsubscribed"
    stack = forwarding(taker.url)
    stack.post(order(1))
    gone = wait_for(stack, 1, "dead")
    assert [attempt["outcome"] for attempt in gone["attempts"]] == ["discarded"]
    assert gone["attempts"][0]["error_message"] == "HTTP 410: unsubscribed"

    taker.status, taker.headers = 503, {"retry-after": "3600"}
    stack.post(order(2))
    later = wait_for(stack, 2, "retrying")
    assert [attempt["outcome"] for attempt in later["attempts"]] == ["failed"]
    wait_s = stack.value(
        "SELECT extract(epoch FROM next_attempt_at - now()) FROM jobs WHERE state = 'retrying'"
    )
    assert 3_000 < wait_s <= 3_600

    taker.status, taker.headers = 302, {"location": taker.url}
    stack.post(order(3))
    moved = wait_for(stack, 3, "retrying")
    assert moved["attempts"][0]["error_message"] == "HTTP 302: redirects are not followed"


def test_no_transaction_is_open_while_an_answer_is_awaited(
    forwarding: Callable[..., Stack], taker: Taker
) -> None:
    taker.free.clear()
    stack = forwarding(taker.url, "timeout_s = 300")
    stack.post_all(order(number) for number in range(8))
    until(lambda: taker.taken, what="a request waits for its answer")
    until(  # that of a claim, say, may be open for a moment
        lambda: (
            not stack.query(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
                " AND backend_type = 'client backend'"
            )
        ),
        what="no transaction is open",
    )
    assert stack.value("SELECT count(*) FROM jobs WHERE state = 'running'") >= 1
    assert stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 0
    taker.free.set()
    stack.wait_until_idle()
    assert stack.stats()["jobs"]["succeeded"] == 8


def test_a_raw_body_is_forwarded_as_the_sender_sent_it(
    forwarding: Callable[..., Stack], taker: Taker
) -> None:
    stack = forwarding(taker.url, 'body = "raw"')
    sent = b'{  "kept": 1.50,' + order(5).lstrip()[1:]
    headers = signed_headers(sent) | {"Content-Type": "application/json; charset=utf-8"}
    assert request(stack.ports[0], "POST", "/webhooks/awalchat", sent, headers).status == 200
    wait_for(stack, 5, "succeeded")
    (headers, forwarded), *more = taker.taken
    assert (forwarded, more) == (sent, [])
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert Webhook(SECRET).verify(forwarded, headers)["kept"] == 1.5


def test_a_destination_is_listed_and_tried_and_never_shows_a_secret(
    forwarding: Callable[..., Stack], taker: Taker
) -> None:
    stack = forwarding(taker.url)
    listed = json.loads(stack.command("destinations", "list", "--json"))
    assert listed["name"] == "crm"
    assert listed["host"] == f"127.0.0.1:{taker.server_port}"
    assert listed["secrets"] == 2
    told = stack.command("destinations", "test", "crm")
    assert "HTTP 200: ok" in told
    (headers, sent), *_ = taker.taken
    assert Webhook(SECRET).verify(sent, headers)["type"].startswith("order.")
    assert headers["webhook-id"].startswith("test_")
    taker.status = 500
    assert "HTTP 500" in stack.command("destinations", "test", "crm", ok=False)

    until(lambda: stack.value("SELECT count(*) FROM processors"), what="it is registered")
    stack.console()
    shown = stack.ask("/processors").body.decode().replace("<wbr>", "")
    assert f"127.0.0.1:{taker.server_port}" in shown
    (processor,) = stack.ask("/api/v1/processors").json["items"]
    assert processor["destination"] == f"127.0.0.1:{taker.server_port}"
    everything = "".join([told, shown, json.dumps(listed), stack.logs(), json.dumps(processor)])
    for secret in (SECRET, OLDER, "of-the-tests", "/services/T0/SECRET"):
        assert secret not in everything


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"CRM_SECRETS": ""}, "The destination crm: CRM_SECRETS: it is not set."),
        ({"CRM_SECRETS": "short"}, "crm: CRM_SECRETS: secret 1 is shorter than 32 characters."),
        ({"CRM_URL": "ftp://x"}, "crm: CRM_URL: this must be an address of the form https://"),
    ],
)
def test_a_worker_does_not_start_without_what_a_destination_needs(
    make_stack: MakeStack, tmp_path: Path, changed: dict[str, str], sentence: str
) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(DESCRIBED.format(more=""))
    stack = make_stack(sources=str(file))
    given = {"CRM_URL": "http://127.0.0.1:9", "CRM_SECRETS": SECRET, "CRM_TOKEN": "t"}
    stack.environment |= given | changed
    assert sentence in stack.command("worker", ok=False)


def listening(stack: Stack, *arguments: str) -> subprocess.Popen[bytes]:
    """`ingest listen`, which Ctrl-C reaches wherever the tests run."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return stack.start("listen", *arguments, "--json")
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_events_are_forwarded_to_a_developers_machine_and_no_work_is_made(
    make_stack: MakeStack, taker: Taker
) -> None:
    stack = make_stack(read_model="false")
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.post_all([order(1), body("conversation.created", {"conversation_id": 1})])
    until(lambda: stack.value("SELECT count(*) FROM events") == 2, what="both are events")
    listener = listening(stack, "type:order.*", "--forward", taker.url, "--since", "1h")

    def told() -> list[dict[str, Any]]:
        """What it has printed, in whole lines."""
        lines = next(stack.folder.glob("listen-*.log")).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "\n"]

    until(lambda: len(told()) == 1, what="what was received is told", timeout_s=PATIENCE_S)
    taker.status = 500
    stack.post_all([order(2), body("conversation.created", {"conversation_id": 2}), order(3)])
    until(lambda: len(told()) == 3, what="those that are received are told", timeout_s=PATIENCE_S)
    listener.send_signal(signal.SIGINT)
    assert listener.wait(PATIENCE_S) == 0

    log = next(stack.folder.glob("listen-*.log")).read_text()
    assert len(taker.taken) == 3
    secret = log.split("Signed with ")[1].split()[0]
    for headers, sent in taker.taken:
        event = Webhook(secret).verify(sent, headers)
        assert headers["webhook-id"] == f"{event['id']}:listen"
    by_id = {line["event_id"]: line for line in told()}
    assert {name: line["taken"] for name, line in by_id.items()} == {
        "order.created:1": True,
        "order.created:2": False,
        "order.created:3": False,
    }
    assert by_id["order.created:2"]["answer"].startswith("500 in ")
    assert len(told()) == 3
    assert log.endswith("Stopped.\n")
    assert stack.value("SELECT count(*) FROM jobs") == 0
    recorded = stack.query("SELECT action, target FROM actions")
    assert recorded == [{"action": "listen", "target": "type:order.*"}]
