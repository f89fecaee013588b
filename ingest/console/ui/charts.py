"""Charts, drawn on the server as SVG.

Widths are percentages and heights are pixels, so that a chart fills its container while its text
keeps its size. Colours come from classes, since the content security policy forbids inline styles.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from ingest.console.ui.formats import compact, duration, iso, number

_HEIGHT = 150
_TOP, _FLOOR = 10, 128  # where the highest tick and zero are; the times are below
_AXIS = 46  # the width of the axis
_LEAST_BAR = 2.0  # pixels: three failures among a million must be visible
_LABELS = 6
_WIDTH = 1000  # of the box of the lines, which the browser stretches
_LARGEST = 1e18
_ALMOST = 1 - 1e-9  # allows for rounding: 0.3 is not 3 * 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values in one colour, one for each time; None: unknown."""

    name: str
    tone: str
    """The colour: the class `tone-…` of console.css."""
    values: Sequence[float | None]
    link: Callable[[datetime, datetime], str] | None = None
    """Returns the address of what a bar counts, from a time until another; None: there is none."""
    leads_to: str = "events"
    """What the link shows."""


def bars(
    series: Sequence[Series],
    times: Sequence[datetime],
    *,
    span: timedelta,
    unit: str,
    label: str,
) -> Markup:
    """Draw counts for each span of time, stacked, the first series at the bottom."""
    series = [_cleaned(one, len(times)) for one in series]
    highest = max(
        (sum(_at(one, index) for one in series) for index in range(len(times))), default=0
    )
    chart = _Chart(
        series=series,
        times=times,
        span=span,
        ticks=nice_ticks(highest),
        format=number,
        format_tick=compact,
        empty=None if highest else f"No {unit} in this time",
    )
    last_bars = [chart.last_bar(one) for one in series]
    drawn = [bar for index in range(len(times)) for bar in chart.stack(index, last_bars)]
    totals = [number(sum(_at(one, index) for index in range(len(times)))) for one in series]
    return chart.figure(Markup("").join(drawn), label=label, values=totals)


def lines(
    series: Sequence[Series], times: Sequence[datetime], *, span: timedelta, label: str
) -> Markup:
    """Draw durations in seconds: a line for each series, with gaps where a value is unknown."""
    series = [_cleaned(one, len(times)) for one in series]
    known = [value for one in series for value in one.values if value is not None]
    ticks = nice_ticks(max(known, default=0), steps=_DURATION_STEPS)
    chart = _Chart(
        series=series,
        times=times,
        span=span,
        ticks=ticks,
        format=duration,
        format_tick=duration,
        empty=None if known else "Nothing measured in this time",
    )
    drawn = Markup(
        '<svg x="0" y="0" width="100%" height="{0}" viewBox="0 0 {1} {0}"'
        ' preserveAspectRatio="none">{2}</svg>'
    ).format(_HEIGHT, _WIDTH, Markup("").join(map(chart.line, series)))
    return chart.figure(drawn, label=label, values=[duration(_last(one)) for one in series])


def sparkline(
    values: Sequence[float | None], *, label: str = "Trend", tone: str = "failed"
) -> Markup:
    """Draw a trend that is as small as a word."""
    width, height = 96, 20
    clean = [_finite(value) or 0 for value in values]
    highest, step = max(clean, default=0), width / max(len(clean), 1)
    drawn = Markup("").join(
        _rect("", index * step, height - tall, max(step - 1, step / 2), tall)
        for index, value in enumerate(clean)
        if (tall := max(value / highest * (height - 1), _LEAST_BAR) if value else 0)
    )
    last = f", last {number(clean[-1])}" if clean else ""
    summary = f"{label}: {len(clean)} values, at most {number(highest)}{last}"
    return Markup(
        '<svg class="spark tone-{0}" width="{1}" height="{2}" viewBox="0 0 {1} {2}" role="img"'
        ' aria-label="{3}"><path class="base" d="M0 19.5H{1}"/>{4}</svg>'
    ).format(tone, width, height, summary, drawn)


def meter(value: float | None, most: float | None, *, tone: str = "running") -> Markup:
    """Draw a bar whose length is the share of `value` in `most`."""
    known = _finite(value) or 0
    share = min(known / most, 1) if most else 0
    return Markup(
        '<svg class="meter tone-{}" width="100%" height="6" aria-hidden="true">'
        '<rect class="track" width="100%" height="6" rx="3"/>'
        '<rect width="{}%" height="6" rx="3"/></svg>'
    ).format(tone, _short(max(share * 100, 1) if known else 0))


