"""Files of descriptions in TOML: reading them, and telling what is wrong with file, line and one
sentence."""

import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ingest.errors import SettingsError

_TABLE = re.compile(r"\s*(\[+)\s*([^\]]+?)\s*\]+")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""")
_TOML_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$")
_SHOWN = 150
DESTINATIONS = "destination"
"""The name of the tables that describe destinations; every other table is a source."""
_Model = TypeVar("_Model", bound=BaseModel)


def content_of(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        SettingsError: it cannot be read.
    """
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


def parsed(path: Path, content: bytes) -> tuple[str, dict[str, Any]]:
    """Return a file's text, and its tables.

    Raises:
        SettingsError: it is not TOML.
    """
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


def model_of(
    path: Path, text: str, place: Sequence[str], model: type[_Model], fields: object
) -> _Model:
    """Return what the keys at a place of a file say.

    Raises:
        SettingsError: they cannot be used. The sentence shows names of keys, and no values.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        # A key that is misspelt is missing under its own name too: the line with it is the cause.
        problem = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
        steps = (str(step) for step in problem["loc"] if not _is_alternative(step))
        whole = (*place, *steps)
        why = _clause(problem["type"], problem["msg"])
        if problem["type"] == "extra_forbidden":
            why += _meant(problem["loc"], model)
        refuse(path, text, whole, why)


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


def _meant(place: Sequence[str | int], within: type[BaseModel]) -> str:
    """Return a clause with the key that was probably meant, or nothing."""
    model: type[BaseModel] | None = within
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


def line_of(text: str, place: Sequence[str]) -> int:
    """Return the line of a key, or of what is nearest above it. The tables of an array are numbered
    from 0."""
    best, best_depth = 1, 0
    arrays: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.fullmatch(line.split("#")[0].rstrip()):
            names = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            if header[1] == "[[":
                arrays[names] = arrays.get(names, -1) + 1
            here = table = _numbered(names, arrays)
        elif key := _KEY.match(line):
            here = (*table, *key[1].split("."))
        else:
            continue
        depth = min(len(here), len(place))
        if depth > best_depth and here[:depth] == tuple(place[:depth]):
            best, best_depth = number, depth
    return best


def _numbered(names: tuple[str, ...], arrays: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """Return the place of a table, with the number of the last table of each array on its way."""
    place: tuple[str, ...] = ()
    for depth, name in enumerate(names, start=1):
        number = arrays.get(names[:depth])
        place += (name,) if number is None else (name, str(number))
    return place


def refuse(path: Path, text: str, place: Sequence[str], why: str) -> NoReturn:
    """Raise SettingsError: `why` is a clause about a place in the text of a file."""
    line = line_of(text, place)
    raise SettingsError(f"{path}:{line}: {'.'.join(place)}: {why}.", reason="bad_source")
