"""The console's charts: always valid, never a number that is none, on round ticks."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from ingest.console.ui.charts import Series, bars, lines, meter, nice_ticks, sparkline
from ingest.console.ui.paths import events_between, events_link

BEGIN = datetime(2026, 1, 31, 7, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def every_minute(count: int) -> list[datetime]:
    return [BEGIN + index * MINUTE for index in range(count)]


def series(*values: float | None, name: str = "accepted") -> Series:
    return Series(name=name, tone="accepted", values=values)


def parsed(chart: Markup) -> ElementTree.Element:
    """The chart, which is XML with numbers in it."""
    assert "nan" not in chart.lower()
    assert ">inf" not in chart.lower()
    return ElementTree.fromstring(chart)  # noqa: S314 - our own


def of_class(chart: Markup, name: str) -> list[ElementTree.Element]:
    return [each for each in parsed(chart).iter() if name in each.get("class", "").split()]


def drawn(kind: str, values: Sequence[Series], times: Sequence[datetime]) -> Markup:
    if kind == "bars":
        return bars(values, times, span=MINUTE, unit="deliveries", label="Deliveries")
    return lines(values, times, span=MINUTE, label="Lag")


VALUES = st.lists(
    st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-10, 10**20),
    max_size=70,
)


@pytest.mark.parametrize("kind", ["bars", "lines"])
@given(values=VALUES)
def test_whatever_the_values_it_is_valid(kind: str, values: list[float | None]) -> None:
    parsed(drawn(kind, [series(*values), series(*values[:3])], every_minute(len(values))))


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_no_times_at_all(kind: str) -> None:
    chart = drawn(kind, [series()], [])
    assert of_class(chart, "none")
    assert not of_class(chart, "slot")


def test_nothing_happened() -> None:
    chart = drawn("bars", [series(0, 0, None)], every_minute(3))
    assert [each.text for each in of_class(chart, "none")] == ["No deliveries in this time"]
    assert not of_class(chart, "bar")


def test_nothing_was_measured() -> None:
    assert of_class(drawn("lines", [series(None, None)], every_minute(2)), "none")
    assert not of_class(drawn("lines", [series(None, 0.0)], every_minute(2)), "none")


def test_one_time_makes_a_bar_of_bearable_width() -> None:
    (bar,) = of_class(drawn("bars", [series(5)], every_minute(1)), "bar")
    assert float(bar.attrib["width"].rstrip("%")) < 10


def test_bars_are_stacked_and_few_are_seen_beside_many() -> None:
    many, few = of_class(drawn("bars", [series(1_000_000), series(3)], every_minute(1)), "bar")
    assert float(few.attrib["height"]) == 2
    assert float(few.attrib["y"]) + 2 == pytest.approx(float(many.attrib["y"]))


def test_a_gap_breaks_the_line_and_a_lonely_point_is_a_dot() -> None:
    (line,) = of_class(drawn("lines", [series(1, 2, None, 3, None)], every_minute(5)), "line")
    assert line.attrib["d"].count("M") == 2
    assert line.attrib["d"].count("L") == 1
    assert line.attrib["d"].endswith("h0.01")


def test_a_slot_tells_what_it_stands_for() -> None:
    values = [series(1234, 0), series(None, 5, name="<rejected>")]
    first, _ = of_class(drawn("bars", values, every_minute(2)), "slot")
    assert first.attrib["data-at"] == "2026-01-31T07:30:00.000Z"
    title = "2026-01-31 07:30 UTC\naccepted: 1,234\n<rejected>: \N{EN DASH}"
    assert first[0].text == title


def test_the_legend_counts_bars_and_shows_the_last_of_a_line() -> None:
    counts = [
        each[1].text
        for each in of_class(drawn("bars", [series(1200, 34)], every_minute(2)), "tone-accepted")
        if each.tag == "li"
    ]
    assert counts == ["1,234"]
    lasts = [
        each[1].text
        for each in of_class(
            drawn("lines", [series(0.5, 1.4, None)], every_minute(3)), "tone-accepted"
        )
        if each.tag == "li"
    ]
    assert lasts == ["1.4 s"]


def test_the_summary_tells_it_without_a_picture() -> None:
    (area,) = of_class(drawn("bars", [series(3, 9, 4)], every_minute(3)), "area")
    assert area.attrib["aria-label"] == (
        "Deliveries, per min. accepted: at most 9 (2026-01-31 07:31 UTC), last 4."
    )


@pytest.mark.parametrize(
    ("count", "span", "kind", "labels"),
    [
        (60, MINUTE, "minute", ["07:40", "07:50", "08:00", "08:10", "08:20"]),
        (
            48,
            timedelta(minutes=30),
            "minute",
            ["08:00", "12:00", "16:00", "20:00", "00:00", "04:00"],
        ),
        (84, timedelta(hours=2), "day", [f"{day:02} Feb" for day in range(1, 7)]),
    ],
)
def test_times_are_marked_at_round_ones(
    count: int, span: timedelta, kind: str, labels: list[str]
) -> None:
    times = [BEGIN + index * span for index in range(count)]
    marks = of_class(
        bars([series(*range(count))], times, span=span, unit="events", label="Events"), "time"
    )
    assert [each.text for each in marks] == labels
    assert {each.attrib["data-time"] for each in marks} == {kind}


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(0, [0, 1]), (1, [0, 1]), (3, [0, 1, 2, 3]), (7, [0, 5, 10]), (812, [0, 500, 1000]),
     (1000, [0, 500, 1000]), (math.inf, [0, 1])],
)  # fmt: skip
def test_ticks_of_counts_are_round(highest: float, ticks: list[float]) -> None:
    assert nice_ticks(highest) == ticks


@pytest.mark.parametrize(
    ("highest", "labels"),
    [(0.012, ["15 ms", "10 ms", "5 ms", "0 ms"]), (90, ["2 min", "1 min", "0 ms"]),
     (5_000, ["1 h 30 min", "1 h", "30 min", "0 ms"]), (400_000, ["6 d", "4 d", "2 d", "0 ms"])],
)  # fmt: skip
def test_ticks_of_lengths_of_time_are_round(highest: float, labels: list[str]) -> None:
    (axis,) = of_class(drawn("lines", [series(highest)], every_minute(1)), "axis")
    assert [each.text for each in axis] == labels[::-1]


@given(st.floats(min_value=1e-6, max_value=1e18))
def test_ticks_hold_the_highest_and_are_few(highest: float) -> None:
    for ticks in (nice_ticks(highest), nice_ticks(highest, steps=(60.0, 120.0, 300.0))):
        assert ticks[0] == 0
        assert ticks[-1] >= highest * (1 - 1e-6)
        assert 2 <= len(ticks) <= 5


@given(VALUES)
def test_a_sparkline_is_valid(values: list[float | None]) -> None:
    parsed(sparkline(values))


def test_a_sparkline_tells_its_trend() -> None:
    assert parsed(sparkline([0, 3, 9])).attrib["aria-label"] == "Trend: 3 values, at most 9, last 9"
    assert parsed(sparkline([])).attrib["aria-label"] == "Trend: 0 values, at most 0"


@pytest.mark.parametrize(
    ("value", "most", "width"),
    [
        (5, 10, "50%"),
        (20, 10, "100%"),
        (0.001, 10, "1%"),
        (0, 10, "0%"),
        (None, 10, "0%"),
        (5, 0, "1%"),
    ],
)
def test_a_meter_is_as_long_as_its_share(value: float | None, most: float, width: str) -> None:
    assert parsed(meter(value, most))[1].attrib["width"] == width


@pytest.mark.parametrize("hostile", ['"><script>', "a & b", "{0}", "%s"])
def test_names_are_escaped(hostile: str) -> None:
    values = [Series(name=hostile, tone=hostile, values=(1, 2))]
    for chart in (
        bars(values, every_minute(2), span=MINUTE, unit=hostile, label=hostile),
        lines(values, every_minute(2), span=MINUTE, label=hostile),
        sparkline([1], label=hostile, tone=hostile),
    ):
        assert parsed(chart) is not None
        assert "<script" not in chart


def test_a_bar_leads_to_what_it_counts_and_tab_reaches_one_of_each_series() -> None:
    def link(since: datetime, until: datetime) -> str:
        return f"/events?q={since:%H:%M}-{until:%H:%M}&x"

    linked = Series(name="orders", tone="group-1", values=[3, None, 5, 0], link=link)
    chart = drawn("bars", [linked, series(1, 1, 1, 1)], every_minute(4))
    (legend, *links) = list(parsed(chart).iter("a"))
    assert legend.get("href") == "/events?q=07:30-07:34&x"
    assert [each.get("href") for each in links] == [
        "/events?q=07:30-07:31&x",
        "/events?q=07:32-07:33&x",
    ]
    assert [each.get("tabindex") for each in links] == ["-1", "0"]
    assert links[1].get("aria-label") == "orders, 2026-01-31 07:32 UTC: 5"
    (area,) = of_class(chart, "area")
    assert area.get("role") == "group"  # an image has no parts
    (picture,) = of_class(drawn("bars", [series(1)], every_minute(1)), "area")
    assert picture.get("role") == "img"


@given(
    name=st.text(min_size=1, max_size=20),
    since=st.datetimes(timezones=st.just(UTC)),
    until=st.datetimes(timezones=st.just(UTC)),
)
def test_a_bars_link_is_that_of_its_search(name: str, since: datetime, until: datetime) -> None:
    for conditions in ({}, {"processor": name}, {"source": name}):
        whole = events_link(since=since, until=until, **conditions)
        assert events_between(**conditions)(since, until) == whole
