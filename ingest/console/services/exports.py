"""Exports as the console gives them: masked, and few at a time."""

import threading
from functools import partial

from sqlalchemy import Engine

from ingest.console.auth.identity import Identity
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.ui import masking
from ingest.export import Export, WantedExport
from ingest.settings import Settings

AT_ONCE = 2
"""Exports that a console gives at the same time: each has a thread, and half of the time a
connection."""


class Exports:
    """The exports that run."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._free = threading.BoundedSemaphore(AT_ONCE)

    def begin(self, by: Identity, wanted: WantedExport) -> Export:
        """Begin an export, which its reader closes.

        Raises:
            BadRequest: bodies are hidden from whoever asks for them.
            NotPossible: enough of them run.
        """
        masked = masking.applies(self._settings, by)
        if masked and wanted.with_bodies:
            raise BadRequest("Bodies are hidden from viewers.", reason="hidden")
        if not self._free.acquire(blocking=False):
            raise NotPossible(
                f"{AT_ONCE} exports run already: begin yours when one of them has ended.",
                reason="too_many_exports",
            )
        try:
            mask = partial(masking.events, masked=masked)
            export = Export(self._engine, wanted, by=by, mask=mask)
        except BaseException:
            self._free.release()
            raise
        export.when_closed(self._free.release)
        return export
