"""Editing an event and sending it again, as pages and API do it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine

from ingest import resending
from ingest.console.auth.identity import Identity
from ingest.console.services import lasting
from ingest.console.services.commands import clean
from ingest.console.services.event_view import DiffLine, difference
from ingest.console.ui.json_view import pretty
from ingest.resending import CannotResend, Examined
from ingest.settings import Settings
from ingest.sources.base import Source

LARGEST_EDITED = 256 * 1024
"""Bytes of a body that a page edits; the API takes larger ones, and `ingest resend` any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an edited body would become."""

    source: str
    """The sender whose event it was made of, which reads it."""
    type: str
    event_id: str
    """The id that it would have as the sender's own. As a copy it has one of its own."""
    known: UUID | None
    """The sender's event of that id; None: there is none."""
    processors: tuple[str, ...]
    """Those that run on its type."""
    difference: tuple[DiffLine, ...]
    """What differs from the original; empty: nothing but white space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent:
    """An edited event, and the copy that was sent."""

    preview: Preview
    event: UUID | None
    """The copy: an event as soon as a worker has admitted it. None: nothing was sent."""
    is_new: bool
    """Whether this request sent it; otherwise one with the same number did before."""


class Resending:
    """Edits events."""

    def __init__(self, engine: Engine, settings: Settings, sources: Mapping[str, Source]) -> None:
        self._engine = engine
        self._settings = settings
        self._sources = sources

    def text(self, event: UUID) -> str:
        """Return the body of an event, to be edited: JSON with a line for each member.

        Raises:
            NotFound: there is no such event.
            CannotResend: it has no body, or one that no page edits.
        """
        with self._engine.connect() as connection:
            body = resending.origin(connection, self._sources, event).body
        if len(body) > LARGEST_EDITED:
            raise CannotResend(
                "The body is too large to be edited here: `ingest resend` takes a file.",
                reason="body_too_large",
            )
        try:
            return pretty(body.decode())
        except UnicodeDecodeError:
            raise CannotResend(
                "The body is no text: `ingest resend` takes a file.", reason="body_not_text"
            ) from None

    def preview(self, event: UUID, body: str) -> Preview:
        """Return what an edited body would become.

        Raises:
            NotFound: there is no such event.
            CannotResend: it cannot be edited, or the body cannot be sent.
        """
        return _preview(self._examine(event, body))

    def send(
        self, by: Identity, event: UUID, body: str, *, number: UUID, reason: str | None
    ) -> Resent:
        """Send an edited body as an event of the source `operator`.

        Raises:
            NotFound: there is no such event.
            CannotResend: it cannot be edited, or the body cannot be sent.
            NotStored: the database did not store it; the same again is safe.
        """
        examined = self._examine(event, body)
        sent = resending.send(
            self._engine,
            self._settings.database,
            examined,
            number=number,
            by=by,
            reason=clean(reason),
            now=time.time(),
            random=os.urandom,
        )
        lasting.note()  # it was committed past the engine
        return Resent(preview=_preview(examined), event=sent.event, is_new=sent.is_new)

    def _examine(self, event: UUID, body: str) -> Examined:
        with self._engine.connect() as connection:
            edited = resending.origin(connection, self._sources, event)
            return resending.examine(
                connection,
                self._sources,
                edited,
                body.encode("utf-8", "surrogatepass"),
                body_limit=self._settings.max_body_bytes,
            )


def _preview(examined: Examined) -> Preview:
    return Preview(
        source=examined.origin.source,
        type=examined.identity.type,
        event_id=examined.identity.event_id,
        known=examined.known,
        processors=examined.processors,
        difference=difference(examined.origin.body, examined.body),
    )
