"""The alert rules and the dashboard: they name metrics that there are, and each rule fires on its
fault and on nothing else, as Prometheus's own `promtool` evaluates it."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.monitoring.catalogue import BY_PROCESS, OF_EVERY_PROCESS, Kind
from tests.monitoring import catalogue, dashboard, rules

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
METRICS = {*OF_EVERY_PROCESS, *(metric for served in BY_PROCESS.values() for metric in served)}
LABELS = {metric.name: set(metric.labels) for metric in METRICS}
SERIES = {
    f"{metric.name}{suffix}"
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
}


def promtool(*arguments: str) -> str:
    """Return what `promtool` prints; it must succeed. In CI it must be there."""
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing (Debian's package prometheus)")
        pytest.skip("promtool is missing (Debian's package prometheus)")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def queries(dashboard: dict[str, Any]) -> list[str]:
    """Return the expressions of all panels."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def names(expression: str) -> set[str]:
    """Return the names of our metrics in an expression."""
    return set(re.findall(r"\bingest_\w+", re.sub(r'"[^"]*"', "", expression)))


@pytest.mark.parametrize("alert", ALERTS)
def test_a_rule_names_metrics_and_labels_that_there_are(alert: str) -> None:
    expression = ALERTS[alert]["expr"]
    assert names(expression) <= SERIES
    for name, matchers in re.findall(r"\b(ingest_\w+?)(?:_bucket)?\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", matchers)) <= LABELS[name]
    assert ALERTS[alert]["labels"]["severity"] in ("page", "ticket")


def test_the_dashboard_names_metrics_that_there_are() -> None:
    expressions = queries(json.loads(DASHBOARD.read_text()))
    assert len(expressions) > 20
    for expression in expressions:
        assert names(expression), expression
        assert names(expression) <= SERIES


def test_the_files_are_taken_by_prometheus() -> None:
    promtool("check", "rules", str(RULES))
    promtool("check", "config", str(RULES.with_name("prometheus.yml")))
    promtool("check", "config", str(RULES.with_name("compose.yml")))


Series = dict[str, str]

_A_SOURCE = 'source="shop"'
_ON = 'instance="a"'
_MISMATCHES = f'ingest_refusals_total{{{_A_SOURCE},reason="signature_mismatch"}}'
HEALTHY: Series = {
    'up{job="ingest-receiver",instance="a"}': "1+0xN",
    'up{job="ingest-receiver",instance="b"}': "1+0xN",
    'ingest_build_info{process="receiver",version="1"}': "1+0xN",
    'ingest_build_info{process="worker",version="1"}': "1+0xN",
    'ingest_build_info{process="relay",version="1"}': "1+0xN",
    f'ingest_answers_total{{{_A_SOURCE},status="200"}}': "0+600xN",
    f'ingest_answers_total{{{_A_SOURCE},status="401"}}': "0+1xN",
    f'ingest_answers_total{{{_A_SOURCE},status="400"}}': "0+0xN",
    f'ingest_answers_total{{{_A_SOURCE},status="503"}}': "0+1xN",
    'ingest_answers_total{source="",status="404"}': "0+30xN",
    'ingest_answers_total{source="",status="500"}': "0+0xN",
    f'ingest_answer_duration_seconds_bucket{{{_A_SOURCE},le="0.016"}}': "0+600xN",
    f'ingest_answer_duration_seconds_bucket{{{_A_SOURCE},le="4.096"}}': "0+600xN",
    f'ingest_answer_duration_seconds_bucket{{{_A_SOURCE},le="+Inf"}}': "0+600xN",
    _MISMATCHES: "0+1xN",
    f"ingest_possible_losses_total{{{_A_SOURCE}}}": "0+0xN",
    f'ingest_refusals_total{{{_A_SOURCE},reason="signature_missing"}}': "0+500xN",
    f"ingest_clock_skew_seconds{{{_ON},{_A_SOURCE}}}": "1+0xN",
    f'ingest_key_last_used_timestamp_seconds{{{_A_SOURCE},key="1",rank="newest"}}': "0+60xN",
    f'ingest_key_last_used_timestamp_seconds{{{_A_SOURCE},key="2",rank="older"}}': "0+0xN",
    f"ingest_storage_up{{{_ON}}}": "1+0xN",
    'ingest_storage_up{instance="b"}': "1+0xN",
    f"ingest_dispatch_failures_total{{{_ON}}}": "0+0xN",
    'ingest_attempts_total{processor="crm",outcome="succeeded"}': "0+600xN",
    'ingest_attempts_total{processor="crm",outcome="failed"}': "0+6xN",
    'ingest_attempts_total{processor="crm",outcome="timed_out"}': "0+0xN",
    'ingest_attempts_total{processor="crm",outcome="snoozed"}': "0+600xN",
    'ingest_lag_seconds_bucket{processor="crm",le="1.024"}': "0+600xN",
    'ingest_lag_seconds_bucket{processor="crm",le="131.072"}': "0+600xN",
    'ingest_lag_seconds_bucket{processor="crm",le="+Inf"}': "0+600xN",
    'ingest_jobs_dead_total{processor="crm"}': "0+0xN",
    "ingest_crashed_jobs_total": "0+0xN",
    "ingest_task_failures_total": "0+0xN",
    "ingest_conflicts_total": "0+0xN",
    "ingest_relay_rescued_jobs_total": "0+0xN",
    "ingest_relay_last_sweep_timestamp_seconds": "0+60xN",
    "ingest_measured_timestamp_seconds": "0+60xN",
    "ingest_backlog_age_seconds": "0.5+0xN",
    'ingest_oldest_job_age_seconds{processor="crm",queue="events"}': "5+0xN",
    'ingest_parked_jobs{processor="crm",queue="events",reason="paused"}': "0+0xN",
    'ingest_dead_letters{processor="crm"}': "7+0xN",
    "ingest_partition_days_ahead": "13+0xN",
    'ingest_retention_behind_seconds{kind="events"}': "300+0xN",
    'ingest_pool_wait_seconds_bucket{le="0.001"}': "0+60xN",
    'ingest_pool_wait_seconds_bucket{le="4.096"}': "0+60xN",
    'ingest_pool_wait_seconds_bucket{le="+Inf"}': "0+60xN",
}
"""A pipeline that is well, with the noise that every one has: a value each minute, N minutes."""

