"""The alerts on top of every page. The rules are in ingest.alerts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ingest.alerts import catalogue
from ingest.alerts.catalogue import RULES
from ingest.console.services.overview import MOST_ON_EACH_PAGE, OverviewCache
from ingest.store.alerts import Alert

SHOWN = 4
"""Alerts on top of a page, at most; the page of alerts has the rest."""
PAGE = "/alerts"

Level = Literal["info", "warn", "error"]
_OF_PROCESSORS = frozenset(
    rule.slug
    for rule in (
        *(catalogue.DEAD_LETTERS, catalogue.PROCESSOR_FAILS),
        *(catalogue.PROCESSOR_PAUSED, catalogue.BREAKER_OPEN),
    )
)
_OF_LANES = frozenset(rule.slug for rule in (catalogue.JOBS_OLD, catalogue.JOBS_PARKED))
"""Their subject is a processor and a queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A line on top of every page."""

    level: Level
    text: str
    href: str | None = None
    """The page that says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageStatus:
    """What every page shows of the state of the system."""

    notices: tuple[Notice, ...]
    dead_letters: int
    has_more_dead_letters: bool
    """Whether there may be more: they are not counted to the end."""


def read(overviews: OverviewCache) -> PageStatus:
    """Return the alerts of now, at most some seconds old."""
    status = overviews.status()
    if status is None:
        return PageStatus(notices=(), dead_letters=0, has_more_dead_letters=False)
    return PageStatus(
        notices=tuple(notices(status.alerts)),
        dead_letters=min(status.dead_letters, MOST_ON_EACH_PAGE),
        has_more_dead_letters=status.dead_letters > MOST_ON_EACH_PAGE,
    )


def notices(alerts: Sequence[Alert]) -> list[Notice]:
    """Return lines for the alerts that nobody has acknowledged, the worst first.

    What has not held long enough to fire is shown too: a person who looks sees what is so now.
    """
    order: list[Level] = ["error", "warn", "info"]
    shown = sorted(
        (_notice(alert) for alert in alerts if alert.acknowledged_at is None),
        key=lambda notice: order.index(notice.level),
    )
    if len(shown) <= SHOWN:
        return shown
    rest = len(shown) - SHOWN + 1
    more = Notice(level=shown[SHOWN - 1].level, text=f"{rest} alerts more.", href=PAGE)
    return [*shown[: SHOWN - 1], more]


def _notice(alert: Alert) -> Notice:
    rule = RULES.get(alert.rule)
    href = rule.href if rule is not None else PAGE
    return Notice(level=level(alert), text=alert.sentence, href=PAGE if href == "/" else href)


def level(alert: Alert) -> Level:
    """Return how loud an alert is shown."""
    rule = RULES.get(alert.rule)
    if rule is not None and rule.urgent:
        return "error"
    return "info" if alert.fired_at is None else "warn"


def processor_of(alert: Alert) -> str | None:
    """Return the processor that an alert is about; None: it is about something else."""
    if alert.rule in _OF_PROCESSORS:
        return alert.subject
    return alert.subject.rpartition(" in ")[0] if alert.rule in _OF_LANES else None
