"""Traces from real processes, at a stand-in for a collector."""

import json
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance import traced_processors
from tests.acceptance.harness import Answer, Stack, request
from tests.support.deliver import body, order
from tests.support.otlp import Collector, TakenSpan, collector
from tests.support.rows import execute
from tests.support.signing import signed_headers
from tests.support.waiting import ENDS_WITHIN_S, until

MakeStack = Callable[..., Stack]
PHONE = "966512345678"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SENDER}-01", "tracestate": "shop=1"}
"""Far more than any process takes to end."""
REQUEST = "POST /webhooks/{source}"


@pytest.fixture
def taking() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture
def make_traced(make_stack: MakeStack) -> MakeStack:
    """Stacks that send their spans soon to a collector, all of them unless a ratio is given."""

    def make(url: str, *, ratio: str = "1", **environment: str) -> Stack:
        stack = make_stack(
            traces="true", processors="traced_processors", read_model="false", **environment
        )
        stack.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_TRACES_SAMPLER_ARG": ratio,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        shutil.copy(traced_processors.__file__, stack.folder)
        execute(stack.engine, "CREATE TABLE effects (what text, event text)")
        return stack

    return make


def post(stack: Stack, content: bytes, **headers: str) -> Answer:
    """Post a body, signed now, with more headers."""
    signed = signed_headers(content) | headers
    return request(stack.ports[0], "POST", "/webhooks/awalchat", content, signed)


def below(spans: list[TakenSpan], parent: TakenSpan) -> set[str]:
    """The names of what stands right below a span."""
    return {span.name for span in spans if span.parent == parent.id}


def test_one_trace_goes_from_the_senders_span_to_the_effect_and_names_nobody(
    make_traced: MakeStack, taking: Collector
) -> None:
    stack = make_traced(taking.url)
    stack.receiver()
    stack.worker()
    assert post(stack, order(1, phone=PHONE), **SAMPLED).status == 200
    stack.wait_until_idle()
    taking.wait_for("process queues")
    taking.wait_for("process records")
    spans = taking.spans()
    assert {span.trace for span in spans} == {TRACE}
    assert {span.state for span in spans} == {"shop=1"}
    (received,) = taking.spans(REQUEST)
    assert (received.parent, received.kind, received.service) == (
        SENDER,
        "SERVER",
        "ingest-receiver",
    )
    assert received.attributes["http.response.status_code"] == 200
    assert received.attributes["http.route"] == "/webhooks/{source}"
    assert below(spans, received) == {
        "INSERT deliveries",
        "send events",
        "admit events",
        "process records",
        "process queues",
        "send apart",
    }
    (attempt,) = taking.spans("process records")
    assert attempt.attributes["ingest.outcome"] == "succeeded"
    assert attempt.attributes["messaging.message.id"] == received.attributes["ingest.delivery.id"]
    assert below(spans, attempt) == {"INSERT", "SELECT", "COMMIT"}
    (statement,) = taking.spans("SELECT")
    assert statement.attributes["db.query.text"] == "SELECT ? AS phone, ?"
    assert stack.value("SELECT what FROM effects WHERE what <> 'queued'") == PHONE
    assert PHONE.encode() not in taking.raw
    assert b"order_id" not in taking.raw


def test_a_retry_begins_a_trace_that_links_the_attempt_before_and_the_request(
    make_traced: MakeStack, taking: Collector
) -> None:
    stack = make_traced(taking.url)
    (stack.folder / "broken").touch()
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.post(order(1, phone=PHONE))
    taking.wait_for("process records", 2)
    (stack.folder / "broken").unlink()
    stack.wait_until_idle()
    taking.wait_for("process records", stack.value("SELECT max(attempt) FROM jobs"))
    attempts = sorted(
        taking.spans("process records"), key=lambda span: span.attributes["ingest.attempt"]
    )
    (received,) = taking.wait_for(REQUEST)
    first, second, *_ = attempts
    assert (first.trace, first.parent) == (received.trace, received.id)
    assert (first.is_error, first.attributes["error.type"]) == (True, "ValueError")
    assert len({attempt.trace for attempt in attempts}) == len(attempts)
    assert (second.parent, second.links) == ("", (first.id, received.id))
    sent = until(
        lambda: [span for span in taking.spans("send events.overdue") if span.trace == second.trace]
    )
    assert {span.service for span in sent} == {"ingest-relay"}
    assert PHONE.encode() not in taking.raw


def test_a_list_has_one_span_with_its_statements_and_a_link_to_each_attempt(
    make_traced: MakeStack, taking: Collector
) -> None:
    stack = make_traced(taking.url)
    stack.receiver()
    stack.post_all([body("contact.created", {"contact_id": number}) for number in range(30)])
    stack.worker()
    stack.wait_until_idle()
    attempts = {span.id: span for span in taking.wait_for("process lists", 30)}
    batches = taking.wait_for("process lists batch")
    requests = {span.id: span.trace for span in taking.wait_for(REQUEST, 30)}
    assert {span.parent: span.trace for span in attempts.values()} == requests
    assert sorted(link for batch in batches for link in batch.links) == sorted(attempts)
    assert len(batches) < 30
    for batch in batches:
        assert batch.attributes["messaging.batch.message_count"] == len(batch.links)
        assert batch.parent == batch.links[0]
        assert below(taking.spans(), batch) == {"INSERT"}