_DAY_S = 86_400.0
_DURATION_STEPS = (60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0)


def nice_ticks(highest: float, *, steps: Sequence[float] = (), count: int = 3) -> list[float]:
    """Return the values of the axis: 0, and multiples of a round number up to about `highest`.

    With `steps` (in seconds) they are round minutes, hours and days. Without, they are whole.
    """
    if not highest > 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    step = _step(highest / count, steps)
    return [index * step for index in range(math.ceil(highest / step * _ALMOST) + 1)]


def _step(least: float, steps: Sequence[float]) -> float:
    if steps and least > 20:
        short = next((step for step in steps if step >= least), None)
        return short or _DAY_S * _step(least / _DAY_S, ())
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least * _ALMOST)
    return step if steps else max(step, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """What both kinds of chart share: axes, legend, and tooltips."""

    series: Sequence[Series]
    times: Sequence[datetime]
    span: timedelta
    ticks: Sequence[float]
    format: Callable[[float | None], str]
    format_tick: Callable[[float | None], str]
    empty: str | None
    """What to say instead of drawing; None: draw."""

    def tall(self, value: float) -> float:
        return value / self.ticks[-1] * (_FLOOR - _TOP)

    def y(self, value: float) -> float:
        return _FLOOR - self.tall(value)

    def stack(self, index: int, last_bars: Sequence[int]) -> list[Markup]:
        """Return the bars of one span of time. `last_bars` are the places of each series' last."""
        width = min(82 / len(self.times), 8)
        left = (index + 0.5) * 100 / len(self.times) - width / 2
        begins = self.times[index]
        time = f"{begins.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        at, tooltip = iso(begins), escape(f"{time}\n{self._values(index)}")
        bars, top = [], float(_FLOOR)
        for place, series in enumerate(self.series):
            if not (value := _at(series, index)):
                continue
            tall = max(self.tall(value), _LEAST_BAR)
            top -= tall
            bar = _rect(f"bar tone-{series.tone}", left, top, width, tall, unit="%")
            if series.link is not None:
                # Tab reaches the last bar, arrows the others, because 60 stops are too many.
                bar = _LINKED % (
                    series.link(begins, begins + self.span),
                    0 if index == last_bars[place] else -1,
                    place,
                    at,
                    f"{series.name}, {time}: {self.format(value)}",
                    bar,
                    tooltip,
                    f"show {series.leads_to} of {series.name} received then",
                )
            bars.append(bar)
        return bars

    def last_bar(self, series: Series) -> int:
        """Return the place of the last bar; -1: there is none."""
        return max((at for at in range(len(self.times)) if _at(series, at)), default=-1)

    def _values(self, index: int) -> str:
        return "\n".join(f"{one.name}: {self.format(one.values[index])}" for one in self.series)

    def line(self, series: Series) -> Markup:
        """Return a line through the known values. A point between gaps is a line of no length."""
        pieces, pen_down = [], False
        for index, value in enumerate(series.values):
            if value is None:
                pen_down = False
                continue
            x, y = (index + 0.5) * _WIDTH / len(self.times), self.y(value)
            point = f"{_short(x)} {_short(y)}"
            pieces.append(f"L{point}" if pen_down else f"M{point}h0.01")
            pen_down = True
        path = "".join(pieces)
        return Markup('<path class="line tone-{}" d="{}"/>').format(series.tone, path)

    def figure(self, drawn: Markup, *, label: str, values: Sequence[str]) -> Markup:
        """Return the whole chart, with `values` in its legend."""
        legend = Markup("").join(
            Markup('<li class="tone-{}"><span class="key"></span>{} <b>{}</b></li>').format(
                series.tone, self._name(series), value
            )
            for series, value in zip(self.series, values, strict=True)
        )
        has_links = any(one.link for one in self.series)
        if self.empty is None:  # links lie above the areas with the tooltips
            content = (
                self._times() + self._slots() + drawn
                if has_links
                else drawn + self._times() + self._slots()
            )
        else:
            y = _short((_FLOOR + _TOP) / 2)
            note = Markup('<text class="none" x="50%" y="{}">{}</text>').format(y, self.empty)
            content = note + self._times()
        return Markup(
            '<div class="chart" data-span="{8}"><ul class="legend">{0}</ul><div class="plot">'
            '<svg class="axis" width="{1}" height="{2}" aria-hidden="true">{3}</svg>'
            '<svg class="area" width="100%" height="{2}" role="{7}" aria-label="{4}">{5}{6}</svg>'
            "</div></div>"
        ).format(
            *(legend, _AXIS, _HEIGHT, self._axis(), self._summary(label), self._grid(), content),
            "group" if has_links else "img",  # an image has no parts
            _short(self.span.total_seconds()),
        )

    def _name(self, series: Series) -> Markup | str:
        """Return the name in the legend, as a link to what all of its bars count."""
        if series.link is None or not self.times:
            return series.name
        href = series.link(self.times[0], self.times[-1] + self.span)
        return Markup('<a href="{}">{}</a>').format(href, series.name)

    def _axis(self) -> Markup:
        text = Markup('<text x="{}" y="{}">{}</text>')
        return Markup("").join(
            text.format(_AXIS - 8, _short(self.y(tick) + 3.5), self.format_tick(tick))
            for tick in self.ticks
        )

    def _grid(self) -> Markup:
        line = Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>')
        return Markup("").join(line.format(_short(self.y(tick))) for tick in self.ticks)

    def _times(self) -> Markup:
        step = _label_step(self.span * len(self.times))
        kind, pattern = ("day", "%d %b") if step >= timedelta(days=1) else ("minute", "%H:%M")
        text = Markup('<text class="time" x="{}%" y="{}" data-time="{}" data-at="{}">{}</text>')
        middles = [(index + 0.5) * 100 / len(self.times) for index in range(len(self.times))]
        return Markup("").join(
            text.format(
                *(_short(middle), _HEIGHT - 6, kind, iso(moment)),
                moment.astimezone(UTC).strftime(pattern),
            )
            for middle, moment in zip(middles, self.times, strict=True)
            if moment.timestamp() % step.total_seconds() < self.span.total_seconds()
            and 3 < middle < 97  # at the edge, half of it would be cut off
        )

    def _slots(self) -> Markup:
        """Return an area for each time, with its values as a tooltip."""
        width = 100 / len(self.times)
        return Markup("").join(
            _SLOT
            % (
                *(_short(index * width), _short(width), _FLOOR, iso(moment)),
                f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}",
                self._values(index),
            )
            for index, moment in enumerate(self.times)
        )

    def _summary(self, label: str) -> str:
        """Return a description for screen readers."""
        sentences = []
        for series in self.series:
            known = [(value, -at) for at, value in enumerate(series.values) if value is not None]
            if not known:
                sentences.append(f"{series.name}: not measured")
                continue
            most, at = max(known)
            when = f"{self.times[-at].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            last = self.format(known[-1][0])
            sentences.append(f"{series.name}: at most {self.format(most)} ({when}), last {last}")
        return f"{label}, per {duration(self.span).removeprefix('1 ')}. {'; '.join(sentences)}."


