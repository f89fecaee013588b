"""Each query of the dashboard has data, on a pipeline that works."""

import json

from tests.monitoring.rules import ROOT
from tests.monitoring.world import World
from tests.support.fleet import NotInTime

DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
RATE_INTERVAL = "10s"
"""What Grafana puts for `$__rate_interval`: several scrapes."""
EMPTY_WHEN_WELL = frozenset({"Refusals by reason", "Dead letters", "Parked jobs"})
"""Panels that show nothing where nothing is wrong."""
_WITHIN_S = 400.0


def queries() -> dict[str, list[str]]:
    """Return the expressions of each panel, by its title."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", RATE_INTERVAL) for target in panel["targets"]
        ]
        for panel in panels
        if "targets" in panel
    }


def problems(world: World) -> list[str]:
    """Return a sentence for each query that stays without data, or has some where it must not."""
    expected = {
        expression: title not in EMPTY_WHEN_WELL
        for title, expressions in queries().items()
        for expression in expressions
    }

    def wrong() -> list[str]:
        return [
            expression
            for expression, has_data in expected.items()
            if bool(world.prometheus.values(expression)) != has_data
        ]

    def has_all() -> bool:
        world.ask_console("/overview")  # what a console measures, it measures at a request
        return not wrong()

    try:
        world.fleet.until(has_all, what="data", timeout_s=_WITHIN_S, every_s=1)
    except NotInTime:
        return [
            f"{'no data' if expected[expression] else 'data'}: {expression}"
            for expression in wrong()
        ]
    return []
