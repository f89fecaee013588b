"""What the two ways into the receiver share: an ASGI endpoint, and a fast path past ASGI."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from ingest import logs
from ingest.errors import IngestError, InvalidEnvelope, InvalidSignature
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.receiver import responses
from ingest.receiver.decide import Request
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests, diagnosis
from ingest.receiver.responses import STATUSES, Response
from ingest.receiver.writer import DeliveryWriter
from ingest.sources.base import Headers, Source
from ingest.sources.diagnosis import Step

_LOG_INTERVAL_S = 1.0
_EXPLAINED = (InvalidSignature, InvalidEnvelope)
"""Refusals whose cause a diagnosis of the request shows."""

log = logs.logger(__name__)


class Intake:
    """The sources, where deliveries are stored, and what is counted and logged of requests."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        writer: DeliveryWriter,
        *,
        body_bytes: int,
        retry_after_s: int,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        metrics: ReceiverMetrics,
        refused: RefusedRequests,
    ) -> None:
        """Make an intake.

        Args:
            sources: the configured senders, by slug.
            writer: where deliveries are stored.
            body_bytes: the size of the largest body, unless its source says another.
            retry_after_s: what a 503 tells the sender, seconds.
            clock: Unix time in seconds.
            random: as `os.urandom`.
            metrics: where answers are counted.
            refused: where refusals are noted.
        """
        self.sources = sources
        self.writer = writer
        self._body_bytes = body_bytes
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._refused = refused
        self._sampler = logs.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    def body_limit(self, source: Source) -> int:
        """Return the size of the source's largest body, in bytes."""
        return self._body_bytes if source.body_limit is None else source.body_limit

    def begin(
        self,
        source: str,
        client: tuple[str, int] | None,
        headers: Headers,
        target: str,
        method: str = "POST",
    ) -> Request:
        """Return a request that has just come, with an id."""
        now = self._clock()
        request_id = delivery_id(now * 1000, self._random(RANDOM_BYTES))
        return Request(request_id, now, source, client, headers, target, method)

    def count_answer(self, request: Request, key_id: str) -> None:
        """Count a delivery that was stored and is answered now, and the key that signed it."""
        self._metrics.count_answer(self._clock() - request.received_at, request.source)
        self._metrics.count_key(request.source, key_id)

    def count_challenge(self, request: Request) -> None:
        """Count a challenge that is answered now."""
        self._metrics.count_challenge(request.source)

    def refuse(self, request: Request, error: IngestError, body: bytes | None = None) -> Response:
        """Note a refusal, and return the answer. A body that was not read whole is None."""
        explain: Callable[[], tuple[Step, ...]] = tuple
        source = self.sources.get(request.source)
        if source is not None and body is not None and isinstance(error, _EXPLAINED):
            explain = diagnosis(
                source,
                request.to_source(body),
                now=int(request.received_at),
                body_limit=self.body_limit(source),
            )
        status = STATUSES[type(error)]
        self._note_possible_loss(request, status, body)
        self._refused.note(
            error.reason,
            status,
            now=request.received_at,
            source=request.source,
            client=request.client,
            headers=request.headers,
            request_id=request.id,
            sentence=str(error),
            diagnose=explain,
        )
        return responses.refusal(error, request.id, retry_after_s=self._retry_after_s)

    def fail(self, error: BaseException, request: Request, body: bytes | None = None) -> Response:
        """Log a bug of ours, which a stranger may have found, and return the answer. The body is
        None where it was not read whole, or may be stored."""
        self._note_possible_loss(request, HTTPStatus.INTERNAL_SERVER_ERROR, body)
        self._metrics.count_fault()
        if self._sampler.lets_through("request_failed"):
            log.error(
                "request_failed",
                exc_info=error,
                request_id=str(request.id),
                left_out=self._sampler.left_out("request_failed"),
            )
        return responses.fault(request.id)

    def _note_possible_loss(self, request: Request, status: HTTPStatus, body: bytes | None) -> None:
        """Count an error of ours whose request its sender has signed and does not repeat. Without a
        whole body nobody knows who sent it: a stranger must not page the operators."""
        source = self.sources.get(request.source)
        if (
            status >= HTTPStatus.INTERNAL_SERVER_ERROR
            and source is not None
            and body is not None
            and source.retries.gives_up_after(status)
            and _is_verified(source, request, body)
        ):
            self._metrics.count_possible_loss(source.slug)

    def note_disconnect(self, request: Request) -> None:
        """Log that a sender hung up before its request was whole."""
        if self._sampler.lets_through("sender_disconnected"):
            log.debug(
                "sender_disconnected",
                request_id=str(request.id),
                left_out=self._sampler.left_out("sender_disconnected"),
            )


def _is_verified(source: Source, request: Request, body: bytes) -> bool:
    """Return whether the sender signed a request. Where a bug of ours keeps it from being verified,
    nobody knows."""
    try:
        source.verify(request.to_source(body), now=int(request.received_at))
    except Exception:  # a source may be a plugin, and its bug is logged already
        return False
    return True
