"""Counts the commits of a writer: how long they took, how many deliveries they held, and how far
the senders' clocks are off."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from ingest.monitoring import catalogue
from ingest.monitoring.samples import Durations, Sample, Sizes
from ingest.sources.base import Source
from ingest.store.pipeline.deliveries import Delivery

_SKEW_INTERVAL_S = 5.0
"""Reading the headers of a delivery takes 5 µs, so one of them stands for those of 5 s."""


class Commits:
    """Counts since the start. The event loop counts, another thread reads."""

    def __init__(self, sources: Mapping[str, Source], *, clock: Callable[[], float]) -> None:
        """`sources` are those that are received, by slug; `clock` returns Unix time in seconds."""
        self._sources = sources
        self._clock = clock
        self._durations = Durations()
        self._sizes = Sizes()
        self._failures = 0
        self._skews_s: dict[str, float] = {}
        self._skew_due_at = 0.0

    def succeeded(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Count the commit of some deliveries."""
        self._durations.add(seconds)
        self._sizes.add(len(deliveries))
        now = self._clock()
        if now >= self._skew_due_at:
            self._skew_due_at = now + _SKEW_INTERVAL_S
            with contextlib.suppress(Exception):  # of a plugin: it must not end the writer
                self._note_skews(deliveries)

    def failed(self) -> None:
        """Count a commit that failed, or is in doubt."""
        self._failures += 1

    def read(self) -> Iterator[Sample]:
        """Yield the counts, for Prometheus."""
        yield Sample(catalogue.COMMIT_DURATION, self._durations.read())
        yield Sample(catalogue.COMMIT_DELIVERIES, self._sizes.read())
        yield Sample(catalogue.COMMIT_FAILURES, self._failures)
        for slug, skew_s in self._skews_s.copy().items():
            yield Sample(catalogue.CLOCK_SKEW, skew_s, (slug,))

    def _note_skews(self, deliveries: Sequence[Delivery]) -> None:
        """Note the clock skew of one delivery of each source."""
        for slug, delivery in {delivery.source: delivery for delivery in deliveries}.items():
            source = self._sources.get(slug)
            signed_at = source and source.signed_at(dict(json.loads(delivery.headers)))
            if signed_at:
                self._skews_s[slug] = (delivery.received_at - signed_at).total_seconds()