def test_what_is_not_sampled_makes_no_span_and_leaves_nothing_with_its_delivery(
    make_traced: MakeStack, taking: Collector
) -> None:
    stack = make_traced(taking.url, ratio="0")
    stack.receiver()
    stack.worker()
    stack.post_all([order(number) for number in range(20)])
    unsampled = SAMPLED | {"traceparent": f"00-{'ab' * 16}-{SENDER}-00"}
    post(stack, order(20), **unsampled)
    post(stack, order(21), **SAMPLED)  # its sender wants it
    stack.wait_until_idle()
    taking.wait_for("process records")
    assert {span.trace for span in taking.spans()} == {TRACE}
    kept = [
        dict(row["headers"]).get("traceparent", "-")
        for row in stack.query("SELECT headers FROM deliveries ORDER BY id")
    ]
    assert kept[:20] == ["-"] * 20
    assert kept[20].startswith(f"00-{'ab' * 16}-")
    assert kept[20].endswith("-00")
    assert kept[21].endswith("-01")


def test_a_stranger_makes_no_span_and_what_is_no_event_tells_its_refusal(
    make_traced: MakeStack, taking: Collector
) -> None:
    stack = make_traced(taking.url)
    stack.receiver()
    wrong = {"x-awal-webhook-signature": "0" * 64}
    assert post(stack, order(1), **SAMPLED, **wrong).status == 401
    assert stack.post(b'{"event": 1}').status == 400
    (received,) = taking.wait_for(REQUEST)
    assert received.trace != TRACE
    assert received.attributes["http.response.status_code"] == 400
    assert not received.is_error


def silent() -> socket.socket:
    """A collector that takes connections and never answers."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def test_a_silent_collector_delays_no_answer_no_effect_and_no_end(
    make_traced: MakeStack,
) -> None:
    with silent() as listener:
        stack = make_traced(f"http://127.0.0.1:{listener.getsockname()[1]}")
        stack.environment["OTEL_BSP_MAX_QUEUE_SIZE"] = "16"
        receiver, worker = stack.receiver(), stack.worker()
        answers = stack.post_all([order(number) for number in range(100)])
        assert {answer.status for answer in answers} == {200}
        stack.wait_until_idle()
        assert stack.value("SELECT count(*) FROM effects") == 200
        for process in (receiver, worker):
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(ENDS_WITHIN_S) == 0, stack.logs()[-3000:]
            assert time.monotonic() - began < 100  # tests/unit/test_trace_parts.py: its bound
    told = [json.loads(line) for line in stack.logs().splitlines() if "spans_dropped" in line]
    assert {line["reason"] for line in told} & {"queue_full", "collector_fails"}
    assert "process_ends" in {line["reason"] for line in told}


def test_the_end_of_a_process_sends_what_waits(make_traced: MakeStack, taking: Collector) -> None:
    stack = make_traced(taking.url, concurrency="3")
    stack.environment["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    receiver, worker = stack.receiver(), stack.worker()
    stack.post_all([order(number) for number in range(60)])
    stack.wait_until_idle()
    assert taking.spans("process records") == []
    for process in (receiver, worker):
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_WITHIN_S) == 0
    assert len(taking.spans(REQUEST)) == 60
    assert len(taking.spans("process records")) == 60  # of all three forks
    assert len(taking.spans("process queues")) == 60


PARTS = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter",
    "sentry_sdk",
    "ingest.tracing.spans",
    "ingest.sentry.client",
    "workers.tracing.attempts",
)
"""What traces and reports are made with. (redis-py imports `opentelemetry.sdk.metrics` by itself,
where it is installed.)"""
_TELLING = """
import atexit, os, pathlib, sys
def tell():
    pathlib.Path(f"modules-{os.getpid()}").write_text(" ".join(sys.modules))
atexit.register(tell)
"""
_PROCESSOR = """
from pathlib import Path
import sys
from workers import processor

@processor("order.created", name="tells")
def tells(event, db):
    Path("modules-child").write_text(" ".join(sys.modules))
"""


def imported(stack: Stack) -> list[set[str]]:
    """Which of the parts each process has imported."""
    files = list(stack.folder.glob("modules-*"))
    assert len(files) >= 4  # receiver, worker, relay, and a process of the pool
    return [{part for part in PARTS if part in path.read_text().split()} for path in files]


def test_while_it_is_off_no_process_imports_it_and_no_delivery_carries_it(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(processors="telling", read_model="false")
    (stack.folder / "telling.py").write_text(_PROCESSOR)
    site = stack.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_TELLING)
    stack.environment |= {"PYTHONPATH": str(site), "OTEL_TRACES_SAMPLER": "always_on"}
    processes = [stack.receiver(), stack.worker(), stack.relay()]
    post(stack, order(1), **SAMPLED)
    stack.wait_until_idle()
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_WITHIN_S) == 0
    assert not any(imported(stack))
    assert "traceparent" not in stack.value("SELECT headers::text FROM deliveries")
