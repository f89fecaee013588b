"""Every change that a person can make, each in one place: pages and API come here.

Each change is recorded in the audit log, with its author and reason, in its own transaction. The
file is long because the changes have this one home.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import aiohttp
from sqlalchemy import Connection, Engine

from ingest import logs
from ingest.alerts import testing
from ingest.alerts.channels.base import ChannelFailed
from ingest.alerts.configuration import Configuration
from ingest.console.auth.identity import Identity
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.services import breaker_changes, lasting
from ingest.console.services import limits as limits_service
from ingest.console.services.bulk_runner import BulkRunner
from ingest.errors import TooManyEvents
from ingest.query import describe
from ingest.secret_references import SecretMissing
from ingest.settings import Settings
from ingest.sources.base import CannotSign, NoSample, Source, column_type
from ingest.sources.schedule import Run
from ingest.store import alerts
from ingest.store.alerts import Alert
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.replay import DISCARD, REPLAY, Counts, Operation
from ingest.store.pipeline import jobs, limits, processors, schedules
from ingest.store.reports import audit_log, event_detail
from ingest.store.search.filters import EventFilter
from ingest.store.search.pinned import pinned
from ingest.store.server_time import server_time

REASON_LIMIT = 500
"""Characters of a reason."""
_IMMEDIATE = 20
"""Up to this many selected events are done before the response; more are done after it."""
_ALL_SUCCEEDED = "All jobs have succeeded. Ask for all jobs to run them again."
_TEST_TIMEOUT_S = 5

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEvent:
    """What became of a test event."""

    type: str
    status: int
    """The receiver's HTTP status."""
    answered_in_s: float
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMade:
    """A run of a periodic processor that waits for a worker."""

    event: UUID
    """Its event."""


