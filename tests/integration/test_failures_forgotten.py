"""What retention removes of failures, beside what counts them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from ingest.store.retention.ages import Ages
from tests.support.failing import count, fail_jobs, group, groups
from tests.support.retention import remove
from tests.support.rows import execute, one
from tests.support.slots import on_servers_of_its_own
from tests.support.waiting import until

MONTH = Ages(failures=timedelta(days=30))
BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@on_servers_of_its_own
def test_a_failure_that_is_seen_again_while_it_is_being_removed_stays(
    engine: Engine, database_url: str
) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    execute(engine, "UPDATE failure_groups SET last_seen = now() - interval '40 d'")
    execute(engine, "UPDATE jobs SET discarded_at = now()")
    counted = one(engine, "SELECT count(*) FROM failure_counts")
    assert counted == 1
    with ThreadPoolExecutor(1) as retention, engine.connect() as relay:
        relay.execute(text("UPDATE failure_groups SET last_seen = now()"))
        removal = retention.submit(remove, engine, MONTH, datetime.now(UTC))
        until(lambda: removal.done() or one(engine, BLOCKED) == 1, what="the removal has chosen")
        relay.commit()
        assert removal.result(300) == {}
    assert group(engine).attempts == 1
    assert one(engine, "SELECT count(*) FROM failure_counts") == counted


def test_the_next_pass_removes_what_was_not_seen_again(engine: Engine, database_url: str) -> None:
    fail_jobs(engine, database_url)
    count(engine)
    execute(engine, "UPDATE failure_groups SET last_seen = now() - interval '40 d'")
    execute(engine, "UPDATE jobs SET discarded_at = now()")
    with engine.connect() as relay:
        relay.execute(text("SELECT 1 FROM failure_groups FOR UPDATE"))
        assert remove(engine, MONTH, datetime.now(UTC)) == {}
    assert remove(engine, MONTH, datetime.now(UTC)) == {"failures": 1}
    assert groups(engine) == []
    assert one(engine, "SELECT count(*) FROM failure_counts") == 0
