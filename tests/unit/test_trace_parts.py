"""Parts of traces and reports that need no process: ids, headers, texts, sentences."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from ingest.errors import SettingsError
from ingest.sentry import client
from ingest.sentry import start as sentry
from ingest.settings import load
from ingest.store.pipeline.jobs import Failure, Outcome
from ingest.store.reports.dead_jobs import DeadJob
from ingest.tracing import headers, sending, spans
from ingest.tracing import start as tracing
from ingest.tracing.sending import Sending
from workers.tracing import statements

REQUEST = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
CONTEXT = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("SELECT 1 FROM t1 WHERE a = '966512345678'", "SELECT ? FROM t1 WHERE a = ?"),
        ("SELECT 'it''s 9665', E'a\\'9665', $$9665$$, $x$'9665$x$", "SELECT ?, ?, ?, ?"),
        ("SELECT -9665, 9.665e5 -- 9665\n, /* 9665 */ 2", "SELECT -?, ? , ?"),
        ("UPDATE t SET a = %(p_1)s, b = $1", "UPDATE t SET a = %(p_1)s, b = $1"),
        ("SELECT 'never ends 9665", "SELECT?"),
    ],
)
def test_a_statement_is_sent_without_values(written: str, sent: str) -> None:
    assert statements.without_values(written) == sent


def test_each_attempt_has_ids_of_its_own_that_anybody_computes() -> None:
    places = [spans.place_of_attempt(REQUEST, 5, number) for number in range(1, 4)]
    assert places[0].parent == REQUEST
    assert len({place.span_id for place in places}) == 3
    assert places[2].links[0].span_id == places[1].span_id
    assert places[2].links[0].trace_id == places[1].trace_id
    assert places[1].links[0].trace_id == REQUEST.trace_id
    assert places == [spans.place_of_attempt(REQUEST, 5, number) for number in range(1, 4)]
    assert spans.place_of_attempt(REQUEST, 6, 1).span_id != places[0].span_id


def test_a_context_takes_the_place_of_the_senders_and_nothing_elses() -> None:
    kept = json.dumps([["content-type", "a"], ["traceparent", "old"], ["tracestate", "x=1"]])
    assert headers.carried(kept) == {"traceparent": "old", "tracestate": "x=1"}
    replaced = headers.replaced(kept, CONTEXT)
    assert json.loads(replaced) == [["content-type", "a"], ["traceparent", CONTEXT["traceparent"]]]
    assert headers.carried('[["a", "traceparent"]]') == {}
    twice = json.dumps([["traceparent", "1"], ["traceparent", "2"]])
    assert headers.carried(twice) == {}


def failure(**more: Any) -> Failure:
    given: dict[str, Any] = {
        "id": 1,
        "attempt": 1,
        "outcome": Outcome.FAILED,
        "retry_in_s": None,
        "error_type": "ValueError",
    }
    return Failure(**(given | more))


JOB = DeadJob(1, "records", "order.created")
PLACE = '  File "/app/orders.py", line 3, in total\n    return 966512345678\n'


@pytest.mark.parametrize(
    "message", ["966512345678", 'x\n  File "966512345678", line 1, in y', "\n  File 9665"]
)
def test_no_message_is_taken_for_a_place(message: str) -> None:
    traceback = f"{PLACE}ValueError: {message}"
    made = client.event(JOB, failure(traceback=traceback, place="shop.orders:total"))
    assert made["fingerprint"] == ["records", "ValueError", "shop.orders:total"]
    assert "9665" not in json.dumps(made)
    cut = client.event(JOB, failure(traceback=f"…{message}\n{PLACE}"))
    assert "9665" not in json.dumps(cut)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_TRACES_SAMPLER_ARG", "half", "must be a number from 0 to 1"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "must be one of"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/protobuf is spoken"),
        ("OTEL_TRACES_EXPORTER", "console", "only otlp is there"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "must be a whole number greater than 0"),
    ],
)
def test_what_cannot_be_done_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"^{variable}: {said}"):
        tracing.check(load(traces=True))


class SilentCollector(SpanExporter):
    """It takes spans, and does not answer until it is told to."""

    def __init__(self) -> None:
        self.takes, self.answers, self.is_shut = Event(), Event(), Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.takes.set()
        self.answers.wait(300)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.is_shut.set()


def test_the_end_of_a_process_does_not_wait_for_a_collector_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a bound of ours, the library would wait for half a minute."""
    monkeypatch.setattr(sending, "FLUSH_S", 0.05)
    collector = SilentCollector()
    sent = Sending(collector, queue_size=4, clock=time.monotonic)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(sent)
    for _ in range(4):
        provider.get_tracer("tests").start_span("a").end()
    assert collector.takes.wait(300)
    sent.close()
    assert not collector.is_shut.is_set()
    assert sent.dropped == 4
    collector.answers.set()
    assert collector.is_shut.wait(300)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)
    monkeypatch.setattr(sentry, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"pip install 'webhook-ingest\[otel\]'"):
        tracing.check(load(traces=True))
    with pytest.raises(SettingsError, match=r"pip install 'webhook-ingest\[sentry\]'"):
        sentry.check(load(sentry_dsn="https://key@host/1"))
    tracing.check(load())
    sentry.check(load())


def test_what_is_no_dsn_is_said_and_not_quoted() -> None:
    with pytest.raises(SettingsError, match=r"^INGEST_SENTRY_DSN: must be a DSN") as raised:
        sentry.check(load(sentry_dsn="hunter2"))
    assert "hunter2" not in str(raised.value)


def test_where_it_is_on_its_parts_are_imported() -> None:
    """So the test that they are not while it is off can fail."""
    code = (
        "import sys, os; from ingest.settings import load;"
        "from workers.tracing.base import traces; from ingest.sentry.start import reports;"
        "traces(load(traces=True), 'worker'); reports(load(sentry_dsn='https://k@h/1'));"
        "print(*sys.modules); sys.stdout.flush(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"opentelemetry.sdk.trace", "sentry_sdk"} <= set(done.stdout.split())
