"""The alert rules as they are shipped, but for their times: a copy that fires within seconds.

`for` and the windows of rates are a sixtieth, within bounds. Conditions and thresholds are as
shipped, also those that are times: what is to be a minute late must be.
"""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
CONFIGURATION = ROOT / "deploy/prometheus/prometheus.yml"
SCRAPE_S = 1
"""Between two scrapes, and two evaluations."""

_SHARE = 60
_FOR_S = (5, 10)
"""Less than five scrapes may fail because the machine stands still."""
_WINDOW_S = (10, 30)
"""A rate needs several scrapes; what has grown is seen to be over when the window has passed."""
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WINDOW = re.compile(r"(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]")


def shortened(rules: dict[str, Any]) -> dict[str, Any]:
    """Return the rules with short times."""
    short = copy.deepcopy(rules)
    for rule in rules_of(short):
        if "for" in rule:
            rule["for"] = _short(rule["for"], _FOR_S)
        rule["expr"] = _WINDOW.sub(lambda window: _short(window.group(), _WINDOW_S), rule["expr"])
    return short


def rules_of(rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rules of all groups."""
    return [rule for group in rules["groups"] for rule in group["rules"]]


def shipped() -> dict[str, Any]:
    """Return the rules as they are shipped."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    return rules


def configuration(ports: dict[str, int]) -> dict[str, Any]:
    """Return the configuration as it is shipped, with our intervals and each process's port."""
    shipped: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    shipped["global"] = dict.fromkeys(shipped["global"], f"{SCRAPE_S}s")
    for scrape in shipped["scrape_configs"]:
        port = ports[scrape["job_name"].removeprefix("ingest-")]
        scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    return shipped


def _short(duration: str, bounds_s: tuple[int, int]) -> str:
    low, high = bounds_s
    seconds = int(duration[:-1]) * _UNITS_S[duration[-1]] // _SHARE
    return f"{min(max(seconds, low), high)}s"
