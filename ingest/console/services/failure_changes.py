"""What operators change in a group of failures, for page, API and commands. What they give is
checked here."""

from datetime import datetime

from sqlalchemy import Engine

from ingest.console.auth.identity import Identity
from ingest.console.errors import BadRequest
from ingest.console.services.commands import clean
from ingest.store.failures import changes
from ingest.store.failures.changes import Change
from ingest.store.failures.records import Note

LONGEST_NAME = 100
"""Characters of whom a failure is assigned to."""
LONGEST_NOTE = 2_000
MOST_TIMES = 1_000_000_000


class FailureChanges:
    """The changes that are made to groups of failures. All raise NotFound."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def acknowledge(self, by: Identity, number: int, reason: str | None = None) -> None:
        """Record that somebody looks after a failure."""
        with self._engine.begin() as connection:
            changes.acknowledge(connection, _change(by, number, reason))

    def resolve(
        self,
        by: Identity,
        number: int,
        reason: str | None = None,
        *,
        in_release: str | None = None,
        when_succeeded: bool = False,
    ) -> None:
        """Record that a failure is mended, or is to be mended.

        Args:
            by: who does so.
            number: of the group.
            reason: why, for the audit log.
            in_release: the release that mends it; None: it is mended.
            when_succeeded: resolve it once none of its jobs fails or is to be repeated.

        Raises:
            BadRequest: both were asked for.
        """
        if in_release and when_succeeded:
            raise BadRequest(
                "Resolve it in a release, or when all has succeeded, not both.",
                reason="bad_resolution",
            )
        change = _change(by, number, reason)
        with self._engine.begin() as connection:
            if when_succeeded:
                changes.resolve_when_succeeded(connection, change)
            else:
                changes.resolve(connection, change, in_release=in_release or None)

    def mute(
        self,
        by: Identity,
        number: int,
        reason: str | None = None,
        *,
        now: datetime,
        until: datetime | None = None,
        times: int | None = None,
    ) -> None:
        """Take a failure from the list until a time, until it has happened so many times more, or
        for ever.

        Raises:
            BadRequest: both were given, or the time is past, or the number is none.
        """
        if until is not None and times is not None:
            raise BadRequest("Mute it until a time or a number, not both.", reason="bad_mute")
        if until is not None and until <= now:
            raise BadRequest("The time must be in the future.", reason="bad_time")
        if times is not None and not 1 <= times <= MOST_TIMES:
            raise BadRequest("The number of times must be 1 or more.", reason="bad_times")
        with self._engine.begin() as connection:
            changes.mute(connection, _change(by, number, reason), until=until, times=times)

    def reopen(self, by: Identity, number: int, reason: str | None = None) -> None:
        """Record that a failure is not mended, muted or looked after."""
        with self._engine.begin() as connection:
            changes.reopen(connection, _change(by, number, reason))

    def assign(self, by: Identity, number: int, to: str | None, reason: str | None = None) -> None:
        """Give a failure to somebody, or to nobody.

        Raises:
            BadRequest: the name is too long, or not on one line.
        """
        name = (to or "").strip()
        if len(name) > LONGEST_NAME or not (name.isprintable() or not name):
            raise BadRequest(
                f"A name is 1 to {LONGEST_NAME} characters on one line.", reason="bad_name"
            )
        with self._engine.begin() as connection:
            changes.assign(connection, _change(by, number, reason), to=name or None)

    def note(self, by: Identity, number: int, text: str) -> Note:
        """Keep what somebody writes about a failure.

        Raises:
            BadRequest: the text is empty or too long.
        """
        written = text.replace("\x00", "").replace("\r\n", "\n").strip()
        if not 0 < len(written) <= LONGEST_NOTE:
            raise BadRequest(f"A note is 1 to {LONGEST_NOTE:,} characters.", reason="bad_note")
        with self._engine.begin() as connection:
            return changes.note(connection, _change(by, number, None), text=written)


def _change(by: Identity, number: int, reason: str | None) -> Change:
    return Change(failure=number, by=by, reason=clean(reason))
