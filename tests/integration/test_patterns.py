"""Processors for patterns of event types: `*` stands for any characters."""

from typing import Any

import pytest
from sqlalchemy import Engine

from ingest import settings
from ingest.errors import SettingsError
from ingest.store.bulk import replay
from ingest.store.pipeline import admission
from ingest.store.pipeline.jobs import Claimant, NewJobs
from ingest.store.search.filters import EventFilter
from tests.support.deliver import body, deliver
from tests.support.rows import one, rows
from workers import processor, registry

TYPES = ("order.created", "order.status.updated", "contact.created", "tag.added", "ordered", "a_b")


def new_jobs(processor: str, *types: str, claimed: int = 0) -> list[NewJobs]:
    return [
        NewJobs(type=each, processor=processor, queue="events", max_attempts=3, claimed=claimed)
        for each in types
    ]


def admit(engine: Engine, deliveries: Any, processors: list[NewJobs]) -> admission.Admitted:
    with engine.begin() as connection:
        return admission.admit(
            connection,
            deliveries,
            processors,
            replay_queue="replay",
            redispatch_after_s=10,
            claimant=Claimant(worker="w", lease_s=60),
        )


def sent(database_url: str) -> Any:
    """One event of each type."""
    return deliver(database_url, [body(each, {"id": n}) for n, each in enumerate(TYPES)])


def handled(engine: Engine, processor: str = "p") -> set[str]:
    return {
        row["type"]
        for row in rows(
            engine,
            "SELECT e.type FROM jobs j JOIN events e ON e.id = j.event WHERE processor = :name",
            name=processor,
        )
    }


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("order.*", {"order.created", "order.status.updated"}),
        ("*.created", {"order.created", "contact.created"}),
        ("*", set(TYPES)),
        ("*e*.*", {"order.created", "order.status.updated"}),
        ("a_*", {"a_b"}),
        ("order%", set()),
        ("nothing.*", set()),
        ("tag_added", set()),
        ("tag.added", {"tag.added"}),
    ],
)
def test_a_pattern_matches_as_in_searches(
    engine: Engine, database_url: str, pattern: str, matched: set[str]
) -> None:
    others = new_jobs("other", "order.*")
    admit(engine, sent(database_url), new_jobs("p", pattern) + others)
    assert handled(engine) == matched
    assert handled(engine, "other") == {"order.created", "order.status.updated"}


def test_what_no_pattern_matches_is_unhandled(engine: Engine, database_url: str) -> None:
    admit(engine, sent(database_url), new_jobs("p", "order.*", "*.created"))
    unhandled = rows(engine, "SELECT type FROM events JOIN unhandled ON event = id")
    assert {row["type"] for row in unhandled} == {"tag.added", "ordered", "a_b"}


@pytest.mark.parametrize("claimed", [0, 1, 3, 10])
def test_an_event_of_several_patterns_of_a_processor_makes_one_job(
    engine: Engine, database_url: str, claimed: int
) -> None:
    processors = new_jobs("p", "order.*", "*.created", "order.created", "*", claimed=claimed)
    admitted = admit(engine, sent(database_url), processors)
    assert one(engine, "SELECT count(*) FROM jobs") == len(TYPES)
    assert len(admitted.claimed) + len(admitted.jobs) == len(TYPES)
    assert all(job.body for job in admitted.claimed)


def test_unhandled_events_are_replayed_for_a_new_pattern(engine: Engine, database_url: str) -> None:
    deliveries = sent(database_url)
    admit(engine, deliveries, new_jobs("p", "tag.added"))
    with engine.connect() as connection:
        assert replay.count(connection, EventFilter(state="unhandled")).events == len(TYPES) - 1
    unhandled = EventFilter(state="unhandled")
    list(replay.run(engine, unhandled, requested_by="sara", reason=None, rate=None))
    admit(engine, deliveries, new_jobs("p", "tag.added", "order.*"))
    assert handled(engine) == {"tag.added", "order.created", "order.status.updated"}


def test_a_processor_of_a_pattern_runs(
    make_worker: Any, engine: Engine, database_url: str, declared: Any
) -> None:
    seen: list[str] = []

    @processor("order.*", "*.created")
    def collect(event: Any, db: Any) -> None:
        seen.append(event.type)

    worker = make_worker()
    worker.process(sent(database_url))
    assert sorted(seen) == ["contact.created", "order.created", "order.status.updated"]


@pytest.mark.parametrize("bad", ["", " ", "order .created", "order.created ", "[ab]*", "order.?"])
def test_what_is_no_type_is_refused_where_it_is_declared(bad: str) -> None:
    with pytest.raises(ValueError, match="is no event type"):
        processor(bad)


def test_at_the_start_that_is_a_sentence(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_pattern_module.py").write_text(
        "from workers import processor\n@processor('order.[ab]')\ndef f(event, db): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingsError, match=r"'order\.\[ab\]' is no event type"):
        registry.load(settings.load(processors="bad_pattern_module", read_model=False))
