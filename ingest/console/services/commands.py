"""What a person may change, each in one place: pages and the API come here.

Every change is kept with who made it and why, in the transaction that makes it."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import aiohttp
from sqlalchemy import Engine

from ingest.console.auth.identity import Identity
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.services.bulk_runner import Runner
from ingest.query import spell
from ingest.settings import Settings
from ingest.sources.base import CannotSign, Source
from ingest.store.bulk import replay
from ingest.store.bulk.replay import DISCARD, REPLAY, Counts, Operation
from ingest.store.pipeline import jobs, processors
from ingest.store.reports import audit_log, event_detail
from ingest.store.search.filters import EventFilter

REASON_LIMIT = 500
_AT_ONCE = 20
"""So many events are replayed or discarded before the answer; more, only after it."""
_TEST_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEvent:
    """What became of a test event."""

    type: str
    status: int
    """What the receiver answered."""
    answered_in_s: float
    request_id: str


class Operations:
    """The changes that the console makes."""

    def __init__(
        self, engine: Engine, settings: Settings, runner: Runner, sources: Mapping[str, Source]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._sources = sources
        self._runner = runner

    def preview(self, selection: EventFilter, action: str) -> Counts:
        """What `begin` would touch now."""
        with self._engine.connect() as connection:
            return replay.count(connection, selection, action=action)

    def begin(
        self,
        by: Identity,
        selection: EventFilter,
        *,
        action: str,
        reason: str | None,
        rate: float | None = None,
    ) -> Operation:
        """Replay or discard all that `selection` means. Some events are done on return, the rest in
        the background.

        Raises:
            BadRequest: there is no such action.
        """
        if action not in (REPLAY, DISCARD):
            raise BadRequest(f"{action!r} is no action: replay or discard.", reason="bad_action")
        counted = self.preview(selection, action)
        with self._engine.begin() as connection:
            begun = replay.begin(
                connection,
                selection,
                action=action,
                requested_by=by.name,
                reason=_trimmed(reason),
                rate=rate,
                total=counted.total,
                background=True,
            )
            audit_log.record(
                connection,
                by=by.name,
                action=action,
                target=_described(selection),
                reason=_trimmed(reason),
                replay=begun,
            )
        if 0 < len(selection.ids) <= _AT_ONCE:
            replay.advance(self._engine, begun)
        self._runner.wake()
        with self._engine.connect() as connection:
            return replay.operation(connection, begun)

    def change(self, by: Identity, operation: int, status: str, reason: str | None) -> Operation:
        """Pause, resume or cancel a replay or discard.

        Raises:
            NotFound: there is none of that number.
            NotPossible: it has ended.
        """
        with self._engine.begin() as connection:
            replay.operation(connection, operation)
            if not replay.change_status(connection, operation, status):
                raise NotPossible(f"Replay {operation} has ended already.", reason="has_ended")
            verb = {"running": "resume", "paused": "pause", "cancelled": "cancel"}[status]
            audit_log.record(
                connection,
                by=by.name,
                action=verb,
                target=f"#{operation}",
                reason=_trimmed(reason),
                replay=operation,
            )
        self._runner.wake()
        with self._engine.connect() as connection:
            return replay.operation(connection, operation)

    def pause(self, by: Identity, processor: str, reason: str | None) -> None:
        """Let the jobs of a processor wait.

        Raises:
            NotFound: no worker has registered it.
        """
        with self._engine.begin() as connection:
            processors.pause(connection, processor, by=by.name, reason=_trimmed(reason))
            audit_log.record(
                connection, by=by.name, action="pause", target=processor, reason=_trimmed(reason)
            )

    def resume(self, by: Identity, processor: str, reason: str | None) -> None:
        """Let the jobs of a processor go on.

        Raises:
            NotFound: no worker has registered it.
        """
        with self._engine.begin() as connection:
            processors.resume(connection, processor)
            audit_log.record(
                connection, by=by.name, action="resume", target=processor, reason=_trimmed(reason)
            )

    def retry_now(self, by: Identity, job: int, reason: str | None) -> None:
        """Let a job that waits for its next attempt have it now, and replay one that is dead.

        Raises:
            NotFound: there is no such job.
            NotPossible: it runs, has succeeded, or waits for its processor to be resumed.
        """
        with self._engine.begin() as connection:
            found = event_detail.job(connection, job)
            if processors.is_paused(connection, found.processor):
                raise NotPossible(f"{found.processor} is paused: resume it.", reason="paused")
            if jobs.run_now(connection, [job]):
                audit_log.record(
                    connection,
                    by=by.name,
                    action="retry",
                    target=f"{found.event} for {found.processor}",
                    reason=_trimmed(reason),
                )
                return
        if found.state != "dead":
            raise NotPossible(f"Job {job} is {found.state}.", reason="not_waiting")
        self.replay_job(by, job, reason)

    def replay_job(self, by: Identity, job: int, reason: str | None) -> Operation:
        """Put one job back to work. Raises NotFound."""
        return self._of_job(by, job, REPLAY, reason)

    def discard_job(self, by: Identity, job: int, reason: str | None) -> Operation:
        """Want one job no more. Raises NotFound."""
        return self._of_job(by, job, DISCARD, reason)

    def _of_job(self, by: Identity, job: int, action: str, reason: str | None) -> Operation:
        with self._engine.connect() as connection:
            found = event_detail.job(connection, job)
        selection = EventFilter(ids=(found.event,), processor=found.processor)
        return self.begin(by, selection, action=action, reason=reason)

    def send_test_event(
        self, by: Identity, event_type: str | None = None, *, source: str | None = None
    ) -> TestEvent:
        """Post an event to the receiver, signed as the sender would.

        Args:
            by: who asks for it.
            event_type: of which type; None: the sender's first sample.
            source: as which sender; None: the default one.

        Raises:
            BadRequest: there is no such source, or no sample of that type.
            NotPossible: there is no secret here, or no receiver answers.
        """
        sender = self._sources.get(source or self._settings.default_source)
        if sender is None:
            raise BadRequest(f"There is no source {source}.", reason="bad_source")
        event_type = event_type or sender.samples.types[0]
        if event_type not in sender.samples.types:
            raise BadRequest(f"There is no sample of {event_type}.", reason="bad_type")
        random = Random(os.urandom(8))  # noqa: S311 - a sample, not a secret
        body = sender.samples.make(event_type, random, datetime.now(UTC))
        try:
            headers = sender.sign(body, now=int(time.time()))
        except CannotSign as error:
            raise NotPossible(str(error), reason=error.reason) from None
        sent = asyncio.run(self._post(sender, event_type, body, headers))
        with self._engine.begin() as connection:
            audit_log.record(
                connection, by=by.name, action="test event", target=f"{event_type}, {sent.status}"
            )
        return sent

    async def _post(
        self, sender: Source, event_type: str, body: bytes, headers: Mapping[str, str]
    ) -> TestEvent:
        url = receiver_url(self._settings, sender.slug)
        began = time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=_TEST_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as client,
                client.post(url, data=body, headers=headers) as answer,
            ):
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise NotPossible(f"No receiver answers at {url}.", reason="no_receiver") from None
        return TestEvent(
            type=event_type,
            status=answer.status,
            answered_in_s=time.perf_counter() - began,
            request_id=answer.headers.get("x-request-id", ""),
        )


def public_url(settings: Settings, slug: str) -> str:
    """Return where a sender posts to, as people know it."""
    if settings.public_url is not None:
        return _webhooks(settings.public_url, slug)
    return receiver_url(settings, slug)


def receiver_url(settings: Settings, slug: str) -> str:
    """Return where this console posts test events of a source."""
    if settings.receiver_url is not None:
        return _webhooks(settings.receiver_url, slug)
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not listened on
    host = anywhere.get(settings.host, settings.host)
    return _webhooks(f"http://{host}:{settings.port}", slug)


def _webhooks(base: str, slug: str) -> str:
    return f"{base.rstrip('/')}/webhooks/{slug}"


def _trimmed(reason: str | None) -> str | None:
    """A reason as it is kept; nothing but white space is none."""
    clean = (reason or "").replace("\x00", "").strip()[:REASON_LIMIT]
    return clean or None


def _described(selection: EventFilter) -> str:
    """A selection as people read it."""
    if selection.ids:
        names = [str(each) for each in selection.ids[:3]]
        more = len(selection.ids) - len(names)
        rest = f" and {more} more" if more else ""
        of = f" for {selection.processor}" if selection.processor else ""
        return ", ".join(names) + rest + of
    return spell(selection) or "everything"
