"""A service is down for a while, under load: attempts spent are those that opened the breaker and
the probes, nothing dies, and all of it arrives. `python3 dev.py outage` takes ten minutes of it."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.acceptance import crm_processors
from tests.acceptance.crm_processors import AFTER
from tests.acceptance.harness import Stack
from tests.support.deliver import order
from tests.support.ports import free_port
from tests.support.waiting import until

DOWN_S = float(os.environ.get("OUTAGE_S", "4"))
RATE = int(os.environ.get("OUTAGE_RATE", "50"))
PROBE_EVERY_S = float(os.environ.get("OUTAGE_PROBE_EVERY_S", "0.5"))
_SPENT = "SELECT count(*) FROM attempts WHERE outcome IN ('failed', 'timed_out', 'lost')"
_UNSPENT = "SELECT count(*) FROM attempts WHERE outcome = 'released'"


class Service:
    """An HTTP service that can be away: its port then refuses connections."""

    def __init__(self) -> None:
        self.port = free_port()
        self.arrived: set[str] = set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/orders"

    def up(self) -> None:
        arrived = self.arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arrived.add(self.rfile.read(int(self.headers["content-length"])).decode())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    service.up()
    yield service
    service.down()


def test_an_outage_spends_the_attempts_that_opened_the_breaker_and_the_probes(
    make_stack: Callable[..., Stack], service: Service
) -> None:
    stack = make_stack(processors="crm_processors", read_model="false", concurrency="1")
    shutil.copy(crm_processors.__file__, stack.folder)
    stack.environment |= {
        "CRM_URL": service.url,
        "CRM_PROBE_EVERY_S": str(PROBE_EVERY_S),
    }
    stack.receiver()
    stack.worker()
    stack.worker()
    stack.relay()
    stack.post_all(order(n) for n in range(RATE))
    until(lambda: len(service.arrived) == RATE, what="the service is told")
    assert stack.value(_SPENT) == 0

    service.down()
    sent = RATE + send(stack, first=RATE)
    until(lambda: stack.value("SELECT opened_at FROM breakers"), what="the breaker is open")
    shown = stack.command("processors", "show", "crm")
    assert "the breaker is open, and only probes run" in shown

    until(lambda: stack.value(_SPENT) > AFTER, what="a probe has failed")
    service.up()
    back_at = time.monotonic()
    waited = stack.unfinished()
    until(
        lambda: len(service.arrived) == sent,
        what="all of it has arrived",
        timeout_s=600 + 3 * DOWN_S + PROBE_EVERY_S,
    )
    caught_up_s = time.monotonic() - back_at
    stack.wait_until_idle()
    assert stack.value("SELECT opened_at FROM breakers") is None
    assert stack.stats()["jobs"]["dead"] == 0
    probes = stack.logs().count("breaker_probes")
    spent, unspent = stack.value(_SPENT), stack.value(_UNSPENT)
    print(  # noqa: T201 - the long form shows it
        f"down {DOWN_S:g} s at {RATE}/s: {sent} events; attempts spent {spent} ="
        f" {AFTER} + {probes - 1} probes that failed; released {unspent}; {waited} waited, caught"
        f" up {caught_up_s:.1f} s after the service was back, a probe every {PROBE_EVERY_S:g} s"
    )
    assert probes > 1
    assert spent == AFTER + probes - 1


def send(stack: Stack, *, first: int) -> int:
    """Send at a steady rate for as long as the service is down; return how many."""
    began = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - began) < DOWN_S:
        due = min(int(passed * RATE), int(DOWN_S * RATE)) - sent
        if due:
            stack.post_all((order(first + sent + n) for n in range(due)), connections=8)
            sent += due
        threading.Event().wait(0.1)
    return sent
