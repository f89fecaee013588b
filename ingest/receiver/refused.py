"""Counts refused requests, samples them for the console, logs one a second for each reason."""

import time
from datetime import UTC, datetime
from uuid import UUID

from ingest import logs
from ingest.receiver.metrics import ReceiverMetrics
from ingest.sources.base import Headers

_LOG_INTERVAL_S = 1.0

log = logs.logger(__name__)


class RefusedRequests:
    """The refused requests of one receiver."""

    def __init__(self, metrics: ReceiverMetrics) -> None:
        self._metrics = metrics
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
        path: str = "",
    ) -> None:
        """Note one, at `now` (Unix seconds). Give `path` where it is what was wrong; it can hold
        anything, so it is never logged."""
        self._metrics.count_refusal(
            reason,
            status=status,
            at=datetime.fromtimestamp(now, UTC),
            source=source,
            client=client[0] if client else "",
            headers=headers,
            path=path,
        )
        if self._sampler.lets_through(reason):
            log.warning(
                "request_refused",
                reason=reason,
                status=status,
                request_id=str(request_id),
                left_out=self._sampler.left_out(reason),
            )
