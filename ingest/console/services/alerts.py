"""What is wrong just now, on top of every page."""

from dataclasses import dataclass

from ingest.console.dependencies import Console
from ingest.console.services.overview import LATE_AFTER, Overview

_NEEDED = {
    "receiver": "No receiver is alive: senders get no answer.",
    "worker": "No worker is alive: events are kept, and nothing works on them.",
    "relay": "No relay is alive: retries and lost hints wait.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every page shows."""

    alerts: tuple[tuple[str, str, str | None], ...]
    """Level, sentence, and where to look."""
    dead_letters: int


def read(console: Console) -> Shared:
    """What is wrong, as the overview of the last hour knows it."""
    found = console.overviews.newest()
    if found is None:
        return Shared(alerts=(), dead_letters=0)
    return Shared(
        alerts=tuple(_all(found)), dead_letters=sum(each.dead for each in found.processors)
    )


def _all(found: Overview) -> list[tuple[str, str, str | None]]:
    alive = {each.kind for each in found.processes if each.alive}
    told: list[tuple[str, str, str | None]] = [
        ("error", sentence, None) for kind, sentence in _NEEDED.items() if kind not in alive
    ]
    told += [("error", sentence, None) for sentence in _lacking(found)]
    if found.redis.version is None:
        told.append(("warn", "Redis does not answer: work is found a little later.", None))
    if found.oldest_unadmitted is not None and found.now - found.oldest_unadmitted > LATE_AFTER:
        told.append(("warn", "Deliveries wait to be admitted: the workers are behind.", None))
    paused = [each.name for each in found.processors if each.paused_at is not None]
    if paused:
        told.append(("info", f"Paused: {', '.join(paused)}.", "/processors"))
    return told


def _lacking(found: Overview) -> list[str]:
    """Return what the roles of processes lack, a sentence for each kind of process."""
    by_kind = {each.kind: each.lacks for each in found.processes if each.alive and each.lacks}
    return [
        f"The database role of the {kind}s {'; '.join(lacks)}."
        for kind, lacks in sorted(by_kind.items())
    ]
