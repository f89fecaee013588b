"""Periodic processors in the tests of their authors."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from workers import Due, Event, periodic, processor, registry
from workers.registry import Declaration
from workers.testing import NotDeclared, Pipeline, under_faults

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declarations: list[Declaration] = []
    monkeypatch.setattr(registry, "declared", declarations)


@under_faults
def test_a_periodic_processor_runs_at_a_stated_due_time(pipeline: Pipeline) -> None:
    table = "runs (due_at timestamptz PRIMARY KEY, previous timestamptz, missed int)"
    pipeline.db.execute(text(f"CREATE TABLE {table}"))

    @periodic("0 * * * *")
    def run(event: Event[Due], db: Connection) -> None:
        db.execute(
            text("INSERT INTO runs VALUES (:due_at, :before, :missed) ON CONFLICT DO NOTHING"),
            {
                "due_at": event.data.due_at,
                "before": event.data.previous_due_at,
                "missed": event.data.missed,
            },
        )

    event = pipeline.due(run, NOON, previous_due_at=NOON - timedelta(hours=3), missed=2)
    assert event.occurred_at == NOON
    assert pipeline.run(run, event).succeeded
    row = pipeline.db.execute(text("SELECT * FROM runs")).one()
    assert tuple(row) == (NOON, NOON - timedelta(hours=3), 2)


def test_the_data_without_a_model_is_json(pipeline: Pipeline) -> None:
    @periodic("0 * * * *", name="plain")
    def run(event: Event, db: Connection) -> None:
        assert event.data == {
            "due_at": "2026-06-01T12:00:00Z",
            "previous_due_at": None,
            "missed": 0,
            "by_hand": True,
        }

    event = pipeline.due(run, NOON, by_hand=True)
    assert (event.source, event.type) == ("schedule", "schedule.plain")
    assert pipeline.run(run, event).succeeded


def test_a_processor_that_is_not_periodic_is_never_due(pipeline: Pipeline) -> None:
    @processor("order.created")
    def run(event: Event, db: Connection) -> None: ...

    with pytest.raises(NotDeclared, match="is not periodic"):
        pipeline.due(run)
