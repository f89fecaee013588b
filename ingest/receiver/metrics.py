"""Counts what a receiver answers and refuses, between two of its reports.

The event loop counts, a thread reports (ingest.heartbeat). The counts of a report that fails go
into the next. A crash loses the counts of some seconds at most, and never a delivery.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.sources.base import Headers
from ingest.sources.diagnosis import Step
from ingest.store.pipeline import metrics
from ingest.store.pipeline.metrics import ANSWER, KEY, POSSIBLE_LOSS, REFUSED, Note
from ingest.store.reports import key_use, refused_requests
from ingest.store.reports.refused_requests import Refusal
from ingest.text import storable

_SAMPLED_HEADERS = (b"user-agent", b"content-type", b"content-length", b"x-awal-webhook-timestamp")
_HEADERS_THERE = "headers there"
"""What the names of all headers are kept as. No value is: it may be a secret."""
_VALUE_LIMIT = 200
_NAMES_LIMIT = 500
_MAX_REASONS = 100
"""Reasons are ours, and few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """A refused request, as far as it is held until the next report."""

    reason: str
    at: datetime
    source: str
    client: str
    headers: Headers
    path: str
    diagnose: Callable[[], tuple[Step, ...]]

    def as_stored(self) -> Refusal:
        """Return what is stored of it: nothing that a stranger chose is long."""
        detail = {"path": storable(self.path, limit=_VALUE_LIMIT)} if self.path else {}
        for name, value in self.headers:
            if name in _SAMPLED_HEADERS:
                detail[name.decode()] = storable(value.decode("latin-1"), limit=_VALUE_LIMIT)
        if self.headers:
            names = ", ".join(sorted({name.decode("latin-1") for name, _ in self.headers}))
            detail[_HEADERS_THERE] = storable(names, limit=_NAMES_LIMIT)
        return Refusal(
            reason=self.reason,
            at=self.at,
            source=storable(self.source, limit=_VALUE_LIMIT),
            client=self.client,
            detail=detail,
            steps=self.diagnose(),
        )


class ReceiverMetrics:
    """Counts of one receiver."""

    def __init__(self) -> None:
        self._answers: Counter[int] = Counter()
        self._keys: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._samples: dict[str, _Sample] = {}

    def count_answer(self, seconds: float) -> None:
        """Count a delivery that was stored, and the seconds to its answer."""
        self._answers[metrics.bucket(seconds)] += 1

    def count_key(self, source: str, key_id: str) -> None:
        """Count a delivery that was stored, by the key of the source that signed it."""
        self._keys[source, key_id] += 1

    def count_refusal(
        self,
        reason: str,
        *,
        at: datetime,
        source: str,
        client: str,
        headers: Headers,
        path: str = "",
        diagnose: Callable[[], tuple[Step, ...]] = tuple,
    ) -> None:
        """Count a request that was refused. The last one of each reason is kept as a sample, with
        its `path` if that was what was wrong, and what `diagnose` says of it when it is
        reported."""
        if reason not in self._refused and len(self._refused) >= _MAX_REASONS:
            return
        self._refused[reason] += 1
        self._samples[reason] = _Sample(
            reason=reason,
            at=at,
            source=source,
            client=client,
            headers=headers,
            path=path,
            diagnose=diagnose,
        )

    def count_possible_loss(self, source: str) -> None:
        """Count a delivery that a source was refused, and whose sender does not send it again."""
        self._losses[source] += 1

    def report(self, connection: Connection) -> None:
        """Write what was counted since the last report."""
        answers, keys, refused, samples = self._answers, self._keys, self._refused, self._samples
        losses = self._losses
        self._answers, self._keys = Counter(), Counter()
        self._refused, self._samples = Counter(), {}
        self._losses = Counter()
        try:
            refusals = [samples[reason].as_stored() for reason in sorted(samples)]
            metrics.record(
                connection,
                [
                    *(
                        Note(what=ANSWER, bucket=bucket, count=count)
                        for bucket, count in list(answers.items())
                    ),
                    *(
                        Note(what=KEY, label=key_use.label(*key), count=count)
                        for key, count in list(keys.items())
                    ),
                    *(
                        Note(what=REFUSED, label=reason, count=count)
                        for reason, count in list(refused.items())
                    ),
                    *(
                        Note(what=POSSIBLE_LOSS, label=source, count=count)
                        for source, count in list(losses.items())
                    ),
                ],
            )
            refused_requests.keep(connection, refusals)
        except BaseException:
            self._answers.update(answers)
            self._keys.update(keys)
            self._refused.update(refused)
            self._losses.update(losses)
            self._samples = samples | self._samples
            raise
