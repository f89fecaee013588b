"""What is said of the backlog: the speed that was measured, and no more than is known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest import backlog_words
from ingest.cli import up_screen
from ingest.cli.up_screen import Screen, Status
from ingest.store.reports import behind
from ingest.store.reports.behind import Backlog, Sample
from ingest.store.reports.totals import DeliveryCounts, EventCounts, JobCounts, Stats

NOW = datetime(2026, 11, 29, 10, 0, tzinfo=UTC)
WELL = Backlog(
    now=NOW, total=3, deliveries=1, jobs=2, is_least=False, held=0, age_s=0.4, since=None
)
LATE = Backlog(
    now=NOW,
    total=10_172,
    deliveries=10_000,
    jobs=172,
    is_least=False,
    held=0,
    age_s=260,
    since=NOW - timedelta(minutes=8),
)


def earlier(s: float, total: int, age_s: float = 260, *, is_least: bool = False) -> Sample:
    return Sample(at=NOW - timedelta(seconds=s), total=total, age_s=age_s, is_least=is_least)


def judged(*samples: Sample, **changes: Any) -> Backlog:
    return behind.judge(replace(LATE, **changes), samples)


@pytest.mark.parametrize(
    ("backlog", "speed", "short"),
    [
        (judged(), "its speed is not known yet", "speed unknown"),
        (judged(earlier(2, 1)), "its speed is not known yet", "speed unknown"),
        (judged(earlier(60, 11_372)), "shrinks by 20/s, gone in 8 min 29 s", None),
        (judged(earlier(60, 10_192)), "shrinks by 20/min, gone in 8 h 28 min", None),
        (judged(earlier(60, 10_172)), "neither grows nor shrinks", "does not shrink"),
        (judged(earlier(60, 8_972)), "grows by 20/s", "grows"),
        # The oldest of the last minute counts, not what was before it.
        (
            judged(earlier(10, 10_172), earlier(50, 11_172), earlier(300, 0)),
            "shrinks by 20/s, gone in 8 min 29 s",
            None,
        ),
        (judged(earlier(500, 15_172)), "shrinks by 10/s, gone in 16 min 57 s", None),
        # A backlog that takes months is not told to go.
        (judged(earlier(590, 10_173)), "neither grows nor shrinks", "does not shrink"),
        # Where counts are cut, only the age is known to change.
        (
            judged(earlier(60, 100_000, 290, is_least=True)),
            "catches up, gone in 8 min 40 s",
            None,
        ),
        (judged(earlier(60, 100_000, 200), is_least=True), "does not catch up", "grows"),
    ],
)
def test_the_speed_is_said_as_far_as_it_is_known(
    backlog: Backlog, speed: str, short: str | None
) -> None:
    assert backlog_words.speed(backlog) == speed
    short = short or speed.split(", ")[1]
    least = "at least " if backlog.is_least else ""
    assert backlog_words.short(backlog) == f"{least}10,172 behind by 4 min 20 s, {short}"


def test_the_sentence_says_how_much_how_late_since_when_and_where_it_goes() -> None:
    assert backlog_words.sentence(judged(earlier(60, 11_372), held=1)) == (
        "10,172 behind (10,000 deliveries to admit, 172 jobs due), 4 min 20 s late,"
        " since 2026-11-29 09:52:00 UTC; shrinks by 20/s, gone in 8 min 29 s;"
        " 1 job held: paused, or no worker takes it"
    )
    assert backlog_words.sentence(WELL) == "Nothing is behind: 3 at hand"
    assert backlog_words.sentence(replace(WELL, total=0, held=20)) == (
        "Nothing is behind; 20 jobs held: paused, or no worker takes them"
    )


def stats(*, accepted: int = 0, succeeded: int = 0, dead: int = 0) -> Stats:
    return Stats(
        deliveries=DeliveryCounts(accepted=accepted, rejected=0, duplicates=0, conflicts=0),
        events=EventCounts(total=accepted, unhandled=0),
        jobs=JobCounts(pending=0, running=0, retrying=0, succeeded=succeeded, dead=dead),
    )


def test_the_status_fits_a_terminal_of_80_columns_and_keeps_what_matters_most() -> None:
    before = (90.0, stats(accepted=1_000_000, succeeded=900_000))
    counted = stats(accepted=1_030_000, succeeded=912_000, dead=45_678)
    worst = replace(LATE, total=100_000, is_least=True, held=123_456, age_s=86_399, gone_in_s=4e5)
    for backlog in (WELL, LATE, worst):
        status = up_screen.describe(counted, backlog, 100.0, before)
        line = status.fit(79)
        assert len(line) <= 79
        assert line.startswith(backlog_words.short(backlog))
        assert len(status.fit(20)) <= 20
    assert up_screen.describe(counted, WELL, 100.0, before).fit(79) == (
        "nothing behind  in 3,000/s  done 1,200/s  dead 45,678  events 1,030,000"
    )


def test_without_a_terminal_there_is_a_line_when_it_falls_behind_and_when_it_has_caught_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    well = Status(parts=("well",), sentence="Nothing is behind.")
    late = Status(parts=("late",), sentence="3 behind.", is_behind=True)
    shown = [(None, 0), (well, 1), (well, 100), (late, 101), (late, 130), (late, 162), (well, 170)]
    for status, now in [*shown, (well, 500)]:
        screen.show(status, now=now)
    assert capsys.readouterr().out.splitlines() == [
        "ingest: 3 behind.",
        "ingest: 3 behind.",
        "ingest: Nothing is behind.",
    ]
