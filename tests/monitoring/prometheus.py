"""A Prometheus server, and what one asks it."""

import json
import math
import os
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ingest.local.process import Program
from tests.monitoring import rules
from tests.support.ports import free_port

_LABEL = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Line:
    """A series over time."""

    legend: str
    points: Sequence[tuple[float, float]]
    """Unix time in seconds, and the value then."""


class Prometheus:
    """A server on a port of its own, which scrapes the processes and evaluates the rules."""

    def __init__(self, home: Path, ports: dict[str, int]) -> None:
        """Write its files into `home`. The processes serve their metrics on `ports`.

        Raises:
            SystemExit: no Prometheus is installed.
        """
        self._home = home
        self._port = free_port()
        self._binary = find_binary()
        (home / "rules.yml").write_text(yaml.safe_dump(rules.shortened(rules.shipped())))
        (home / "prometheus.yml").write_text(yaml.safe_dump(rules.configuration(ports)))

    def program(self) -> Program:
        """Return how it is started."""
        return Program(
            name="prometheus",
            command=[
                self._binary,
                f"--config.file={self._home / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._home / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            log=self._home / "logs" / "prometheus.log",
            ready=lambda _pid: self._is_ready(),
        )

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def up(self) -> int:
        """Return how many processes are scraped."""
        return sum(target["health"] == "up" for target in self._ask("targets")["activeTargets"])

    def values(self, expression: str) -> list[float]:
        """Return the numbers that an expression has now; one that is none is left out."""
        answer = self._ask("query", query=expression)
        numbers = [float(series["value"][1]) for series in answer["result"]]
        return [number for number in numbers if math.isfinite(number)]

    def over_time(
        self, expression: str, *, legend: str, since: float, until: float, points: int
    ) -> list[Line]:
        """Return what an expression was over a span of Unix time; `legend` names its series as
        Grafana does: `{{label}}` stands for a label's value."""
        answer = self._ask(
            "query_range",
            query=expression,
            start=f"{since:.3f}",
            end=f"{until:.3f}",
            step=f"{(until - since) / points:.3f}",
        )
        return [
            Line(
                _LABEL.sub(partial(_value_of, series["metric"]), legend),
                [(float(at), float(value)) for at, value in series["values"]],
            )
            for series in answer["result"]
        ]

    def _ask(self, what: str, **parameters: str) -> Any:
        address = (
            f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        )
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False


def _value_of(labels: dict[str, str], name: re.Match[str]) -> str:
    return labels.get(name[1], "")


def find_binary() -> str:
    """Return where Prometheus is.

    Raises:
        SystemExit: it is not installed.
    """
    binary = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if binary is None:
        raise SystemExit("prometheus is missing (Debian's package prometheus)")
    return binary
