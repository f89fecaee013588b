"""Charts, drawn on the server as SVG.

Widths are percentages and heights pixels, so that a chart fills whatever room it has while its text
keeps its size. Colours come from classes: the pages allow no styles of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

from ingest.console.ui.formats import compact, duration, iso, number

_HEIGHT = 150
_TOP, _FLOOR = 10, 128  # the highest tick, and the zero; the times are below
_AXIS = 46  # the room for the ticks
_LEAST_BAR = 2.0  # pixels: three failures among a million are to be seen
_LABELS = 6
_WIDTH = 1000  # of the box that lines are drawn in, which is stretched
_LARGEST = 1e18
_ALMOST = 1 - 1e-9  # floating point: 0.3 is not 3 * 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What is drawn in one colour. A value for each time; None: nothing is known of it."""

    name: str
    tone: str
    """Which colour: the class `tone-…` of console.css."""
    values: Sequence[float | None]


def bars(
    series: Sequence[Series],
    times: Sequence[datetime],
    *,
    span: timedelta,
    unit: str,
    label: str,
) -> Markup:
    """Counts for each span of time, stacked, the first series at the bottom."""
    series = [_cleaned(each, len(times)) for each in series]
    highest = max(
        (sum(_at(each, index) for each in series) for index in range(len(times))), default=0
    )
    chart = _Chart(
        series=series,
        times=times,
        span=span,
        ticks=nice_ticks(highest),
        spell=number,
        spell_tick=compact,
        empty=None if highest else f"No {unit} in this time",
    )
    drawn = [bar for index in range(len(times)) for bar in chart.stack(index)]
    totals = [number(sum(_at(each, index) for index in range(len(times)))) for each in series]
    return chart.figure(Markup("").join(drawn), label=label, values=totals)


def lines(
    series: Sequence[Series], times: Sequence[datetime], *, span: timedelta, label: str
) -> Markup:
    """Lengths of time in seconds, a line a series, with gaps where nothing was measured."""
    series = [_cleaned(each, len(times)) for each in series]
    known = [value for each in series for value in each.values if value is not None]
    ticks = nice_ticks(max(known, default=0), steps=_DURATION_STEPS)
    chart = _Chart(
        series=series,
        times=times,
        span=span,
        ticks=ticks,
        spell=duration,
        spell_tick=duration,
        empty=None if known else "Nothing measured in this time",
    )
    drawn = Markup(
        '<svg x="0" y="0" width="100%" height="{0}" viewBox="0 0 {1} {0}"'
        ' preserveAspectRatio="none">{2}</svg>'
    ).format(_HEIGHT, _WIDTH, Markup("").join(map(chart.line, series)))
    return chart.figure(drawn, label=label, values=[duration(_last(each)) for each in series])


def sparkline(
    values: Sequence[float | None], *, label: str = "Trend", tone: str = "failed"
) -> Markup:
    """A trend as small as a word."""
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
    """A bar as long as `value` is of `most`, beside the number that it stands for."""
    known = _finite(value) or 0
    share = min(known / most, 1) if most else 0
    return Markup(
        '<svg class="meter tone-{}" width="100%" height="6" aria-hidden="true">'
        '<rect class="track" width="100%" height="6" rx="3"/>'
        '<rect width="{}%" height="6" rx="3"/></svg>'
    ).format(tone, _short(max(share * 100, 1) if known else 0))


_DAY_S = 86_400.0
_DURATION_STEPS = (60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0)


def nice_ticks(highest: float, *, steps: Sequence[float] = (), wanted: int = 3) -> list[float]:
    """Where the axis has its lines: 0, and multiples of a round number up to `highest` or just
    beyond. With `steps` (of seconds) they are round minutes, hours and days; without, whole."""
    if not highest > 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    step = _step(highest / wanted, steps)
    return [index * step for index in range(math.ceil(highest / step * _ALMOST) + 1)]


