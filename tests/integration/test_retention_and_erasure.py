"""Events of a person that were erased and removed by retention, in either order, stay known."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from ingest.store.retention import passes
from ingest.store.retention.ages import Ages
from tests.integration.conftest import Worker
from tests.integration.test_erasure import AWALCHAT, about_sara, erase, holds
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.erasing import store
from tests.support.retention import days, is_ready, remove
from tests.support.rows import one
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
