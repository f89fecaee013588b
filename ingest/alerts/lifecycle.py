"""The life of an alert: begun, fired after a while, over, recovered after a while. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ingest.alerts.configuration import Policy
from ingest.alerts.judges import Finding
from ingest.store.alerts import Alert

UNSEEN_FOR = timedelta(hours=1)
"""An alert of which nobody knows any more ends after this: its machine is gone, for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an evaluation changes."""

    saved: Sequence[Alert]
    """New ones have the id 0."""
    deleted: Sequence[int]
    """The ids of alerts whose condition ended before they fired."""


def advance(
    alerts: Iterable[Alert],
    findings: Iterable[Finding],
    policies: Mapping[str, Policy],
    *,
    known: Iterable[tuple[str, str]],
    now: datetime,
) -> Changes:
    """Return how the alerts go on.

    Args:
        alerts: those that have not recovered.
        findings: the conditions that hold now.
        policies: of each rule.
        known: the rules and subjects of `alerts` of which the findings say something. Others stay
            as they are for an hour.
        now: the time of the findings.
    """
    held = {(finding.rule, finding.subject): finding for finding in findings}
    judged = set(known)
    saved: list[Alert] = []
    deleted: list[int] = []
    for alert in alerts:
        key = alert.rule, alert.subject
        finding = held.pop(key, None)
        policy = policies.get(alert.rule)
        if finding is not None and policy is not None:
            saved.append(_holds(alert, finding, policy, now))
        elif key not in judged and now - alert.seen_at < UNSEEN_FOR:
            continue
        elif alert.fired_at is None:
            deleted.append(alert.id)
        else:
            wait_s = policy.recover_for_s if policy is not None and policy.enabled else 0
            saved.append(_over(alert, wait_s, now))
    saved += [_begun(finding, policies[finding.rule], now) for finding in held.values()]
    return Changes(saved=saved, deleted=deleted)


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


def _over(alert: Alert, wait_s: float, now: datetime) -> Alert:
    clear_since = alert.clear_since or now
    has_waited = (now - clear_since).total_seconds() >= wait_s
    return replace(alert, clear_since=clear_since, recovered_at=now if has_waited else None)
