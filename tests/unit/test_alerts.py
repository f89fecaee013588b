"""What is told when, and by which message: pure functions, with the test's own clock."""

import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from ingest import settings
from ingest.alerts import configuration, explain, lifecycle, notices
from ingest.alerts.absence import Absence
from ingest.alerts.catalogue import RULES
from ingest.alerts.channels import check as channels
from ingest.alerts.configuration import Configuration, QuietHours, Slack
from ingest.alerts.delivery import next_attempt
from ingest.alerts.judges import Finding
from ingest.alerts.watch import ConfiguredKeys
from ingest.errors import SettingsError
from ingest.sources import registry
from ingest.store.alerts import Alert, Outgoing

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TEAM = {"team": Slack(kind="slack", url_env="SLACK_URL")}
SETUP = replace(configuration.read(None), channels=TEAM)
SOURCES = """
[riyadh]
preset = "shopify"
[jeddah]
preset = "shopify"
[till]
title = "The till"
id = "body.id"
type = "body.type"
verify.scheme = "none"
samples = [{type = "sold", body = '{"id": "<id>", "type": "sold"}'}]
"""
NOTHING = lifecycle.Changes(saved=[], deleted=[])


def alert(rule: str = "jobs_old", subject: str = "crm", **fields: Any) -> Alert:
    """An alert that has fired ten minutes ago, and was not told."""
    fired = NOW - 10 * MINUTE
    usual = Alert(
        id=7,
        rule=rule,
        subject=subject,
        sentence=f"{subject}!",
        value=1.0,
        since=fired,
        seen_at=NOW,
        fired_at=fired,
    )
    return replace(usual, **fields)


def told(
    *alerts: Alert, setup: Configuration = SETUP, now: datetime = NOW, **last: datetime
) -> list[str]:
    """The titles of the messages of a moment; `last` is when a subject was told."""
    last_told = {
        (each.rule, each.subject): last[each.subject] for each in alerts if each.subject in last
    }
    decided = notices.decide(alerts, setup, last_told, now=now)
    return [message.title for _, message in decided.messages]


def test_an_alert_is_told_once_and_again_as_a_reminder() -> None:
    assert told(alert()) == ["Alert: crm!"]
    known = alert(told_at=NOW, told_value=1)
    assert not told(known, now=NOW + 239 * MINUTE)
    assert told(known, now=NOW + 240 * MINUTE) == ["Still: crm!"]
    assert not told(replace(known, acknowledged_at=NOW), now=NOW + 600 * MINUTE)
    assert not told(known, setup=replace(SETUP, remind_s=0), now=NOW + 600 * MINUTE)


def test_an_alert_that_was_told_lately_before_it_recovered_waits_for_the_throttle() -> None:
    again = alert()
    assert not told(again, crm=NOW - 14 * MINUTE)
    assert told(again, crm=NOW - 15 * MINUTE) == ["Alert: crm!"]


def test_what_grows_is_told_again_even_when_acknowledged() -> None:
    more = alert(
        "dead_letters", value=3, told_at=NOW - 60 * MINUTE, told_value=2, acknowledged_at=NOW
    )
    assert told(more) == ["Alert: crm!"]
    assert not told(replace(more, value=2))
    assert not told(more, crm=NOW - MINUTE)


def test_a_recovery_is_told_only_of_what_was_told() -> None:
    over = alert(recovered_at=NOW, clear_since=NOW)
    assert not told(over)
    known = replace(over, told_at=NOW - MINUTE, told_value=1)
    assert told(known, crm=NOW - MINUTE) == ["Recovered: crm has no old job any more."]
    assert not told(replace(known, recovery_told_at=NOW))


def test_several_of_one_kind_make_one_message() -> None:
    group = [alert(subject=name) for name in ("a", "b", "c")] + [alert("redis_away", "")]
    assert told(*group) == ["Alert: old jobs (3)", "Alert: !"]
    assert told(*group, setup=replace(SETUP, grouping="all")) == ["Alert: alerts (4)"]
    many = [alert(subject=str(number), id=number) for number in range(30)]
    (message,) = [message for _, message in notices.decide(many, SETUP, {}, now=NOW).messages]
    assert (len(message.entries), message.more) == (20, 10)
    assert notices.from_json(notices.to_json(message)) == message
    assert notices.text(message).endswith("And 10 more.")
    assert len(told(*many, setup=replace(SETUP, grouping="none"))) == 30


