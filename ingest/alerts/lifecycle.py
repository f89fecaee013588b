"""The life of an alert: begun, fired after a while, over, recovered after a while. Pure.

One of which nothing is known stays for a while, and ends without a recovery.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ingest.alerts.absence import Absence
from ingest.alerts.configuration import Policy
from ingest.alerts.judges import Finding
from ingest.store.alerts import Alert

MOST = 100
"""Alerts of one rule, at most: no further ones begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an evaluation changes."""

    saved: Sequence[Alert]
    """New ones have the id 0."""
    deleted: Sequence[int]
    """The ids of alerts whose condition ended before they fired."""


def advance(
    alerts: Collection[Alert],
    findings: Iterable[Finding],
    policies: Mapping[str, Policy],
    *,
    absences: Mapping[tuple[str, str], Absence],
    now: datetime,
) -> Changes:
    """Return how the alerts go on.

    Args:
        alerts: those that have not recovered.
        findings: the conditions that hold now.
        policies: of each rule.
        absences: why there is no finding, if there is none, by the rules and subjects of `alerts`.
        now: the time of the findings.
    """
    held = {(finding.rule, finding.subject): finding for finding in findings}
    saved: list[Alert] = []
    deleted: list[int] = []
    for alert in alerts:
        key = alert.rule, alert.subject
        finding = held.pop(key, None)
        policy = policies.get(alert.rule)
        if finding is not None and policy is not None:
            saved.append(_holds(alert, finding, policy, now))
            continue
        after = _not_found(alert, policy, absences[key], now)
        if after is not None and alert.fired_at is None:
            deleted.append(alert.id)
        elif after is not None:
            saved.append(after)
    counts = Counter(alert.rule for alert in alerts)
    new = _limited(held.values(), counts)
    saved += [_begun(finding, policies[finding.rule], now) for finding in new]
    return Changes(saved=saved, deleted=deleted)


def _limited(new: Iterable[Finding], counts: Counter[str]) -> Iterator[Finding]:
    """Yield new findings until their rule has `MOST` alerts, those in `counts` included."""
    for finding in new:
        counts[finding.rule] += 1
        if counts[finding.rule] <= MOST:
            yield finding


def _begun(finding: Finding, policy: Policy, now: datetime) -> Alert:
    return Alert(
        id=0,
        rule=finding.rule,
        subject=finding.subject,
        sentence=finding.sentence,
        value=finding.value,
        since=now,
        seen_at=now,
        fired_at=None if policy.for_s else now,
    )


def _holds(alert: Alert, finding: Finding, policy: Policy, now: datetime) -> Alert:
    has_held = (now - alert.since).total_seconds() >= policy.for_s
    told_value = alert.told_value
    return replace(
        alert,
        sentence=finding.sentence,
        value=finding.value,
        seen_at=now,
        fired_at=alert.fired_at or (now if has_held else None),
        clear_since=None,
        told_value=None if told_value is None else min(told_value, finding.value),
    )


def _not_found(
    alert: Alert, policy: Policy | None, absence: Absence, now: datetime
) -> Alert | None:
    """Return an alert of which there is no finding as it is now; None: it stays as it is.

    One whose rule is off has not recovered either: nobody looks.
    """
    if policy is None or not policy.enabled or absence is Absence.GONE:
        return _ended(alert, now)
    if absence is Absence.OVER:
        return _over(alert, policy.recover_for_s, now)
    unknown_s = (now - alert.seen_at).total_seconds()
    return _ended(alert, now) if unknown_s >= policy.rule.unknown_for_s else None


def _ended(alert: Alert, now: datetime) -> Alert:
    # Noted as told, so that a process of the release before does not tell it as a recovery.
    return replace(alert, clear_since=None, recovered_at=now, recovery_told_at=now)


def _over(alert: Alert, wait_s: float, now: datetime) -> Alert:
    clear_since = alert.clear_since or now
    has_waited = (now - clear_since).total_seconds() >= wait_s
    return replace(alert, clear_since=clear_since, recovered_at=now if has_waited else None)