GONE = ""
_SLOW = 'ingest_answer_duration_seconds_bucket{source="shop",le="0.016"}'
_LATE = 'ingest_lag_seconds_bucket{processor="crm",le="1.024"}'
_TENFOLD = {
    name: "0+600xN" for name, values in HEALTHY.items() if "timestamp" in name and "+60x" in values
}
"""Times that pass in steps of ten minutes."""


@dataclass(frozen=True)
class Fault:
    """What is different from a healthy pipeline."""

    series: Series
    minutes: int = 70
    step_minutes: int = 1


def of_receiver(**values: str) -> Series:
    return {f'ingest_answers_total{{{_A_SOURCE},status="{s[1:]}"}}': v for s, v in values.items()}


FAULTS = {
    "NoReceiver": Fault({'ingest_build_info{process="receiver",version="1"}': GONE}),
    "NoWorker": Fault({'ingest_build_info{process="worker",version="1"}': GONE}),
    "NoRelay": Fault({'ingest_build_info{process="relay",version="1"}': GONE}),
    "ProcessGone": Fault({'up{job="ingest-receiver",instance="b"}': "1+0x50 0+0xN"}),
    "StorageFails": Fault({f"ingest_storage_up{{{_ON}}}": "1+0x50 0+0xN"}),
    "AnswersFail": Fault(of_receiver(_503="0+20xN")),
    "Bug": Fault({'ingest_answers_total{source="",status="500"}': "0+0x65 1+0xN"}),
    "PossibleLosses": Fault({f"ingest_possible_losses_total{{{_A_SOURCE}}}": "0+0x65 1+0xN"}),
    "AnswersSlow": Fault({_SLOW: "0+580xN"}),
    "SignedRefused": Fault({_MISMATCHES: "0+60xN"}),
    "EventsRejected": Fault(of_receiver(_400="0+0x40 1+0xN")),
    "SourceQuiet": Fault(
        of_receiver(_200="0+600x144 86400+0xN", _401="0+1x144 144+0xN")
        | {_MISMATCHES: "0+1x144 144+0xN"}
        | _TENFOLD,
        1_550,
        10,
    ),
    "ClockSkew": Fault({f"ingest_clock_skew_seconds{{{_ON},{_A_SOURCE}}}": "-45+0xN"}),
    "OldKeyUsed": Fault(
        {f'ingest_key_last_used_timestamp_seconds{{{_A_SOURCE},key="2",rank="older"}}': ("0+600xN")}
        | _TENFOLD,
        1_550,
        10,
    ),
    "BacklogOld": Fault({"ingest_backlog_age_seconds": "0+0x50 60+60xN"}),
    "LagHigh": Fault({_LATE: "0+500xN"}),
    "JobsOld": Fault({'ingest_oldest_job_age_seconds{processor="crm",queue="events"}': "0+60xN"}),
    "DeadLetters": Fault({'ingest_jobs_dead_total{processor="crm"}': "0+0x65 1+0xN"}),
    "DeadLettersKept": Fault({'ingest_dead_letters{processor="crm"}': "101+0xN"}),
    "ProcessorFails": Fault(
        {'ingest_attempts_total{processor="crm",outcome="timed_out"}': "0+400xN"}
    ),
    "WorkersCrash": Fault({"ingest_crashed_jobs_total": "0+0x60 0+1xN"}),
    "TasksFail": Fault({"ingest_task_failures_total": "0+1xN"}),
    "JobsParked": Fault(
        {'ingest_parked_jobs{processor="crm",queue="events",reason="unknown"}': "5+0xN"}
    ),
    "JobsPaused": Fault(
        {'ingest_parked_jobs{processor="crm",queue="events",reason="paused"}': "5+0xN"}
    ),
    "DispatchFails": Fault({f"ingest_dispatch_failures_total{{{_ON}}}": "0+1xN"}),
    "RelayStuck": Fault({"ingest_relay_last_sweep_timestamp_seconds": "0+60x60 3600+0xN"}),
    "MeasurementOld": Fault({"ingest_measured_timestamp_seconds": "0+60x50 3000+0xN"}),
    "Conflicts": Fault({"ingest_conflicts_total": "0+0x65 1+0xN"}),
    "PartitionsRunOut": Fault({"ingest_partition_days_ahead": "2+0xN"}),
    "RetentionBehind": Fault(
        {'ingest_retention_behind_seconds{kind="events"}': "0+0x30 21700+60xN"}
    ),
    "PoolWaits": Fault({'ingest_pool_wait_seconds_bucket{le="0.001"}': "0+30xN"}),
}
"""By alert, without the prefix that all have."""


