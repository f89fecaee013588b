"""Counts what a receiver answers and refuses, since it started.

The event loop counts. A thread reports what was added since its last report (ingest.heartbeat), and
another reads all of it for Prometheus. The counts of a report that fails go into the next. A crash
loses the counts of some seconds at most, a commit whose answer is lost counts them twice, and
neither loses a delivery.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from ingest.monitoring import catalogue
from ingest.monitoring.samples import Durations, Sample
from ingest.receiver.refusal_counts import RefusalCounts
from ingest.sources.base import Headers, Source
from ingest.sources.diagnosis import Step
from ingest.store.pipeline import metrics
from ingest.store.pipeline.metrics import ANSWER, KEY, POSSIBLE_LOSS, REFUSED, Note
from ingest.store.reports import key_use, refusal_counts, refused_requests
from ingest.store.reports.refusal_counts import RefusedRequests
from ingest.store.reports.refused_requests import Refusal
from ingest.text import storable

_SAMPLED_HEADERS = (b"user-agent", b"content-type", b"content-length", b"x-awal-webhook-timestamp")
_HEADERS_THERE = "headers there"
"""What the names of all headers are kept as. No value is: it may be a secret."""
_VALUE_LIMIT = 200
_SENTENCE_LIMIT = 300
_NO_ID = UUID(int=0)
_NAMES_LIMIT = 500
_MAX_REASONS = 100
"""Reasons are ours, and few."""
_OK = HTTPStatus.OK.value
_REJECTED = HTTPStatus.BAD_REQUEST.value
_Row = tuple[str, str, int]
"""What is counted, its label, and the cell of its duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
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


class _Report(NamedTuple):
    """What was written in a transaction that may not be committed."""

    counts: Counter[_Row]
    samples: dict[str, _Refused]
    refused: Sequence[RefusedRequests]


