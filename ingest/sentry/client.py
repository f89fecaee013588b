"""Tells Sentry of dead letters: what failed where, and never on what.

An event a dead letter, not an attempt: an attempt that fails is tried again and mostly ends well,
and while a service is away they fail by the thousand. Of one group of failures a process tells once
a minute, and how many more there were; a group is here what it is on the console's page of
failures.

Nothing of the library that gathers data runs: no integration, no scope, no global client. The event
is put together from known fields, and what leaves is cut down to them once more.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sentry_sdk import Client
from sentry_sdk.utils import BadDsn, Dsn
from sqlalchemy import Engine

from ingest import __version__, logs
from ingest.errors import SettingsError
from ingest.sentry.start import Reports
from ingest.store.pipeline.jobs import Failure, Outcome
from ingest.store.reports import dead_jobs
from ingest.store.reports.dead_jobs import DeadJob

if TYPE_CHECKING:
    from sentry_sdk.types import Event

FLUSH_S = 2.0
"""The longest that the end of a process waits for its events to be sent."""
TELL_EVERY_S = 60.0
"""A group is told of so often, at most."""
_FRAME = re.compile(r'  File "(.*)", line (\d+), in (.*)')
_SENT = frozenset(
    {
        *("event_id", "timestamp", "level", "logger", "platform", "release", "environment", "sdk"),
        *("fingerprint", "exception", "tags", "contexts"),
    }
)

log = logs.logger(__name__)


def check(dsn: str) -> None:
    """Raise SettingsError if that is no DSN; it is a secret, and not quoted."""
    try:
        Dsn(dsn)
    except (BadDsn, ValueError):
        raise SettingsError(
            "INGEST_SENTRY_DSN: must be a DSN, https://KEY@HOST/PROJECT.", reason="bad_setting"
        ) from None


class SentryReports(Reports):
    """Tells one project of Sentry."""

    def __init__(self, dsn: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Send to `dsn`, from a thread that the first event starts; `clock` is in seconds."""
        self._sampler = logs.Sampler(interval_s=TELL_EVERY_S, clock=clock)
        self._client: Any = Client(
            dsn,
            release=f"webhook-ingest@{__version__}",
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            send_default_pii=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            attach_stacktrace=False,
            send_client_reports=False,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            spotlight=False,
            shutdown_timeout=FLUSH_S,
            before_send=_cut_down,
        )

    def dead(self, engine: Engine, failures: Sequence[Failure]) -> None:
        """Tell of those of the failures after which a job is dead. Never raises."""
        dead = {failure.id: failure for failure in failures if failure.retry_in_s is None}
        if not dead:
            return
        try:
            with engine.begin() as connection:
                found = dead_jobs.of(connection, list(dead))
            for job in found:
                self._tell(job, dead[job.id])
        except Exception as bug:  # no job waits for Sentry
            log.error("dead_letter_not_told", exc_info=bug)

    def close(self) -> None:
        """Send what waits, for at most `FLUSH_S` seconds."""
        self._client.close(timeout=FLUSH_S)

    def _tell(self, job: DeadJob, failure: Failure) -> None:
        made = event(job, failure)
        group = "\n".join(made["fingerprint"])
        if self._sampler.lets_through(group):
            made["contexts"]["job"]["left_out"] = self._sampler.left_out(group)
            self._client.capture_event(made)


def event(job: DeadJob, failure: Failure) -> dict[str, Any]:
    """Return what is sent of a dead letter."""
    error_type = failure.error_type or str(failure.outcome)
    frames = list(_frames(failure.traceback or ""))
    exception: dict[str, Any] = {"type": error_type, "value": ""}
    if frames:
        exception["stacktrace"] = {"frames": frames}
    return {
        "level": "warning" if failure.outcome is Outcome.DISCARDED else "error",
        "logger": "ingest.dead_letters",
        "fingerprint": [job.processor, error_type, failure.place or ""],
        "exception": {"values": [exception]},
        "tags": {
            "processor": job.processor,
            "event_type": job.type,
            "outcome": str(failure.outcome),
        },
        "contexts": {"job": {"job_id": job.id, "attempt": failure.attempt}},
    }


def _frames(traceback: str) -> Iterator[dict[str, Any]]:
    """Yield the frames of a traceback, as it is kept with an attempt, without their code.

    Its last lines are the error's message, which may look like frames: they begin where a line is
    not indented. Of a traceback whose beginning was cut off, nobody can tell where that is.
    """
    for line in traceback.splitlines():
        if not line.startswith("  "):
            return
        frame = _FRAME.fullmatch(line)
        if frame:
            yield {"filename": frame[1], "lineno": int(frame[2]), "function": frame[3]}


def _cut_down(made: "Event", _hint: Any) -> "Event":
    """Remove what the library has added of its own: the host's name, and what comes with newer
    versions."""
    contexts = {name: value for name, value in made.get("contexts", {}).items() if name == "job"}
    kept: Any = {name: value for name, value in made.items() if name in _SENT}
    kept["contexts"] = contexts
    return kept  # type: ignore[no-any-return]