def case(name: str, fault: Fault, firing: str) -> dict[str, Any]:
    """Return a test of promtool: after so many minutes these alerts fire, and no other."""
    series = {name: values for name, values in (HEALTHY | fault.series).items() if values}
    steps = str(fault.minutes // fault.step_minutes)
    return {
        "name": name,
        "interval": f"{fault.step_minutes}m",
        "input_series": [
            {"series": name, "values": values.replace("N", steps)}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{fault.minutes}m",
                "exp_samples": (
                    [{"labels": f'{{alertname="{firing}"}}', "value": 1}] if firing else []
                ),
            }
        ],
    }


def test_every_rule_has_a_fault() -> None:
    assert {f"Ingest{name}" for name in FAULTS} == set(ALERTS)


@pytest.mark.parametrize("step_minutes", [1, 10])
def test_a_rule_fires_on_its_fault_and_on_nothing_else(step_minutes: int, tmp_path: Path) -> None:
    cases = [
        case(name, fault, f"Ingest{name}")
        for name, fault in FAULTS.items()
        if fault.step_minutes == step_minutes
    ]
    if step_minutes == 1:
        cases.append(case("healthy", Fault({}), ""))
    tests = tmp_path / "tests.yml"
    tests.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(RULES)],
                "evaluation_interval": f"{step_minutes}m",
                "tests": cases,
            }
        )
    )
    promtool("test", "rules", str(tests))


def without_times(rule: dict[str, Any]) -> dict[str, Any]:
    expression = re.sub(r"\[\w+\]|(?<=offset )\w+", "", rule["expr"])
    return rule | {"expr": expression, "for": "for" in rule}


def test_the_short_rules_differ_in_their_times_alone() -> None:
    shipped = rules.rules_of(rules.shipped())
    short = rules.rules_of(rules.shortened(rules.shipped()))
    assert list(map(without_times, short)) == list(map(without_times, shipped))
    times = {
        before.get("for", ""): after.get("for", "")
        for before, after in zip(shipped, short, strict=True)
    }
    assert (times[""], times["1m"], times["5m"], times["1d"]) == ("", "5s", "5s", "10s")
    assert "[30s] offset 30s" in str(short)
    assert "[1d]" not in str(short)


def test_every_alert_has_a_fault_in_the_run_on_a_real_prometheus() -> None:
    known = {alert.removeprefix(catalogue.PREFIX) for alert in ALERTS}
    assert {alert for fault in catalogue.FAULTS for alert in fault.alerts} == known
    assert {alert for fault in catalogue.FAULTS for alert in fault.may} <= known


def test_the_panels_that_may_be_empty_are_panels() -> None:
    assert dashboard.queries().keys() >= dashboard.EMPTY_WHEN_WELL
