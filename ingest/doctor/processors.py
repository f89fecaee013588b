"""Whether the processors can be imported. A process of its own tries it, as `ingest worker` does:
this package never imports theirs, and what a user's module does must not reach this command."""

import subprocess
from collections.abc import Iterator

from ingest import declared, misspelt_types
from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup

NOT_IMPORTED = error(
    "processors_not_imported", "Correct the module, or INGEST_PROCESSORS: no worker starts."
)
SLOW_IMPORT = error(
    "processors_import_slow", "Take out of the module what waits while it is imported."
)
NONE = warning(
    "no_processors", "Name modules in INGEST_PROCESSORS: events are stored and not processed."
)
TYPE_MISSPELT = warning("type_misspelt", "Correct the type in @processor, if it is a mistake.")
PROCESSORS = note("processors")

_TIMEOUT_S = 20.0


def check(_setup: Setup) -> Iterator[Finding]:
    """Import them and count them."""
    try:
        answer = subprocess.run(
            declared.COMMAND, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield SLOW_IMPORT.found(f"The processors are not imported within {_TIMEOUT_S:.0f} s.")
        return
    try:
        processors = declared.read(answer.returncode, answer.stdout, answer.stderr)
    except declared.NotImported as problem:
        yield NOT_IMPORTED.found(str(problem))
        return
    if processors:
        yield PROCESSORS.found(f"{len(processors)} processors can be imported.")
    else:
        yield NONE.found("There is no processor.")
    for sentence in misspelt_types.sentences(processors):
        yield TYPE_MISSPELT.found(sentence)