def test_in_quiet_hours_only_what_is_urgent_is_told_and_the_rest_afterwards() -> None:
    quiet = QuietHours.model_validate({"from": "22:00", "to": "07:00", "zone": "Asia/Riyadh"})
    setup = replace(SETUP, quiet=quiet)
    urgent, other = alert("no_worker", ""), alert()
    assert told(urgent, other, setup=setup) == ["Alert: !"]  # 23:00 in Riyadh
    assert told(other, setup=setup, now=NOW - 61 * MINUTE) == ["Alert: crm!"]
    assert not told(other, setup=setup, now=NOW + 479 * MINUTE)
    assert told(other, setup=setup, now=NOW + 480 * MINUTE) == ["Alert: crm!"]


def test_a_channel_is_told_its_rules_and_never_that_it_fails() -> None:
    channels = {
        "urgent": Slack(kind="slack", url_env="A", urgent_only=True),
        "some": Slack(kind="slack", url_env="A", rules=("jobs_old", "channel_fails")),
    }
    setup = replace(SETUP, channels=channels)
    several = [alert(), alert("no_worker", ""), alert("channel_fails", "some")]
    decided = notices.decide(several, setup, {}, now=NOW)
    assert [(name, message.entries[0].rule) for name, message in decided.messages] == [
        ("urgent", "no_worker"),
        ("some", "jobs_old"),
    ]
    assert [each.rule for each in decided.told] == ["jobs_old", "no_worker"]


def finding(subject: str = "crm") -> Finding:
    """What the rule about old jobs finds of a subject."""
    return Finding(rule="jobs_old", subject=subject, value=1, sentence=f"{subject}!")


def advance(
    current: list[Alert], holds: bool, now: datetime, absence: Absence = Absence.OVER
) -> lifecycle.Changes:
    absences = {(known.rule, known.subject): absence for known in current}
    findings = [finding()] if holds else []
    return lifecycle.advance(current, findings, SETUP.policies, absences=absences, now=now)


def test_an_alert_fires_after_its_hold_and_recovers_after_another() -> None:
    (begun,) = advance([], True, NOW).saved
    assert (begun.id, begun.fired_at) == (0, None)
    begun = replace(begun, id=1)
    assert advance([begun], False, NOW + MINUTE).deleted == [1]
    (held,) = advance([begun], True, NOW + 4 * MINUTE).saved
    assert held.fired_at is None
    (fired,) = advance([held], True, NOW + 5 * MINUTE).saved
    assert fired.fired_at == NOW + 5 * MINUTE
    (over,) = advance([fired], False, NOW + 6 * MINUTE).saved
    assert (over.clear_since, over.recovered_at) == (NOW + 6 * MINUTE, None)
    (back,) = advance([over], True, NOW + 7 * MINUTE).saved
    assert (back.fired_at, back.clear_since) == (fired.fired_at, None)
    (ended,) = advance([over], False, NOW + 8 * MINUTE).saved
    assert ended.recovered_at == NOW + 8 * MINUTE


def test_an_alert_of_which_nothing_is_known_stays_for_an_hour_and_does_not_recover() -> None:
    fired = alert(seen_at=NOW, clear_since=NOW, told_at=NOW, told_value=1)
    assert advance([fired], False, NOW + 59 * MINUTE, Absence.UNKNOWN) == NOTHING
    late = NOW + 60 * MINUTE
    (ended,) = advance([fired], False, late, Absence.UNKNOWN).saved
    assert (ended.recovered_at, ended.clear_since) == (late, None)
    assert not told(ended, now=late)
    held = replace(fired, fired_at=None)
    assert advance([held], False, NOW + 59 * MINUTE, Absence.UNKNOWN) == NOTHING
    assert advance([held], False, late, Absence.UNKNOWN).deleted == [held.id]


def test_a_rule_has_a_hundred_alerts_at_most_and_none_makes_way_for_another() -> None:
    last = alert(subject="z")
    findings = [finding(f"crm {number}") for number in range(100)] + [finding("z")]
    absences = {(last.rule, last.subject): Absence.OVER}
    saved = lifecycle.advance([last], findings, SETUP.policies, absences=absences, now=NOW).saved
    assert len(saved) == 100
    assert saved[0] == last


def test_a_message_that_is_not_taken_is_tried_for_a_day() -> None:
    message = Outgoing(id=UUID(int=1), channel="team", made_at=NOW, content={}, attempts=1)
    waits = [
        (next_attempt(replace(message, attempts=number), NOW) or NOW) - NOW
        for number in range(1, 12)
    ]
    assert [wait.total_seconds() for wait in waits[:5]] == [15, 30, 60, 120, 240]
    assert max(waits) == timedelta(minutes=30)
    assert (
        next_attempt(replace(message, attempts=60), NOW + timedelta(hours=23, minutes=45)) is None
    )