def _step(least: float, steps: Sequence[float]) -> float:
    if steps and least > 20:
        short = next((step for step in steps if step >= least), None)
        return short or _DAY_S * _step(least / _DAY_S, ())
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= least * _ALMOST)
    return step if steps else max(step, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """What both kinds of chart share: axes, legend, and what is told where somebody points."""

    series: Sequence[Series]
    times: Sequence[datetime]
    span: timedelta
    ticks: Sequence[float]
    spell: Callable[[float | None], str]
    spell_tick: Callable[[float | None], str]
    empty: str | None
    """What to say instead of drawing anything."""

    def tall(self, value: float) -> float:
        return value / self.ticks[-1] * (_FLOOR - _TOP)

    def y(self, value: float) -> float:
        return _FLOOR - self.tall(value)

    def stack(self, index: int) -> list[Markup]:
        """The bars of one span of time."""
        width = min(82 / len(self.times), 8)
        left = (index + 0.5) * 100 / len(self.times) - width / 2
        found, top = [], float(_FLOOR)
        for each in self.series:
            if value := _at(each, index):
                tall = max(self.tall(value), _LEAST_BAR)
                top -= tall
                found.append(_rect(f"bar tone-{each.tone}", left, top, width, tall, unit="%"))
        return found

    def line(self, series: Series) -> Markup:
        """A line through what is known; a point between gaps has no length, and round ends."""
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
        """All of it, with `values` in the legend."""
        legend = Markup("").join(
            Markup('<li class="tone-{}"><span class="key"></span>{} <b>{}</b></li>').format(
                each.tone, each.name, value
            )
            for each, value in zip(self.series, values, strict=True)
        )
        if self.empty is None:
            content = drawn + self._times() + self._slots()
        else:
            y = _short((_FLOOR + _TOP) / 2)
            note = Markup('<text class="none" x="50%" y="{}">{}</text>').format(y, self.empty)
            content = note + self._times()
        return Markup(
            '<div class="chart"><ul class="legend">{0}</ul><div class="plot">'
            '<svg class="axis" width="{1}" height="{2}" aria-hidden="true">{3}</svg>'
            '<svg class="area" width="100%" height="{2}" role="img" aria-label="{4}">{5}{6}</svg>'
            "</div></div>"
        ).format(legend, _AXIS, _HEIGHT, self._axis(), self._summary(label), self._grid(), content)

    def _axis(self) -> Markup:
        text = Markup('<text x="{}" y="{}">{}</text>')
        return Markup("").join(
            text.format(_AXIS - 8, _short(self.y(tick) + 3.5), self.spell_tick(tick))
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
            and 3 < middle < 97  # half of it would be cut off
        )

    def _slots(self) -> Markup:
        """For each time an area that tells its values when it is pointed at."""
        width = 100 / len(self.times)
        slot = Markup(
            '<rect class="slot" x="{}%" y="0" width="{}%" height="{}" data-at="{}">'
            "<title>{:%Y-%m-%d %H:%M} UTC\n{}</title></rect>"
        )
        return Markup("").join(
            slot.format(
                *(_short(index * width), _short(width), _FLOOR),
                *(iso(moment), moment.astimezone(UTC)),
                "\n".join(f"{each.name}: {self.spell(each.values[index])}" for each in self.series),
            )
            for index, moment in enumerate(self.times)
        )

    def _summary(self, label: str) -> str:
        """The chart for those who do not see it."""
        found = []
        for each in self.series:
            known = [(value, -at) for at, value in enumerate(each.values) if value is not None]
            if not known:
                found.append(f"{each.name}: not measured")
                continue
            most, at = max(known)
            when = f"{self.times[-at].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            last = self.spell(known[-1][0])
            found.append(f"{each.name}: at most {self.spell(most)} ({when}), last {last}")
        return f"{label}, per {duration(self.span).removeprefix('1 ')}. {'; '.join(found)}."


def _label_step(whole: timedelta) -> timedelta:
    for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720):
        if whole <= timedelta(minutes=minutes) * _LABELS:
            return timedelta(minutes=minutes)
    return timedelta(days=math.ceil(whole / timedelta(days=1) / (_LABELS + 1)))


def _rect(tone: str, x: float, y: float, width: float, height: float, *, unit: str = "") -> Markup:
    return Markup('<rect class="{0}" x="{1}{5}" y="{2}" width="{3}{5}" height="{4}"/>').format(
        tone, *map(_short, (x, y, width, height)), unit
    )


def _cleaned(series: Series, length: int) -> Series:
    """With as many values as there are times, and none that cannot be drawn."""
    values = [_finite(value) for value in series.values[:length]]
    values += [None] * (length - len(values))
    return Series(name=series.name, tone=series.tone, values=values)


def _at(series: Series, index: int) -> float:
    return series.values[index] or 0


def _last(series: Series) -> float | None:
    return next((value for value in reversed(series.values) if value is not None), None)


def _finite(value: float | None) -> float | None:
    """What can be drawn of a value."""
    return None if value is None or math.isnan(value) or value < 0 else min(value, _LARGEST)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


FILTERS: Mapping[str, Callable[..., Any]] = {"sparkline": sparkline, "meter": meter}
