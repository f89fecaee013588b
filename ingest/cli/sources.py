"""`ingest sources`."""

from typing import Annotated, Any

import typer

from ingest import settings
from ingest.cli import output
from ingest.sources import registry


def sources(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the configured senders with their paths and the ids of their secrets."""
    configured = settings.load()
    rows: list[dict[str, Any]] = [
        {
            "source": source.slug,
            "path": f"/webhooks/{source.slug}",
            "keys": list(source.key_ids),
            "tolerance_s": source.tolerance_s,
        }
        for source in registry.configured(configured.sources).values()
    ]
    if json:
        for row in rows:
            output.as_json(row)
        return
    output.table(
        None,
        ["source", "path", "keys, newest first", "tolerance"],
        [
            (
                row["source"],
                row["path"],
                ", ".join(row["keys"]) or "none: set its secrets",
                f"{row['tolerance_s']} s",
            )
            for row in rows
        ],
    )
