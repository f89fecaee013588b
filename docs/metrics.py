"""Writes docs/metrics.md from the catalogue and the alert rules: `python3 docs/metrics.py`."""

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
the backlog are counted up to 100,000 (jobs: of each queue); the ages beside them are not limited.

Every relay measures the same, so `max` is right over its gauges, and `sum` over counters. Labels
have few values, all of them ours: configured sources and keys, registered processors, reason
slugs. A request to an unknown address has an empty `source`.

`deploy/prometheus/prometheus.yml` is an example of what to scrape, `deploy/prometheus/rules.yml`
has the alerts, and `deploy/grafana/dashboard.json` is a dashboard to import.

Counting costs a receiver 0.6 µs of CPU for each delivery of a commit of 64, 1.5 µs for one that is
committed alone; a worker 1 µs for each job of a batch of 100, 7 µs for one that runs alone. A
scrape of a receiver takes 1.3 ms. `python -m tests.benchmarks.counting` measures that.

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
        " on its fault and on nothing else.\n\n"
        f"| alert | severity | after | what |\n| --- | --- | --- | --- |\n{rows}"
    )


def _plain(summary: str) -> str:
    return summary.replace("{{ $labels.", "*").replace(" }}", "*")


if __name__ == "__main__":
    PAGE.write_text(page())
