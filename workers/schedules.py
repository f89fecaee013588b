"""When a periodic processor is due, and which of its due times get a run. Pure: the caller says
what time it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

Missed = Literal["latest", "all", "none"]
MOST_RUNS = 100
"""With `missed="all"`, the newest missed due times that get a run."""
ON_TIME = timedelta(seconds=60)
"""With `missed="none"`, a run may begin so long after its due time."""
COUNTED = timedelta(days=31)
"""Missed due times are counted as far back as this, unless there is none in it. Of a run each
minute that are 44,640, which takes 0.3 s."""
_FIELDS = 5


class BadSchedule(ValueError):
    """An expression, a zone or a rule that makes no schedule; the message is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a processor is due, and what happens when a due time was missed."""

    expression: str
    """A cron expression of five fields."""
    zone: str
    """The name of the time zone in which it is read."""
    missed: str
    """One of `Missed`."""
    overlap: bool
    """Whether a run may begin while another is unfinished."""

    def next_after(self, moment: datetime) -> datetime:
        """Return the first due time after `moment`, in UTC.

        Raises:
            BadSchedule: there is none, or the zone is not known here.
        """
        for due_at in self._due_after(moment):
            return due_at
        raise BadSchedule(f"{self.expression!r} is never due")

    def due_between(self, first: datetime, now: datetime) -> list[datetime]:
        """Return the due times from `first` to `now`, in UTC and in order. After a long time they
        may begin later: see `COUNTED`."""
        if now - first > COUNTED:
            recent = self._due_until(now - COUNTED, now)
            if recent:
                return recent
        return self._due_until(first, now)

    def _due_until(self, first: datetime, now: datetime) -> list[datetime]:
        due = []
        for due_at in self._due_after(first - timedelta(microseconds=1)):
            if due_at > now:
                break
            due.append(due_at)
        return due

    def _due_after(self, moment: datetime) -> Iterator[datetime]:
        """Yield due times after `moment`. Two local times that a clock change makes one moment are
        one due time, and none comes again with the hour that the clock repeats."""
        last = moment
        for local in CronSim(self.expression, moment.astimezone(_zone(self.zone))):
            due_at = local.astimezone(UTC)
            if due_at > last:
                yield due_at
                last = due_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done about a schedule now."""

    runs: tuple[tuple[datetime, int], ...]
    """Due times that get a run, each with how many before it have none of their own."""
    next_due_at: datetime
    skipped: int
    """Due times since the last run that have none."""


def check(expression: str, zone: str, missed: str, *, overlap: bool) -> Schedule:
    """Return the schedule that a declaration asks for.

    Raises:
        BadSchedule: it makes none.
    """
    if missed not in get_args(Missed):
        raise BadSchedule(f"missed must be 'latest', 'all' or 'none', not {missed!r}")
    _zone(zone)
    schedule = Schedule(
        expression=" ".join(_fields(expression)),
        zone=zone,
        missed=missed,
        overlap=overlap,
    )
    schedule.next_after(datetime(2000, 1, 1, tzinfo=UTC))
    return schedule


def plan(schedule: Schedule, *, next_due_at: datetime, skipped: int, now: datetime) -> Plan:
    """Return which due times up to `now` get a run.

    Args:
        schedule: of the processor.
        next_due_at: the first due time that nothing was decided about.
        skipped: due times since the last run that were decided to have none.
        now: may be before an earlier call's: clocks are set back.
    """
    upcoming = schedule.next_after(now)
    if next_due_at > now:  # too far ahead, if the clock was set back
        return Plan(runs=(), next_due_at=min(next_due_at, upcoming), skipped=skipped)
    # What was due by an earlier expression stays due.
    due = sorted({next_due_at, *schedule.due_between(next_due_at, now)})
    if schedule.missed == "all":
        return _all(schedule, due, skipped, upcoming)
    before = skipped + len(due) - 1
    if schedule.missed == "none" and now - due[-1] > ON_TIME:
        return Plan(runs=(), next_due_at=upcoming, skipped=before + 1)
    return Plan(runs=((due[-1], before),), next_due_at=upcoming, skipped=0)


def _all(schedule: Schedule, due: list[datetime], skipped: int, upcoming: datetime) -> Plan:
    """Return a run for each, one after another where runs must not overlap."""
    kept = due[-MOST_RUNS:]
    first = (kept[0], skipped + len(due) - len(kept))
    if schedule.overlap:
        others = tuple((due_at, 0) for due_at in kept[1:])
        return Plan(runs=(first, *others), next_due_at=upcoming, skipped=0)
    return Plan(runs=(first,), next_due_at=[*kept[1:], upcoming][0], skipped=0)


def _fields(expression: str) -> list[str]:
    fields = expression.split()
    if len(fields) != _FIELDS:
        raise BadSchedule(
            f"{expression!r} is no cron expression of five fields"
            " (minute, hour, day of month, month, day of week)"
        )
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, IndexError) as error:
        why = str(error)
        raise BadSchedule(
            f"{expression!r} is no cron expression: {why[:1].lower()}{why[1:]}"
        ) from None
    return fields


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # datetime's own is faster
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadSchedule(
            f"{name!r} is no time zone: name one of the IANA database, such as Europe/Berlin"
        ) from None
