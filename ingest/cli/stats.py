"""`ingest stats`."""

import dataclasses
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.access import database
from ingest.store import stats as counts


def stats(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count deliveries, events and jobs."""
    with database() as engine, engine.connect() as connection:
        found = dataclasses.asdict(counts.read(connection))
    if json:
        output.as_json(found)
        return
    if output.is_terminal():
        width = max(map(len, found.values()))
        rows = [
            [group, *(f"{number:,} {name}" for name, number in members.items())]
            for group, members in found.items()
        ]
        output.table(
            None, [""] * (width + 1), [row + [""] * (width + 1 - len(row)) for row in rows]
        )
    else:
        output.table(
            None,
            [],
            [
                (group, name, number)
                for group, members in found.items()
                for name, number in members.items()
            ],
        )