class ReceiverMetrics:
    """Counts of one receiver."""

    def __init__(
        self,
        sources: Mapping[str, Source] = MappingProxyType({}),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make metrics without counts.

        Args:
            sources: those that are told apart, by slug; a stranger can name any other.
            clock: Unix time in seconds.
        """
        self._sources = sources
        self._clock = clock
        self._answers: defaultdict[str, Durations] = defaultdict(Durations)
        self._challenges: Counter[str] = Counter()
        self._faults = 0
        self._keys: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, int, str]] = Counter()
        self._reasons: set[str] = set()
        self._refusals = RefusalCounts()
        self._losses: Counter[str] = Counter()
        self._samples: dict[str, _Refused] = {}
        self._reported: Counter[_Row] = Counter()
        self._unconfirmed: _Report | None = None
        self._used: dict[tuple[str, str], tuple[int, float]] = {}
        """Of each key, its count when that was last seen to grow, and when that was."""

    def count_answer(self, seconds: float, source: str = "") -> None:
        """Count a delivery that was stored, and the seconds to its answer."""
        self._answers[source].add(seconds)

    def count_challenge(self, source: str) -> None:
        """Count a challenge that was answered."""
        self._challenges[source] += 1

    def count_fault(self) -> None:
        """Count a request that was answered 500: a bug of ours."""
        self._faults += 1

    def count_key(self, source: str, key_id: str) -> None:
        """Count a delivery that was stored, by the key of the source that signed it."""
        self._keys[source, key_id] += 1

    def count_refusal(
        self,
        reason: str,
        *,
        status: int,
        at: datetime,
        source: str,
        client: str,
        headers: Headers,
        sentence: str = "",
        request_id: UUID = _NO_ID,
        path: str = "",
        diagnose: Callable[[], tuple[Step, ...]] = tuple,
    ) -> None:
        """Count a request that was refused, and answered `sentence` under `request_id`. The last
        one of each reason is kept as a sample, with its `path` if that was what was wrong, and
        what `diagnose` says of it when it is reported."""
        if reason not in self._reasons:
            if len(self._reasons) >= _MAX_REASONS:
                return
            self._reasons.add(reason)
        known = source if source in self._sources else ""
        self._refused[known, int(status), reason] += 1
        self._refusals.count(
            reason=reason,
            source=known,
            client=client,
            status=int(status),
            sentence=storable(sentence, limit=_SENTENCE_LIMIT),
            at=at,
            request=request_id,
        )
        self._samples[reason] = _Refused(
            reason=reason,
            at=at,
            source=source,
            client=client,
            headers=headers,
            path=path,
            diagnose=diagnose,
        )

    def count_possible_loss(self, source: str) -> None:
        """Count a verified delivery that a source was refused, and whose sender does not send it
        again."""
        self._losses[source] += 1

    def report(self, connection: Connection) -> None:
        """Write what was counted since the last report that was confirmed."""
        if self._unconfirmed is not None:
            self._refusals.hold_again(self._unconfirmed.refused)
            self._samples = self._unconfirmed.samples | self._samples
        counts = self._rows()
        samples, self._samples = self._samples, {}
        refused = self._refusals.take()
        self._unconfirmed = _Report(counts, samples, refused)
        metrics.record(
            connection,
            [
                Note(what=what, label=label, cell=cell, count=count)
                for (what, label, cell), count in (counts - self._reported).items()
            ],
        )
        refusals = [samples[reason].as_stored() for reason in sorted(samples)]
        refused_requests.keep(connection, refusals)
        refusal_counts.add(connection, refused)

    def confirm_report(self) -> None:
        """Note that the last report was committed. Until then the next one has it again."""
        if self._unconfirmed is not None:
            self._reported = self._unconfirmed.counts
            self._unconfirmed = None

    def _rows(self) -> Counter[_Row]:
        """Return the counts since the start, as a report has them."""
        rows: Counter[_Row] = Counter()
        for durations in self._answers.copy().values():
            for cell, count in enumerate(durations.counts):
                rows[ANSWER, "", cell] += count
        for key, count in self._keys.copy().items():
            rows[KEY, key_use.label(*key), 0] += count
        for (_source, _status, reason), count in self._refused.copy().items():
            rows[REFUSED, reason, 0] += count
        for source, count in self._losses.copy().items():
            rows[POSSIBLE_LOSS, source, 0] += count
        return rows

    def read(self) -> Iterator[Sample]:
        """Yield the counts since the start, for Prometheus."""
        yield from self._read_answers()
        yield from self._read_keys()
        for source in list(self._sources):
            yield Sample(catalogue.POSSIBLE_LOSSES, self._losses[source], (source,))

    def _read_answers(self) -> Iterator[Sample]:
        # From zero on, so that the first rejected event is seen as a rise.
        statuses = Counter(
            {(source, status): 0 for source in list(self._sources) for status in (_OK, _REJECTED)}
        )
        statuses["", HTTPStatus.INTERNAL_SERVER_ERROR.value] = self._faults
        for source, count in self._challenges.copy().items():
            statuses[source, _OK] += count
        for source, durations in self._answers.copy().items():
            answered = durations.read()
            statuses[source, _OK] += int(sum(answered.counts))
            yield Sample(catalogue.ANSWER_DURATION, answered, (source,))
        for (source, status, reason), count in self._refused.copy().items():
            statuses[source, status] += count
            yield Sample(catalogue.REFUSALS, count, (source, reason))
        for (source, status), count in statuses.items():
            yield Sample(catalogue.ANSWERS, count, (source, str(status)))

    def _read_keys(self) -> Iterator[Sample]:
        """Yield the use of the live keys. A key was used when its count is seen to grow."""
        for source in list(self._sources.values()):
            for place, key_id in enumerate(source.key_ids):
                key = source.slug, key_id
                count = self._keys[key]
                known, used_at = self._used.get(key, (0, 0.0))
                if count > known:
                    used_at = self._clock()
                    self._used[key] = count, used_at
                yield Sample(catalogue.DELIVERIES, count, key)
                rank = "older" if place else "newest"
                yield Sample(catalogue.KEY_LAST_USED, used_at, (*key, rank))
