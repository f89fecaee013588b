"""Counts refused requests, samples them for the console, logs one a second for each reason.

A sample says what a diagnosis found. The body that it looked at is held until the next report, and
is stored nowhere.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from ingest import logs, proxies
from ingest.receiver.metrics import ReceiverMetrics
from ingest.sources.base import Headers, Source, WebhookRequest
from ingest.sources.diagnosis import Step, diagnose

_LOG_INTERVAL_S = 1.0
_DIAGNOSED_BYTES = 64 * 1024
"""The largest body that is held for a diagnosis: it takes some 10 ms of a thread."""

log = logs.logger(__name__)


class RefusedRequests:
    """The refused requests of one receiver."""

    def __init__(self, metrics: ReceiverMetrics, *, trusted_proxies: Sequence[str] = ()) -> None:
        """Note them in `metrics`. What trusted proxies say of the client is believed: the addresses
        here only tell where refused requests come from."""
        self._metrics = metrics
        self._proxies = proxies.Trusted(trusted_proxies)
        self._sampler = logs.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    def note(
        self,
        reason: str,
        status: int,
        *,
        now: float,
        source: str,
        client: tuple[str, int] | None,
        headers: Headers,
        request_id: UUID,
        sentence: str,
        path: str = "",
        diagnose: Callable[[], tuple[Step, ...]] = tuple,
    ) -> None:
        """Note one, at `now` (Unix seconds), that was answered `sentence`. Give `path` where it is
        what was wrong; it can hold anything, so it is never logged. `diagnose` is called for those
        that are sampled."""
        self._metrics.count_refusal(
            reason,
            status=status,
            at=datetime.fromtimestamp(now, UTC),
            source=source,
            client=self._proxies.client(client[0], headers) if client else "",
            headers=headers,
            sentence=sentence,
            request_id=request_id,
            path=path,
            diagnose=diagnose,
        )
        if self._sampler.lets_through(reason):
            log.warning(
                "request_refused",
                reason=reason,
                status=status,
                request_id=str(request_id),
                left_out=self._sampler.left_out(reason),
            )


def diagnosis(
    source: Source, request: WebhookRequest, *, now: int, body_limit: int
) -> Callable[[], tuple[Step, ...]]:
    """Return what says why a request was refused at `now` (Unix seconds). It holds the body until
    it is called."""
    if len(request.body) > _DIAGNOSED_BYTES:
        return partial(_too_large, len(request.body))
    return partial(_diagnosed, source, request, now, body_limit)


def _diagnosed(
    source: Source, request: WebhookRequest, now: int, body_limit: int
) -> tuple[Step, ...]:
    try:
        return tuple(diagnose(source, request, now=now, body_limit=body_limit))
    except Exception as bug:  # a source may be a plugin, and the counts are to be reported
        log.error("diagnosis_failed", exc_info=bug, source=source.slug)
        return ()


def _too_large(size: int) -> tuple[Step, ...]:
    return (
        Step(
            part="body",
            is_good=False,
            sentence=f"The body has {size:,} bytes; up to {_DIAGNOSED_BYTES:,} are looked at here.",
            advice="Save the request at the sender or at a proxy, and ask `ingest sources verify`.",
        ),
    )
