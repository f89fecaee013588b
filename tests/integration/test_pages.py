"""Pages of lists, and counts: what they say of a selection, and of what they did not read."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest import ids as identities
from ingest.store.reports import totals
from ingest.store.search import counts, events, scan
from ingest.store.search.counts import Count, Kind
from ingest.store.search.events import Page
from ingest.store.search.filters import EventFilter
from tests.support.rows import execute, one, rows
from tests.support.states import listed, selections, store


@pytest.fixture
def stored(engine: Engine, database_url: str) -> list[UUID]:
    """Sixty events of three types in every state there is, oldest first."""
    return store(engine, database_url)


def more_selections(stored: list[UUID]) -> Iterator[EventFilter]:
    begin, end = (identities.received_at(stored[number]) for number in (7, 44))
    yield EventFilter(ids=tuple(stored[::7]), since=begin)
    yield EventFilter(ids=tuple(stored[:9]), event_ids=("order.created:21", "order.created:none"))
    yield EventFilter(since=begin, until=end)
    yield EventFilter(types=("order.*",), until=end, state="succeeded")
    yield EventFilter(search=("urgent", "order"), since=begin)
    yield EventFilter(search="urgent", processor="q")
    yield EventFilter(fields=(("data.note", "urgent"),), state="dead")
    for processor in ("p", "q", "r"):
        yield EventFilter(processor=processor)
        yield EventFilter(processor=processor, state="succeeded")
    for source in ("awalchat", "other"):
        yield EventFilter(source=source)
    yield from (EventFilter(marks=(mark,)) for mark in ("duplicate", "conflict"))
    yield EventFilter(deliveries=(("=", 1),), state="dead")
    yield EventFilter(comparisons=(("data.order_id", ">", "41"),))
    yield EventFilter(excluded=(EventFilter(types=("order.*",)), EventFilter(processor="q")))
    yield EventFilter(excluded=(EventFilter(state="dead"), EventFilter(search="urgent")))
    yield EventFilter(excluded=(EventFilter(search="urgent"),), search="order")
    yield EventFilter(excluded=(EventFilter(state="succeeded"),))


def _pages(
    engine: Engine, selection: EventFilter, *, budget_s: float, back: UUID | None = None
) -> Iterator[Page]:
    """Page after page: on to older ones, or from the page whose `newer` is `back` to newer ones."""
    before, after = None, back
    with engine.connect() as connection:
        while True:
            found = events.page(
                connection, selection, limit=4, before=before, after=after, budget_s=budget_s
            )
            assert len(found.events) <= 4
            yield found
            before, after = (found.older, None) if back is None else (None, found.newer)
            if before is after is None:
                return


@pytest.mark.parametrize("budget_s", [0, 60])
def test_pages_there_and_back_are_the_whole_list(
    engine: Engine, stored: list[UUID], monkeypatch: pytest.MonkeyPatch, budget_s: float
) -> None:
    monkeypatch.setattr(scan, "FIRST_SLICE", 5)
    for selection in (*selections(), *more_selections(stored)):
        expected = listed(engine, selection)
        there = list(_pages(engine, selection, budget_s=budget_s))
        assert [event for page in there for event in page.events] == expected, selection
        assert there[0].newer is None
        if len(there) > 1:
            back = list(_pages(engine, selection, budget_s=budget_s, back=there[-1].newer))
            met = [event for page in reversed(back) for event in page.events]
            assert met + list(there[-1].events) == expected, selection


@pytest.mark.parametrize("budget_s", [0, 60])
def test_the_oldest_first_are_the_same_events_the_other_way_round(
    engine: Engine, stored: list[UUID], monkeypatch: pytest.MonkeyPatch, budget_s: float
) -> None:
    monkeypatch.setattr(scan, "FIRST_SLICE", 5)
    for selection in more_selections(stored):
        expected = listed(engine, selection)[::-1]
        there: list[Page] = []
        after = None
        with engine.connect() as connection:
            page = partial(
                events.page, connection, selection, limit=4, oldest_first=True, budget_s=budget_s
            )
            assert list(events.events(connection, selection, limit=100, oldest_first=True)) == (
                expected
            )
            while not there or after is not None:
                found = page(after=after)
                there += [found]
                after = found.newer
            back, before = [found], found.older
            while before is not None:
                back += [page(before=before)]
                before = back[-1].older
        assert there[0].older is None
        assert [event for page in there for event in page.events] == expected, selection
        if len(there) > 1:
            met = [event for page in reversed(back) for event in page.events]
            assert met == expected, selection


def test_a_page_that_runs_out_of_time_says_how_far_it_has_looked(
    engine: Engine, stored: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FIRST_SLICE", 10)
    selection = EventFilter(fields=(("data.order_id", "42"),))
    with engine.connect() as connection:
        first = events.page(connection, selection, limit=4, budget_s=0)
        whole = events.page(connection, selection, limit=4, budget_s=60)
    assert first.events == ()
    assert first.older == stored[-10]
    assert first.reached == identities.received_at(stored[-10])
    assert [event.id for event in whole.events] == [stored[42]]
    assert (whole.older, whole.reached) == (None, None)


def test_a_page_beyond_the_ends_leads_back(engine: Engine, stored: list[UUID]) -> None:
    with engine.connect() as connection:
        oldest = events.page(connection, EventFilter(), limit=5, before=stored[0])
        newest = events.page(connection, EventFilter(), limit=5, after=stored[-1])
        again = events.page(connection, EventFilter(), limit=5, after=oldest.newer)
        nothing = events.page(connection, EventFilter(), limit=5, before=UUID(int=0))
        everything = events.page(connection, EventFilter(), limit=5, after=UUID(int=2**128 - 1))
    assert (oldest.events, oldest.older) == ((), None)
    assert (newest.events, newest.newer) == ((), None)
    assert newest.older is not None
    assert newest.older > stored[-1]
    assert [event.id for event in again.events] == stored[4::-1]
    assert nothing.events == everything.events == ()


def test_what_a_search_names_exactly_is_told_beside_its_first_page(
    engine: Engine, stored: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FIRST_SLICE", 5)
    by_delivery = rows(engine, "SELECT delivery, event FROM duplicates LIMIT 1")[0]
    with engine.connect() as connection:
        for name, event in (
            ("0", stored[0]),
            ("order.created:0", stored[0]),
            (str(stored[1]), stored[1]),
            (str(by_delivery["delivery"]), by_delivery["event"]),
        ):
            found = events.page(connection, EventFilter(search=name), limit=2, budget_s=0)
            assert [each.id for each in found.named] == [event], name
            other = events.page(
                connection, EventFilter(search=name, types=("none",)), limit=2, budget_s=0
            )
            assert other.named == ()
        # Not twice, when the page has it anyway.
        whole = events.page(connection, EventFilter(search="order.created:0"), limit=2, budget_s=60)
    assert ([each.id for each in whole.events], whole.named) == ([stored[0]], ())


def test_a_line_tells_of_conflicts_and_of_the_last_error(
    engine: Engine, stored: list[UUID]
) -> None:
    dead, retrying = stored[3], stored[1]
    execute(
        engine,
        "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome, error_type,"
        " error_message) SELECT id, number, 'retry', now(), now(), outcome, type, message FROM jobs"
        " CROSS JOIN (VALUES (1, 'failed', 'E', 'first'), (2, 'failed', 'E', 'last'),"
        " (3, 'snoozed', NULL, NULL)) AS made (number, outcome, type, message)"
        " WHERE event = ANY(:events) AND processor = 'p'",
        events=[dead, retrying, stored[2]],
    )
    execute(engine, "UPDATE duplicates SET conflict = true WHERE event = :id", id=stored[10])
    found = {event.id: event for event in listed(engine, EventFilter())}
    assert found[dead].error == found[retrying].error == "E: last"
    assert [event for event in found if found[event].error] == [dead, retrying]
    assert [event for event in found if found[event].conflicts] == [stored[10]]


def test_types_that_a_processor_works_on_narrow_its_list(
    engine: Engine, stored: list[UUID]
) -> None:
    with engine.connect() as connection:
        found = events.page(
            connection,
            EventFilter(processor="q"),
            limit=100,
            types_of={"q": ["order.created"], "p": ["contact.made"]},
        )
    expected = listed(engine, EventFilter(processor="q", types=("order.created",)))
    assert list(found.events) == expected


def test_what_lacks_a_job_is_listed_whatever_types_its_processor_works_on(
    engine: Engine, stored: list[UUID]
) -> None:
    lacks = EventFilter(processor="q", state="unhandled")
    with engine.connect() as connection:
        found = events.page(connection, lacks, limit=100, types_of={"q": ["order.created"]})
    assert list(found.events) == listed(engine, lacks)
    assert {event.type for event in found.events} > {"order.created"}


def test_counts_say_what_they_are(engine: Engine, stored: list[UUID]) -> None:
    with engine.connect() as connection:
        for selection in (*selections(), *more_selections(stored)):
            number = len(listed(engine, selection))
            found = counts.count(connection, selection, budget_s=60)
            assert found == Count(number=number, kind=Kind.EXACT), selection
            few = counts.count(connection, selection, at_most=3, budget_s=60)
            # All of them, and those that succeeded, are counted by what else there is.
            if number <= 3 or few.exact:
                assert few == found, selection
            else:
                assert few.number > 3, selection


def test_a_count_ends_when_there_are_enough_or_the_time_is_up(
    engine: Engine, stored: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(engine, "ANALYZE events")
    monkeypatch.setattr(scan, "FIRST_SLICE", 10)
    of_type = EventFilter(types=("order.created",))
    begin = identities.received_at(stored[0]) - timedelta(hours=1)
    with engine.connect() as connection:
        estimated = counts.count(connection, of_type, at_most=10)
        found = counts.count(connection, EventFilter(search="later"), budget_s=0)
        span = counts.count(connection, EventFilter(since=begin), at_most=10)
    assert estimated == Count(number=20, kind=Kind.ABOUT)
    assert not estimated.exact
    assert found == Count(number=9, kind=Kind.AT_LEAST)
    assert span.kind is Kind.ABOUT


def test_counts_are_those_of_a_full_count_also_when_rows_go(
    engine: Engine, stored: list[UUID]
) -> None:
    _check_counts(engine)
    execute(engine, "DELETE FROM duplicates WHERE event = :id", id=stored[0])
    execute(engine, "DELETE FROM jobs WHERE processor = 'q'")
    _check_counts(engine)


def _check_counts(engine: Engine) -> None:
    with engine.connect() as connection:
        found = totals.read(connection)
    states = {
        row["state"]: row["number"]
        for row in rows(engine, "SELECT state, count(*) AS number FROM jobs GROUP BY state")
    }
    assert {state: getattr(found.jobs, state) for state in states} == states
    assert found.events.total == one(engine, "SELECT count(*) FROM events")
    assert found.events.unhandled == one(engine, "SELECT count(*) FROM unhandled")
    assert found.deliveries.duplicates == one(engine, "SELECT count(*) FROM duplicates")
