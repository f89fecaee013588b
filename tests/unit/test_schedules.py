"""When a periodic processor is due, also as clocks change, and which due times get a run."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import InvalidEnvelope
from ingest.sources import schedule as runs
from ingest.sources.schedule import Run
from workers import Event, periodic, processor, registry
from workers.registry import Declaration
from workers.schedules import MOST_RUNS, BadSchedule, Plan, Schedule, check, plan

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def made(
    expression: str, zone: str = "UTC", missed: str = "latest", *, overlap: bool = False
) -> Schedule:
    return check(expression, zone, missed, overlap=overlap)


def at(hour: int, minute: int = 0, *, day: int = 1, month: int = 6) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def test_the_expression_is_read_in_its_zone() -> None:
    assert made("30 9 * * *", "Asia/Riyadh").next_after(NOON) == at(6, 30, day=2)
    assert made("30 9 * * *", "America/New_York").next_after(NOON) == at(13, 30)
    assert made("*/5 * * * *").next_after(NOON) == at(12, 5)


def test_a_local_time_that_does_not_exist_is_the_end_of_the_gap() -> None:
    """In Berlin 2:00 to 3:00 is left out on 29 March 2026, at 1:00 UTC."""
    before = at(12, month=3, day=28)
    assert made("30 2 * * *", BERLIN).next_after(before) == at(1, month=3, day=29)
    twice = made("0,30 2 * * *", BERLIN)
    assert twice.due_between(before, at(12, month=3, day=30)) == [
        at(1, month=3, day=29),  # one for both
        at(0, 0, month=3, day=30),
        at(0, 30, month=3, day=30),
    ]


def test_a_local_time_that_exists_twice_is_the_first_of_them() -> None:
    """In Berlin 2:00 to 3:00 comes twice on 25 October 2026, from 0:00 and from 1:00 UTC."""
    daily = made("30 2 * * *", BERLIN)
    assert daily.due_between(at(12, month=10, day=24), at(12, month=10, day=25)) == [
        at(0, 30, month=10, day=25)
    ]
    in_the_second = at(1, 10, month=10, day=25)
    assert daily.next_after(in_the_second) == at(1, 30, month=10, day=26)


@pytest.mark.parametrize(("day", "month"), [(29, 3), (25, 10)])
def test_what_runs_every_few_minutes_goes_on_through_a_change_of_clocks(
    day: int, month: int
) -> None:
    due = made("*/5 * * * *", BERLIN).due_between(
        at(0, 5, day=day, month=month), at(3, day=day, month=month)
    )
    assert [later - earlier for earlier, later in itertools.pairwise(due)] == [
        timedelta(minutes=5)
    ] * 35


@pytest.mark.parametrize(
    ("expression", "zone", "missed", "sentence"),
    [
        ("61 * * * *", "UTC", "latest", "'61 * * * *' is no cron expression: bad minute"),
        ("@daily", "UTC", "latest", "'@daily' is no cron expression of five fields"),
        ("* * * * * *", "UTC", "latest", "no cron expression of five fields"),
        ("0 0 31 2 *", "UTC", "latest", "'0 0 31 2 *' is no cron expression: bad day-of-month"),
        ("0 0 */20 * 1L", "UTC", "latest", "'0 0 */20 * 1L' is never due"),
        ("* * * * *", "Asia/Riyad", "latest", "'Asia/Riyad' is no time zone: name one of the"),
        ("* * * * *", "../passwd", "latest", "is no time zone"),
        ("* * * * *", "UTC", "last", "missed must be 'latest', 'all' or 'none', not 'last'"),
    ],
)
def test_what_makes_no_schedule_is_refused_in_one_sentence(
    expression: str, zone: str, missed: str, sentence: str
) -> None:
    with pytest.raises(BadSchedule) as refused:
        made(expression, zone, missed)
    assert sentence in str(refused.value)


def decided(schedule: Schedule, next_due_at: datetime, now: datetime, skipped: int = 0) -> Plan:
    return plan(schedule, next_due_at=next_due_at, skipped=skipped, now=now)


def test_a_run_on_time() -> None:
    hourly = made("0 * * * *")
    assert decided(hourly, at(12), at(12, 0) + timedelta(seconds=1)) == Plan(
        runs=((at(12), 0),), next_due_at=at(13), skipped=0
    )
    assert decided(hourly, at(13), at(12, 59)) == Plan(runs=(), next_due_at=at(13), skipped=0)


def test_after_a_day_away_latest_makes_one_run_for_all_that_was_missed() -> None:
    assert decided(made("0 * * * *"), at(12), at(12, 30, day=2)) == Plan(
        runs=((at(12, day=2), 24),), next_due_at=at(13, day=2), skipped=0
    )


def test_after_a_day_away_none_makes_no_run_and_the_next_says_how_many_were_missed() -> None:
    hourly = made("0 * * * *", missed="none")
    away = decided(hourly, at(12), at(12, 30, day=2))
    assert away == Plan(runs=(), next_due_at=at(13, day=2), skipped=25)
    assert decided(hourly, away.next_due_at, at(13, day=2), away.skipped) == Plan(
        runs=((at(13, day=2), 25),), next_due_at=at(14, day=2), skipped=0
    )


def test_none_still_runs_within_a_minute() -> None:
    hourly = made("0 * * * *", missed="none")
    assert decided(hourly, at(12), at(12, 1)).runs == ((at(12), 0),)
    assert decided(hourly, at(12), at(12, 1) + timedelta(seconds=1)).runs == ()


def test_all_makes_a_run_for_each_one_after_another() -> None:
    hourly, now = made("0 * * * *", missed="all"), at(15, 30)
    runs_made: list[tuple[datetime, int]] = []
    next_due_at = at(12)
    while (planned := decided(hourly, next_due_at, now)).runs:
        runs_made += planned.runs
        next_due_at = planned.next_due_at
    assert runs_made == [(at(hour), 0) for hour in (12, 13, 14, 15)]
    assert next_due_at == at(16)


def test_all_makes_them_at_once_where_runs_may_overlap() -> None:
    hourly = made("0 * * * *", missed="all", overlap=True)
    planned = decided(hourly, at(12), at(15, 30))
    assert planned == Plan(
        runs=tuple((at(hour), 0) for hour in (12, 13, 14, 15)), next_due_at=at(16), skipped=0
    )


@pytest.mark.parametrize("overlap", [True, False])
def test_all_is_bounded_and_says_how_many_were_left_out(overlap: bool) -> None:
    minutely = made("* * * * *", missed="all", overlap=overlap)
    planned = decided(minutely, at(0), at(12))
    assert planned.runs[0] == (at(10, 21), 721 - MOST_RUNS)
    assert len(planned.runs) == (MOST_RUNS if overlap else 1)


def test_after_years_away_what_was_missed_is_counted_for_a_month() -> None:
    planned = decided(made("* * * * *"), at(12) - timedelta(days=2_000), at(12))
    ((due_at, missed),) = planned.runs
    assert due_at == at(12)
    assert missed == 31 * 24 * 60 + 1


def test_a_yearly_run_that_was_missed_long_ago_is_made() -> None:
    planned = decided(made("0 0 1 1 *"), at(0, month=1), at(12))
    assert planned.runs == ((at(0, month=1), 0),)


def test_a_clock_that_is_set_back_does_not_stop_the_schedule() -> None:
    tomorrow = at(13, day=2)  # the clock was a day ahead
    assert decided(made("0 * * * *"), tomorrow, at(12, 30)).next_due_at == at(13)


def test_what_was_due_by_another_expression_stays_due() -> None:
    assert decided(made("0 0 * * *"), at(12), at(12, 1)).runs == ((at(12), 0),)


@given(
    st.lists(st.integers(0, 7_200), min_size=1, max_size=30),
    st.sampled_from(["*/5 * * * *", "0 * * * *", "17 3 * * *", "*/30 2 * * *"]),
)
def test_each_due_time_is_run_or_counted_once_whenever_relays_look(
    looks_s: list[int], expression: str
) -> None:
    schedule, now = made(expression, BERLIN), at(22, month=10, day=24)
    first = schedule.next_after(now)
    next_due_at, told, runs_made = first, 0, []
    for wait_s in looks_s:
        now += timedelta(seconds=wait_s)
        planned = decided(schedule, next_due_at, now)
        next_due_at = planned.next_due_at
        runs_made += [due_at for due_at, _ in planned.runs]
        told += sum(1 + missed for _, missed in planned.runs)
    assert told == len(schedule.due_between(first, now))
    assert runs_made == sorted(set(runs_made))


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Declaration]]:
    declarations: list[Declaration] = []
    monkeypatch.setattr(registry, "declared", declarations)
    return iter([declarations])


def test_a_declaration_is_of_its_own_type_and_keeps_its_schedule(
    declared: Iterator[list[Declaration]],
) -> None:
    @periodic("*/5  * * * *", zone="Asia/Riyadh", name="reconcile", max_attempts=3)
    def reconcile(event: Event, db: object) -> None: ...

    (declaration,) = next(declared)
    assert (declaration.name, declaration.types) == ("reconcile", ("schedule.reconcile",))
    assert declaration.schedule == made("*/5 * * * *", "Asia/Riyadh")
    assert declaration.max_attempts == 3


@pytest.mark.parametrize("name", ["all.*", "n" * 200])
def test_a_name_that_makes_no_type_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a periodic processor"):
        periodic("* * * * *", name=name)(lambda event, db: None)


def test_importing_a_wrong_one_says_where_it_is() -> None:
    with pytest.raises(ValueError, match="is no cron expression"):
        periodic("every day")
    with pytest.raises(TypeError, match="must take two arguments"):

        @periodic("* * * * *")
        def lacking(event: Event) -> None: ...


def test_two_of_one_name_are_refused(declared: Iterator[list[Declaration]]) -> None:
    from ingest import settings
    from ingest.errors import SettingsError

    @periodic("* * * * *", name="same")
    def one(event: Event, db: object) -> None: ...

    @processor("order.created", name="same")
    def other(event: Event, db: object) -> None: ...

    with pytest.raises(SettingsError, match="Two processors are named same"):
        registry.Registry(next(declared), settings.load())


def test_a_run_is_read_as_it_was_stored() -> None:
    run = Run(processor="p", due_at=NOON, previous_due_at=at(11), missed=2)
    source = runs.Schedule()
    envelope = source.parse(run.body)
    assert (envelope.type, envelope.occurred_at) == ("schedule.p", NOON)
    assert envelope.data == {
        "due_at": "2026-06-01T12:00:00Z",
        "previous_due_at": "2026-06-01T11:00:00Z",
        "missed": 2,
        "by_hand": False,
    }
    assert source.identify(envelope) == run.name


def test_runs_are_the_same_by_processor_and_due_time_alone() -> None:
    run = Run(processor="p", due_at=NOON)
    assert run.name == Run(processor="p", due_at=NOON, missed=3).name
    others = [
        Run(processor="q", due_at=NOON),
        Run(processor="p", due_at=at(13)),
        Run(processor="p", due_at=NOON, by_hand=True),
    ]
    assert len({run.name, *(other.name for other in others)}) == 4


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"type": "t", "due_at": 1}', b'"x"'])
def test_what_is_no_run_is_no_event(body: bytes) -> None:
    with pytest.raises(InvalidEnvelope):
        runs.Schedule().parse(body)
