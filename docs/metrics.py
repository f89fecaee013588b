"""Writes docs/metrics.md from the catalogue and the alert rules: `python3 docs/metrics.py`."""

# ruff: noqa: E501 - the page has longer lines than code

from pathlib import Path

import yaml

from ingest.monitoring.catalogue import BY_PROCESS, OF_EVERY_PROCESS, Metric

PAGE = Path(__file__).with_suffix(".md")
RULES = PAGE.parents[1] / "deploy/prometheus/rules.yml"

_HEAD = """# Metrics and alerts

Each process serves metrics for Prometheus over HTTP, if its kind has a port:

```console
$ export INGEST_RECEIVER_METRICS_PORT=9101 INGEST_WORKER_METRICS_PORT=9201
$ export INGEST_RELAY_METRICS_PORT=9301 INGEST_CONSOLE_METRICS_PORT=9401
$ curl -s http://127.0.0.1:9101/metrics
```

There is no login, so the address is `127.0.0.1` unless `INGEST_METRICS_HOST` says another: give it
one that only the monitoring reaches. The receiver's own port serves no metrics. Several processes
of a kind on one machine need a port each; `ingest up` gives the first receiver the port that is
set, the second one the next, and so on. While a port is taken, the process logs
`metrics_not_served`, does its work, and tries again.

A worker has one port for all its processes. They add to a memory that they share, and a process of
its own serves the sums, so a slow scrape delays no job. What a process counted stays counted when
it dies. A relay with a port measures backlog, jobs, dead letters and parked jobs every 15 s, by
statements that read a bounded number of index entries. It takes at most a tenth of the time for
that. A scrape reads what was measured, and never asks PostgreSQL. Waiting jobs, dead letters and
the backlog are counted up to 100,000 (jobs: of each queue, those due first, and their age with
them); the age of the backlog is not limited.

Histograms of durations have buckets that double. The console's percentiles are not of these: they
come from counts in PostgreSQL, whose buckets have four parts, and are at most a tenth off.

Every relay measures the same, so `max` is right over its gauges, and `sum` over counters. Labels
have few values, all of them ours: configured sources and keys, registered processors, reason
slugs. A request to an unknown address has an empty `source`.

`deploy/prometheus/prometheus.yml` is an example of what to scrape, `deploy/prometheus/rules.yml`
has the alerts, and `deploy/grafana/dashboard.json` is a dashboard to import.

Counting costs a receiver 0.6 µs of CPU for each delivery of a commit of 64, 1.5 µs for one that is
committed alone; a worker 1 µs for each job of a batch of 100, 7 µs for one that runs alone. A
scrape of a receiver takes 1.3 ms. `python -m tests.benchmarks.counting` measures that.

"""
_LIVE = """`python3 dev.py monitoring` makes real faults: it starts Prometheus, PostgreSQL, Redis, a receiver, a
worker, a relay and a console under a light load, breaks one thing after another, and fails if the
alert of that does not fire, if one fires that does not belong to it, or if it does not recover.
`tests/monitoring/catalogue.py` has the faults. It needs `prometheus` on the `PATH` (Debian's
package), and uses a copy of the rules whose `for` and windows are a sixtieth, within 1 to 10 and 10
to 30 s; all else is as shipped. CI runs the short form (`--short`), which makes many faults at
once. It found a rule that never fired (the first event that was rejected) and one that fired for
almost an hour after its fault was over (a measurement that had hung).

Seconds in one run, down to `IngestJobsPaused` in the short form, on two cores that other work kept busy
(load 8). What `for` and the window of the shipped rule take longer comes on top:

| alert | fault | fires after | recovers after |
| --- | --- | --- | --- |
| `IngestNoReceiver`, `IngestNoWorker`, `IngestNoRelay`, `IngestProcessGone` | each process is stopped, the console too | 5 to 6 s | 9 to 10 s |
| `IngestBug`, `IngestPossibleLosses` | a sender's plugin raises | 1 s | 10 s |
| `IngestEventsRejected` | what is signed is no event | 1 s | 16 s |
| `IngestConflicts` | an event comes again with other content | 1 s | 16 s |
| `IngestDeadLetters` | a job has spent its attempts | 1 s | 11 s |
| `IngestProcessorFails` | a processor fails at each attempt | 11 s | 16 s |
| `IngestPartitionsRunOut` | the partitions of the coming days are dropped | 11 s | 16 s |
| `IngestClockSkew` | the sender's clock is a minute behind | 15 s | 17 s |
| `IngestJobsPaused` | a processor is paused | 23 s | 16 s |
| `IngestTasksFail` | PostgreSQL lets no worker in | 6 s | 10 s |
| `IngestDispatchFails` | Redis is stopped | 6 s | 10 s |
| `IngestSignedRefused` | a secret is replaced at the sender alone | 12 s | 10 s |
| `IngestOldKeyUsed` | the sender signs with the older key | 11 s | 10 s |
| `IngestDeadLettersKept` | 101 jobs have spent their attempts | 13 s | 11 s |
| `IngestWorkersCrash` | a processor ends its process | 2 s | 14 s |
| `IngestJobsOld` | a job of two hours ago is not done | 7 s | 3 s |
| `IngestAnswersSlow` | commits take two seconds | 13 s | 8 s |
| `IngestPoolWaits` | 32 wait for the console's 8 connections | 13 s | 11 s |
| `IngestSourceQuiet` | a sender of 600 events sends none | 46 s | 1 s |
| `IngestStorageFails`, `IngestAnswersFail`, `IngestRelayStuck` | PostgreSQL is stopped, for more than a minute | 2, 7, 61 s | 1, 10, 3 s |
| `IngestBacklogOld` | the worker is stopped, for more than a minute | 63 s | 7 s |
| `IngestJobsParked` | a deploy leaves a processor out | 50 s | 11 s |
| `IngestLagHigh` | a processor puts its events off by a minute | 80 s | 75 s |
| `IngestMeasurementOld` | the relay's measuring hangs, for more than five minutes | 301 s | 151 s |

The same command asks Prometheus each query of the dashboard and fails if one has no data; the
panels of refusals, dead letters and parked jobs must have none, where all is well. With
`--draw FILE` it draws the dashboard with the data of the run:

![The dashboard, drawn with the data of a run](screenshots/dashboard.svg)

That is the run of `--short`: two minutes, in which every process was stopped once and most alerts
fired. Places, titles, units and legends are the dashboard's. Grafana itself was not to be had where
this was tried; its own strokes and colours are not shown.

"""


