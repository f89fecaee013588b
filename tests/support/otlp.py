"""A stand-in for an OpenTelemetry collector: takes spans over HTTP, as protobuf."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support import http_taker
from tests.support.http_taker import Taker
from tests.support.waiting import until


@dataclass(frozen=True, kw_only=True)
class TakenSpan:
    """A span as it arrived."""

    name: str
    trace: str
    id: str
    parent: str
    """Empty: it is a root."""
    links: tuple[str, ...]
    """The ids of the spans that it names."""
    kind: str
    """`SERVER`, `CLIENT`, …"""
    is_error: bool
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int]
    service: str
    state: str
    """The trace state."""


class Collector:
    """What was taken so far."""

    def __init__(self, taker: Taker) -> None:
        taker.answer = b""
        self._taker = taker
        self.url = f"http://127.0.0.1:{taker.server_port}"

    @property
    def raw(self) -> bytes:
        """Every byte that arrived."""
        return b"".join(body for _, body in self._taker.taken)

    def spans(self, name: str = "") -> list[TakenSpan]:
        """Return the spans, or those of a name."""
        return [span for span in self._all() if name in ("", span.name)]

    def wait_for(self, name: str, number: int = 1) -> list[TakenSpan]:
        """Return the spans of a name once there are so many."""
        try:
            until(lambda: len(self.spans(name)) >= number)
        except AssertionError:
            arrived = Counter(span.name for span in self.spans())
            raise AssertionError(f"not {number} spans {name!r}, but {arrived}") from None
        return self.spans(name)

    def _all(self) -> Iterator[TakenSpan]:
        for _, body in list(self._taker.taken):
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            for resource in request.resource_spans:
                service = str(_attributes(resource.resource.attributes)["service.name"])
                for scope in resource.scope_spans:
                    yield from (_taken(span, service) for span in scope.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that takes until the end."""
    with http_taker.running() as taker:
        yield Collector(taker)


def _taken(span: trace_pb2.Span, service: str) -> TakenSpan:
    return TakenSpan(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        service=service,
        state=span.trace_state,
    )


def _attributes(pairs: Iterable[Any]) -> dict[str, str | int]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }
