"""The shipped descriptions."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

_FOLDER = "presets"


@cache
def names() -> tuple[str, ...]:
    """Return the names of the shipped descriptions, sorted."""
    folder = files(__package__).joinpath(_FOLDER)
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir()))


def table(name: str) -> dict[str, Any]:
    """Return a shipped description as its file has it.

    Raises:
        KeyError: there is none of this name.
    """
    if name not in names():
        raise KeyError(name)
    file = files(__package__).joinpath(_FOLDER, f"{name}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
