"""Ordering, confirming and cancelling erasures: pages and API come here.

Each is recorded in the audit log in its own transaction, by the number of the request: nothing that
is searched for is in it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from ingest.console.auth.identity import Identity
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.services.commands import clean
from ingest.console.services.erasure_runner import ErasureRunner
from ingest.erasure import orders, report, request, sentences
from ingest.erasure.orders import NotNow
from ingest.erasure.report import Report
from ingest.sources.base import Source
from ingest.store.erasure import records
from ingest.store.erasure.records import (
    ERASING,
    FINISHED,
    FOUND,
    UNCONFIRMED,
    Erasure,
)
from ingest.store.reports import audit_log


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Who is to be erased, as an operator wrote it."""

    phones: Sequence[str] = ()
    contacts: Sequence[str] = ()
    conversations: Sequence[str] = ()
    source: str | None = None
    """Only what this one sent; None: all sources."""
    reason: str | None = None


class Erasures:
    """The erasures, as the console orders and shows them."""

    def __init__(
        self, engine: Engine, runner: ErasureRunner, sources: Mapping[str, Source]
    ) -> None:
        self._engine = engine
        self._runner = runner
        self._sources = sources

    def newest(self, *, limit: int, before: int | None = None) -> list[Report]:
        """Return the newest requests, those before the number `before`."""
        with self._engine.connect() as connection:
            return [
                report.of(erasure)
                for erasure in records.newest(connection, limit=limit, before=before)
            ]

    def read(self, number: int) -> Report:
        """Return a request. Raises NotFound."""
        with self._engine.connect() as connection:
            return report.of(records.read(connection, number))

    def erased_before(self, number: int) -> list[str]:
        """Say when the person of a request was erased before. Raises NotFound."""
        with self._engine.connect() as connection:
            erasure = records.read(connection, number)
            same = records.of_person(connection, erasure.persons)
        return [
            sentences.erased_before(one.id, one.finished_at)
            for one in same
            if one.status == FINISHED and one.id < number and one.source == erasure.source
        ]

    def order(self, by: Identity, wanted: Wanted) -> Report:
        """Begin to search for a person who is to be erased.

        Who was ordered already and is not erased yet is not searched for again: that request is
        returned, and an erasure that was interrupted goes on.

        Raises:
            BadPerson: what is given names nobody, or the reason names the person.
            BadRequest: there is no such source.
        """
        named = request.parse(wanted.phones, wanted.contacts, wanted.conversations)
        source = wanted.source or None
        if source is not None and source not in self._sources:
            raise BadRequest("There is no such source.", reason="bad_source")
        with self._engine.begin() as connection:
            orders.take_turn(connection)
            same = orders.before(connection, named, source)
            under_way = [one for one in same if one.status in (*UNCONFIRMED, ERASING)]
            if under_way:
                erasure = under_way[-1]
                if not erasure.background:
                    records.continue_in_background(connection, erasure.id)
                    _note(connection, by, "continue erasure", erasure)
            else:
                erasure = orders.begin(
                    connection,
                    named,
                    request.person(named),
                    source=source,
                    reason=clean(wanted.reason),
                    by=by.name,
                    random=os.urandom,
                    in_background=True,
                )
                _note(connection, by, "search person", erasure)
        self._runner.wake()
        return self.read(erasure.id)

    def erase(self, by: Identity, number: int, *, typed: str | None = None) -> Report:
        """Erase a person who was found. Whoever is being erased, or was, stays as they are.

        Args:
            by: who asks for it.
            number: of the request.
            typed: what has to be one of the names that were given; None: it is not asked.

        Raises:
            NotFound: there is no such request.
            NotPossible: it was cancelled, or the search has not ended, or a worker of an older
                release is alive.
            BadRequest: another person was typed.
        """
        with self._engine.begin() as connection:
            erasure = records.read(connection, number, hold=True)
            if erasure.status == FOUND:
                if typed is not None and not orders.names(connection, erasure, typed):
                    raise BadRequest(sentences.ANOTHER_PERSON, reason="not_confirmed")
                try:
                    orders.confirm(connection, number)
                except NotNow as refused:
                    raise NotPossible(str(refused), reason=refused.reason) from None
                # Only now is it known that the reason does not name the person.
                _note(connection, by, "erase person", erasure, reason=erasure.reason)
            elif erasure.status not in (ERASING, FINISHED):
                state = (
                    "is not searched for yet" if erasure.finished_at is None else "was cancelled"
                )
                raise NotPossible(f"Erasure {number} {state}.", reason="not_found_yet")
        self._runner.wake()
        return self.read(number)

    def cancel(self, by: Identity, number: int) -> Report:
        """Cancel a request that was not confirmed: nobody is erased.

        Raises:
            NotFound: there is no such request.
            NotPossible: the person is being erased, or was.
        """
        with self._engine.begin() as connection:
            erasure = records.read(connection, number, hold=True)
            if erasure.status in (ERASING, FINISHED):
                raise NotPossible(
                    f"Erasure {number} was confirmed: it cannot be cancelled.", reason="confirmed"
                )
            if erasure.status in UNCONFIRMED:
                records.cancel(connection, number, None)
                _note(connection, by, "cancel erasure", erasure)
        return self.read(number)

    def resume(self, by: Identity, number: int) -> Report:
        """Let the console go on with an erasure that a command began, and left.

        Raises:
            NotFound: there is no such request.
        """
        with self._engine.begin() as connection:
            erasure = records.read(connection, number, hold=True)
            if erasure.status == ERASING and not erasure.background:
                records.continue_in_background(connection, number)
                _note(connection, by, "continue erasure", erasure)
        self._runner.wake()
        return self.read(number)


def _note(
    connection: Connection,
    by: Identity,
    action: str,
    erasure: Erasure,
    *,
    reason: str | None = None,
) -> None:
    target = f"erasure {erasure.id}"
    audit_log.record(connection, by=by, action=action, target=target, reason=reason)
