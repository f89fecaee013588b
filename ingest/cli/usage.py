"""What is wrong with how a command was called, in one sentence of our own words.

The library that reads the command line tells it in its own, over several lines. Its text is the
only public part of its errors, so that is what is translated; what is not known stays as it is.
"""

import re
from collections.abc import Sequence

from typer.exceptions import TyperException

_OF_A_CALL = (
    (r"No such option: (\S+) Did you mean (.+)\?", r"There is no option \1: perhaps \2?"),
    (r"No such option: (\S+) \(Possible options: (.+)\)", r"There is no option \1: perhaps \2?"),
    (r"No such option: (\S+)", r"There is no option \1."),
    (r"No such command '(.+?)'\.(.*)", r"There is no command \1.\2"),
    (r"Missing argument '(.+?)'\..*", r"\1 is missing."),
    (r"Missing option '(.+?)'\..*", r"\1 is missing."),
    (r"Missing command\.", r"A command is missing."),
    (r"Got unexpected extra argument\S* \((.+)\)", r"This is too much: \1."),
    (r"Option '(.+?)' requires an argument\.", r"\1 needs a value."),
    (r"Option '(.+?)' does not take a value\.", r"\1 takes no value."),
)
_OF_A_VALUE = (
    (r"Input should be a valid integer.*", r"must be a whole number."),
    (r"Input should be a (?:valid|finite) number.*", r"must be a number."),
    (r"Input should be a valid UUID.*", r"must be an id, 36 characters long."),
    (r"Input should be greater than or equal to (\S+)", r"must be at least \1."),
    (r"Input should be greater than (\S+)", r"must be more than \1."),
    (r"Input should be less than or equal to (\S+)", r"must be at most \1."),
    (r"Value error, (.+?)\.?", r"\1."),
    (r"Input should be (.+)", r"must be \1."),
)
_BAD_VALUE = re.compile(r"Invalid value for '(.+?)': (.+)")


def sentence(error: TyperException) -> str:
    """Return what is wrong, and where the command says what it takes."""
    text = " ".join(error.format_message().split())
    value = _BAD_VALUE.fullmatch(text)
    said = (
        f"{value[1]}: {_translated(value[2], _OF_A_VALUE)}"
        if value
        else _translated(text, _OF_A_CALL)
    )
    context = getattr(error, "ctx", None)
    return said if context is None else f"{said} `{context.command_path} --help` says more."


def _translated(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    for theirs, ours in pairs:
        match = re.fullmatch(theirs, text)
        if match:
            return match.expand(ours)
    return text
