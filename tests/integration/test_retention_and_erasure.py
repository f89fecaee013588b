"""Events of a person that were erased and removed by retention, in either order, stay known, and
their late duplicates bring nobody back."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from ingest.store.retention import passes
from ingest.store.retention.ages import Ages
from tests.integration.conftest import Worker
from tests.integration.test_erasure import (
    AWALCHAT,
    OMAR,
    SARA,
    WHATSAPP,
    about_omar,
    about_sara,
    erase,
    holds,
    message,
)
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.erasing import store, wamid
from tests.support.meta import body_of, change
from tests.support.meta import text as message_of
from tests.support.retention import days, is_ready, remove
from tests.support.rows import execute, one
from workers.registry import Declaration

MONTH = Ages(events=days(30))


@pytest.fixture
def worker(declared: list[Declaration], make_worker: Callable[..., Worker]) -> Worker:
    declared += BUILT_IN
    return make_worker()


def test_a_duplicate_of_an_erased_event_that_retention_removed_brings_nobody_back(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    is_ready(engine)
    worker.process(store(database_url, AWALCHAT, about_sara()))
    erase(engine)
    assert remove(engine, MONTH, datetime.now(UTC) + days(60))["events"] == len(about_sara())
    worker.process(store(database_url, AWALCHAT, about_sara()))
    assert one(engine, "SELECT count(*) FROM events") == 0
    assert one(engine, "SELECT count(*) FROM duplicates WHERE NOT conflict") == len(about_sara())
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0
    assert not holds(engine)


def test_an_event_that_was_remembered_before_it_was_erased_is_still_known(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    is_ready(engine)
    worker.process(store(database_url, AWALCHAT, about_sara()))
    later = datetime.now(UTC) + days(60)
    # The first step of a pass only remembers. The erasure comes between it and the removal.
    next(passes.run(engine, MONTH, clock=lambda: later))
    assert one(engine, "SELECT count(*) FROM past_events") == len(about_sara())
    erase(engine)
    assert remove(engine, MONTH, later, batch=passes.BATCH)["events"] == len(about_sara())
    worker.process(store(database_url, AWALCHAT, about_sara()))
    assert one(engine, "SELECT count(*) FROM events") == 0
    assert one(engine, "SELECT count(*) FROM duplicates WHERE NOT conflict") == len(about_sara())
    assert not holds(engine)


def remove_with_bodies(engine: Engine) -> None:
    """Remove all events as a month later, and what they came in, as dropped partitions do."""
    remove(engine, MONTH, datetime.now(UTC) + days(60))
    execute(engine, "DELETE FROM deliveries")


def test_a_duplicate_of_an_event_that_was_removed_before_the_person_was_erased_goes_at_once(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    is_ready(engine)
    worker.process(store(database_url, AWALCHAT, about_sara()))
    remove_with_bodies(engine)
    erase(engine)  # the read model and whatever else names her
    assert not holds(engine)
    late = store(database_url, AWALCHAT, [*about_sara(), *about_omar()])
    assert holds(engine)
    worker.process(late)
    assert not holds(engine)
    assert holds(engine, OMAR)
    assert one(engine, "SELECT count(*) FROM duplicates WHERE NOT conflict") == len(about_sara())
    assert one(engine, "SELECT count(*) FROM deliveries WHERE headers = '[]'") == len(about_sara())


def test_a_repetition_of_a_removed_event_goes_with_the_batch_that_it_came_in(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    is_ready(engine)
    sara = message_of(1, **{"from": SARA, "id": wamid(SARA)})
    worker.process(store(database_url, WHATSAPP, [body_of(change(messages=[sara]))]))
    remove_with_bodies(engine)
    erase(engine)
    other = message_of(2, **{"from": OMAR, "id": wamid(OMAR)})
    worker.process(store(database_url, WHATSAPP, [body_of(change(messages=[sara, other]))]))
    assert not holds(engine)
    assert one(engine, "SELECT count(*) FROM deliveries WHERE body IS NOT NULL") == 1
    assert one(engine, "SELECT count(*) FROM whatsapp_messages") == 1


def test_what_differs_from_a_removed_event_keeps_its_body(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    is_ready(engine)
    worker.process(store(database_url, AWALCHAT, [message(OMAR, 8)]))
    remove_with_bodies(engine)
    worker.process(store(database_url, AWALCHAT, [message(OMAR, 8, more="data")]))
    assert one(engine, "SELECT count(*) FROM duplicates WHERE conflict") == 1
    assert one(engine, "SELECT count(*) FROM deliveries WHERE body IS NOT NULL") == 1


def test_a_duplicate_of_an_event_that_is_only_remembered_keeps_its_body(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    is_ready(engine)
    worker.process(store(database_url, AWALCHAT, about_omar()))
    next(passes.run(engine, MONTH, clock=lambda: datetime.now(UTC) + days(60)))
    assert one(engine, "SELECT count(*) FROM past_events") == len(about_omar())
    worker.process(store(database_url, AWALCHAT, about_omar()))
    kept = one(engine, "SELECT count(*) FROM deliveries WHERE body IS NOT NULL")
    assert kept == 2 * len(about_omar())
