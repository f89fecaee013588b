"""Spans on their way out: bounded, counted, never waited for.

The library's own queue drops what is too much without a word. Here what does not fit is counted
before it gets there, and so is what the collector did not take.
"""

import threading
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from ingest import logs

FLUSH_S = 2.0
"""The longest that the end of a process waits for its spans to be sent."""
_TELL_EVERY_S = 60.0

log = logs.logger(__name__)


class Sending(SpanProcessor):
    """Sends spans from a thread, in batches."""

    def __init__(
        self, exporter: SpanExporter, *, queue_size: int, clock: Callable[[], float]
    ) -> None:
        """Send by `exporter`; at most `queue_size` spans wait. `clock` is monotonic, in seconds."""
        self._queue_size = queue_size
        self._waiting = 0
        self._counting = threading.Lock()
        self.dropped = 0
        """Spans that will not arrive."""
        self._left_out = 0
        self._sampler = logs.Sampler(interval_s=_TELL_EVERY_S, clock=clock)
        batch = min(512, queue_size)  # 512: the library's default
        self._batches = BatchSpanProcessor(
            _Counted(exporter, self._sent), max_queue_size=queue_size, max_export_batch_size=batch
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that is to be sent, or drop it. Never waits."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._counting:
            fits = self._waiting < self._queue_size
            self._waiting += fits
        if fits:
            self._batches.on_end(span)
        else:
            self._drop(1, "queue_full")

    def close(self) -> None:
        """Send what waits, within `FLUSH_S`; the rest is dropped, and all drops are told."""
        ending = threading.Thread(target=self._batches.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        with self._counting:
            self.dropped += self._waiting
            self._waiting = 0
        if self.dropped:
            log.warning("spans_dropped", reason="process_ends", spans=self.dropped)

    def _sent(self, spans: int, *, arrived: bool) -> None:
        with self._counting:
            self._waiting = max(0, self._waiting - spans)
        if not arrived:
            self._drop(spans, "collector_fails")

    def _drop(self, spans: int, reason: str) -> None:
        with self._counting:
            self.dropped += spans
            self._left_out += spans
        if self._sampler.lets_through(reason):
            log.warning("spans_dropped", reason=reason, spans=self._left_out)
            self._left_out = 0


class _Counted(SpanExporter):
    """Tells how many spans went, and whether they arrived."""

    def __init__(self, exporter: SpanExporter, tell: Callable[..., None]) -> None:
        self._exporter = exporter
        self._tell = tell

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Never raises."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # of the HTTP client, or of what a certificate's file holds
            result = SpanExportResult.FAILURE
        self._tell(len(spans), arrived=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()
