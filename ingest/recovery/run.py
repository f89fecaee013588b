"""Recover what a source missed: ask its sender for what failed and is not here."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ingest.errors import InvalidEnvelope
from ingest.recovery.base import MissedDelivery, Recovery, RedeliveryRefused, Say
from ingest.sources.base import Envelope, Source

Known = Callable[[Sequence[str]], Collection[str]]
"""Returns which of these event ids are here already."""


@dataclass(slots=True)
class Outcome:
    """What became of the missed deliveries. It is filled while they are asked for."""

    known: list[MissedDelivery] = field(default_factory=list)
    """Here already: nothing is asked."""
    wanted: list[MissedDelivery] = field(default_factory=list)
    asked: list[MissedDelivery] = field(default_factory=list)
    refused: list[tuple[MissedDelivery, str]] = field(default_factory=list)
    """Those that the sender does not send again, and why."""


async def recover(
    source: Source,
    recovery: Recovery,
    outcome: Outcome,
    *,
    since: datetime,
    known: Known,
    dry_run: bool,
    pause: Callable[[], Awaitable[None]],
    say: Say,
) -> None:
    """Ask for every delivery since then that failed and is not here.

    Args:
        source: which missed them.
        recovery: its own.
        outcome: is filled, so that it tells what was done if this ends early.
        since: sent at or after.
        known: tells what is here.
        dry_run: ask for nothing.
        pause: is awaited between two deliveries.
        say: tells a person why it takes longer.

    Raises:
        RecoveryFailed: the sender cannot be asked any further.
    """
    async with recovery.connect(say=say) as sender:
        missed = await sender.missed(since)
        ids = [_event_id(source, delivery) for delivery in missed]
        here = known([name for name in ids if name is not None])
        for delivery, name in zip(missed, ids, strict=True):
            (outcome.known if name in here else outcome.wanted).append(delivery)
        if dry_run:
            return
        for delivery in outcome.wanted:
            if outcome.asked or outcome.refused:
                await pause()
            try:
                await sender.redeliver(delivery)
            except RedeliveryRefused as error:
                outcome.refused.append((delivery, str(error)))
            else:
                outcome.asked.append(delivery)


def _event_id(source: Source, delivery: MissedDelivery) -> str | None:
    """Return the id that the event has, or None: more than the sender tells is needed to name it.

    Then it is asked for. If it is here, it comes as a duplicate.
    """
    envelope = Envelope(type="", occurred_at=None, data={}, fields=dict(delivery.fields))
    try:
        return source.identify(envelope, delivery.headers).event_id
    except InvalidEnvelope:
        return None
