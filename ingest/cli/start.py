"""What every command does first: it sees to what it is given, and to what it prints on."""

import io
import os
import sys
from collections.abc import Sequence

import structlog

from ingest.errors import IngestError


class NoText(IngestError):
    """An argument cannot be read."""


def prepare(arguments: Sequence[str]) -> None:
    """Check the arguments, and prepare stdout and the log.

    What stdout's encoding lacks is escaped. What is logged goes to stderr: stdout is for what the
    command prints.

    Raises:
        NoText: an argument is not text in the encoding of this machine.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not structlog.is_configured():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for argument in arguments:
        _check(argument)


def _check(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        shown = os.fsencode(argument).decode(encoding, "backslashreplace")
        raise NoText(f"The argument {shown} is not text in {encoding}.", reason="no_text") from None