def page() -> str:
    """Return the page: every metric by process, and every alert."""
    tables = [_section(f"The {process}", metrics) for process, metrics in BY_PROCESS.items()]
    return _HEAD + "".join([*tables, _section("Every process", OF_EVERY_PROCESS), _alerts()])


def _section(title: str, metrics: tuple[Metric, ...]) -> str:
    rows = "".join(
        f"| `{metric.name}` | {metric.kind.value} | {_labels(metric)} | {metric.meaning} |\n"
        for metric in metrics
    )
    return f"## {title}\n\n| metric | kind | labels | what |\n| --- | --- | --- | --- |\n{rows}\n"


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels) or "-"


def _alerts() -> str:
    """Return the table of alerts: `page` calls somebody now, `ticket` today."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    rows = "".join(
        f"| `{rule['alert']}` | {rule['labels']['severity']} | {rule.get('for', 'at once')} |"
        f" {_plain(rule['annotations']['summary'])} |\n"
        for rule in rules
    )
    return (
        "## Alerts\n\n`page`: somebody should come now. `ticket`: today. A test lets each rule fire"
        " on its fault and on nothing else, by series that are made up (`unit/test_alert_rules.py`).\n\n"
        f"{_LIVE}"
        f"| alert | severity | after | what |\n| --- | --- | --- | --- |\n{rows}"
    )


def _plain(summary: str) -> str:
    return summary.replace("{{ $labels.", "*").replace(" }}", "*")


if __name__ == "__main__":
    PAGE.write_text(page())
