"""Read files of descriptions. What is wrong is told with file, line and one sentence."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError

from ingest.errors import SettingsError
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.source import DescribedSource, source_class

_SLUG = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_TABLE = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""")
_TOML_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$")
_SHOWN = 150
_LITERAL_SECRETS = frozenset({"secret", "secrets", "token"})


def read(paths: Sequence[Path]) -> dict[str, type[DescribedSource]]:
    """Return the classes of the sources that the files describe, by slug.

    Raises:
        SettingsError: a file cannot be read, or a description cannot be used. The sentence shows
            names of files and keys, and no values.
    """
    return dict(_classes(tuple((path, _content(path)) for path in paths)))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise SettingsError(
            f"INGEST_SOURCES: {_shown(path)}: {why}.", reason="bad_source"
        ) from None


def _shown(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() and len(text) <= _SHOWN else "a name that is no file's"


@cache
def _classes(files: Iterable[tuple[Path, bytes]]) -> Mapping[str, type[DescribedSource]]:
    classes: dict[str, type[DescribedSource]] = {}
    for path, content in files:
        text, tables = _parsed(path, content)
        for slug, table in tables.items():
            if slug in classes:
                _refuse(path, _line(text, (slug,)), slug, "another file has this name already")
            classes[slug] = source_class(slug, _description(path, text, slug, table))
    return classes


def _parsed(path: Path, content: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = content.decode()
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.match(str(error))
        line = int(place[2]) if place and place[2] else content.count(b"\n") + 1
        why = (place[1] if place else "it ends too early").rstrip(".")
        told = f"this is not TOML: {why[:1].lower()}{why[1:]}"
        raise SettingsError(f"{path}:{line}: {told}.", reason="bad_source") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}:1: this is not UTF-8 text.", reason="bad_source") from None


def _description(path: Path, text: str, slug: str, table: object) -> Description:
    if not _SLUG.fullmatch(slug) or len(slug) > 50:
        _refuse(path, _line(text, (slug,)), slug, "a name is lower-case letters, digits and dashes")
    if not isinstance(table, dict):
        _refuse(path, _line(text, (slug,)), slug, "each source is a table, [name]")
    for key in sorted(_LITERAL_SECRETS & table.keys()):
        why = "a secret does not stand in this file; use secrets_env or secrets_file"
        _refuse(path, _line(text, (slug, key)), f"{slug}.{key}", why)
    fields = dict(table)
    preset = fields.pop("preset", None)
    if preset is not None:
        if preset not in shipped.names():
            known = ", ".join(shipped.names())
            _refuse(path, _line(text, (slug, "preset")), slug, f"preset is one of {known}")
        fields = _merged(shipped.table(preset), fields)
    try:
        description = Description.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        # A key that is misspelt is missing under its own name too: the line with it is the cause.
        problem = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
        place = (slug, *(str(step) for step in problem["loc"] if not _is_alternative(step)))
        why = _clause(problem["type"], problem["msg"])
        if problem["type"] == "extra_forbidden":
            why += _meant(problem["loc"])
        _refuse(path, _line(text, place), ".".join(place), why)
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


_CLAUSES = {
    "extra_forbidden": "there is no such key",
    "missing": "this key is missing",
    "tuple_type": "this must be a list",
    "dict_type": "this must be a table",
    "mapping_type": "this must be a table",
    "model_type": "this must be a table",
    "string_type": "this must be a text in quotes",
    "int_parsing": "this must be a whole number",
    "int_type": "this must be a whole number",
    "int_from_float": "this must be a whole number",
}


def _clause(kind: str, message: str) -> str:
    clause = _CLAUSES.get(kind, message.removeprefix("Value error, "))
    return clause[0].lower() + clause[1:]


def _is_alternative(step: str | int) -> bool:
    """Return whether pydantic names an alternative of a type here, and no key."""
    return str(step).startswith(("constrained-", "literal["))


def _meant(place: Sequence[str | int]) -> str:
    """Return a clause with the key that was probably meant, or nothing."""
    model: type[BaseModel] | None = Description
    for step in place[:-1]:
        if model is not None and isinstance(step, str):
            field = model.model_fields.get(step)
            model = _model_in(field.annotation) if field else None
    known = model.model_fields if model is not None else ()
    similar = get_close_matches(str(place[-1]), known, n=1)
    return f"; perhaps {similar[0]} was meant" if similar else ""


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in models if model is not None), None)


def _line(text: str, place: Sequence[str]) -> int:
    """Return the line of a key, or of what is nearest above it."""
    best, best_depth = 1, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.fullmatch(line.split("#")[0].rstrip()):
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            here = table
        elif key := _KEY.match(line):
            here = (*table, *key[1].split("."))
        else:
            continue
        if len(here) > best_depth and here == tuple(place[: len(here)]):
            best, best_depth = number, len(here)
    return best


def _refuse(path: Path, line: int, place: str, why: str) -> NoReturn:
    raise SettingsError(f"{path}:{line}: {place}: {why}.", reason="bad_source")