def _label_step(whole: timedelta) -> timedelta:
    for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720):
        if whole <= timedelta(minutes=minutes) * _LABELS:
            return timedelta(minutes=minutes)
    return timedelta(days=math.ceil(whole / timedelta(days=1) / (_LABELS + 1)))


_LINKED = Markup(
    '<a href="%s" tabindex="%s" data-bar="%s" data-at="%s" aria-label="%s">%s'
    "<title>%s\n%s</title></a>"
)
"""A bar that leads to what it counts, with the values of its time as a tooltip."""


_RECT = Markup('<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>')
_SLOT = Markup(
    '<rect class="slot" x="%s%%" y="0" width="%s%%" height="%s" data-at="%s">'
    "<title>%s UTC\n%s</title></rect>"
)
# These are filled in by `%`, which takes a fourth of the time of `format`: a chart of a day has
# hundreds of them.


def _rect(tone: str, x: float, y: float, width: float, height: float, *, unit: str = "") -> Markup:
    left, top, wide, tall = map(_short, (x, y, width, height))
    return _RECT % (tone, left + unit, top, wide + unit, tall)


def _cleaned(series: Series, length: int) -> Series:
    """Return a series with one value for each time, and with None where it cannot be drawn."""
    values = [_finite(value) for value in series.values[:length]]
    values += [None] * (length - len(values))
    return replace(series, values=values)


def _at(series: Series, index: int) -> float:
    return series.values[index] or 0


def _last(series: Series) -> float | None:
    return next((value for value in reversed(series.values) if value is not None), None)


def _finite(value: float | None) -> float | None:
    """Return a value that can be drawn; None: it cannot."""
    return None if value is None or math.isnan(value) or value < 0 else min(value, _LARGEST)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


FILTERS: Mapping[str, Callable[..., Any]] = {"sparkline": sparkline, "meter": meter}
