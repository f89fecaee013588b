"""The dashboard with the data of a run, as an SVG. It stands in for Grafana: places, titles, units
and legends are the file's, the strokes are ours."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from tests.monitoring.dashboard import DASHBOARD, RATE_INTERVAL
from tests.monitoring.prometheus import Line, Prometheus

_POINTS = 120
_GAP = 1.5
"""Points further apart than this many steps are not joined."""
_COLUMN, _ROW = 60, 26
"""Pixels of a unit of Grafana's grid, which is 24 columns wide."""
_PLOT = {"left": 52, "right": 10, "top": 34, "bottom": 44}
_COLOURS = ("#3366cc", "#c0392b", "#2e8b57", "#b8860b", "#7d3c98", "#117a8b", "#b0578d", "#555555")
_LEGENDS = 4
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.t{font-weight:600;fill:#111}"
    ".r{font-size:14px;font-weight:600}.n{fill:#999}"
)


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a panel is, in pixels."""

    x: float
    y: float
    width: float
    height: float


def draw(prometheus: Prometheus, *, since: float, until: float) -> str:
    """Return the dashboard as an SVG, over a span of Unix time in seconds."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    parts = [_panel(panel, prometheus, since, until) for panel in panels]
    height = max(_box(panel).y + _box(panel).height for panel in panels)
    size = f'width="{24 * _COLUMN}" height="{height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#f4f5f5"/>{"".join(parts)}</svg>\n'
    )


def _panel(panel: dict[str, Any], prometheus: Prometheus, since: float, until: float) -> str:
    box = _box(panel)
    if panel["type"] == "row":
        return f'<text class="r" x="{box.x + 8}" y="{box.y + 18}">{escape(panel["title"])}</text>'
    lines = [
        line
        for target in panel["targets"]
        for line in prometheus.over_time(
            target["expr"].replace("$__rate_interval", RATE_INTERVAL),
            legend=target["legendFormat"],
            since=since,
            until=until,
            points=_POINTS,
        )
    ]
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    frame = (
        f'<rect x="{box.x + 3}" y="{box.y + 3}" width="{box.width - 6}" height="{box.height - 6}"'
        f' rx="3" fill="#fff" stroke="#ddd"/>'
        f'<text class="t" x="{box.x + 12}" y="{box.y + 19}">{escape(panel["title"])}</text>'
    )
    return frame + _plot(box, lines, unit, since, until)


def _plot(box: _Box, lines: Sequence[Line], unit: str, since: float, until: float) -> str:
    left, top = box.x + _PLOT["left"], box.y + _PLOT["top"]
    width = box.width - _PLOT["left"] - _PLOT["right"]
    height = box.height - _PLOT["top"] - _PLOT["bottom"]
    values = [value for line in lines for _, value in line.points if math.isfinite(value)]
    if not values:
        return f'<text class="n" x="{left}" y="{top + height / 2}">No data</text>'
    lowest, highest = min(*values, 0.0), max(*values, 0.0)
    highest = highest if highest > lowest else 1.0
    drawn = [_axis(left, top, width, height, unit, lowest, highest)]
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        for stretch in _stretches(line.points, longest_gap_s=_GAP * (until - since) / _POINTS):
            places = " ".join(
                f"{left + (at - since) / (until - since) * width:.1f},"
                f"{top + (highest - value) / (highest - lowest) * height:.1f}"
                for at, value in stretch
            )
            drawn.append(
                f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            )
        if number < _LEGENDS:
            drawn.append(_legend(box, number, colour, line.legend, more=len(lines) - _LEGENDS))
    return "".join(drawn)


def _stretches(
    points: Sequence[tuple[float, float]], *, longest_gap_s: float
) -> list[list[tuple[float, float]]]:
    """Return the points without those that are no number, apart where there are none."""
    stretches: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not math.isfinite(value):
            continue
        if not stretches or at - stretches[-1][-1][0] > longest_gap_s:
            stretches.append([])
        stretches[-1].append((at, value))
    return stretches


def _axis(
    left: float, top: float, width: float, height: float, unit: str, lowest: float, highest: float
) -> str:
    marks = []
    for share in (0.0, 0.5, 1.0):
        y = top + (1 - share) * height
        text = spell(lowest + share * (highest - lowest), unit)
        marks.append(f'<path d="M{left} {y}h{width}" stroke="#eee"/>')
        marks.append(f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{text}</text>')
    return "".join(marks)


def _legend(box: _Box, number: int, colour: str, text: str, *, more: int) -> str:
    column, row = number % 2, number // 2
    x = box.x + 14 + column * (box.width - 20) / 2
    y = box.y + box.height - 24 + row * 14
    is_last = number == _LEGENDS - 1 and more > 0
    short = text if len(text) <= _LEGEND_LENGTH else text[: _LEGEND_LENGTH - 1] + "…"
    named = escape(short + (f" +{more}" if is_last else ""))
    return (
        f'<rect x="{x}" y="{y - 5}" width="12" height="3" fill="{colour}"/>'
        f'<text x="{x + 17}" y="{y}">{named}</text>'
    )


_LEGEND_LENGTH = 24
_SUFFIXES = {"reqps": "/s", "ops": "/s", "s": " s", "d": " d", "bytes": " B"}


def spell(value: float, unit: str) -> str:
    """Return a value with its unit, as short as an axis needs it."""
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s" and 0 < abs(value) < 1:
        name, times = ("ms", 1e3) if abs(value) >= 1e-3 else ("µs", 1e6)
        return f"{value * times:.3g} {name}"
    for name, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size or (unit == "bytes" and abs(value) >= size):
            text = f"{value / size:.3g} {name}" if unit == "bytes" else f"{value / size:.3g}{name}"
            return text + _SUFFIXES.get(unit, "").strip()
    return f"{value:.3g}{_SUFFIXES.get(unit, '')}"


def _box(panel: dict[str, Any]) -> _Box:
    place = panel["gridPos"]
    return _Box(
        x=place["x"] * _COLUMN,
        y=place["y"] * _ROW,
        width=place["w"] * _COLUMN,
        height=place["h"] * _ROW,
    )
