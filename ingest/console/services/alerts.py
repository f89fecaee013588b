"""The alerts on top of every page."""

from dataclasses import dataclass
from typing import Literal

from ingest.console.services.overview import LATE_AFTER, Overview, OverviewCache
from ingest.recovery import sentences

NEEDED_PROCESSES = {
    "receiver": "No receiver is alive: senders get no answer.",
    "worker": "No worker is alive: events are stored, and nobody processes them.",
    "relay": "No relay is alive: retries and lost messages wait.",
}
"""The kinds of processes without which work stops, and what is said if none is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that needs attention."""

    level: Literal["info", "warn", "error"]
    text: str
    href: str | None = None
    """The page that says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageStatus:
    """What every page shows of the state of the system."""

    alerts: tuple[Alert, ...]
    dead_letters: int


def read(overviews: OverviewCache) -> PageStatus:
    """Return the alerts that the last hour's overview gives rise to."""
    overview = overviews.newest()
    if overview is None:
        return PageStatus(alerts=(), dead_letters=0)
    return PageStatus(
        alerts=tuple(find_alerts(overview)),
        dead_letters=sum(processor.dead for processor in overview.processors),
    )


def find_alerts(overview: Overview) -> list[Alert]:
    """Return what is wrong, errors first."""
    alive = {process.kind for process in overview.processes if process.alive}
    texts = [text for kind, text in NEEDED_PROCESSES.items() if kind not in alive]
    texts += missing_privileges(overview)
    alerts = [Alert(level="error", text=text) for text in texts]
    if overview.redis.version is None:
        alerts.append(Alert(level="warn", text="Redis does not answer: work starts a little late."))
    alerts += [
        Alert(level="warn", text=text, href="/failures#refused")
        for text in sentences.of_losses(overview.possible_losses, now=overview.now)
    ]
    unadmitted = overview.oldest_unadmitted
    if unadmitted is not None and overview.now - unadmitted > LATE_AFTER:
        text = "Deliveries wait to be admitted: the workers are behind."
        alerts.append(Alert(level="warn", text=text))
    paused = [record.name for record in overview.processors if record.paused_at is not None]
    if paused:
        alerts.append(Alert(level="info", text=f"Paused: {', '.join(paused)}.", href="/processors"))
    return alerts


def missing_privileges(overview: Overview) -> list[str]:
    """Return what database roles lack: a sentence for each kind of process."""
    lacks_of = {
        process.kind: process.lacks
        for process in overview.processes
        if process.alive and process.lacks
    }
    return [
        f"The database role of the {kind}s {'; '.join(lacks)}."
        for kind, lacks in sorted(lacks_of.items())
    ]
