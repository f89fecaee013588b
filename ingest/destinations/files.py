"""Read the destinations that files describe. A mistake is told with file, line and one sentence."""

from collections.abc import Container, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ingest import described_toml
from ingest.described_toml import DESTINATIONS
from ingest.destinations.description import Destination


def read(paths: Sequence[Path], sources: Iterable[str]) -> tuple[Destination, ...]:
    """Return the destinations that the files describe, in their order.

    Args:
        paths: the files that describe sources, too.
        sources: the slugs of all sources.

    Raises:
        SettingsError: a file cannot be read, or a description cannot be used. The sentence shows
            names of files and keys, and no values.
    """
    contents = tuple((path, described_toml.content_of(path)) for path in paths)
    return _destinations(contents, frozenset(sources))


@cache
def _destinations(
    files: Iterable[tuple[Path, bytes]], sources: frozenset[str]
) -> tuple[Destination, ...]:
    by_name: dict[str, Destination] = {}
    for path, content in files:
        text, tables = described_toml.parsed(path, content)
        listed = tables.get(DESTINATIONS, [])
        if not isinstance(listed, list):
            why = f"each destination is a table [[{DESTINATIONS}]], with double brackets"
            described_toml.refuse(path, text, (DESTINATIONS,), why)
        for number, table in enumerate(listed):
            destination = _described(path, text, number, table, sources)
            if destination.name in by_name:
                place = (DESTINATIONS, str(number), "name")
                why = "another destination has this name already"
                described_toml.refuse(path, text, place, why)
            by_name[destination.name] = destination
    return tuple(by_name.values())


def _described(
    path: Path, text: str, number: int, table: object, sources: Container[str]
) -> Destination:
    place = (DESTINATIONS, str(number))
    keys = table if isinstance(table, dict) else {}
    for key in sorted({"secret", "secrets"} & keys.keys()):
        why = "a secret does not stand in this file; use secrets_env or secrets_file"
        described_toml.refuse(path, text, (*place, key), why)
    destination = described_toml.model_of(path, text, place, Destination, table)
    if any(source not in sources for source in destination.sources):
        described_toml.refuse(path, text, (*place, "sources"), "there is no source of this name")
    return _beside(path, destination)


def _beside(path: Path, destination: Destination) -> Destination:
    """Return a destination whose files are looked for beside its description."""
    changes: dict[str, Any] = {
        name: path.parent / file
        for name in ("url_file", "secrets_file", "ca_file")
        if (file := getattr(destination, name)) is not None
    }
    changes["headers_file"] = {
        name: path.parent / file for name, file in destination.headers_file.items()
    }
    return destination.model_copy(update=changes)
