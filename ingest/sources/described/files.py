"""Read the sources that files describe. What is wrong is told with file, line and one sentence."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ingest import described_toml
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.source import DescribedSource, source_class

_SLUG = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_LITERAL_SECRETS = frozenset({"secret", "secrets", "token"})


def read(paths: Sequence[Path]) -> dict[str, type[DescribedSource]]:
    """Return the classes of the sources that the files describe, by slug.

    Raises:
        SettingsError: a file cannot be read, or a description cannot be used. The sentence shows
            names of files and keys, and no values.
    """
    return dict(_classes(tuple((path, described_toml.content_of(path)) for path in paths)))


@cache
def _classes(files: Iterable[tuple[Path, bytes]]) -> Mapping[str, type[DescribedSource]]:
    classes: dict[str, type[DescribedSource]] = {}
    for path, content in files:
        text, tables = described_toml.parsed(path, content)
        tables.pop(described_toml.DESTINATIONS, None)
        for slug, table in tables.items():
            if slug in classes:
                described_toml.refuse(path, text, (slug,), "another file has this name already")
            classes[slug] = source_class(slug, _description(path, text, slug, table))
    return classes


def _description(path: Path, text: str, slug: str, table: object) -> Description:
    if not _SLUG.fullmatch(slug) or len(slug) > 50:
        described_toml.refuse(
            path, text, (slug,), "a name is lower-case letters, digits and dashes"
        )
    if not isinstance(table, dict):
        described_toml.refuse(path, text, (slug,), "each source is a table, [name]")
    for key in sorted(_LITERAL_SECRETS & table.keys()):
        why = "a secret does not stand in this file; use secrets_env or secrets_file"
        described_toml.refuse(path, text, (slug, key), why)
    fields = dict(table)
    preset = fields.pop("preset", None)
    if preset is not None:
        if preset not in shipped.names():
            known = ", ".join(shipped.names())
            described_toml.refuse(path, text, (slug, "preset"), f"this must be one of {known}")
        fields = _merged(shipped.table(preset), fields)
    description = described_toml.model_of(path, text, (slug,), Description, fields)
    return _beside(path, description)


def _beside(path: Path, description: Description) -> Description:
    """Return a description whose files are looked for beside its own."""
    changes: dict[str, Any] = {}
    if description.secrets_file is not None:
        changes["secrets_file"] = path.parent / description.secrets_file
    challenge = description.challenge
    if challenge is not None and challenge.verify_token_file is not None:
        file = path.parent / challenge.verify_token_file
        changes["challenge"] = challenge.model_copy(update={"verify_token_file": file})
    recover = description.recover
    if recover is not None and recover.token_file is not None:
        token_file = path.parent / recover.token_file
        changes["recover"] = recover.model_copy(update={"token_file": token_file})
    return description.model_copy(update=changes)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another one's values over its own; tables in it are merged likewise."""
    merged = dict(base)
    for key, value in over.items():
        own = merged.get(key)
        both = isinstance(own, dict) and isinstance(value, dict)
        merged[key] = _merged(own, value) if isinstance(own, dict) and both else value
    return merged
