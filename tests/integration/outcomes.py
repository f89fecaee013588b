"""Processors' effects in a table of the test's own, and what became of the jobs."""

from sqlalchemy import Connection, Engine, text

from tests.integration.conftest import Worker
from tests.support.rows import execute, rows
from workers import Event


def make_tables(engine: Engine) -> None:
    """For effects, and for one that PostgreSQL refuses at the commit."""
    execute(engine, "CREATE TABLE effects (order_id bigint, attempt int)")
    execute(engine, "CREATE TABLE parents (id int PRIMARY KEY)")
    execute(
        engine,
        "CREATE TABLE checked (id int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
    )


def effect(event: Event, db: Connection) -> None:
    db.execute(
        text("INSERT INTO effects VALUES (:order_id, :attempt)"),
        {"order_id": event.data["order_id"], "attempt": event.attempt},
    )


def effects(engine: Engine) -> list[int]:
    return [row["order_id"] for row in rows(engine, "SELECT * FROM effects ORDER BY order_id")]


def job_states(engine: Engine) -> dict[int, str]:
    """State by order id."""
    found = rows(
        engine,
        "SELECT split_part(e.event_id, ':', 2)::int AS number, j.state"
        " FROM jobs j JOIN events e ON e.id = j.event ORDER BY 1",
    )
    return {row["number"]: row["state"] for row in found}


def run_due(engine: Engine, worker: Worker) -> None:
    """Run every waiting job that is due, as the relay has them run."""
    ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs WHERE due_at IS NOT NULL")]
    worker.process(jobs=ids)
