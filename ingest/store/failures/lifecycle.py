"""When a group of failures changes its state by itself. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ingest.store.failures.records import FailureRecord, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Attempts that have failed, and are counted in their group."""

    last_at: datetime
    """When the last of them ended."""
    began: Mapping[str, datetime]
    """When the last of them began, by the release of its worker; empty: it is not known."""


def after(
    group: FailureRecord, seen: Seen, *, had_it: Collection[str], now: datetime
) -> FailureRecord:
    """Return a group as it is once more attempts have failed in its way.

    A resolved one comes back with an attempt that began after it was resolved, whichever event it
    was at and whatever ran it: a replay that fails again shows best that it is not mended. Where it
    is to be mended by a release, attempts of the releases that had it before do not count.

    Args:
        group: with these attempts counted.
        seen: the attempts.
        had_it: the releases that had the failure when it was resolved.
        now: the time of the change.
    """
    if group.state is State.RESOLVED and _has_returned(group, seen, had_it):
        return _opened(group, now, reopened_at=now)
    if group.state is State.MUTED:
        if group.muted_to is not None and group.attempts >= group.muted_to:
            return _opened(group, now, reopened_at=now)
        if group.muted_until is not None and seen.last_at >= group.muted_until:
            return _opened(group, now, reopened_at=None)
    return group


def _has_returned(group: FailureRecord, seen: Seen, had_it: Collection[str]) -> bool:
    assert group.resolved_at is not None
    awaits = set(had_it) - {group.resolved_in} if group.resolved_in is not None else set()
    return any(
        began > group.resolved_at
        for release, began in seen.began.items()
        if not release or release not in awaits
    )


def _opened(group: FailureRecord, now: datetime, *, reopened_at: datetime | None) -> FailureRecord:
    return replace(
        group,
        state=State.OPEN,
        changed_at=now,
        changed_by=None,
        muted_until=None,
        muted_to=None,
        reopened_at=reopened_at,
    )
