"""`ingest retention`: what goes at which age, what would go now, and what has gone."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import database
from ingest.store.engine import Role
from ingest.store.retention import passes, report
from ingest.store.retention.ages import Ages
from ingest.store.retention.report import EXAMINED, Held


def retention(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    run_now: Annotated[
        bool, typer.Option("--run-now", help="Remove what is too old, without waiting for a relay.")
    ] = False,
) -> None:
    """Show for each kind of row: its age, what is held, what would go now, what has gone.

    With --run-now a pass is made first, without the relay's pauses. It can be broken off.
    """
    loaded = settings.load()
    if run_now:
        _run(loaded.ages)
    with database() as engine, engine.begin() as connection:
        state = report.read(
            connection,
            loaded.ages,
            body_age_days=loaded.body_retention_days,
            now=datetime.now(UTC),
        )
    if json:
        bodies = {"body_retention_days": loaded.body_retention_days, "bodies": state.bodies}
        output.as_json({"obstacle": state.obstacle, "kinds": state.kinds} | bodies)
        return
    output.table(
        None,
        ["kind", "age", "rows", "size", "would go now", "removed", "last pass"],
        [_row(held, datetime.now(UTC)) for held in state.kinds],
    )
    if state.obstacle is not None:
        output.line(f"No event is removed now. {state.obstacle}")


def _run(ages: Ages) -> None:
    removed: Counter[str] = Counter()
    with database(Role.RELAY) as engine:
        for kind, rows in passes.run(engine, ages, clock=lambda: datetime.now(UTC)):
            removed[kind] += rows
    for kind, rows in (+removed).items():
        typer.echo(f"{kind.replace('_', ' ')}: removed {rows:,}", err=True)


def _row(held: Held, now: datetime) -> list[object]:
    due = None if held.due is None else f"{held.due:,}"
    if held.due == EXAMINED:
        due = f"{due} or more"
    return [
        held.kind.replace("_", " "),
        None if held.age_days is None else f"{held.age_days} d",
        f"{held.rows:,}",
        f"{held.bytes / 2**20:,.1f} MiB",
        due,
        f"{held.removed:,}",
        None if held.ended_at is None else output.ago(held.ended_at, now),
    ]