def test_a_source_can_be_received_if_it_has_a_secret_or_needs_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    described = tmp_path / "sources.toml"
    described.write_text(SOURCES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_SOURCES", str(described))
    monkeypatch.setenv("INGEST_RIYADH_SECRETS", "a_secret_of_the_tests_0123456789")
    try:
        configured = ConfiguredKeys(settings.load(), os.environ).read()
    finally:
        registry.use({})
    assert {source: len(keys) for source, keys in configured.items()} == {"riyadh": 1, "till": 0}


WRONG = [
    ("[channels.team]\nkind = 'slack'", "channels.team: one of url_env, url_file is needed."),
    ("[channels.team]\nkind = 'slak'", "channels.team.kind: this must be one of slack, email,"),
    ("[channels.team]\nurl_env = 'A'", "channels.team.kind: this key is missing"),
    (
        "[channels.team]\nkind = 'slack'\nurl = 'https://hooks.slack.com/T/SECRET'",
        "channels.team.url: a secret does not stand in this file; use url_env or url_file.",
    ),
    (
        "[channels.m]\nkind = 'email'\nhost = 'h'\nfrom = 'a@b'\nto = ['SECRET']",
        "channels.m.to.0: must be an e-mail address",
    ),
    (
        "channels.m={kind='email',host='h',from='a@b',to=['a@b'],username='u',tls='none',password_env='A'}",
        "channels.m: a password is not sent without TLS",
    ),
    ("[channels.t]\nkind='slack'\nurl_env='A'\nrules=['no_wrker']", "perhaps no_worker was meant"),
    ("[rules.backlog]\nseconds = 1", "rules.backlog: there is no such rule; perhaps backlog_old"),
    (
        "[rules.backlog_old]\nsecond = 1",
        "rules.backlog_old.second: there is no such key; perhaps seconds",
    ),
    (
        "[rules.backlog_old]\nseconds = 'SECRET'",
        "rules.backlog_old.seconds: this must be a number.",
    ),
    ("throttle_s = -1", "throttle_s: input should be greater than or equal to 0."),
    ("throtle_s = 1", "throtle_s: there is no such key."),
    ("[quiet]\nfrom = '22:00'\nto = '7'\nzone = 'UTC'", "quiet.to: "),
    ("[quiet]\nfrom = '22:00'\nto = '07:00'\nzone = 'Riyadh'", "quiet.zone: must be a time zone"),
    ("x = ", "this is not TOML: invalid value"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG)
def test_wrong_input_gets_one_sentence_with_the_field(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        configuration.read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert sentence in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert "\n" not in str(refused.value)


FILE = """
console = "https://console.example.com"
grouping = "all"
[channels.team]
kind = "slack"
url_file = "slack_url"
[channels.mail]
kind = "email"
host = "smtp.example.com"
from = "ingest@example.com"
to = ["oncall@example.com"]
urgent_only = true
[channels.hook]
kind = "webhook"
url = "https://example.com/hook"
secret_env = "HOOK_SECRET"
[quiet]
from = 22:00:00
to = 07:00:00
zone = "Europe/Berlin"
[rules.redis_away]
enabled = false
[rules.backlog_old]
seconds = 300
urgent = false
"""


def test_a_file_is_told_in_words_and_missing_secrets_are_named(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(FILE)
    setup = configuration.read(path)
    words = "\n".join(explain.explain(setup))
    for sentence in (
        "The channel mail is e-mail to oncall@example.com by smtp.example.com:587, STARTTLS;",
        "it is told all rules, only what is urgent.",
        "From 22:00 to 07:00 (Europe/Berlin) only what is urgent is told",
        "redis_away is off.",
        "backlog_old (not urgent): seconds 300, for 60 s, recovers after 120 s.",
        "database_large is off.",
    ):
        assert sentence in words
    assert list(channels.problems(setup, {})) == [
        f"channels.team: {tmp_path}/slack_url: No such file or directory.",
        "channels.hook: HOOK_SECRET: it is not set.",
    ]


def test_each_rule_and_each_alert_of_prometheus_has_a_runbook() -> None:
    page = (ROOT / "docs/runbooks.md").read_text()
    headings = set(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    named = set(re.findall(r"`(Ingest\w+)`", page)) | headings
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"][0]["rules"]
    alerts = {rule["alert"] for rule in rules}
    assert RULES.keys() <= headings
    assert {name for name in named if name.startswith("Ingest")} == alerts
