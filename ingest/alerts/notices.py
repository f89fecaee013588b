"""Which alerts are told now, and in which messages. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from ingest.alerts.catalogue import RULES
from ingest.alerts.configuration import Configuration
from ingest.store.alerts import Alert

LISTED = 20
"""Alerts that one message lists; it says how many more there are."""
RUNBOOKS = "docs/runbooks.md"
"""The page of runbooks where no address of it is configured."""

Kind = Literal["fired", "reminder", "recovered", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An alert in a message."""

    alert: int
    rule: str
    subject: str
    sentence: str
    advice: str
    runbook: str
    since: str
    """ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a channel is told. It holds no secret, no body and no phone number."""

    kind: Kind
    urgent: bool
    title: str
    """The first line."""
    entries: tuple[Entry, ...]
    more: int = 0
    """Alerts that are not listed."""
    link: str | None = None
    """The console's page of alerts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """What is told now."""

    messages: Sequence[tuple[str, Message]]
    """Each with the name of its channel."""
    told: Sequence[Alert]
    """The alerts in them, as they are to be saved."""


def decide(
    alerts: Iterable[Alert],
    configuration: Configuration,
    last_told: Mapping[tuple[str, str], datetime],
    *,
    now: datetime,
) -> Notices:
    """Return the messages of this moment.

    Args:
        alerts: those that have fired, and those whose recovery is not told yet.
        configuration: channels, throttle, reminders, grouping and quiet hours.
        last_told: when each rule and subject was told lately, alerts before this one included.
        now: the time.
    """
    due: list[tuple[Kind, Alert]] = []
    for alert in alerts:
        kind = _kind(alert, configuration, last_told.get((alert.rule, alert.subject)), now)
        if kind is not None and _takers(alert, configuration):
            due.append((kind, alert))
    messages = [
        (channel, _message(kind, group, configuration))
        for channel in configuration.channels
        for kind, group in _grouped(due, channel, configuration)
    ]
    return Notices(messages=messages, told=[_told(kind, alert, now) for kind, alert in due])


def compose_test(channel: str, by: str) -> Message:
    """Return the message of the test of a channel."""
    return Message(
        kind="test",
        urgent=False,
        title=f"Test of the channel {channel}, by {by}: alerts arrive here.",
        entries=(),
    )


def _kind(
    alert: Alert, configuration: Configuration, last_told: datetime | None, now: datetime
) -> Kind | None:
    """Return what is told of an alert now; None: nothing."""
    policy = configuration.policies.get(alert.rule)
    if policy is None or not policy.enabled or alert.fired_at is None:
        return None
    quiet = configuration.quiet
    if quiet is not None and not policy.urgent and quiet.include(now):
        return None
    if alert.recovered_at is not None:
        is_over = alert.clear_since is not None
        is_due = is_over and alert.told_at is not None and alert.recovery_told_at is None
        return "recovered" if is_due else None
    if alert.clear_since is not None or _within(last_told, configuration.throttle_s, now):
        return None
    if alert.told_at is None or (policy.rule.grows and alert.value > (alert.told_value or 0)):
        return "fired"
    is_silent = alert.acknowledged_at is not None or not configuration.remind_s
    if is_silent or _within(alert.told_at, configuration.remind_s, now):
        return None
    return "reminder"


def _within(moment: datetime | None, seconds: float, now: datetime) -> bool:
    return moment is not None and (now - moment).total_seconds() < seconds


def _takers(alert: Alert, configuration: Configuration) -> list[str]:
    """Return the channels that are told an alert. A channel is not told that it fails."""
    urgent = configuration.policies[alert.rule].urgent
    return [
        name
        for name, channel in configuration.channels.items()
        if channel.takes(alert.rule, urgent=urgent)
        and not (alert.rule == "channel_fails" and alert.subject == name)
    ]


def _grouped(
    due: Iterable[tuple[Kind, Alert]], channel: str, configuration: Configuration
) -> list[tuple[Kind, list[Alert]]]:
    """Return the alerts that a channel is told, those of one message together."""
    groups: dict[tuple[Kind, object], list[Alert]] = {}
    for kind, alert in due:
        if channel in _takers(alert, configuration):
            keys = {"rule": alert.rule, "all": None, "none": alert.id}
            groups.setdefault((kind, keys[configuration.grouping]), []).append(alert)
    return [(kind, group) for (kind, _), group in groups.items()]


def _message(kind: Kind, group: Sequence[Alert], configuration: Configuration) -> Message:
    entries = [_entry(kind, alert, configuration) for alert in group]
    console = configuration.console
    return Message(
        kind=kind,
        urgent=any(configuration.policies[alert.rule].urgent for alert in group),
        title=_title(kind, group, entries[0].sentence),
        entries=tuple(entries[:LISTED]),
        more=max(0, len(entries) - LISTED),
        link=f"{console.rstrip('/')}/alerts" if console else None,
    )


_PREFIXES: Mapping[str, str] = {"fired": "Alert", "reminder": "Still", "recovered": "Recovered"}


def _title(kind: Kind, group: Sequence[Alert], first: str) -> str:
    prefix = _PREFIXES[kind]
    if len(group) == 1:
        return f"{prefix}: {first}"
    rules = {alert.rule for alert in group}
    title = RULES[rules.pop()].title if len(rules) == 1 else "alerts"
    return f"{prefix}: {title} ({len(group)})"


def _entry(kind: Kind, alert: Alert, configuration: Configuration) -> Entry:
    rule = RULES[alert.rule]
    is_over = kind == "recovered"
    return Entry(
        alert=alert.id,
        rule=rule.slug,
        subject=alert.subject,
        sentence=rule.recovered.format(subject=alert.subject) if is_over else alert.sentence,
        advice="" if is_over else rule.advice,
        runbook=f"{configuration.runbooks or RUNBOOKS}#{rule.slug}",
        since=alert.since.isoformat(timespec="seconds"),
    )


def _told(kind: Kind, alert: Alert, now: datetime) -> Alert:
    if kind == "recovered":
        return replace(alert, recovery_told_at=now)
    return replace(alert, told_at=now, told_value=alert.value)


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as it is stored, and as a webhook gets it."""
    return {
        "kind": message.kind,
        "urgent": message.urgent,
        "title": message.title,
        "entries": [
            {name: getattr(entry, name) for name in Entry.__slots__} for entry in message.entries
        ],
        "more": message.more,
        "link": message.link,
    }


def from_json(content: Mapping[str, Any]) -> Message:
    """Return a message that was stored."""
    entries = tuple(Entry(**entry) for entry in content["entries"])
    return Message(**(dict(content) | {"entries": entries}))


def text(message: Message) -> str:
    """Return a message as lines of text, without markup."""
    lines = [message.title]
    is_single = len(message.entries) == 1 and not message.more
    for entry in message.entries:
        if not is_single:
            lines += ["", f"- {entry.sentence}"]
        if entry.advice:
            lines.append(entry.advice)
        lines.append(f"Since {entry.since}. {entry.runbook}")
    if message.more:
        lines += ["", f"And {message.more} more."]
    if message.link:
        lines.append(message.link)
    return "\n".join(lines)
