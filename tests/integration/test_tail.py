"""The live feed: one reader for all who watch, none when nobody does."""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine, event

from ingest import queues
from ingest.console.services.live_feed import LiveFeed
from ingest.store.pipeline import admission
from ingest.store.search.events import ListedEvent
from tests.support.deliver import deliver, order
from tests.support.waiting import until


def statements(engine: Engine) -> list[str]:
    """What is asked of the database from now on."""
    asked: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    return asked


def test_two_who_watch_see_the_same_by_one_reader_that_ends_with_them(
    engine: Engine, database_url: str
) -> None:
    asked = statements(engine)

    async def watch(live_feed: LiveFeed, wanted: int) -> list[ListedEvent]:
        seen: list[ListedEvent] = []
        watching = live_feed.watch()
        async for found in watching:
            seen += found.events
            if len(seen) >= wanted:
                break
        await watching.aclose()
        return seen

    async def both() -> tuple[Sequence[ListedEvent], Sequence[ListedEvent], int]:
        live_feed = LiveFeed(engine, {}, clock=time.time)
        first = asyncio.create_task(watch(live_feed, 3))
        second = asyncio.create_task(watch(live_feed, 3))
        await asyncio.sleep(0)  # both begin to watch
        await asyncio.to_thread(make, database_url, engine, 3)
        seen = await asyncio.wait_for(asyncio.gather(first, second), 20)
        assert live_feed.viewers == 0
        await asyncio.sleep(1.2)  # what would be two more readings
        before = len(asked)
        await asyncio.sleep(1.2)
        return *seen, len(asked) - before

    first, second, later = asyncio.run(both())
    assert [each.event_id for each in first] == [f"order.created:{n}" for n in range(3)]
    assert first == second
    assert later == 0


def test_an_event_that_is_admitted_late_is_seen_and_none_twice(
    engine: Engine, database_url: str
) -> None:
    async def watch() -> list[str]:
        live_feed = LiveFeed(engine, {}, clock=time.time)
        seen: list[str] = []

        async def collect() -> None:
            async for found in live_feed.watch():
                seen.extend(each.event_id for each in found.events)

        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        late = await asyncio.to_thread(deliver, database_url, [order(1)])
        await asyncio.to_thread(make, database_url, engine, 1, first=2)
        await asyncio.to_thread(until, lambda: len(seen) >= 1)
        await asyncio.to_thread(admit, engine, late)
        await asyncio.to_thread(until, lambda: len(seen) >= 2)
        await asyncio.sleep(1.2)  # two more readings, which look at the same span again
        collecting.cancel()
        await live_feed.close()
        return seen

    assert asyncio.run(watch()) == ["order.created:2", "order.created:1"]


class Clock:
    """The time, and how often it was asked for."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return time.time() + self.passed_s

    def wait_for_reads(self, reads: int) -> None:
        """Wait until so many more have begun."""
        enough = self.asked + reads
        until(lambda: self.asked >= enough)


def test_an_event_that_is_admitted_minutes_late_is_seen(engine: Engine, database_url: str) -> None:
    async def watch() -> list[str]:
        clock = Clock()
        live_feed = LiveFeed(engine, {}, clock=clock)
        seen: list[str] = []

        async def collect() -> None:
            async for found in live_feed.watch():
                seen.extend(each.event_id for each in found.events)

        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        late = await asyncio.to_thread(deliver, database_url, [order(1)])
        await asyncio.to_thread(clock.wait_for_reads, 2)
        clock.passed_s = 600
        await asyncio.to_thread(clock.wait_for_reads, 3)
        await asyncio.to_thread(admit, engine, late)
        await asyncio.to_thread(until, lambda: bool(seen))
        collecting.cancel()
        await live_feed.close()
        return seen

    assert asyncio.run(watch()) == ["order.created:1"]


def make(database_url: str, engine: Engine, count: int, *, first: int = 0) -> None:
    """Orders, delivered and admitted."""
    admit(engine, deliver(database_url, [order(first + n) for n in range(count)]))


def admit(engine: Engine, deliveries: Sequence[UUID]) -> None:
    with engine.begin() as connection:
        admission.admit(
            connection, deliveries, [], replay_queue=queues.REPLAY, redispatch_after_s=10
        )
