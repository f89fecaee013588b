"""`ingest sources`."""

from typing import Annotated, Any

import typer

from ingest import settings
from ingest.cli import output
from ingest.sources import registry


def sources(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the configured senders, where they post, and the ids of their live secrets."""
    given = settings.load()
    listed: list[dict[str, Any]] = [
        {
            "source": source.slug,
            "path": f"/webhooks/{source.slug}",
            "keys": list(source.key_ids),
            "tolerance_s": source.tolerance_s,
        }
        for source in registry.configured(given.sources).values()
    ]
    if json:
        for each in listed:
            output.as_json(each)
        return
    output.table(
        None,
        ["source", "path", "keys, newest first", "tolerance"],
        [
            (
                each["source"],
                each["path"],
                ", ".join(each["keys"]) or "none: set its secrets",
                f"{each['tolerance_s']} s",
            )
            for each in listed
        ],
    )