class Commands:
    """The changes that the console makes."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        runner: BulkRunner,
        sources: Mapping[str, Source],
        alerting: Configuration,
    ) -> None:
        self._alerting = alerting
        self._engine = engine
        self._settings = settings
        self._sources = sources
        self._runner = runner

    def preview(self, selection: EventFilter, action: str, *, all_jobs: bool = False) -> Counts:
        """Return what `begin` would change now.

        Raises:
            BadRequest: bodies are encrypted, and more events are selected by what they hold than
                can be.
        """
        if action == REPLAY:
            selection = selection.for_replay(all_jobs=all_jobs)
        return self._preview(self.pin(selection), action)

    def _preview(self, selection: EventFilter, action: str) -> Counts:
        with self._engine.connect() as connection:
            return bulk_actions.count(connection, selection, action=action)

    def pin(self, selection: EventFilter) -> EventFilter:
        """Return a selection that needs no look at encrypted bodies: it names the events.

        Raises:
            BadRequest: they are more than can be named.
        """
        try:
            with self._engine.connect() as connection:
                return pinned(connection, selection)
        except TooManyEvents as error:
            raise BadRequest(str(error), reason=error.reason) from None

    def begin(
        self,
        by: Identity,
        selection: EventFilter,
        *,
        action: str,
        reason: str | None,
        rate: float | None = None,
        all_jobs: bool = False,
    ) -> Operation:
        """Begin to replay or discard everything that is selected.

        A few selected events are done on return, unless something is in the way; more of them in
        the background. A replay leaves the jobs of named events alone that have succeeded, unless
        `all_jobs` are wanted.

        Raises:
            BadRequest: the action is neither a replay nor a discard; or as `preview`.
            NotPossible: all of it has succeeded, and is to be left alone.
        """
        if action not in (REPLAY, DISCARD):
            raise BadRequest("The action must be replay or discard.", reason="bad_action")
        if action == REPLAY:
            selection = selection.for_replay(all_jobs=all_jobs)
        selection = self.pin(selection)
        planned = self._preview(selection, action)
        if planned.succeeded and planned == Counts(succeeded=planned.succeeded):
            raise NotPossible(_ALL_SUCCEEDED, reason="all_succeeded")
        with self._engine.begin() as connection:
            number = bulk_actions.begin(
                connection,
                selection,
                action=action,
                requested_by=by.name,
                reason=clean(reason),
                rate=rate,
                total=planned.total,
                background=True,
            )
            audit_log.record(
                connection,
                by=by,
                action=action,
                target=describe(selection),
                reason=clean(reason),
                replay=number,
            )
        if 0 < len(selection.ids) <= _IMMEDIATE:
            self._advance_now(number)
        return self._wake_and_read(number)

    def _advance_now(self, number: int) -> None:
        """Run the first batch of a bulk action. If that fails, the runner goes on with it."""
        try:
            bulk_actions.advance(self._engine, number)
        except Exception as error:  # the action is begun: whatever fails is for who runs it
            log.warning("bulk_action_waits", number=number, reason=type(error).__name__)

    def change(self, by: Identity, number: int, status: str, reason: str | None) -> Operation:
        """Pause, resume or cancel a bulk action, by its number and its new status.

        A pause or a cancel takes back what has not begun: what takes longer than a second, in the
        background. A bulk action that a command began runs in the background once it is resumed.

        Raises:
            NotFound: there is no bulk action of that number.
            NotPossible: it has ended.
        """
        is_done = bulk_actions.change(
            self._engine,
            number,
            status,
            by=by,
            reason=clean(reason),
            in_background=True,
        )
        if not is_done:
            raise NotPossible(f"Bulk action {number} has already ended.", reason="has_ended")
        return self._wake_and_read(number)

    def _wake_and_read(self, number: int) -> Operation:
        self._runner.wake()
        with self._engine.connect() as connection:
            return bulk_actions.operation(connection, number)

    def pause(self, by: Identity, processor: str, reason: str | None) -> None:
        """Pause a processor: its jobs wait.

        Raises:
            NotFound: no worker has registered it.
        """
        with self._engine.begin() as connection:
            processors.pause(connection, processor, by=by.name, reason=clean(reason))
            audit_log.record(
                connection, by=by, action="pause", target=processor, reason=clean(reason)
            )

    def resume(self, by: Identity, processor: str, reason: str | None) -> None:
        """Resume a processor: its jobs run again.

        Raises:
            NotFound: no worker has registered it.
        """
        with self._engine.begin() as connection:
            processors.resume(connection, processor)
            audit_log.record(
                connection, by=by, action="resume", target=processor, reason=clean(reason)
            )

    def close_breaker(self, by: Identity, processor: str, reason: str | None) -> None:
        """Close a processor's breaker (`breaker_changes.close`)."""
        breaker_changes.close(self._engine, by, processor, clean(reason))

    def probe(self, by: Identity, processor: str, reason: str | None) -> None:
        """Probe the target of an open breaker now (`breaker_changes.probe`)."""
        breaker_changes.probe(self._engine, by, processor, clean(reason))

    def set_limits(
        self,
        by: Identity,
        processor: str,
        values: Mapping[str, int | str | None],
        reason: str | None,
        *,
        keeps_others: bool = False,
    ) -> None:
        """Set limits of a processor in place of the declared ones; those not given are as declared,
        or, if it `keeps_others`, as they were.

        Raises:
            BadRequest: one makes no sense.
            NotFound: no worker has registered it.
            NotPossible: it declares no limits, or no keys.
        """
        given = limits_service.checked(values)
        with self._engine.begin() as connection:
            processors.one(connection, processor)
            record = limits_service.check_declared(
                processor, limits.lock(connection, processor), given
            )
            before = dict(record.override) if keeps_others else {}
            limits.override(
                connection,
                processor,
                before | given,
                by=by.name,
                at=server_time(connection),
            )
            action = "limit" if before | given else "limit as declared"
            audit_log.record(
                connection, by=by, action=action, target=processor, reason=clean(reason)
            )

    def run_processor(self, by: Identity, processor: str, reason: str | None) -> RunMade:
        """Make a run of a periodic processor now, whatever its schedule says.

        Raises:
            NotFound: no worker has registered it, or it is not periodic.
            NotPossible: it is paused, or a run is unfinished and its runs must not overlap.
        """
        with self._engine.begin() as connection:
            stored = schedules.wait_for_lock(connection, processor)
            if stored.is_paused:
                raise NotPossible(f"{processor} is paused: resume it first.", reason="paused")
            if not stored.overlap and schedules.has_unfinished_run(connection, processor):
                raise NotPossible(
                    f"A run of {processor} is unfinished, and its runs must not overlap.",
                    reason="unfinished",
                )
            run = Run(
                processor=processor,
                due_at=server_time(connection),
                previous_due_at=stored.last_due_at,
                by_hand=True,
            )
            event = schedules.store_run(connection, stored, run, by=by.name, random=os.urandom)
            assert event is not None  # no other run is due at this microsecond: the row is locked
            audit_log.record(
                connection, by=by, action="run", target=processor, reason=clean(reason)
            )
        return RunMade(event=event)

    def retry_now(self, by: Identity, number: int, reason: str | None) -> None:
        """Run a waiting job's next attempt now, or replay a dead job.

        Raises:
            NotFound: there is no such job.
            NotPossible: it runs, has succeeded, its processor is paused, or its breaker is open.
        """
        with self._engine.begin() as connection:
            job = event_detail.job(connection, number)
            if processors.is_paused(connection, job.processor):
                raise NotPossible(f"{job.processor} is paused: resume it first.", reason="paused")
            breaker_changes.refuse_if_open(connection, job.processor)
            if jobs.run_now(connection, [number]):
                audit_log.record(
                    connection,
                    by=by,
                    action="retry",
                    target=f"{job.event} for {job.processor}",
                    reason=clean(reason),
                )
                return
            if job.state != "dead":
                raise NotPossible(f"Job {number} is {job.state}.", reason="not_waiting")
            connection.rollback()  # a commit would count as a change
        self.replay_job(by, number, reason)

    def replay_job(self, by: Identity, number: int, reason: str | None) -> Operation:
        """Replay one job. Raises NotFound."""
        return self._begin_for_job(by, number, REPLAY, reason)

    def discard_job(self, by: Identity, number: int, reason: str | None) -> Operation:
        """Discard one job. Raises NotFound."""
        return self._begin_for_job(by, number, DISCARD, reason)

    def _begin_for_job(
        self, by: Identity, number: int, action: str, reason: str | None
    ) -> Operation:
        with self._engine.connect() as connection:
            job = event_detail.job(connection, number)
        selection = EventFilter(ids=(job.event,), processor=job.processor)
        return self.begin(by, selection, action=action, reason=reason, all_jobs=True)

    def acknowledge(self, by: Identity, number: int, reason: str | None) -> Alert:
        """Record that somebody looks after an alert: it is not told again unless it grows.

        Raises:
            NotFound: there is no such alert.
        """
        with self._engine.begin() as connection:
            alert = alerts.acknowledge(connection, number, by=by.name)
            _record_of_alert(connection, by, "acknowledge", alert, reason)
        return alert

    def unacknowledge(self, by: Identity, number: int, reason: str | None) -> Alert:
        """Record that nobody looks after an alert any more: it is told again as before.

        Raises:
            NotFound: there is no such alert.
        """
        with self._engine.begin() as connection:
            alert = alerts.unacknowledge(connection, number)
            _record_of_alert(connection, by, "unacknowledge", alert, reason)
        return alert

    def test_channel(self, by: Identity, name: str) -> str:
        """Send a test message by a channel, and return what came back.

        Raises:
            NotFound: no channel has this name.
            NotPossible: it took no message; the sentence says why.
        """
        answer: str | NotPossible
        try:
            answer = testing.send_test(self._alerting, name, by=by.name, environ=os.environ)
        except (ChannelFailed, SecretMissing) as error:
            answer = NotPossible(f"{name}: {error}", reason=error.reason)
        lasting.note()  # a channel that fails may have told somebody
        with self._engine.begin() as connection:
            result = "failed" if isinstance(answer, NotPossible) else "sent"
            audit_log.record(connection, by=by, action="test alert", target=f"{name}, {result}")
        if isinstance(answer, NotPossible):
            raise answer
        return answer

    def send_test_event(
        self, by: Identity, event_type: str | None = None, *, source: str | None = None
    ) -> TestEvent:
        """Send an event to the receiver, signed as the sender would sign it.

        Args:
            by: who asks for it.
            event_type: its type; None: the type of the sender's first sample.
            source: the sender's slug; None: the default source.

        Raises:
            BadRequest: there is no such source.
            NotPossible: the source has no sample of that type and makes none, the console has no
                secret, or no receiver answers.
        """
        sender = self._sources.get(source or self._settings.default_source)
        if sender is None:
            raise BadRequest(f"There is no source {source}.", reason="bad_source")
        event_type = event_type or sender.samples.types[0]
        random = Random(os.urandom(8))  # noqa: S311 - a sample, not a secret
        try:
            sender.samples.check(event_type)
            body = sender.samples.make(event_type, random, datetime.now(UTC))
            headers = sender.sign(body, now=int(time.time()))
        except (CannotSign, NoSample) as error:
            raise NotPossible(str(error), reason=error.reason) from None
        sent = asyncio.run(self._post(sender, event_type, body, headers))
        with self._engine.begin() as connection:
            audit_log.record(
                connection,
                by=by,
                action="test event",
                target=f"{column_type(event_type)}, {sent.status}",
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
                client.post(url, data=body, headers=headers) as response,
            ):
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not isinstance(error, aiohttp.ClientConnectorError):
                lasting.note()  # it may have arrived
            raise NotPossible(f"No receiver answers at {url}.", reason="no_receiver") from None
        lasting.note()
        return TestEvent(
            type=event_type,
            status=response.status,
            answered_in_s=time.perf_counter() - began,
            request_id=response.headers.get("x-request-id", ""),
        )


def _record_of_alert(
    connection: Connection, by: Identity, action: str, alert: Alert, reason: str | None
) -> None:
    target = " ".join(filter(None, (alert.rule, alert.subject)))
    audit_log.record(connection, by=by, action=action, target=target, reason=clean(reason))


def public_url(settings: Settings, slug: str) -> str:
    """Return the URL that a sender posts to."""
    if settings.public_url is not None:
        return _webhook_url(settings.public_url, slug)
    return receiver_url(settings, slug)


def receiver_url(settings: Settings, slug: str) -> str:
    """Return the URL that this console posts a source's test events to."""
    if settings.receiver_url is not None:
        return _webhook_url(settings.receiver_url, slug)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not listened on
    host = loopback.get(settings.host, settings.host)
    return _webhook_url(f"http://{host}:{settings.port}", slug)


def _webhook_url(base: str, slug: str) -> str:
    return f"{base.rstrip('/')}/webhooks/{slug}"


def clean(reason: str | None) -> str | None:
    """Return a reason as it is stored; a blank one is None."""
    text = (reason or "").replace("\x00", "").strip()[:REASON_LIMIT]
    return text or None
