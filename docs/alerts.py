# ruff: noqa: E501 - a row of a table is one line
"""Writes docs/alerts.md from the catalogue of rules: `python3 docs/alerts.py`."""

from pathlib import Path

from ingest.alerts.catalogue import RULES, Rule

PAGE = Path(__file__).with_suffix(".md")

_HEAD = """# Alerts

The relay evaluates the rules below every 15 s. What fires is on the console's page of alerts and on
top of every page. Who is told stands in a file:

```toml
# alerts.toml, named by INGEST_ALERTS for the relay and the console
console = "https://console.example.com"

[channels.team]
kind = "slack"
url_file = "slack_url"     # a file beside this one; or url_env = "SLACK_URL"
```

```console
$ ingest alerts check alerts.toml   # says in words what it means; wrong input gets one sentence
$ ingest alerts test team           # sends a message, and says what comes back
$ ingest alerts list --all
$ ingest alerts ack 12              # you look after it: no reminders
$ ingest alerts unack 12            # you do not any more
```

Relay and console read the file at their start, and do not start with one that is wrong. No secret
stands in it: secrets are read from a variable (`…_env`) or a file (`…_file`) each time, so they
change without a restart. Without a file, alerts are evaluated and shown, and nobody is told.

## Channels

| kind | keys |
| --- | --- |
| `slack` | `url_env` or `url_file`: the address of an incoming webhook |
| `email` | `host`, `from`, `to` (a list); `tls` (`starttls`, `tls` or `none`), `port`, `username` with `password_env` or `password_file` |
| `webhook` | `url` (or `url_env`, `url_file`), and `secret_env` or `secret_file`: `whsec_` and base64. Signed as [Standard Webhooks](https://www.standardwebhooks.com) says |
| `apprise` | `url_env` or `url_file`: any address that [apprise](https://github.com/caronc/apprise) knows. `pip install 'webhook-ingest[apprise]'` |

Every channel may have `rules = ["no_worker", …]` (the rules that it is told) and `urgent_only = true`.
A message has the sentence of what fired, what to do first, since when, and its
[runbook](runbooks.md) (`runbooks = "https://…/runbooks.html"` makes that a link). It has no
body, no secret and no phone number.

Messages wait in the database, one line for each channel, and are sent in their order by whichever
relay is first. A channel that is down is tried again after 15 s, then after twice as long each
time, up to half an hour, for a day; it holds up no other. What waits for a channel that is no
longer in the file is given up after a day too. The console shows what waits and the last error. A
process that is killed between the sending and its record sends that message again: a webhook's
`webhook-id` and a mail's `Message-ID` are the same then.

## When a message is sent

| key | default | means |
| --- | --- | --- |
| `for_s` (of a rule) | see below | hold: the condition must last so long before the alert fires |
| `recover_for_s` (of a rule) | see below | and must be over so long before it recovers, so that it does not flap |
| `throttle_s` | 900 | not more than one message about a rule and subject in that time; what fires meanwhile is told afterwards, if it still does. The recovery is extra |
| `remind_s` | 14400 | what still fires, and nobody has acknowledged, is told again after that; 0: never |
| `grouping` | `"rule"` | alerts of one rule that come together make one message; `"all"`: all of them; `"none"`: each its own |
| `interval_s` | 15 | time between two evaluations |

```toml
[quiet]                      # only what is urgent is told; the rest afterwards, if it still holds
from = "22:00"
to = "07:00"
zone = "Asia/Riyadh"

[rules.backlog_old]          # thresholds by their names, for_s, recover_for_s, urgent
seconds = 300
[rules.redis_away]
enabled = false

[heartbeat]                  # asked every minute while the rules are evaluated
url_env = "HEARTBEAT_URL"
```

An alert recovers when its condition is known to be over: a quiet source has delivered again, a
processor that failed has succeeded, the machine of a full disk sees room on it. While that is not
known the alert stays as it is, for an hour at most; `old_key_used` for a day and `source_quiet` for
a week. Then it ends, and no recovery is told. It ends so at once if its rule is switched off, or its
subject removed: a source, a schedule, an old key, a channel. A process without the secrets of
senders cannot tell which sources are removed. Give it those of all sources or none: it takes one
whose secret it lacks for removed, and does not watch it.

## Who tells that no relay is alive

The console: it evaluates while no relay has done so for four intervals. Where neither runs, or
PostgreSQL is away, nothing here can tell anybody. For that there is `[heartbeat]`: a service outside
(healthchecks.io, for one) that sends a message when it is no longer asked.

With several relays, one of them evaluates, by a turn in the database. `disk_low` is about the machine of that one.

## The rules

Reading the facts takes bounded statements, at most a tenth of the time. A threshold without a
default switches its rule off. `ingest alerts check` shows what holds.

| rule | fires | urgent | hold, s | recovers after, s | thresholds |
| --- | --- | --- | --- | --- | --- |
"""


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(_row(rule) for rule in RULES.values())


def _row(rule: Rule) -> str:
    thresholds = "; ".join(
        f"`{threshold.name}` {_number(threshold.default)}: {threshold.meaning}"
        for threshold in rule.thresholds
    )
    cells = (
        f"[`{rule.slug}`](runbooks.md#{rule.slug})",
        rule.condition,
        "yes" if rule.urgent else "no",
        f"{rule.for_s:g}",
        f"{rule.recover_for_s:g}",
        thresholds or "-",
    )
    return f"| {' | '.join(cells)} |\n"


def _number(value: float | None) -> str:
    return "(none)" if value is None else f"{value:.10g}"


if __name__ == "__main__":
    PAGE.write_text(page())
