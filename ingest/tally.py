"""What a receiver counts between two of its reports: how long its answers took, what it refused.

Counted on the event loop, reported from a thread (ingest.presence). A report that fails is made
again with the next; a crash, or a commit that fails, loses the counts of some seconds at most, and
never a delivery.
"""

from collections import Counter
from datetime import datetime

from sqlalchemy import Connection

from ingest.sources.source import Headers
from ingest.store import activity, refusals
from ingest.store.activity import ANSWER, REFUSED, Note
from ingest.store.refusals import Refusal
from ingest.text import storable

_TOLD = (b"user-agent", b"content-type", b"content-length", b"x-awal-webhook-timestamp")
_VALUE_LIMIT = 200
_REASONS = 100
"""Reasons are ours, and few."""


class Tally:
    """Counts of one receiver."""

    def __init__(self) -> None:
        self._answers: Counter[int] = Counter()
        self._refused: Counter[str] = Counter()
        self._samples: dict[str, Refusal] = {}

    def answered(self, seconds: float) -> None:
        """A delivery was kept, and its answer took so long."""
        self._answers[activity.bucket(seconds)] += 1

    def refused(
        self,
        reason: str,
        *,
        at: datetime,
        source: str,
        client: str,
        headers: Headers,
        path: str = "",
    ) -> None:
        """A request was refused; the last one of each reason is kept as a sample, with its `path`
        if that was what was wrong."""
        if reason not in self._refused and len(self._refused) >= _REASONS:
            return
        self._refused[reason] += 1
        told = {"path": storable(path, limit=_VALUE_LIMIT)} if path else {}
        self._samples[reason] = Refusal(
            reason=reason,
            at=at,
            source=storable(source, limit=_VALUE_LIMIT),
            client=client,
            detail=told
            | {
                name.decode(): storable(value.decode("latin-1"), limit=_VALUE_LIMIT)
                for name, value in headers
                if name in _TOLD
            },
        )

    def report(self, connection: Connection) -> None:
        """Write what was counted since the last report."""
        answers, refused, samples = self._answers, self._refused, self._samples
        self._answers, self._refused, self._samples = Counter(), Counter(), {}
        try:
            activity.note(
                connection,
                [
                    *(Note(what=ANSWER, bucket=each, count=n) for each, n in list(answers.items())),
                    *(Note(what=REFUSED, label=each, count=n) for each, n in list(refused.items())),
                ],
            )
            refusals.keep(connection, [samples[reason] for reason in sorted(samples)])
        except BaseException:
            self._answers.update(answers)
            self._refused.update(refused)
            self._samples = samples | self._samples
            raise
