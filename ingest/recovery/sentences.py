"""Tell a person what may be lost, and what to do."""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from ingest.sources import registry
from ingest.store.reports.possible_losses import PossibleLoss

_HOUR = timedelta(hours=1)


def of_losses(losses: Iterable[PossibleLoss], *, now: datetime) -> list[str]:
    """Return a sentence for each source that may have lost deliveries."""
    return [_of_loss(loss, now) for loss in losses]


def _of_loss(loss: PossibleLoss, now: datetime) -> str:
    source = registry.classes().get(loss.source)
    title = loss.source if source is None else source.title
    noun = "delivery" if loss.deliveries == 1 else "deliveries"
    was = "was" if loss.deliveries == 1 else "were"
    told = f"{loss.deliveries:,} {noun} from {title} {was} answered 5xx and will not be sent again"
    if source is None or source.recovery() is None:
        return f"{told}: look for what is missing at the sender."
    return f"{told}: run `ingest recover {loss.source} --since {_hours(now - loss.since)}`."


def _hours(age: timedelta) -> str:
    """Return a span that is longer than this age: senders and we have different clocks."""
    return f"{math.floor(age / _HOUR) + 1}h"
