"""Each process ends on SIGTERM within its time, and loses and spends nothing: docs/deploying.md."""

import http.client
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.acceptance import slow_processors
from tests.acceptance.harness import Stack, request
from tests.support.deliver import order
from tests.support.rows import execute
from tests.support.servers.debian import accepts
from tests.support.signing import signed_headers
from tests.support.waiting import ENDS_WITHIN_S, until

MakeStack = Callable[..., Stack]
"""Far more than any of them takes."""


def is_unready(port: int) -> bool:
    return request(port, "GET", "/health/ready").status == 503


def post(client: http.client.HTTPConnection, number: int) -> http.client.HTTPResponse:
    body = order(number)
    client.request("POST", "/webhooks/awalchat", body, signed_headers(body))
    answer = client.getresponse()
    answer.read()
    return answer


def test_a_receiver_says_that_it_is_not_ready_and_goes_on_receiving_before_it_ends(
    make_stack: MakeStack,
) -> None:
    stack = make_stack()
    receiver = stack.receiver(shutdown_delay_s="15")
    port = stack.ports[0]
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    assert post(client, 1).getheader("connection") is None
    receiver.send_signal(signal.SIGTERM)
    until(lambda: is_unready(port), what="it says that it ends")
    assert "shuts down" in request(port, "GET", "/health/ready").json["problem"]
    answer = post(client, 2)  # on the connection of before
    assert (answer.status, answer.getheader("connection")) == (200, "close")
    assert stack.post(order(3)).status == 200  # on a new one
    assert receiver.wait(ENDS_WITHIN_S) == 0
    assert stack.value("SELECT count(*) FROM deliveries") == 3


def test_a_receiver_answers_the_request_whose_body_still_comes(make_stack: MakeStack) -> None:
    stack = make_stack()
    receiver = stack.receiver()
    body = order(1)
    client = http.client.HTTPConnection("127.0.0.1", stack.ports[0], timeout=300)
    client.putrequest("POST", "/webhooks/awalchat")
    for name, value in (signed_headers(body) | {"content-length": str(len(body))}).items():
        client.putheader(name, value)
    client.endheaders(body[:10])
    for _ in range(2):  # it has read what had come before, and turns to what came later
        assert request(stack.ports[0], "GET", "/health/live").status == 200
    receiver.send_signal(signal.SIGTERM)
    until(lambda: not accepts(stack.ports[0]), what="it takes no new connection")
    client.send(body[10:])
    assert client.getresponse().status == 200
    assert receiver.wait(ENDS_WITHIN_S) == 0


def test_a_worker_gives_back_what_takes_longer_than_its_drain_time(make_stack: MakeStack) -> None:
    stack = make_stack(processors="slow_processors", read_model="false", worker_drain_s="0.5")
    shutil.copy(slow_processors.__file__, stack.folder)
    execute(stack.engine, "CREATE TABLE effects (what text, event text)")
    stack.receiver()
    worker = stack.worker(concurrency="2")
    stack.post_all([order(n) for n in range(5)])
    running = "SELECT count(*) FROM jobs WHERE state = 'running' AND processor = 'slow'"
    until(lambda: stack.value(running), what="a slow job runs")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(ENDS_WITHIN_S) == 0, stack.logs()[-3000:]
    assert stack.value(running) == 0
    outcomes = "SELECT DISTINCT outcome FROM attempts WHERE outcome <> 'succeeded'"
    assert [row["outcome"] for row in stack.query(outcomes)] == ["released"]
    assert stack.value("SELECT sum(failures) FROM jobs") == 0
    (stack.folder / "released").touch()
    stack.worker()
    stack.relay()
    stack.wait_until_idle()
    assert stack.value("SELECT count(*) FROM effects WHERE what = 'slow'") == 5


@pytest.mark.parametrize("kind", ["relay", "console"])
def test_a_relay_and_a_console_end_at_once(make_stack: MakeStack, kind: str) -> None:
    stack = make_stack()
    process = getattr(stack, kind)()
    process.send_signal(signal.SIGTERM)
    assert process.wait(ENDS_WITHIN_S) == 0, stack.logs()[-3000:]
