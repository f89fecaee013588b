"""Counts the commits of a writer: how long they took, how many deliveries they held, and how far
the senders' clocks are off."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from ingest.monitoring import catalogue
from ingest.monitoring.samples import Durations, Sample, Sizes
from ingest.sources.base import Source
from ingest.store.pipeline.deliveries import Delivery

_SKEW_INTERVAL_S = 5.0
"""Reading the headers of a delivery takes 5 µs, so one of them stands for those of 5 s."""
_SKEW_KEPT_S = 900.0
"""A skew is told for so long after its delivery: longer than the alert waits. A clock that was put
right is not told of until the next delivery, which may come the day after."""


class Commits:
    """Counts since the start. The event loop counts, another thread reads."""

    def __init__(self, sources: Mapping[str, Source], *, clock: Callable[[], float]) -> None:
        """`sources` are those that are received, by slug; `clock` is monotonic, in seconds: the
        wall clock may be what is put right."""
        self._sources = sources
        self._clock = clock
        self._durations = Durations()
        self._sizes = Sizes()
        self._failures = 0
        self._skews: dict[str, tuple[float, float]] = {}
        """By source: the skew, and when it was seen."""
        self._skew_due_at = -math.inf

    def succeeded(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Count the commit of some deliveries."""
        self._durations.add(seconds)
        self._sizes.add(len(deliveries))
        now = self._clock()
        if now >= self._skew_due_at:
            self._skew_due_at = now + _SKEW_INTERVAL_S
            with contextlib.suppress(Exception):  # of a plugin: it must not end the writer
                self._note_skews(deliveries, now)

    def failed(self) -> None:
        """Count a commit that failed, or is in doubt."""
        self._failures += 1

    def read(self) -> Iterator[Sample]:
        """Yield the counts, for Prometheus."""
        yield Sample(catalogue.COMMIT_DURATION, self._durations.read())
        yield Sample(catalogue.COMMIT_DELIVERIES, self._sizes.read())
        yield Sample(catalogue.COMMIT_FAILURES, self._failures)
        not_before = self._clock() - _SKEW_KEPT_S
        for slug, (skew_s, seen_at) in self._skews.copy().items():
            if seen_at >= not_before:
                yield Sample(catalogue.CLOCK_SKEW, skew_s, (slug,))

    def _note_skews(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Note the clock skew of one delivery of each source."""
        for slug, delivery in {delivery.source: delivery for delivery in deliveries}.items():
            source = self._sources.get(slug)
            signed_at = source and source.signed_at(dict(json.loads(delivery.headers)))
            if signed_at:
                skew_s = (delivery.received_at - signed_at).total_seconds()
                self._skews[slug] = skew_s, now
